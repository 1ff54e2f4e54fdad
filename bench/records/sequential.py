"""Add seeds until a comparison is decided, without more false claims than a fixed number allows.

Looking at the results after every few seeds and stopping when a difference is significant finds
differences where there are none. A group-sequential design divides the permitted error among the
looks that are planned beforehand.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from bench.records.statistics import ALPHA, MARGIN, Verdict

FIRST, STEP, MOST = 5, 5, 30
"""Number of seeds at the first look, seeds added for each further look, and the usual limit."""

LARGEST = 200
"""Most seeds of a design; the error probabilities of more looks take long to compute."""

SAMPLES = 400_000
"""Simulated studies from which critical values are taken. A level of 0.0045 has a standard error of
0.0001 then."""


@dataclass(frozen=True)
class Decision:
    """What the seeds show about a method and its baseline.

    Attributes:
        verdict: ``"better"`` or ``"worse"``: the difference is shown. ``"equivalent"``: it is shown
            to be smaller than the margin. ``"undecided"``: neither, so far.
        difference: Mean of the paired differences, a fraction; None without a common seed.
        low: Lower end of the repeated confidence interval of the difference, which holds at all
            looks and for all methods together; None where there is no spread.
        high: Its upper end.
        n: Number of seeds that both have, at the look that decided or at the last one.
        looks: Number of looks until then.
        alpha_spent: The part of the error probability that was spent by then.
    """

    verdict: Verdict
    difference: float | None
    low: float | None
    high: float | None
    n: int
    looks: int
    alpha_spent: float

    def __str__(self) -> str:
        """Say it in one sentence.

        >>> print(Decision("better", 0.012, 0.004, 0.02, 10, 2, 0.0167))
        better by 1.20 points (0.40 to 2.00), n = 10, 2 looks
        """
        looks = f"n = {self.n}, {self.looks} {'look' if self.looks == 1 else 'looks'}"
        if self.difference is None:
            return f"{self.verdict}, {looks}"
        size = abs(self.difference) if self.verdict in ("better", "worse") else self.difference
        ends = [] if self.low is None or self.high is None else [self.low, self.high]
        if self.verdict == "worse":
            ends = [-end for end in reversed(ends)]
        by = f" by {100 * size:.2f} points"
        if self.verdict not in ("better", "worse"):
            by = f", difference {round(100 * size, 2) + 0.0:+.2f} points"  # never -0.00
        interval = f" ({100 * ends[0]:.2f} to {100 * ends[1]:.2f})" if ends else ""
        return f"{self.verdict}{by}{interval}, {looks}"


@dataclass(frozen=True)
class SequentialDesign:
    """When the seeds are looked at, and what is a claim.

    Each method is compared with the baseline by a paired t-test at every look. The error
    probability ``alpha`` is spent in proportion to the seeds (Lan & DeMets, Biometrika 70, 1983,
    659-663, with the spending function alpha·t of Kim & DeMets, Biometrika 74, 1987, 149-154, t the
    share of the largest number of seeds), so that the probability of claiming a difference at any
    look, where there is none, is at most ``alpha`` for all methods together. The methods share it
    by Holm's procedure, applied at each look to those whose difference was not shown before (Maurer
    & Bretz, Statistics in Biopharmaceutical Research 5, 2013, 311-320). Equivalence is shown by two
    one-sided tests with the same looks, an error probability ``alpha`` of their own, and Holm's
    procedure over the methods.

    The critical values are those of Student's t at the looks jointly, from simulated studies with
    normal differences, since the normal approximation is too generous for few seeds. AdaStop
    (Mathieu et al., TMLR 2024) is the closest published procedure; it uses permutations, which need
    9 seeds before 11 methods can be told from a baseline at all.

    Attributes:
        methods: Number of methods that are compared with the baseline, at least 1.
        most: The largest number of seeds.
        first: Number of seeds at the first look, at least 3.
        step: Number of seeds added for each further look.
        margin: The largest difference that counts as none, a fraction.
        alpha: Probability of any false claim of a difference, and of any of equivalence.

    Raises:
        ValueError: A value is out of its range, or the limit is below the first look.
    """

    methods: int
    most: int = MOST
    first: int = FIRST
    step: int = STEP
    margin: float = MARGIN
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if self.methods < 1:
            raise ValueError("there is nothing to decide: give a method beside the baseline")
        if self.first < 3 or self.step < 1:
            raise ValueError(
                f"the first look is at {self.first} seeds and the others {self.step} apart: the "
                "first needs at least 3 seeds and the others at least 1 more"
            )
        if self.most < self.first:
            raise ValueError(
                f"at most {self.most} seeds are below the first look at {self.first} seeds: give "
                f"at least {self.first}"
            )
        if self.most > LARGEST:
            raise ValueError(f"at most {self.most} seeds are too many to plan for: give {LARGEST}")
        if not 0 < self.margin < 1:
            raise ValueError(f"the margin is {self.margin}: it must be above 0 and below 1")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is {self.alpha}: it must be above 0 and below 0.5")

    @property
    def looks(self) -> tuple[int, ...]:
        """Number of seeds at each look.

        >>> SequentialDesign(methods=1, most=18).looks
        (5, 10, 15, 18)
        """
        return (*range(self.first, self.most, self.step), self.most)

    def spent(self, look: int) -> float:
        """Return the part of ``alpha`` that is spent after a look, numbered from 1."""
        return self.alpha * self.looks[look - 1] / self.most

    def levels(self, claims: int, *, sides: Literal[1, 2]) -> Float[ndarray, " k"]:
        """Return the p-value below which a test is a claim, at each look.

        Args:
            claims: Number of methods among which ``alpha`` is still divided.
            sides: 2 for a difference, 1 for each of the two tests of equivalence.
        """
        return nominal_levels(self.looks, self.alpha / claims, sides)

    def decide(
        self, values: Mapping[str, Mapping[int, float]], baseline: str, taken: int
    ) -> dict[str, Decision]:
        """Decide about each method from the results up to a look.

        A method that was decided at an earlier look needs no results after it.

        Args:
            values: Accuracy by method and by seed (0, 1, …), as fractions. A failed seed has no
                value, and the others are paired.
            baseline: Name of the baseline among the methods.
            taken: Number of looks that are taken.
        """
        names = [name for name in values if name != baseline]
        differences = np.full((1, len(names), self.most), np.nan)
        for row, name in enumerate(names):
            for seed in range(self.most):
                if seed in values[name] and seed in values[baseline]:
                    differences[0, row, seed] = values[name][seed] - values[baseline][seed]
        verdicts, looks = self.verdicts(differences, taken)
        return {
            name: self._describe(
                differences[0, row], VERDICTS[verdicts[0, row]], int(looks[0, row])
            )
            for row, name in enumerate(names)
        }

    def _describe(self, differences: Float[ndarray, " n"], verdict: Verdict, look: int) -> Decision:
        """The decision about one method at a look, numbered from 1; 0 before the first one."""
        if not look:
            return Decision(verdict, None, None, None, 0, 0, 0.0)
        seen = differences[: self.looks[look - 1]]
        seen = seen[~np.isnan(seen)]
        n, spent = len(seen), self.spent(look)
        if n < 2 or not (std := float(seen.std(ddof=1))):
            return Decision(verdict, float(seen.mean()) if n else None, None, None, n, look, spent)
        from scipy.stats import t

        level = self.levels(self.methods, sides=2)[look - 1]
        mean, half = float(seen.mean()), float(t.isf(level / 2, n - 1)) * std / math.sqrt(n)
        return Decision(verdict, mean, mean - half, mean + half, n, look, spent)

    def verdicts(
        self, differences: Float[ndarray, "s m n"], taken: int | None = None
    ) -> tuple[Int[ndarray, "s m"], Int[ndarray, "s m"]]:
        """Decide many studies at once.

        Args:
            differences: Paired differences of s studies, m methods and ``most`` seeds; NaN where a
                seed failed or was not run.
            taken: Number of looks that are taken; None: all.

        Returns:
            Index into `VERDICTS`, and number of the look that decided (the last one that was taken
            where it is undecided), each of shape (s, m).
        """
        counts = self.looks[:taken]
        verdicts = np.zeros(differences.shape[:2], dtype=int)
        looks = np.full(differences.shape[:2], len(counts))
        for look, n in enumerate(counts, 1):
            p, sign, outside = _tests(differences[:, :, :n], self.margin)
            different = self._holm(p, np.isin(verdicts, (1, 2)), verdicts == 0, look, sides=2)
            undecided = (verdicts == 0) & ~different
            equal = self._holm(outside, verdicts == 3, undecided, look, sides=1)
            verdicts[different] = np.where(sign[different] > 0, 1, 2)
            verdicts[equal] = 3
            looks[different | equal] = look
        return verdicts, looks

    def _holm(
        self,
        p: Float[ndarray, "s m"],
        claimed: Bool[ndarray, "s m"],
        candidates: Bool[ndarray, "s m"],
        look: int,
        *,
        sides: Literal[1, 2],
    ) -> Bool[ndarray, "s m"]:
        """Which candidates become claims at this look, by Holm's procedure."""
        new = np.zeros_like(claimed)
        shares = range(1, p.shape[1] + 1)
        levels = np.array([0.0, *(self.levels(m, sides=sides)[look - 1] for m in shares)])
        while True:
            left = p.shape[1] - (claimed | new).sum(axis=1, keepdims=True)
            more = candidates & ~new & (p < levels[left])
            if not more.any():
                return new
            new |= more


