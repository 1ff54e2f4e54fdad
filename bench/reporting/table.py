"""What one table shows, what its caption says, and how its cells are written for readers."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from bench.files.text import flat, printable_lines
from bench.records.over_images import OverImages
from bench.records.statistics import ALPHA, MARGIN, Comparison, Equivalence, Interval, two_digits
from bench.reporting.cells import Cell, Column, Key, Published, Row, three_digits
from bench.reporting.layout import Printed, blocks, printed_columns

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 80
"""Characters of a line of a table as text."""


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
        settings: What published numbers beside a column are of, by the label of the column, where
            that is another setting than the column's.
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
    published: Mapping[Key, Published] = field(default_factory=dict)
    settings: Mapping[str, Column] = field(default_factory=dict)
    measure: str = ""
    note: str = ""
    origin: str = ""
    references: Collection[str] = ()
    coverage: Mapping[Key, Mapping[str, float]] = field(default_factory=dict)

    def cell(self, row: Row, column: Column) -> Cell:
        """The content of one cell, None where nothing was measured."""
        return self.cells.get((row.label, column.label))

    @cached_property
    def usual_seeds(self) -> int:
        """The most frequent number of seeds of a cell: of those with an interval, if there are."""
        every = [cell.n for cell in self.cells.values() if isinstance(cell, Interval)]
        counts = Counter([n for n in every if n > 1] or every)
        return max(counts, key=lambda n: (counts[n], n), default=0)

    @cached_property
    def best(self) -> set[Key]:
        """The cells with the best mean of their column, where there is a choice."""
        found: set[Key] = set()
        for column in self.columns:
            means: dict[str, float] = {}
            for row in self.rows if column.best else ():
                if row.label in self.references:
                    continue
                cell = self.cell(row, column)
                if isinstance(cell, Interval):
                    means[row.label] = cell.mean
                elif isinstance(cell, OverImages):
                    means[row.label] = cell.value
            if len(means) > 1:
                best = max(means.values()) if column.best == "high" else min(means.values())
                if not math.isinf(best) and (best or column.best == "low"):  # one has succeeded
                    found |= {(row, column.label) for row, mean in means.items() if mean == best}
        return found

    def printed(self) -> list[Printed]:
        """Every column that is printed: ours, and published numbers beside them."""
        return printed_columns(self.columns, {label for _, label in self.published}, self.settings)

    def restricted(self, columns: Sequence[Column]) -> Table:
        """Return the table of some columns alone, as if nothing were known of the others."""
        labels = {column.label for column in columns}

        def of(values: Mapping[Key, Any]) -> dict[Key, Any]:
            return {key: value for key, value in values.items() if key[1] in labels}

        return replace(
            self,
            columns=list(columns),
            cells=of(self.cells),
            comparisons=of(self.comparisons),
            equivalences=of(self.equivalences),
            failed=of(self.failed),
            published=of(self.published),
            coverage=of(self.coverage),
        )

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
class Style:
    """How one output writes the parts of a cell.

    Attributes:
        escape: Makes a text safe for the output.
        bold: The form of a bold number.
        interval: The form of a number and its half-width.
        marks: What marks p < 0.05, p < 0.01, and a difference that is shown to be none.
    """

    escape: Callable[[str], str]
    bold: str = "{}"
    interval: str = "{} ± {}"
    marks: tuple[str, str, str] = ("*", "†", "≈")


MARKS = ("*", "†", "≈")
WIDE = "wide"
"""Remark on a cell whose interval excludes nothing."""
TEXT = Style(flat)
HTML = Style(lambda text: escape(flat(text)), bold="<strong>{}</strong>")


def text(table: Table, width: int = WIDTH) -> str:
    """The table for a terminal, which has no bold.

    Args:
        table: What to print.
        width: Characters of a line; a wider table is divided into blocks of columns, one below the
            other, and each has all rows.

    Returns:
        Lines of aligned columns, then the caption.
    """

    def body(block: Sequence[Printed], label: int | None = None) -> str:
        return tabulated(
            table, TEXT, block, [printable_lines(each.lines()) for each in block], "simple", label
        )

    def widest(shown: str) -> int:
        return max(map(len, shown.splitlines()))

    parts = []
    for block in blocks(table.printed(), lambda some: widest(body(some)) <= width):
        part = body(block)
        if (over := widest(part) - width) > 0:  # break the names of rows rather than the lines
            longest = max([len(row.label) for row in table.rows], default=0)
            part = body(block, max(longest - over, 20))
        parts.append(part)
    told = textwrap.fill(printable_lines(caption(table, bold=False)), width, break_on_hyphens=False)
    return "\n\n".join([*parts, told]) + "\n"


def html(table: Table) -> str:
    """The table for a page or a notebook, with its caption; every name in it is escaped."""
    printed = table.printed()
    names = [table.corner, *(each.heading(" / ") for each in printed)]
    heads = "".join(f'<th scope="col">{HTML.escape(name)}</th>' for name in names)
    lines = []
    for row in table.rows:
        cells = [
            f'<td class="published">{published_cell(table, row, each.column)}</td>'
            if each.published
            else f"<td>{own_cell(table, row, each.column, HTML)}</td>"
            for each in printed
        ]
        lines.append(f'<tr><th scope="row">{HTML.escape(row.label)}</th>{"".join(cells)}</tr>')
    return (
        f"<table><caption>{HTML.escape(caption(table))}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def tabulated(
    table: Table,
    style: Style,
    printed: Sequence[Printed],
    headers: Sequence[str],
    form: str,
    label: int | None = None,
) -> str:
    """Some columns of a table in one of tabulate's formats.

    Args:
        table: The table.
        style: How cells are written.
        printed: The columns.
        headers: Their headings.
        form: Name of the format.
        label: Characters after which the name of a row is broken; None: never.
    """
    from tabulate import tabulate

    lines = [
        [
            style.escape(row.label),
            *(
                style.escape(published_cell(table, row, each.column))
                if each.published
                else own_cell(table, row, each.column, style)
                for each in printed
            ),
        ]
        for row in shown_rows(table, table.rows, printed)
    ]
    # numbers are formatted already, and tabulate would turn 96.10 into 96.1
    return tabulate(
        lines,
        [style.escape(table.corner), *headers],
        tablefmt=form,
        disable_numparse=True,
        colalign=["left", *["center"] * len(headers)] if lines else None,
        maxcolwidths=[label, *[None] * len(headers)] if label and lines else None,
    )


def shown_rows(table: Table, rows: Iterable[Row], printed: Sequence[Printed]) -> list[Row]:
    """Those of the rows of which some columns have anything, where they are all published ones."""
    return [
        row
        for row in rows
        if not all(
            each.published and not published_cell(table, row, each.column) for each in printed
        )
    ]


def own_cell(table: Table, row: Row, column: Column, style: Style) -> str:
    """One of our cells, in the style of an output."""
    cell, best = table.cell(row, column), (row.label, column.label) in table.best
    if isinstance(cell, Interval):
        mean, half = rounded(cell, column.percent)
        mean = mean.replace("-", style.escape("\u2212"))
        shown = style.bold.format(mean) if best else mean
        shown = style.interval.format(shown, half) if half else shown
        shown += mark(table, row, column, style.marks)
    elif isinstance(cell, OverImages):
        value, ends = of_images(cell, column.percent)
        shown = style.escape(value)
        shown = style.bold.format(shown) if best else shown
        shown = f"{shown} {style.escape(ends)}" if ends else shown
    else:
        shown = "--" if cell is None else style.escape(cell)
    notes = remarks(table, row, column)
    return f"{shown} ({notes})" if notes else shown


def remarks(table: Table, row: Row, column: Column) -> str:
    """What is unusual about a cell: its interval, how many seeds it has, and how many failed."""
    cell, failed = table.cell(row, column), table.failed.get((row.label, column.label), 0)
    parts = []
    if isinstance(cell, Interval):
        parts += [WIDE] * (column.percent and cell.excludes_nothing)
        parts += [f"n={cell.n}"] * (cell.n != table.usual_seeds)
    return ", ".join(parts + ([f"{failed} failed"] if failed else []))


def rounded(interval: Interval, percent: bool) -> tuple[str, str]:
    """The mean to the second significant digit of its half-width; percents to 0.01 at most.

    An interval of percents that excludes nothing is not shown; `remarks` says so.
    """
    if percent and interval.excludes_nothing:
        return f"{100 * interval.mean:.0f}", ""
    scale = 100 if percent else 1
    mean, half = scale * interval.mean, scale * (interval.half or 0)
    decimals = 2
    if half:
        decimals = 1 - math.floor(math.log10(half))
    elif not percent and mean:
        decimals = 2 - math.floor(math.log10(abs(mean)))
    decimals = min(max(decimals, 0), 2 if percent else 6)
    shown = "" if interval.half is None else f"{half:.{decimals}f}"
    return f"{round(mean, decimals) + 0.0:.{decimals}f}", shown  # no minus before a zero


def of_images(cell: OverImages, percent: bool) -> tuple[str, str]:
    """A number over images and its interval in brackets: percents to 0.1, others to 3 digits."""

    def shown(value: float) -> str:
        if math.isinf(value):
            return "∞"
        if percent:
            return f"{100 * value:.1f}"
        return three_digits(value)

    if cell.low is None or cell.high is None:
        return shown(cell.value), ""
    return shown(cell.value), f"[{shown(cell.low)}, {shown(cell.high)}]"


def published_cell(table: Table, row: Row, column: Column) -> str:
    """A published number as it was printed, with its star; empty where there is none."""
    found = table.published.get((row.label, column.label))
    if found is None:
        return ""
    number = f"{found.value:.2f}" if column.percent else f"{found.value:g}"
    return number + "*" * found.starred


def mark(table: Table, row: Row, column: Column, marks: tuple[str, str, str] = MARKS) -> str:
    """The mark of a cell that is decided: it differs, or is as good; empty for others."""
    comparison = table.comparisons.get((row.label, column.label))
    if comparison is None or comparison.p_holm is None:
        return ""
    if comparison.p_holm < ALPHA:
        return marks[comparison.p_holm < 0.01]
    return marks[2] if column.percent and comparison.equivalent else ""


def caption(table: Table, bold: bool = True) -> str:
    """What the numbers, the ± and the marks of this table mean."""
    measured = [cell for cell in table.cells.values() if isinstance(cell, Interval)]
    usual = table.usual_seeds
    parts = []
    if any(cell.half is not None for cell in measured):
        unless = " unless stated" if any(cell.n != usual for cell in measured) else ""
        spread = f"mean ± half-width of the 95 % t-interval over n = {usual} seeds{unless}"
        parts.append(f"{table.measure or table.title}: {spread}.")
    elif measured:
        parts.append(f"{table.measure or table.title}: a single seed, so there is no interval.")
    if any(WIDE in remarks(table, row, each) for row in table.rows for each in table.columns):
        parts.append(f"{WIDE}: the interval is as wide as all possible values; run more seeds.")
    over = [cell for cell in table.cells.values() if isinstance(cell, OverImages)]
    if over:
        brackets = "with the 95 % interval over the images in brackets; a single seed"
        parts.append(f"{table.measure or table.title}, {brackets}.")
    if table.measure and not measured and not over:  # such as of attacks without a success
        parts.append(f"{table.measure}.")
    if bold and any(column.best for column in table.columns) and (measured or over):
        means = any(cell.half is not None for cell in measured)
        parts.append(f"Bold: best {'mean' if means else 'value'} of a column.")
    parts += _tests(table)
    if table.note:
        parts.append(table.note)
    if table.failed:
        parts.append("Failed: seeds whose training or attack broke down, not in the mean.")
    parts += _of_published(table)
    if table.missing():
        parts.append("--: not run.")
    return " ".join(parts)


def _of_published(table: Table) -> list[str]:
    """What the columns of published numbers are."""
    if not table.published:
        return []
    parts = ["Published: printed by others, neither bold nor tested."]
    if any(label in table.settings for _, label in table.published):
        parts.append(
            "Other setting: of another dataset, network, recipe or goal than ours, or of one that "
            "is not known; not comparable."
        )
    if any(each.starred for each in table.published.values()):
        parts.append("* after a published number: taken from another paper there.")
    return parts


def _tests(table: Table) -> list[str]:
    """What the marks mean, and what the tests can show."""
    parts = []
    if table.equivalences:
        differs, family = "is not zero", "differences of the table"
        none = "No difference is significant."
    else:
        differs = f"differs from {table.baseline or 'the method that it is compared with'}"
        family, none = "methods of a column", f"No method {differs} significantly."
    shown = {
        mark(table, row, column)
        for row in table.rows
        for column in table.columns
        if (each := table.comparisons.get((row.label, column.label))) and each.p_holm is not None
    }
    if shown & {"*", "†"}:
        parts.append(
            f"* and †: {differs}, p < 0.05 and p < 0.01 "
            f"(paired t-test over seeds, Holm's correction over the {family})."
        )
    elif shown:
        parts.append(none)
    if "≈" in shown:
        parts.append(
            f"≈: shown to be within ±{100 * MARGIN:g} points of "
            f"{table.baseline or 'that method'} (two one-sided paired t-tests, each p < 0.05)."
        )
    if "" in shown and not table.equivalences:
        parts.append("No mark: undecided.")
    percent = {column.label for column in table.columns if column.percent}
    if limits := [
        100 * each.detectable
        for (_, label), each in table.comparisons.items()
        if each.detectable and label in percent
    ]:
        low, high = two_digits(min(limits)), two_digits(max(limits))
        parts.append(
            f"Differences below {low if low == high else f'{low} to {high}'} points "
            "are shown with less than 80 % power."
        )
    return parts
