"""What a handful of seeds can show: intervals, paired comparisons, and what they cannot show.

The unit of replication is the seed. Values are fractions, as records hold them; only `verdict`
speaks of points. Where a number does not exist (one seed, no spread) it is None, never nan.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Num
from numpy import ndarray

ALPHA = 0.05  # not 1 - 0.95, which is a little more
LEVEL = 1 - ALPHA
POWER = 0.8
MARGIN = 0.005
"""The largest difference of two accuracies that counts as none: half a point."""

Name = TypeVar("Name", bound=Hashable)
Answer = Literal["yes", "no", "undecided"]
Verdict = Literal["better", "worse", "equivalent", "undecided"]
Values = Sequence[float] | Num[ndarray, " n"]


@dataclass(frozen=True)
class Interval:
    """A mean over n values, their sample standard deviation, and the half-width of its interval.

    ``std`` and ``half`` are None for a single value, which says nothing about the spread.
    """

    mean: float
    std: float | None
    half: float | None
    n: int

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return None if self.half is None else self.mean + self.half

    @property
    def excludes_nothing(self) -> bool:
        """Whether the interval of a share, or of a difference of two, is as wide as all values.

        It then holds every share from 0 to 1, or reaches a whole 1 to both sides: with two seeds,
        Student's quantile is 12.7, and a spread of some points gives such an interval.

        >>> [mean_interval([0.49, other]).excludes_nothing for other in (0.77, 0.55)]
        [True, False]
        """
        if self.half is None:
            return False
        return self.half >= 1 or (self.mean <= self.half and self.mean + self.half >= 1)


@dataclass(frozen=True)
class Comparison:
    """A method minus the baseline, over the seeds that both have.

    ``difference`` is the mean of the paired differences and ``low``…``high`` its t-interval; ``p``
    comes from the paired t-test and ``p_holm`` is corrected over the methods compared with the same
    baseline. ``improvement`` is the probability that a seed of the method beats one of the
    baseline, ties counting half (Mann-Whitney). ``detectable`` is the smallest true difference that
    n seeds of this spread show with 80 % power at the strictest level of Holm's procedure.
    ``correlation`` (Pearson, of the paired values) tells whether pairing by seed gained anything.
    ``equivalent`` is whether `equivalence` shows the difference to be within ±`MARGIN`.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    improvement: float | None
    detectable: float | None
    n: int
    correlation: float | None
    equivalent: bool = False


def mean_interval(values: Values, level: float = LEVEL) -> Interval:
    """Student's t-interval of a mean; values that are all equal have half-width 0.

    Raises ``ValueError`` without values and for values that are not finite.

    >>> mean_interval([0.95, 0.96, 0.97]).half
    0.02484...
    >>> mean_interval([0.95])
    Interval(mean=0.95, std=None, half=None, n=1)
    """
    array = np.asarray(values, dtype=float)
    if not array.size:
        raise ValueError("an interval needs at least one value")
    if not np.isfinite(array).all():
        raise ValueError(f"an interval needs finite values, not {array[~np.isfinite(array)][0]}")
    n = array.size
    if array.min() == array.max():  # rounding must not make a spread of nothing
        spread = 0.0 if n > 1 else None
        return Interval(float(array[0]), spread, spread, n)
    std = float(array.std(ddof=1))
    half = quantile((1 + level) / 2, n - 1) * std / math.sqrt(n)
    return Interval(float(array.mean()), std, half, n)


@functools.lru_cache(maxsize=1024)
def quantile(share: float, degrees: int) -> float:
    """The quantile of Student's t; of a table with thousands of cells each needs the same one."""
    from scipy.stats import t

    return float(t.ppf(share, degrees))


def compare(values: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Comparison]:
    """Each method of a column against its baseline, paired over the seeds that both have.

    Paired t-tests; Holm's correction over all tests of the column. Without two common
    seeds, or with differences that are all equal, there is no test and ``p`` is None. Raises
    ``ValueError`` when the baseline is not among the methods.
    """
    if baseline not in values:
        raise ValueError(f"the baseline {baseline!r} is not among: {', '.join(values)}")
    base = values[baseline]
    return compare_pairs(
        {method: (seeds, base) for method, seeds in values.items() if method != baseline}
    )


