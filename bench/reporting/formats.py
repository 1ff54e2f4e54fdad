"""Tables for a paper, a terminal and a program, all from the same `Table`.

`latex`, `markdown` and `text` are for readers, in percent and rounded; `csv` and `json` hold
fractions in full.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from bench.files.text import escaped, flat, for_spreadsheet, printable_lines
from bench.records.over_images import OverImages
from bench.records.statistics import Comparison, Equivalence, Interval
from bench.reporting.cells import (
    Cell,
    Column,
    Key,
    Row,
    comparison_entry,
    equivalence_entry,
    interval_entry,
)

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, kw_only=True, repr=False)
class Table:
    """What one table shows; a terminal and a notebook display it.

    Attributes:
        title: What it is about.
        rows: Its rows, from the top.
        columns: Its columns, from the left.
        cells: The contents by (label of the row, label of the column).
        corner: The heading of the rows.
        baseline: The name of the row with which others are compared.
        comparisons: The cells that were compared with the baseline, or that are differences.
        equivalences: The cells that say whether a difference is none, up to a margin.
        failed: The cells of which seeds failed, and how many.
        published: Numbers printed by others, in the unit that readers see. They get columns of
            their own and are never bold and never tested.
        measure: What the numbers are, for the caption.
        note: What else the caption says, as whole sentences.
        origin: What they were made with, such as versions and the number of records.
        references: Labels of rows that do not compete: they are never bold.
        coverage: What the masks of a cell's runs delete, by metric; only CSV and JSON have it.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    cells: Mapping[Key, Cell]
    corner: str = "method"
    baseline: str | None = None
    comparisons: Mapping[Key, Comparison] = field(default_factory=dict)
    equivalences: Mapping[Key, Equivalence] = field(default_factory=dict)
    failed: Mapping[Key, int] = field(default_factory=dict)
    published: Mapping[Key, float] = field(default_factory=dict)
    measure: str = ""
    note: str = ""
    origin: str = ""
    references: Collection[str] = ()
    coverage: Mapping[Key, Mapping[str, float]] = field(default_factory=dict)

    def cell(self, row: Row, column: Column) -> Cell:
        """The content of one cell, None where nothing was measured."""
        return self.cells.get((row.label, column.label))

    def missing(self) -> list[Key]:
        """The (row, column) of each cell in which nothing was measured."""
        return [
            (row.label, column.label)
            for row in self.rows
            for column in self.columns
            if self.cell(row, column) is None
        ]

    def __str__(self) -> str:
        return text(self)

    __repr__ = __str__

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(str(self), no_wrap=True)

    def _repr_html_(self) -> str:
        return html(self)


@dataclass(frozen=True)
class _Style:
    """How one output writes the parts of a cell."""

    escape: Callable[[str], str]
    bold: str
    interval: str
    marks: tuple[str, str]  # below 0.05, below 0.01


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
_SPECIAL |= {"∞": r"$\infty$", "†": r"$\dagger$", "\u2212": "$-$"} | {
    each: f"\\{each}" for each in "{}$&#_%"
}
_TEXT = _Style(flat, "{}", "{} ± {}", ("*", "†"))
_MARKDOWN = _Style(
    lambda text: "".join("\\" * (each in "\\|*_`<") + each for each in flat(text)),
    "**{}**", "{} ± {}", ("\\*", "†"),
)  # fmt: skip
_LATEX = _Style(
    lambda text: "".join(_SPECIAL.get(each, each) for each in flat(text, "?")),
    r"\textbf{{{}}}", r"{} $\pm$ {}", ("$^{*}$", r"$^{\dagger}$"),
)  # fmt: skip
_HTML = _Style(lambda text: escape(flat(text)), "<strong>{}</strong>", "{} ± {}", ("*", "†"))


def text(table: Table) -> str:
    """The table for a terminal, which has no bold.

    Args:
        table: What to print.

    Returns:
        Lines of aligned columns, then the caption.
    """
    headers = [printable_lines(each.heading("\n")) for each in _columns(table)]
    body = _tabulate(table, _TEXT, headers, "simple")
    return f"{body}\n\n{printable_lines(caption(table, bold=False))}\n"


