"""The columns, rows and cells of tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.records.over_images import OverImages, finite
from bench.records.statistics import Comparison, Equivalence, Interval, verdict

Direction = Literal["high", "low"]
Key = tuple[str, str]
"""The labels of a row and a column."""
Cell = Interval | OverImages | str | None
"""An interval over seeds or over images, a text, or None where nothing was measured."""


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


@dataclass(frozen=True)
class Published:
    """A number that others have printed.

    Attributes:
        value: The number, in the unit that readers see.
        starred: Whether they took it from another paper and marked it with a star.
    """

    value: float
    starred: bool = False


def three_digits(value: float) -> str:
    """A number to three significant digits; a large one to the unit, without an exponent.

    >>> three_digits(12.34), three_digits(999.6), three_digits(1234.0)
    ('12.3', '1000', '1234')
    """
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def interval_entry(interval: Interval | OverImages | None) -> dict[str, Any]:
    """An interval as JSON; one over images says how many ``images``, and is null where infinite."""
    if interval is None:
        return {"n": 0, "mean": None, "std": None, "low": None, "high": None}
    if isinstance(interval, OverImages):
        ends = {"low": finite(interval.low), "high": finite(interval.high)}
        return {"images": interval.n, "value": finite(interval.value)} | ends
    return {
        "n": interval.n,
        "mean": interval.mean,
        "std": interval.std,
        "low": interval.low,
        "high": interval.high,
    }


def equivalence_entry(equivalence: Equivalence) -> dict[str, Any]:
    """A test of equivalence as JSON: the verdict and the interval that the margin must contain."""
    return asdict(equivalence)


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
