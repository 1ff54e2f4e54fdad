"""The columns of a table as they are printed, and how many of them stand side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.reporting.cells import Column

ELSEWHERE = "published, other setting"
"""The heading of published numbers that are of another setting than ours."""


@dataclass(frozen=True)
class Printed:
    """A column as it is printed: with our numbers, or with published ones.

    Attributes:
        column: The column of ours.
        published: Whether its numbers are published ones.
        group: The heading that it shares with its neighbours.
        name: Its own heading.
        under: What tells published numbers from ours of the same setting, which have the same name;
            empty for others.
    """

    column: Column
    published: bool
    group: str
    name: str
    under: str = ""

    def heading(self, between: str) -> str:
        """All headings in one line, with ``between`` after that of the group."""
        name = f"{self.name} ({self.under})" if self.under else self.name
        return f"{self.group}{between}{name}" if self.group else name

    def lines(self) -> str:
        """All headings, one below the other."""
        above = textwrap.wrap(self.group, 14, break_long_words=False, break_on_hyphens=False)
        return "\n".join([*above, self.name, *([f"({self.under})"] if self.under else [])])


def printed_columns(
    columns: Sequence[Column], published: Collection[str], settings: Mapping[str, Column]
) -> list[Printed]:
    """Every column that is printed.

    Published numbers of the same setting stand to the right of ours; those of another setting stand
    after all of ours, under a heading that says so.

    Args:
        columns: Our columns.
        published: The labels of those with published numbers.
        settings: What the published numbers are of, by the label of our column, where that is
            another setting.
    """
    found, others = [], []
    for column in columns:
        found.append(Printed(column, False, column.group, column.name))
        if column.label not in published:
            continue
        if of := settings.get(column.label):
            others.append(Printed(column, True, ELSEWHERE, of.label))
        else:
            found.append(Printed(column, True, column.group, column.name, "published"))
    return found + others


def broken(heading: str) -> str:
    """A heading in two lines, where it has a comma.

    >>> broken("published, other setting")
    'published,\\nother setting'
    """
    return heading.replace(", ", ",\n", 1)


def blocks(
    printed: Sequence[Printed], fits: Callable[[Sequence[Printed]], bool]
) -> list[list[Printed]]:
    """Divide columns into blocks that fit, where possible between two groups.

    A column and the published numbers beside it stay together, in a block of their own if need be.

    Args:
        printed: The columns.
        fits: Whether a block of columns fits a line.

    Returns:
        At least one block.
    """
    units = [list(some) for _, some in groupby(printed, lambda each: (each.column, each.group))]
    found: list[list[Printed]] = [[]]
    for _, some in groupby(units, lambda unit: unit[0].group):
        group = list(some)
        if found[-1] and not fits([*found[-1], *(each for unit in group for each in unit)]):
            found.append([])
        for unit in group:
            if found[-1] and not fits([*found[-1], *unit]):
                found.append([])
            found[-1] += unit
    return found
