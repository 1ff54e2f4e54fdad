"""What one table shows, whatever it is printed as."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bench.records.statistics import Comparison, Interval, verdict

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one table shows; ``cells`` are keyed by (row, column).

    A cell is an interval, a text, or None where it is missing. A column's name may have two parts,
    ``"cifar10 / resnet18"``: equal first parts are set under one heading. ``percent`` are the
    columns whose fractions are shown in percent, ``best`` says of a column whether its highest or
    lowest mean is set in bold. ``published`` are numbers of others, in the unit of the column: they
    get columns of their own and are never bold and never tested. ``measure`` says in the caption
    what the numbers are, ``origin`` with what they were made.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[Key, Interval | str | None]
    corner: str = "method"
    percent: Collection[str] = ()
    best: Mapping[str, Literal["high", "low"]] = field(default_factory=dict)
    baseline: str | None = None
    comparisons: Mapping[Key, Comparison] = field(default_factory=dict)
    failed: Mapping[Key, int] = field(default_factory=dict)
    published: Mapping[Key, float] = field(default_factory=dict)
    measure: str = ""
    origin: str = ""


def missing(table: Table) -> list[Key]:
    """The (row, column) of each cell without a number of ours."""
    return [
        (row, column)
        for row in table.rows
        for column in table.columns
        if table.cells.get((row, column)) is None
    ]


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


def difference_entry(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    values = asdict(comparison)
    return {
        "difference": comparison.difference,
        "difference_low": comparison.low,
        "difference_high": comparison.high,
        **{name: values[name] for name in ("p", "p_holm", "improvement", "detectable")},
        "verdict": verdict(comparison),
    }
