"""What one table shows, whatever it is printed as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench.records.statistics import Comparison, Interval, verdict

if TYPE_CHECKING:
    from rich.text import Text

Direction = Literal["high", "low"]
Key = tuple[str, str]
"""The labels of a row and a column."""
Cell = Interval | str | None
"""An interval over seeds, a text, or None where nothing was measured."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: What it shows, such as a network or a statistic.
        group: The heading that it shares with its neighbours, such as a dataset.
        percent: Whether its numbers are fractions that readers see in percent.
        best: Whether its highest or its lowest mean is set in bold; None for neither.
    """

    name: str
    group: str = ""
    percent: bool = False
    best: Direction | None = None

    @property
    def label(self) -> str:
        """The heading and the name in one line, which tell the column from others.

        >>> Column("resnet18", group="cifar10").label
        'cifar10 / resnet18'
        """
        return f"{self.group} / {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: The method.
        settings: The settings that tell it from rows of the same method, such as ``epochs=300``.
        key: The first digits of the job's key, where nothing else tells two rows apart.
        note: What a reader must know to compare it with others.
    """

    name: str
    settings: str = ""
    key: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """All parts in one line, which tell the row from others.

        >>> Row("none", settings="epochs=300").label, Row("cw-l0", note="ignores eps").label
        ('none [epochs=300]', 'cw-l0 (ignores eps)')
        """
        parts = (" [{}]", self.settings), (" #{}", self.key), (" ({})", self.note)
        return self.name + "".join(form.format(part) for form, part in parts if part)


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
        comparisons: The cells that were compared with the baseline.
        failed: The cells of which seeds failed, and how many.
        published: Numbers printed by others, in the unit that readers see. They get columns of
            their own and are never bold and never tested.
        measure: What the numbers are, for the caption.
        origin: What they were made with, such as versions and the number of records.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    cells: Mapping[Key, Cell]
    corner: str = "method"
    baseline: str | None = None
    comparisons: Mapping[Key, Comparison] = field(default_factory=dict)
    failed: Mapping[Key, int] = field(default_factory=dict)
    published: Mapping[Key, float] = field(default_factory=dict)
    measure: str = ""
    origin: str = ""

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
        from bench.reporting import formats

        return formats.text(self)

    __repr__ = __str__

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(str(self), no_wrap=True)

    def _repr_html_(self) -> str:
        from bench.reporting import formats

        return formats.html(self)


def interval_entry(interval: Interval | None) -> dict[str, Any]:
    """An interval as JSON."""
    if interval is None:
        return {"n": 0, "mean": None, "std": None, "low": None, "high": None}
    return {
        "n": interval.n,
        "mean": interval.mean,
        "std": interval.std,
        "low": interval.low,
        "high": interval.high,
    }


def comparison_entry(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    values = asdict(comparison)
    return {
        "difference": comparison.difference,
        "difference_low": comparison.low,
        "difference_high": comparison.high,
        **{name: values[name] for name in ("p", "p_holm", "improvement", "detectable")},
        "verdict": verdict(comparison),
    }
