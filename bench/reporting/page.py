"""An HTML page of tables and figures that contains all it shows, and the files beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.files.text import printable_lines
from bench.reporting import formats, plots
from bench.reporting.panels import Estimates, Panel
from bench.reporting.table import Table


@dataclass
class Part:
    """A table or figure of the page.

    Attributes:
        title: Its heading.
        table: A table as HTML.
        svg: A drawing as SVG.
        png: An image as PNG in base64.
        alt: What the drawing or image shows, for those who cannot see it.
        note: The text below it.
    """

    title: str
    table: str = ""
    svg: str = ""
    png: str = ""
    alt: str = ""
    note: str = ""


@dataclass
class Page:
    """What the template shows, and the files beside it.

    Attributes:
        summary: The verdict in sentences.
        verdicts: The best method of each column, as (column, text).
        warnings: What was left out.
        sections: Tables and figures by the key of their section.
        seeds: The accuracy of every seed by column, as (row, number of seeds, text).
        failures: What failed, as (method, dataset and network, seeds, message).
        machines: How many records were made on which machine.
        commands: The commands that make the records.
        numbers: Records and tables, embedded as JSON.
        files: The contents of the files beside the page, by path.
    """

    summary: list[str] = field(default_factory=list)
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sections: dict[str, list[Part]] = field(default_factory=dict)
    seeds: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)
    machines: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str | bytes] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as HTML."""
    return fill("report.html", page=page)


def fill(template: str, **values: Any) -> str:
    """A template of the folder ``templates`` with these values, each of which is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _shown(value: Any) -> Any:
    """What the page writes for a value: texts that are no HTML yet can be printed."""
    return printable_lines(value) if type(value) is str else value


def add_table(
    page: Page, section: str, title: str, table: Table, note: str = "", *, shown: bool = True
) -> None:
    """Add a table to the page, where ``shown``, and as LaTeX and CSV to the files beside it."""
    if shown:
        part = Part(title, table=formats.html(table), note=note)
        page.sections.setdefault(section, []).append(part)
    name = f"tables/{_name(page, section, title)}"
    page.files[f"{name}.tex"] = formats.latex(table)
    page.files[f"{name}.csv"] = formats.csv(table)
    page.numbers["tables"][title] = json.loads(formats.json(table))["cells"]


def add_figure(
    page: Page, section: str, title: str, panels: Sequence[Panel | Estimates], note: str
) -> None:
    """Add a figure to the page, and as PDF to the files beside it; nothing without panels."""
    if not panels:
        return
    name = _name(page, section, title)
    drawn = inline(plots.draw(panels, "svg", name).decode())
    part = Part(title, svg=drawn, note=note, alt=f"{section}: {title}")
    page.sections.setdefault(section, []).append(part)
    page.files[f"figures/{name}.pdf"] = plots.draw(panels, "pdf")


def _name(page: Page, section: str, title: str) -> str:
    """A name that no other file of the page has."""
    words = re.findall(r"[A-Za-z0-9]+", f"{section} {title.partition(':')[0]}")
    base = "-".join(words)[:80]
    return next(name for name in _numbered(base) if not _taken(page, name))


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def _taken(page: Page, name: str) -> bool:
    return f"tables/{name}.csv" in page.files or f"figures/{name}.pdf" in page.files


def inline(svg: str) -> str:
    """An SVG drawing for an HTML page: without its prologue, in the colour of the text.

    It is at most 1.5 times as wide as in print, and shrinks with the page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    head = re.match(r'<svg [^>]*?(viewBox="0 0 ([\d.]+) [\d.]+")[^>]*>', svg)
    if head is not None:
        width = 1.5 * float(head[2])
        svg = f'<svg {head[1]} style="max-width: {width:.0f}pt">{svg[head.end() :]}'
    svg = re.sub(r'<g id="\w+_\d+">', "<g>", svg)
    svg = svg.replace("fill: #ffffff", "fill: none").replace("#4d4d4d", "currentColor")
    return svg.replace("#000000", "currentColor")