def compare_pairs(
    pairs: Mapping[Name, tuple[Mapping[int, float], Mapping[int, float]]],
) -> dict[Name, Comparison]:
    """Any methods against any others, paired over the seeds that both have.

    Paired t-tests; Holm's correction over all of the pairs that can be tested.

    Args:
        pairs: The values of a method and of its rival by seed, for each comparison.
    """
    found = {name: _paired(ours, base, len(pairs)) for name, (ours, base) in pairs.items()}
    tested = {name: each.p for name, each in found.items() if each.p is not None}
    if tested:
        for name, p in zip(tested, holm(list(tested.values())), strict=True):
            found[name] = replace(found[name], p_holm=p)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for how many there are (Holm 1979): at most 1, in the order given.

    The k-th smallest of m is multiplied by m - k + 1, and none is below one that was smaller.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(each) for each in corrected]


def _paired_values(
    ours: Mapping[int, float], base: Mapping[int, float]
) -> tuple[Num[ndarray, " n"], Num[ndarray, " n"], Num[ndarray, " n"]]:
    """The values of the seeds that both have, and their differences."""
    seeds = [seed for seed in ours if seed in base]
    a = np.array([ours[seed] for seed in seeds], dtype=float)
    b = np.array([base[seed] for seed in seeds], dtype=float)
    differences = a - b
    if seeds and np.ptp(differences) <= 1e-12 * max(np.abs(a).max(), np.abs(b).max()):
        differences[:] = differences[0]  # rounding must not make a spread of nothing
    return a, b, differences


def _paired(ours: Mapping[int, float], base: Mapping[int, float], tests: int) -> Comparison:
    a, b, differences = _paired_values(ours, base)
    if not a.size:
        return Comparison(None, None, None, None, None, None, None, 0, None)
    ordered = np.sort(b)
    # of all pairs, those in which a is greater minus those in which b is
    below, above = (int(np.searchsorted(ordered, a, side).sum()) for side in ("left", "right"))
    improvement = ((below + above - a.size**2) / a.size**2 + 1) / 2
    interval = mean_interval(differences)
    p = detectable = None
    if interval.std:
        from scipy.stats import ttest_rel

        p = float(ttest_rel(a, b).pvalue)
        detectable = effect(a.size, 0.05 / tests) * interval.std
    return Comparison(
        interval.mean, interval.low, interval.high, p, None, improvement, detectable,
        a.size, _correlation(a, b),
        abs(interval.mean) < MARGIN and equivalence(ours, base).verdict == "yes",
    )  # fmt: skip


def _correlation(a: Num[ndarray, " n"], b: Num[ndarray, " n"]) -> float | None:
    """Pearson's, or None below three pairs (two always agree perfectly) and without spread."""
    if a.size < 3 or a.min() == a.max() or b.min() == b.max():
        return None
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True)
class Equivalence:
    """Whether two methods are equally good, up to a margin.

    Attributes:
        verdict: ``"yes"``: they differ by less than the margin. ``"no"``: they differ by more.
            ``"undecided"``: the seeds show neither.
        margin: The largest difference that counts as none.
        p: The p-value of "they differ by the margin or more", the larger of the two one-sided ones;
            None without two common seeds or without a spread.
        low: The lower end of the interval that is within the margin where the verdict is yes.
        high: Its upper end; both are None where ``p`` is.
        n: The number of common seeds.
    """

    verdict: Answer
    margin: float
    p: float | None
    low: float | None
    high: float | None
    n: int


