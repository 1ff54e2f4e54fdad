"""LaTeX of a table: floats that fit the page, with numbers aligned at their decimal points.

A table that is too wide is divided into floats of fewer columns, and a long one into floats of
fewer rows. The width of a float is estimated from the widths of Computer Modern's characters; a
float that is wider all the same is scaled down by ``adjustbox``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

from bench.files.text import flat
from bench.records.over_images import OverImages
from bench.records.statistics import Interval
from bench.reporting.cells import Row
from bench.reporting.layout import Printed, blocks, broken
from bench.reporting.table import (
    Table,
    caption,
    mark,
    of_images,
    published_cell,
    remarks,
    rounded,
    shown_rows,
)

Layout = Literal["one-column", "two-column"]
"""The page that a table is for."""

COLUMN, PAGE = (
    {"one-column": 345.0, "two-column": 229.0},
    {"one-column": 345.0, "two-column": 469.0},
)
"""Widths in points of a column and of the page in the class ``article`` at 10 points, which are
narrower than those of journals and conferences."""

ROWS = 40
"""Most rows of a float."""

SMALL = 0.925
"""Width of a character in ``\\small`` against that at 10 points."""

GAP = 8.0
"""Space between two columns in points."""

SHRUNK = 0.84
"""How much a float may be scaled down before it is divided."""

NUMBER = re.compile(r"-?\d+(\.\d+)?")

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
_SPECIAL |= {"†": r"$\dagger$", "≈": r"$\approx$", "∞": r"$\infty$", "\u2212": "$-$"}
_SPECIAL |= {each: f"\\{each}" for each in "{}$&#_%"}
_NARROW = {"fijlrst": 3.5, ".,:;'!|": 2.8, "()[]": 3.9, "- ": 3.4, "mwM": 8.8, "W": 10.3}
_NARROW |= {"+=<>±%#&~": 8.0, "ABCDEFGHJKLNOPQRSTUVXYZ": 7.2}
_WIDTHS = {each: width for some, width in _NARROW.items() for each in some}


@dataclass(frozen=True)
class _Content:
    """What one cell shows: a number with what follows it, or a text.

    Attributes:
        number: The number, aligned at its decimal point; empty for a text.
        bold: Whether it is the best of its column.
        half: The half-width of its interval.
        mark: The mark behind it, as LaTeX.
        ends: The ends of its interval, where it is no half-width.
        text: Remarks behind a number, or the text of a cell without one.
    """

    number: str = ""
    bold: bool = False
    half: str = ""
    mark: str = ""
    ends: str = ""
    text: str = ""

    @property
    def tail(self) -> str:
        """What follows the number, as LaTeX."""
        half = rf"$\,\pm\,{self.half}$" if self.half else ""
        ends = f" {escaped(self.ends)}" if self.ends else ""
        return half + self.mark + ends + (f" ({escaped(self.text)})" if self.text else "")

    @property
    def tail_width(self) -> float:
        """Width of what follows the number in points."""
        half = 12 + width(self.half) if self.half else width(f" {self.ends}")
        return half + 4 * bool(self.mark) + (width(f" ({self.text})") if self.text else 0)


@dataclass(frozen=True)
class _Numbers:
    """How the numbers of one printed column are aligned.

    Attributes:
        contents: The cells from the top.
        sign: A minus, if there is a negative number.
        before: Most digits before a decimal point; 0 in a column of texts.
        after: Most digits behind one.
    """

    contents: Sequence[_Content]
    sign: str
    before: int
    after: int

    @cached_property
    def tails(self) -> bool:
        """Whether anything follows a number, so that the column consists of two."""
        return any(each.number and each.tail for each in self.contents)

    @property
    def spec(self) -> str:
        """The column in the preamble of a tabular."""
        if not self.before:
            return "c"
        return f"S[table-format={self.sign}{self.before}.{self.after}]" + "@{}l" * self.tails

    @cached_property
    def width(self) -> float:
        """Width in points, without the space to its neighbours."""
        digits = 5.0 * (self.before + self.after) + 2.8 * (self.after > 0) + 8.0 * len(self.sign)
        tails = max((each.tail_width for each in self.contents if each.number), default=0.0)
        texts = max((width(each.text) for each in self.contents if not each.number), default=0.0)
        return SMALL * max((digits * 1.15 + tails) if self.before else 0.0, texts)


def latex(table: Table, layout: Layout = "one-column") -> str:
    """The table as floats for a document that uses adjustbox, booktabs and siunitx.

    Args:
        table: What to print.
        layout: ``"one-column"``, or ``"two-column"``: then a table that fits a column stands in
            one, and others span the page.

    Returns:
        One or several floats, the first with the whole caption.
    """
    printed = table.printed()
    numbers = {each: _numbers(table, each) for each in printed}
    names = SMALL * max(map(width, [table.corner, *(row.label for row in table.rows)]))

    def wide(some: Sequence[Printed]) -> float:
        taken = names + GAP / 2
        for group, members in groupby(some, lambda each: each.group):
            below = sum(GAP + max(numbers[each].width, _head_width(each)) for each in members)
            taken += max(below, GAP + _widest(group))
        return taken

    star = "" if wide(printed) <= COLUMN[layout] else "*" * (layout == "two-column")
    whole = rf"\{'textwidth' if star else 'linewidth'}"
    label = "-".join("".join(c if c.isalnum() else " " for c in table.title.lower()).split())
    lines = [
        f"% {flat(table.origin, '?')}",
        "% needs \\usepackage{adjustbox,booktabs,siunitx}",
    ]
    wholes = blocks(printed, lambda some: SHRUNK * wide(some) <= PAGE[layout])
    parts = [
        (block, table.rows[start : start + ROWS])
        for start in range(0, max(len(table.rows), 1), ROWS)
        for block in wholes
    ]
    places = {row.label: place for place, row in enumerate(table.rows)}
    for number, (block, rows) in enumerate(parts):
        continued = rf"{escaped(table.title)}, continued from Table~\ref{{tab:{label}}}."
        told = continued if number else escaped(caption(table))
        lines += [
            f"\\begin{{table{star}}}",
            "\\centering\\small",
            f"\\setlength{{\\tabcolsep}}{{{GAP / 2:g}pt}}",
            "\\sisetup{detect-weight=true, mode=text}",
            f"\\caption{{{told}}}",
            f"\\label{{tab:{label}{f'-{number + 1}' if number else ''}}}",
            "\\medskip",
            f"\\begin{{adjustbox}}{{max width={whole}}}",
            *_tabular(table, block, numbers, rows, places),
            "\\end{adjustbox}",
            f"\\end{{table{star}}}",
        ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """A text in one line, with every special character escaped."""
    return "".join(_SPECIAL.get(each, each) for each in flat(text, "?"))


def width(text: str) -> float:
    """Estimate the width of a text in points, in Computer Modern at 10 points."""
    return sum((_WIDTHS.get(each, 5.4) for each in flat(text)), start=0.0)


def _numbers(table: Table, printed: Printed) -> _Numbers:
    """The cells of a column, and how they are aligned."""
    contents = [_content(table, row, printed) for row in table.rows]
    numbers = [each.number for each in contents if each.number]
    shown = [number.removeprefix("-").partition(".") for number in numbers]
    return _Numbers(
        contents,
        "-" if any(number.startswith("-") for number in numbers) else "",
        max((len(whole) for whole, _, _ in shown), default=0),
        max((len(digits) for _, _, digits in shown), default=0),
    )


def _content(table: Table, row: Row, printed: Printed) -> _Content:
    """What a cell shows."""
    column = printed.column
    if printed.published:
        shown = published_cell(table, row, column)
        number = shown.rstrip("*")
        return _Content(number, mark="$^{*}$" if shown != number else "")
    cell, notes = table.cell(row, column), remarks(table, row, column)
    best = (row.label, column.label) in table.best
    if isinstance(cell, Interval):
        mean, half = rounded(cell, column.percent)
        marks = "$^{*}$", r"$^{\dagger}$", r"$^{\approx}$"
        return _Content(mean, best, half, mark(table, row, column, marks), text=notes)
    if isinstance(cell, OverImages):
        value, ends = of_images(cell, column.percent)
        if NUMBER.fullmatch(value):
            return _Content(value, best, ends=ends, text=notes)
        return _Content(text=f"{value} {ends}".strip())
    shown = "--" if cell is None else flat(cell)
    if NUMBER.fullmatch(shown):
        return _Content(shown, text=notes)
    return _Content(text=f"{shown} ({notes})" if notes else shown)


def _tabular(
    table: Table,
    block: Sequence[Printed],
    numbers: Mapping[Printed, _Numbers],
    rows: Sequence[Row],
    places: Mapping[str, int],
) -> list[str]:
    """The lines of a tabular."""
    spans = [1 + numbers[each].tails for each in block]
    lines = [
        f"\\begin{{tabular}}{{l{''.join(numbers[each].spec for each in block)}}}",
        "\\toprule",
    ]
    paired = any(each.under for each in block)
    above = [[each.group for each in block], [each.name if paired else "" for each in block]]
    for level, headings in enumerate(above):
        if any(headings):
            # equal names under different groups do not share a rule
            keys = [(each.group, name) for each, name in zip(block, headings, strict=True)]
            lines += _spanned(keys if level else [("", name) for name in headings], spans)
    lowest = [
        each.under or "ours" * (not each.published) if paired else each.name for each in block
    ]
    heads = [
        f"\\multicolumn{{{span}}}{{c}}{{{_stacked(name)}}}"
        for name, span in zip(lowest, spans, strict=True)
    ]
    lines += [" & ".join([escaped(table.corner), *heads]) + r" \\", "\\midrule"]
    for row in shown_rows(table, rows, block):
        place = places[row.label]
        cells = [_written(numbers[each].contents[place], numbers[each]) for each in block]
        # a bracket or a star after a line break would be its argument
        shown = escaped(row.label)
        label = "{}" * shown.startswith(("[", "*")) + shown
        lines.append(" & ".join([label, *cells]) + r" \\")
    return [*lines, "\\bottomrule", "\\end{tabular}"]


def _written(content: _Content, numbers: _Numbers) -> str:
    """A cell as LaTeX, with the ampersand inside it where its column consists of two."""
    if not content.number:
        if not numbers.before:
            return escaped(content.text)
        if not content.text:
            return " & " if numbers.tails else ""
        return f"\\multicolumn{{{1 + numbers.tails}}}{{c}}{{{escaped(content.text)}}}"
    number = rf"\bfseries {content.number}" if content.bold else content.number
    return f"{number} & {content.tail}".rstrip() if numbers.tails else number


def _spanned(names: Sequence[tuple[str, str]], spans: Sequence[int]) -> list[str]:
    """A row of headings above others: equal neighbours stand over one rule."""
    cells, rules, place = [""], [], 2
    for (_, name), members in groupby(zip(names, spans, strict=True), lambda each: each[0]):
        count = sum(span for _, span in members)
        cells.append(f"\\multicolumn{{{count}}}{{c}}{{{_stacked(name)}}}")
        if name:
            rules.append(f"\\cmidrule(lr){{{place}-{place + count - 1}}}")
        place += count
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def _stacked(heading: str) -> str:
    """A heading, in two lines where it has a comma."""
    lines = [escaped(line) for line in broken(heading).splitlines()]
    return r"\shortstack{" + r"\\".join(lines) + "}" if len(lines) > 1 else "".join(lines)


def _head_width(each: Printed) -> float:
    """Width of the headings of a column in points."""
    name = width(each.name) / 2 if each.under else 0.0  # it stands over two columns
    return max(_widest(each.under or each.name), SMALL * name)


def _widest(heading: str) -> float:
    """Width of the longest line of a heading in points."""
    return SMALL * max(map(width, broken(heading).splitlines()), default=0.0)