def markdown(table: Table) -> str:
    """The table as a pipe table, with its caption below."""
    headers = [_MARKDOWN.escape(each.heading(" / ")) for each in _columns(table)]
    body = _tabulate(table, _MARKDOWN, headers, "pipe")
    return f"{body}\n\n{_MARKDOWN.escape(caption(table))}\n"


def latex(table: Table) -> str:
    """The table as a float for a document that uses the package booktabs."""
    from tabulate import DataRow, Line, TableFormat

    printed = _columns(table)
    headers = [_LATEX.escape(each.name) for each in printed]
    groups = ["", *(each.column.group for each in printed)]

    def begin(_widths: list[int], _aligns: list[str]) -> str:
        top = f"\\begin{{tabular}}{{l{'c' * len(printed)}}}\n\\toprule"
        return top + _spans(groups) if any(groups) else top

    booktabs = TableFormat(
        lineabove=begin,
        linebelowheader=Line("\\midrule", "", "", ""),
        linebetweenrows=None,
        linebelow=Line("\\bottomrule\n\\end{tabular}", "", "", ""),
        headerrow=DataRow("", " & ", r" \\"),
        datarow=DataRow("", " & ", r" \\"),
        padding=0,
        with_header_hide=None,
    )
    label = "-".join("".join(c if c.isalnum() else " " for c in table.title.lower()).split())
    rows = _tabulate(table, _LATEX, headers, booktabs)
    return "\n".join(
        [
            f"% {flat(table.origin, '?')}",
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_LATEX.escape(caption(table))}}}",
            f"\\label{{tab:{label}}}",
            # else taken for an argument of the end of the row before
            re.sub(r"^( *)([\[*])", r"\1{}\2", rows, flags=re.MULTILINE),
            "\\end{table}\n",
        ]
    )


def html(table: Table) -> str:
    """The table for a page or a notebook, with its caption; every name in it is escaped."""
    best, usual, printed = _best(table), _usual(table), _columns(table)
    names = [table.corner, *(each.heading(" / ") for each in printed)]
    heads = "".join(f'<th scope="col">{_HTML.escape(name)}</th>' for name in names)
    lines = []
    for row in table.rows:
        cells = [
            f'<td class="published">{_published(table, row, each.column)}</td>'
            if each.published
            else f"<td>{_cell(table, row, each.column, _HTML, best, usual)}</td>"
            for each in printed
        ]
        lines.append(f'<tr><th scope="row">{_HTML.escape(row.label)}</th>{"".join(cells)}</tr>')
    return (
        f"<table><caption>{_HTML.escape(caption(table))}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def csv(*tables: Table) -> str:
    """One line for each cell, in fractions; of several tables each cell names its own."""
    import csv

    entries = [
        {"table": table.title} | entry if len(tables) > 1 else entry
        for table in tables
        for entry in _entries(table)
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for each in entries for name in each)))
    writer.writeheader()
    writer.writerows(
        {name: for_spreadsheet(value) for name, value in each.items()} for each in entries
    )
    return file.getvalue()