VERDICTS: tuple[Verdict, ...] = ("undecided", "better", "worse", "equivalent")


def _tests(
    differences: Float[ndarray, "s m n"], margin: float
) -> tuple[Float[ndarray, "s m"], Float[ndarray, "s m"], Float[ndarray, "s m"]]:
    """Two-sided p-value of each mean, its sign, and the p-value of "it is outside ±margin"."""
    from scipy.stats import t

    known = ~np.isnan(differences)
    n = known.sum(axis=2)
    enough = n >= 3
    count = np.maximum(n, 2)
    filled = np.where(known, differences, 0.0)
    mean = filled.sum(axis=2) / np.maximum(n, 1)
    variance = (np.where(known, differences - mean[..., None], 0.0) ** 2).sum(axis=2) / (count - 1)
    error = np.sqrt(variance / count)
    testable = enough & (error > 1e-12)
    error = np.where(testable, error, 1.0)
    p = np.where(testable, 2 * t.sf(np.abs(mean) / error, count - 1), 1.0)
    outside = np.where(testable, t.sf((margin - np.abs(mean)) / error, count - 1), 1.0)
    return p, np.sign(mean), outside


@functools.lru_cache(maxsize=256)
def nominal_levels(
    looks: tuple[int, ...], alpha: float, sides: Literal[1, 2]
) -> Float[ndarray, " k"]:
    """Return the p-value below which a t-test is a claim at each look.

    Among studies without a difference, claims at look k or before have the probability alpha·n_k /
    n_K. The first level is exact; the others are quantiles of `SAMPLES` simulated studies, drawn
    from one fixed stream.

    Args:
        looks: Number of seeds at each look, rising.
        alpha: Probability of a claim at any look.
        sides: 2: the p-values are two-sided; 1: one-sided.

    >>> nominal_levels((5, 10), 0.05, 2).round(3)
    array([0.025, 0.031])
    """
    from scipy.stats import t

    statistics = _null_statistics(looks)
    if sides == 2:
        statistics = np.abs(statistics)
    alive = np.ones(len(statistics), dtype=bool)
    spent, found = 0.0, []
    for column, n in enumerate(looks):
        wanted = alpha * n / looks[-1] - spent
        spent += wanted
        if column == 0:
            level = wanted
            critical = float(t.isf(level / sides, n - 1))
        else:
            count = max(1, round(wanted * SAMPLES))
            rest = statistics[alive, column]
            place = len(rest) - min(count, len(rest))
            critical = float(np.partition(rest, place)[place])
            level = sides * float(t.sf(critical, n - 1))
        alive &= statistics[:, column] <= critical
        found.append(level)
    return np.array(found)


