"""What one evaluation shows about an attack: shares and medians over its images, with intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from bench.records.statistics import LEVEL, Values, optimality, wilson


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
