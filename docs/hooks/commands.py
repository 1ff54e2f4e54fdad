"""Writes the command reference from the commands themselves, as a hook of MkDocs."""

import html
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from bench.cli import main

PLACE = "<!-- commands -->"
"""The mark on a page that the reference replaces."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page: put the reference where the page asks for it."""
    if PLACE not in markdown:
        return markdown
    context = click.Context(main, **main.context_settings)
    return markdown.replace(PLACE, "\n".join(reference(main, context, "bench")))


class Sections(click.HelpFormatter):
    """Collects the rows of a help text by section instead of laying them out."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.rows: dict[str, list[tuple[str, str]]] = {}

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Name the rows that follow."""
        self.name = name
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: Any, **__: Any) -> None:
        """Take rows of a term and its explanation."""
        self.rows.setdefault(self.name, []).extend(rows)


def reference(command: click.Command, context: click.Context, name: str) -> Iterator[str]:
    """The Markdown lines of a command, its options by section, and its subcommands."""
    level = 2 + name.count(" ")
    if name != "bench":
        yield f"{'#' * level} {name} {{ #{name.replace(' ', '-')} }}"
    yield from description(inspect.cleandoc(command.help or ""))
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ("", "```text", f"{name} {usage}", "```", "")
    sections = Sections()
    command.format_options(context, sections)
    for title, rows in sections.rows.items():
        if title == "Commands":
            continue
        yield from (f"**{title}**", "")
        for term, explanation in rows:
            yield from (f"`{term}`", f":   {escape(explanation) or '&nbsp;'}", "")
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            below = click.Context(found, info_name=each, parent=context)
            yield from reference(found, below, f"{name} {each}")


def description(text: str) -> Iterator[str]:
    """A help text as Markdown; the lines that begin with ``Example:`` become one block of code."""
    examples: list[str] = []
    for paragraph in text.split("\n\n"):
        if not paragraph.startswith("\b"):
            yield from ("", escape(paragraph), "")
            continue
        for line in paragraph.splitlines()[1:]:
            if line.startswith("Example: "):
                examples.append(f"$ {line.removeprefix('Example: ')}")
            elif line.startswith(" ") and examples:
                examples[-1] += f" \\\n    {line.strip()}"
            else:
                yield f"- {escape(line)}"
    if examples:
        yield from ("", "```console", *examples, "```")


def escape(text: str) -> str:
    """Plain text for Markdown: nothing in it is emphasis, a link or an element."""
    text = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\`*_[]":
        text = text.replace(sign, f"&#{ord(sign)};")
    return text