@functools.lru_cache(maxsize=4)
def _null_statistics(looks: tuple[int, ...]) -> Float[ndarray, "samples k"]:
    """Student's t of the same study at each look, for `SAMPLES` studies without a difference."""
    stream = np.random.default_rng(0)
    found = np.empty((SAMPLES, len(looks)))
    size = 20_000
    for start in range(0, SAMPLES, size):
        draws = stream.standard_normal((size, looks[-1]))
        sums, squares = draws.cumsum(axis=1), (draws**2).cumsum(axis=1)
        for column, n in enumerate(looks):
            total = sums[:, n - 1]
            variance = (squares[:, n - 1] - total**2 / n) / (n - 1)
            found[start : start + size, column] = total / np.sqrt(n * variance)
    return found


@dataclass(frozen=True)
class Operating:
    """How a design behaves for one true difference, over simulated studies.

    Attributes:
        difference: True difference of each method, in standard deviations of the paired
            differences.
        any_claim: Share of the studies that claim a difference for any method.
        claim: Share of the methods whose difference is claimed.
        equivalent: Share of the methods that are called equivalent.
        any_equivalent: Share of the studies that call any method equivalent.
        seeds: Mean number of seeds of a method.
        fixed: Share of the methods whose difference is claimed by the same tests with all seeds at
            once: one look at ``most`` seeds.
    """

    difference: float
    any_claim: float
    claim: float
    equivalent: float
    any_equivalent: float
    seeds: float
    fixed: float


def simulate(
    design: SequentialDesign,
    differences: Sequence[float],
    *,
    spread: float,
    studies: int = 2000,
    seed: int = 0,
) -> list[Operating]:
    """Simulate studies with normal accuracies, of which the methods share the baseline's seeds.

    Args:
        design: The design.
        differences: True differences of all methods, in standard deviations.
        spread: Standard deviation of a paired difference, a fraction; it relates the margin to the
            differences.
        studies: Number of simulated studies for each difference.
        seed: Seed of the simulation.

    Returns:
        One entry per difference.
    """
    once = SequentialDesign(
        design.methods, design.most, design.most, 1, design.margin, design.alpha
    )
    found = []
    for number, difference in enumerate(differences):
        stream = np.random.default_rng([seed, number])
        shape = (studies, design.methods + 1, design.most)
        # half of the variance of a difference comes from the baseline, which all methods share
        runs = stream.standard_normal(shape) * (spread * 0.5**0.5)
        paired = runs[:, 1:] - runs[:, :1] + difference * spread
        verdicts, looks = design.verdicts(paired)
        fixed, _ = once.verdicts(paired)
        claimed, equal = np.isin(verdicts, (1, 2)), verdicts == 3
        found.append(
            Operating(
                difference=float(difference),
                any_claim=float(claimed.any(axis=1).mean()),
                claim=float(claimed.mean()),
                equivalent=float(equal.mean()),
                any_equivalent=float(equal.any(axis=1).mean()),
                seeds=float(np.array(design.looks)[looks - 1].mean()),
                fixed=float(np.isin(fixed, (1, 2)).mean()),
            )
        )
    return found
