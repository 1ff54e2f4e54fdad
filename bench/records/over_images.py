"""What evaluations show about attacks: shares and medians over images, and tests between two."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num
from numpy import ndarray

from bench.records.statistics import LEVEL, Values, mean_interval, wilson


@dataclass(frozen=True)
class OverImages:
    """A share or a median over the n images of one evaluation.

    Attributes:
        value: The share or the median; infinity for a median where the attack failed on
            most images.
        low: The lower end of its 95 % interval; None where n images do not give one.
        high: The upper end; infinity where it is among the failures.
        n: The number of images.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def share(successes: int, n: int) -> OverImages:
    """A success rate with Wilson's interval.

    Raises ``ValueError`` unless 0 <= successes <= n and n is at least 1.

    >>> share(5, 10)
    OverImages(value=0.5, low=0.2365..., high=0.7634..., n=10)
    """
    return OverImages(successes / n if n else 0.0, *wilson(successes, n), n)


def median(values: Values, level: float = LEVEL) -> OverImages:
    """The median with the distribution-free interval between two order statistics.

    The interval from the r-th smallest to the r-th largest value holds the true median with a
    probability of 1 - 2 P(B < r), B binomial with n trials and probability 1/2 (Conover, Practical
    Nonparametric Statistics, section 3.2); r is the largest number with which that is at least
    ``level``. Below six values there is none.

    Args:
        values: One number for each image, infinity for a failure.
        level: The probability that the interval holds the median.

    Raises:
        ValueError: There is no value, or one is not a number.

    >>> median([3.0, 1.0, 2.0, 7.0, 5.0, 4.0, 6.0])
    OverImages(value=4.0, low=1.0, high=7.0, n=7)
    >>> median([2.0, float("inf"), float("inf")]).value
    inf
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = ordered.size
    if not n or np.isnan(ordered).any():
        raise ValueError("a median needs at least one value, and each must be a number")
    below, above = ordered[(n - 1) // 2], ordered[n // 2]
    middle = float(below if below == above else (below + above) / 2)
    from scipy.stats import binom

    rank = int(binom.ppf((1 - level) / 2, n, 0.5))  # the smallest with P(B <= rank) >= 2.5 %
    if rank < 1:
        return OverImages(middle, None, None, n)
    return OverImages(middle, float(ordered[rank - 1]), float(ordered[n - rank]), n)


def quartiles(name: str, distances: np.ndarray) -> dict[str, float]:
    """Median and quartiles with failures as infinite, by ``name_median`` and its like.

    Infinite ones are left out.
    """
    ordered = np.sort(distances)
    found = {}
    for label, part in (("median", 0.5), ("q25", 0.25), ("q75", 0.75)):
        place = part * (len(ordered) - 1)
        below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
        if np.isfinite(above):
            found[f"{name}_{label}"] = float(below + (place % 1) * (above - below))
    return found


def extremes(name: str, distances: np.ndarray) -> dict[str, float]:
    """Success and mean distance at each image's easiest and hardest goal (rows are goals)."""
    found: dict[str, float] = {}
    for label, extreme in (("best", distances.min(0)), ("worst", distances.max(0))):
        broken = np.isfinite(extreme)
        found[f"success_{label}"] = float(broken.mean())
        if broken.any():
            found[f"{name}_{label}"] = float(extreme[broken].mean())
    return found


def success_curve(pixels: np.ndarray, elements: np.ndarray) -> list[dict[str, float]]:
    """The share of images on which an attack succeeds with at most so many changes.

    Args:
        pixels: Changed pixels of each image, infinity for failures.
        elements: Changed elements likewise.

    Returns:
        One entry per number of ``changes`` at which the share in ``pixels`` or ``elements`` rises.
    """
    counts = np.unique(np.concatenate([pixels, elements]))
    return [
        {
            "changes": float(count),
            "pixels": float((pixels <= count).mean()),
            "elements": float((elements <= count).mean()),
        }
        for count in counts[np.isfinite(counts)]
    ]


def finite(value: float | None) -> float | None:
    """A number for JSON, which has no infinity: None instead."""
    return value if value is not None and math.isfinite(value) else None


RELATED = tuple(
    f"{name}{unit}" for name in ("optimality", "l0_common", "common") for unit in ("", "_elements")
)
"""Metrics of an attack that depend on which others it is compared with."""