def json(*tables: Table) -> str:
    """The table as an object with a list of cells, in fractions; several tables as a list."""
    from json import dumps

    objects = [
        {
            "title": table.title,
            "caption": caption(table),
            "origin": table.origin,
            "baseline": table.baseline,
            "cells": _entries(table),
        }
        for table in tables
    ]
    whole = objects[0] if len(objects) == 1 else objects
    return escaped(dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def caption(table: Table, bold: bool = True) -> str:
    """What the numbers, the ± and the marks of this table mean."""
    measured = [cell for cell in table.cells.values() if isinstance(cell, Interval)]
    usual = _usual(table)
    parts = []
    if any(cell.half is not None for cell in measured):
        unless = " unless stated" if any(cell.n != usual for cell in measured) else ""
        spread = f"mean ± half-width of the 95 % t-interval over n = {usual} seeds{unless}"
        parts.append(f"{table.measure or table.title}: {spread}.")
    elif measured:
        parts.append(f"{table.measure or table.title}: a single seed, so there is no interval.")
    over = [cell for cell in table.cells.values() if isinstance(cell, OverImages)]
    if over:
        brackets = "with the 95 % interval over the images in brackets; a single seed"
        parts.append(f"{table.measure or table.title}, {brackets}.")
    if bold and any(column.best for column in table.columns) and (measured or over):
        parts.append("Bold: best mean of a column.")
    parts += _tests(table)
    if table.note:
        parts.append(table.note)
    if table.failed:
        parts.append("Failed: seeds whose training or attack broke down, not in the mean.")
    if table.published:
        parts.append("Published: printed by others, neither bold nor tested.")
    if table.missing():
        parts.append("--: not run.")
    return " ".join(parts)


def _tests(table: Table) -> list[str]:
    """What the marks mean, and what the tests could have shown."""
    parts = []
    if table.equivalences:
        differs, family = "is not zero", "differences of the table"
        none = "No difference is significant."
    else:
        differs = f"differs from {table.baseline or 'the method that it is compared with'}"
        family, none = "methods of a column", f"No method {differs} significantly."
    if any(_mark(each, ("*", "†")) for each in table.comparisons.values()):
        parts.append(
            f"* and †: {differs}, p < 0.05 and p < 0.01 "
            f"(paired t-test over seeds, Holm's correction over the {family})."
        )
    elif any(each.p_holm is not None for each in table.comparisons.values()):
        parts.append(none)
    percent = {column.label for column in table.columns if column.percent}
    if limits := [
        100 * each.detectable
        for (_, label), each in table.comparisons.items()
        if each.detectable and label in percent
    ]:
        low, high = f"{min(limits):.2g}", f"{max(limits):.2g}"
        parts.append(
            f"Differences below {low if low == high else f'{low} to {high}'} points "
            "could not have been shown with 80 % power."
        )
    return parts


@dataclass(frozen=True)
class _Printed:
    """A column as it is printed: with our numbers, or with the published ones beside them."""

    column: Column
    published: bool

    @property
    def name(self) -> str:
        return f"{self.column.name} (published)" if self.published else self.column.name

    def heading(self, between: str) -> str:
        return f"{self.column.group}{between}{self.name}" if self.column.group else self.name


def _columns(table: Table) -> list[_Printed]:
    known = {label for _, label in table.published}
    return [
        _Printed(column, published)
        for column in table.columns
        for published in ([False, True] if column.label in known else [False])
    ]


def _tabulate(table: Table, style: _Style, headers: list[str], form: Any) -> str:
    from tabulate import tabulate

    best, usual, printed = _best(table), _usual(table), _columns(table)
    lines = [
        [
            style.escape(row.label),
            *(
                _published(table, row, each.column)
                if each.published
                else _cell(table, row, each.column, style, best, usual)
                for each in printed
            ),
        ]
        for row in table.rows
    ]
    # numbers are formatted already, and tabulate would turn 96.10 into 96.1
    return tabulate(
        lines,
        [style.escape(table.corner), *headers],
        tablefmt=form,
        disable_numparse=True,
        colalign=["left", *["center"] * len(headers)] if lines else None,
    )


def _spans(groups: Sequence[str]) -> str:
    """The heading row above the columns' names: equal neighbours under one rule."""
    cells, rules, start = [], [], 0
    for name, members in itertools.groupby(groups):
        end = start + len(list(members))
        cells.append(
            f"\\multicolumn{{{end - start}}}{{c}}{{{_LATEX.escape(name)}}}" if name else ""
        )
        if name:
            rules.append(f"\\cmidrule(lr){{{start + 1}-{end}}}")
        cells += [""] * (end - start - 1) if not name else []
        start = end
    return f"\n{' & '.join(cells)} \\\\\n{' '.join(rules)}"


def _cell(
    table: Table,
    row: Row,
    column: Column,
    style: _Style,
    best: Collection[tuple[Row, Column]],
    usual: int,
) -> str:
    key = row.label, column.label
    cell, failed = table.cell(row, column), table.failed.get(key, 0)
    notes = []
    if isinstance(cell, Interval):
        if cell.n != usual:
            notes.append(f"n={cell.n}")
        mean, half = _round(cell, column.percent)
        mean = mean.replace("-", style.escape("\u2212"))
        shown = style.bold.format(mean) if (row, column) in best else mean
        shown = style.interval.format(shown, half) if half else shown
        if key in table.comparisons:
            shown += _mark(table.comparisons[key], style.marks)
    elif isinstance(cell, OverImages):
        shown = style.escape(_of_images(cell.value, column.percent))
        shown = style.bold.format(shown) if (row, column) in best else shown
        if cell.low is not None and cell.high is not None:
            ends = _of_images(cell.low, column.percent), _of_images(cell.high, column.percent)
            shown += f" {style.escape(f'[{ends[0]}, {ends[1]}]')}"
    else:
        shown = "--" if cell is None else style.escape(cell)
    if failed:
        notes.append(f"{failed} failed")
    return f"{shown} ({', '.join(notes)})" if notes else shown


def _round(interval: Interval, percent: bool) -> tuple[str, str]:
    """The mean to the second significant digit of its half-width; percents to 0.01 at most."""
    scale = 100 if percent else 1
    mean, half = scale * interval.mean, scale * (interval.half or 0)
    decimals = 2
    if half:
        decimals = 1 - math.floor(math.log10(half))
    elif not percent and mean:
        decimals = 2 - math.floor(math.log10(abs(mean)))
    decimals = min(max(decimals, 0), 2 if percent else 6)
    shown = "" if interval.half is None else f"{half:.{decimals}f}"
    return f"{mean:.{decimals}f}", shown


def _of_images(value: float, percent: bool) -> str:
    """A number over images: percents to 0.1, others to three digits."""
    if math.isinf(value):
        return "∞"
    return f"{100 * value:.1f}" if percent else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _published(table: Table, row: Row, column: Column) -> str:
    value = table.published.get((row.label, column.label))
    if value is None:
        return ""
    return f"{value:.2f}" if column.percent else f"{value:g}"


def _mark(comparison: Comparison, marks: tuple[str, str]) -> str:
    p = comparison.p_holm
    return "" if p is None or p >= 0.05 else marks[p < 0.01]


def _usual(table: Table) -> int:
    """The most frequent number of seeds of a cell."""
    counts = Counter(cell.n for cell in table.cells.values() if isinstance(cell, Interval))
    return max(counts, key=lambda n: (counts[n], n), default=0)


def _best(table: Table) -> set[tuple[Row, Column]]:
    """The cells with the best mean of their column, where there is a choice."""
    found: set[tuple[Row, Column]] = set()
    for column in table.columns:
        means: dict[Row, float] = {}
        for row in table.rows if column.best else ():
            if row.label in table.references:
                continue
            cell = table.cell(row, column)
            if isinstance(cell, Interval):
                means[row] = cell.mean
            elif isinstance(cell, OverImages):
                means[row] = cell.value
        if len(means) > 1:
            best = max(means.values()) if column.best == "high" else min(means.values())
            if not math.isinf(best) and (best or column.best == "low"):  # else nothing succeeded
                found |= {(row, column) for row, mean in means.items() if mean == best}
    return found


def _entries(table: Table) -> list[dict[str, Any]]:
    """One object for each cell, in fractions."""
    found = []
    for row in table.rows:
        for column in table.columns:
            key = row.label, column.label
            cell: Cell = table.cell(row, column)
            entry: dict[str, Any] = {"row": row.label, "column": column.label}
            entry |= {"text": cell} if isinstance(cell, str) else interval_entry(cell)
            entry["failed"] = table.failed.get(key, 0)
            if key in table.published:
                scale = 100 if column.percent else 1
                entry["published"] = round(table.published[key] / scale, 12)
            if key in table.comparisons:
                entry |= comparison_entry(table.comparisons[key])
            if key in table.equivalences:
                entry |= equivalence_entry(table.equivalences[key])
            found.append(entry | dict(table.coverage.get(key, {})))
    return found
