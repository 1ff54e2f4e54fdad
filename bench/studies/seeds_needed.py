"""How many seeds a difference needs, from the spread that a pilot's records show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.records.record import Record
from bench.records.sequential import SequentialDesign, simulate
from bench.records.statistics import ALPHA, POWER, effect
from bench.reporting import run_tables

LIMIT = 10_000
"""Number of seeds above which none is named."""


@dataclass(frozen=True)
class Needed:
    """What it takes to show a difference of a method.

    Attributes:
        method: Name of the method.
        where: Dataset and network.
        n: Number of seeds of the pilot that the method and the baseline have in common.
        spread: Standard deviation of the paired differences in the pilot, a fraction.
        seeds: Seeds with which one paired t-test shows the difference with 80 % probability, at the
            strictest level of Holm's procedure; None: more than `LIMIT`.
        sequential: Mean number of seeds of a method under ``--until decided`` with that limit.
        claimed: Probability with which ``--until decided`` shows the difference then.
    """

    method: str
    where: str
    n: int
    spread: float
    seeds: int | None
    sequential: float | None
    claimed: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return dict(vars(self))

    def __str__(self) -> str:
        start = (
            f"{self.method} ({self.where}): spread {100 * self.spread:.2f} points (n = {self.n})"
        )
        if self.seeds is None:
            return f"{start}; more than {LIMIT:,} seeds"
        text = f"{start}; {self.seeds} seeds"
        if self.sequential is None or self.claimed is None:
            return text
        return (
            f"{text}; with --until decided --max-seeds {self.seeds}: {self.sequential:.1f} on "
            f"average, shown in {self.claimed:.0%} of the studies"
        )


def count(standardised: float, tests: int) -> int | None:
    """Return the smallest number of seeds whose paired t-test shows a difference with power 0.8.

    Args:
        standardised: The difference in standard deviations of the paired differences, above 0.
        tests: Number of methods among which Holm's procedure divides 0.05.

    >>> count(1.0, 1), count(0.5, 1)
    (10, 34)
    """
    alpha = ALPHA / tests
    low, high = 1, 2
    while effect(high, alpha, POWER) > standardised:
        if high == LIMIT:
            return None
        low, high = high, min(2 * high, LIMIT)
    while high - low > 1:
        middle = (low + high) // 2
        if effect(middle, alpha, POWER) > standardised:
            low = middle
        else:
            high = middle
    return high


def needed(
    records: Iterable[Record], difference: float, baseline: str = "none", studies: int = 500
) -> list[Needed]:
    """Return what each method of a pilot needs to show a difference to the baseline.

    The spread of few seeds is itself uncertain: with 5 seeds the true one is between 0.6 and 2.9
    times as large with 95 % probability, and the number of seeds grows with its square.

    Args:
        records: Records of runs, the pilot.
        difference: True difference to be shown, a fraction above 0.
        baseline: Name of the baseline.
        studies: Number of simulated studies for the sequential design.

    Raises:
        ValueError: The difference is out of its range, no run is called like the baseline, or no
            method has three seeds in common with it and a spread.
    """
    import numpy as np

    if not 0 < difference < 1:
        raise ValueError(
            f"the difference is {100 * difference:g} points: it must be above 0 and below 100"
        )
    records = list(records)
    run_tables.check_baseline(records, baseline)
    gains = run_tables.gains(records, baseline=baseline)
    columns = [column for _, column in gains]
    found = []
    for (row, column), values in gains.items():
        spread = float(np.std(values, ddof=1)) if len(values) >= 3 else 0.0
        if not spread:
            continue
        tests = columns.count(column)
        seeds = count(difference / spread, tests)
        sequential = claimed = None
        if seeds is not None and 5 <= seeds <= 200:
            design = SequentialDesign(methods=tests, most=seeds)
            (outcome,) = simulate(design, [difference / spread], spread=spread, studies=studies)
            sequential, claimed = outcome.seeds, outcome.claim
        where = " / ".join(part for part in (column.group, column.name) if part)
        found.append(Needed(row.label, where, len(values), spread, seeds, sequential, claimed))
    if not found:
        raise ValueError(
            f"no method has three seeds in common with {baseline}: run a pilot with --seeds 3 or "
            "more"
        )
    return found
