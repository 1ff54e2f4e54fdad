"""Shows the examples in docstrings as code, as an extension of Griffe, which reads the docstrings.

Markdown would take the ``>>>`` of an example for quotations.
"""

from collections.abc import Iterator
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts a fence around every example."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by Griffe for each object that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = "\n".join(fenced(obj.docstring.value.splitlines()))


def fenced(lines: list[str]) -> Iterator[str]:
    """The lines of a docstring; an example ends at an empty line."""
    indent: str | None = None
    for line in [*lines, ""]:
        if indent is None and line.lstrip().startswith(">>>"):
            indent = line[: -len(line.lstrip())]
            yield f"{indent}```pycon"
        if indent is not None and not line.strip():
            yield f"{indent}```"
            indent = None
        yield line