def equivalence(
    ours: Mapping[int, float],
    base: Mapping[int, float],
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> Equivalence:
    """Test whether two methods are equally good: two one-sided t-tests of the paired differences.

    With d the mean of the n differences ours - base and e its standard error, the tests
    (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987, 657-680) reject "the
    true difference is -margin or less" where (d + margin) / e, and "it is +margin or more" where
    (margin - d) / e, exceeds the 1 - alpha quantile of Student's t with n - 1 degrees of freedom.
    Both reject, and the verdict is ``"yes"``, exactly where the 1 - 2 alpha interval of d lies
    within ±margin. The verdict is ``"no"`` where the 1 - alpha interval, the one that tables show,
    is wholly beyond the margin on one side. Either is wrong with a probability of at most alpha.

    Deviation: differences that are all equal have no standard error, and the verdict is
    ``"undecided"``, since accuracies on few test images agree by chance.

    Args:
        ours: The values of one method by seed, as fractions.
        base: Those of the other.
        margin: The largest difference that counts as none, above 0.
        alpha: The probability of a wrong answer, above 0 and below 0.5.

    Raises:
        ValueError: The margin or alpha is out of its range, or a value is not finite.

    >>> near = equivalence({0: 0.911, 1: 0.921, 2: 0.930}, {0: 0.910, 1: 0.921, 2: 0.931})
    >>> near.verdict, round(near.p, 4), near.n
    ('yes', 0.0065, 3)
    >>> equivalence({0: 0.95}, {0: 0.91}).verdict
    'undecided'
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"the margin is {margin}: it must be above 0 and finite")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}: it must be above 0 and below 0.5")
    *_, differences = _paired_values(ours, base)
    n = differences.size
    inner = mean_interval(differences, 1 - 2 * alpha) if n else None
    if inner is None or not inner.std:
        return Equivalence("undecided", margin, None, None, None, n)
    from scipy.stats import t

    error = inner.std / math.sqrt(n)
    p = float(t.sf((margin - abs(inner.mean)) / error, n - 1))
    outer = mean_interval(differences, 1 - alpha)
    answer: Answer = "undecided"
    if p < alpha:
        answer = "yes"
    elif abs(outer.mean) - (outer.half or 0) > margin:
        answer = "no"
    return Equivalence(answer, margin, p, inner.low, inner.high, n)


@functools.lru_cache(maxsize=1024)
def effect(n: int, alpha: float, power: float = POWER) -> float:
    """The smallest effect, in standard deviations, that a two-sided t-test of n pairs detects.

    Own quadrature over the chi distribution of the sample deviation: at the small n and strict
    levels used here, the solver of statsmodels 0.15 and the tail of scipy's non-central t fail.

    >>> round(effect(5, 0.05), 2), round(effect(5, 0.05 / 6), 2)
    (1.68, 2.76)
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    degrees = n - 1
    critical = t.ppf(1 - alpha / 2, degrees)
    shares = (np.arange(4000) + 0.5) / 4000
    limits = critical * np.sqrt(chi2.ppf(shares, degrees) / degrees)
    shift = brentq(lambda mean: norm.cdf(mean - limits).mean() - power, 0, limits[-1] + 10)
    return float(shift / math.sqrt(n))


@functools.lru_cache(maxsize=4096)  # tables ask for the same few again and again
def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a success rate, (low, high).

    Raises ``ValueError`` unless 0 <= successes <= n and n is at least 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes among {n}: there is no rate")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def verdict(comparison: Comparison) -> str:
    """What a comparison of two accuracies shows, in plain words.

    >>> verdict(Comparison(0.0042, 0.002, 0.0064, 0.004, 0.013, 1.0, 0.002, 5, None))
    '+0.42 points, significant (Holm p = 0.013)'
    """
    if comparison.difference is None:
        return "no seed in common with the baseline"
    points = f"{round(100 * comparison.difference, 2) + 0.0:+.2f} points"  # never -0.00
    if comparison.n == 1:
        return f"{points} with a single seed, which cannot be tested"
    if comparison.p_holm is None or comparison.detectable is None:
        return f"{points} in each of {comparison.n} seeds, without a spread to test against"
    holm = p_value(comparison.p_holm)
    holm = holm if holm.startswith("<") else f"= {holm}"
    if comparison.p_holm < ALPHA:
        return f"{points}, significant (Holm p {holm})"
    return (
        f"{points}, not resolvable with {comparison.n} seeds (Holm p {holm}): an effect below "
        f"{two_digits(100 * comparison.detectable)} points would be shown with less than 80 % power"
    )


def decision(
    comparison: Comparison, equal: Equivalence, best: Literal["high", "low"] = "high"
) -> Verdict:
    """What a fixed number of seeds shows about a method and its baseline.

    A difference that is significant after Holm's correction comes first, however small it is.

    Args:
        comparison: The test of difference.
        equal: The test of equivalence on the same seeds.
        best: Whether high or low values are better.

    >>> decision(
    ...     Comparison(0.0042, 0.002, 0.0064, 0.004, 0.013, 1.0, 0.002, 5, None),
    ...     Equivalence("undecided", 0.005, 0.2, 0.003, 0.0054, 5),
    ... )
    'better'
    """
    if comparison.difference and comparison.p_holm is not None and comparison.p_holm < ALPHA:
        return "better" if (comparison.difference > 0) == (best == "high") else "worse"
    return "equivalent" if equal.verdict == "yes" else "undecided"


def two_digits(value: float) -> str:
    """A number to two significant digits, without an exponent.

    >>> two_digits(0.524), two_digits(123.0), two_digits(0.0000123)
    ('0.52', '120', '0.000012')
    """
    return f"{Decimal(f'{value:.2g}'):f}"


def p_value(p: float) -> str:
    """A p-value as it is printed.

    >>> p_value(0.0312), p_value(1e-5)
    ('0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
