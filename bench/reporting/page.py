"""A page of tables and figures that holds everything it shows, and the files beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.reporting import formats, plots
from bench.reporting.plots import Estimates, Panel
from bench.reporting.table import Table


@dataclass
class Part:
    """A table or figure of the page; ``svg`` and ``picture`` are drawings, ``alt`` says of what."""

    title: str
    table: str = ""
    svg: str = ""
    picture: str = ""
    alt: str = ""
    note: str = ""


@dataclass
class Page:
    """What the template shows, and the files that lie beside it."""

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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(page=page)


def add_table(
    page: Page, section: str, title: str, table: Table, note: str = "", *, shown: bool = True
) -> None:
    """A table on the page (where it is to be shown), and as LaTeX and CSV beside it."""
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
    """A figure on the page, and as PDF beside it."""
    if not panels:
        return
    name = _name(page, section, title)
    drawn = inline(plots.draw(panels, "svg", name).decode())
    part = Part(title, svg=drawn, note=note, alt=f"{section}: {title}")
    page.sections.setdefault(section, []).append(part)
    page.files[f"figures/{name}.pdf"] = plots.draw(panels, "pdf")


def _name(page: Page, section: str, title: str) -> str:
    """A file's name that no other file of the page has."""
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
    """A drawing to stand in a page: without prologue, in the colour of the text.

    It is half as large again as in print, and shrinks with the page.
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