def relate(
    distances: Mapping[str, np.ndarray], references: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """Compare attacks on the same images.

    Args:
        distances: l0 of each image by attack, infinity for failures.
        references: Names of attacks that are not sparse.

    Returns:
        For each attack ``l0_common``, the mean l0 over the ``common`` images on which all sparse
        attacks succeed, and AttackBench's ``optimality`` (`bench.records.statistics.optimality`);
        each is left out where it does not exist.
    """
    sparse = [values for name, values in distances.items() if name not in references]
    common = np.isfinite(np.stack(sparse)).all(0) if sparse else np.zeros(0, bool)
    found: dict[str, dict[str, float]] = {}
    for name, value in optimality(distances).items():
        found[name] = {} if value is None else {"optimality": value}
        if common.any() and np.isfinite(distances[name][common]).all():
            found[name] |= {
                "l0_common": float(distances[name][common].mean()),
                "common": float(common.sum()),
            }
    return found


def relate_units(
    distances: Mapping[str, Mapping[str, np.ndarray]], references: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """`relate` in pixels and in elements, whose metrics end in ``_elements``.

    Args:
        distances: The distances of each attack, by unit.
        references: Names of attacks that are not sparse.
    """
    found: dict[str, dict[str, float]] = {}
    for unit, suffix in (("elements", "_elements"), ("pixels", "")):
        for name, values in relate(distances[unit], references).items():
            found.setdefault(name, {}).update({f"{n}{suffix}": v for n, v in values.items()})
    return found


@dataclass(frozen=True)
class PairedImages:
    """Two attacks, a and b, on the same images, and Wilcoxon's test.

    Attributes:
        less: Images on which a changed less than b.
        more: Images on which it changed more.
        same: Images on which it changed as much, or on which both failed.
        ranks: The sum of the signed ranks that the test is about: below 0 where a needs less.
        difference: The median of a minus b over the images that both broke; None without any.
        mean: The mean of a minus b over these images.
        mean_low: The lower end of its 95 % t-interval; None for fewer than two images.
        mean_high: The upper end.
        p: The p-value; None when no image differs.
    """

    less: int
    more: int
    same: int
    ranks: float
    difference: float | None
    mean: float | None
    mean_low: float | None
    mean_high: float | None
    p: float | None


def paired_images(a: Values, b: Values) -> PairedImages:
    """Wilcoxon's signed-rank test of two attacks' distances on the same images.

    An image on which an attack failed has the distance infinity. Broken by one attack only, it
    counts as the largest difference there is; broken by neither, as none. Zeros are ranked as Pratt
    (1959) does. ``p`` is None when no image differs. Raises ``ValueError`` for lists of different
    lengths.
    """
    ours, theirs = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if ours.shape != theirs.shape or np.isnan(ours).any() or np.isnan(theirs).any():
        raise ValueError(
            f"{ours.size} and {theirs.size} distances: give one number for each image and attack"
        )
    both = np.isfinite(ours) & np.isfinite(theirs)
    differences = np.zeros(ours.shape)
    differences[both] = ours[both] - theirs[both]
    largest = 2 * np.abs(differences).max(initial=0) + 1
    differences[np.isinf(ours) & ~np.isinf(theirs)] = largest
    differences[~np.isinf(ours) & np.isinf(theirs)] = -largest
    p, ranks = None, 0.0
    if differences.any():
        from scipy.stats import rankdata

        p = _wilcoxon(differences)
        ranks = float((np.sign(differences) * rankdata(np.abs(differences))).sum())
    less, more = int((differences < 0).sum()), int((differences > 0).sum())
    same = ours.size - less - more
    if not both.any():
        return PairedImages(less, more, same, ranks, None, None, None, None, p)
    median, mean = float(np.median(differences[both])), mean_interval(differences[both])
    low, high = (None, None) if mean.half is None else (mean.low, mean.high)
    return PairedImages(less, more, same, ranks, median, mean.mean, low, high, p)


EXACT = 10**8
"""Additions up to which the exact distribution is computed, some tenths of a second."""


def _wilcoxon(differences: Num[ndarray, " n"]) -> float:
    """Wilcoxon's two-sided p-value, zeros ranked as Pratt does; not all differences are zero.

    Exact with ties and zeros, given the ranks: the generating function of the sum of ranks is the
    product of (1 + x^rank) / 2. The usual normal approximation claims too much where most images
    tie: 0.046 for four of 200 images that differ in the same direction, which is 0.125. Only for
    thousands of images it is taken, as scipy computes it.
    """
    from scipy.stats import rankdata, wilcoxon

    doubled = np.rint(2 * rankdata(np.abs(differences))).astype(int)  # ranks of ties end in a half
    ranks = doubled[differences != 0]
    if len(ranks) * ranks.sum() > EXACT:
        return float(wilcoxon(differences, zero_method="pratt").pvalue)
    chances = np.ones(1)
    for rank in np.sort(ranks):
        both = np.zeros(len(chances) + rank)
        both[: len(chances)] += chances / 2
        both[rank:] += chances / 2
        chances = both
    found = doubled[differences > 0].sum()
    return float(min(1.0, 2 * min(chances[: found + 1].sum(), chances[found:].sum())))


def optimality(distances: Mapping[str, Num[ndarray, " n"]]) -> dict[str, float | None]:
    """How close each attack comes to the best of all attacks on each image, from 0 to 1.

    The local optimality of AttackBench (Cinà et al., AAAI 2025): with A the area under the robust
    accuracy as a function of the budget, up to the largest of the best distances d0, it is
    ``1 - (A - A*) / (clean * d0 - A*)``. ``distances`` hold one number for each image, infinity
    where the attack failed and 0 where the model was wrong already. None when every image has the
    same best distance or none was broken. Deviation: the areas are exact (the mean of min(distance,
    d0) is the area under a step function), where AttackBench samples them with trapezoids.
    """
    if not distances:
        return {}
    stacked = np.stack([np.asarray(each, dtype=float) for each in distances.values()])
    best = stacked.min(axis=0)
    broken = best[np.isfinite(best)]
    limit = float(broken.max()) if broken.size else 0.0
    envelope = float(np.minimum(best, limit).mean())
    room = float((best > 0).mean()) * limit - envelope
    if room <= 1e-12 * limit:
        return dict.fromkeys(distances)
    areas = np.minimum(stacked, limit).mean(axis=1)
    return {
        name: float(1 - (area - envelope) / room)
        for name, area in zip(distances, areas, strict=True)
    }
