"""Metrics and curves of an attack, and of several attacks on the same images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.records import over_images
from bench.records.statistics import mean_interval, wilson
from bench.robustness.best_so_far import BUDGETS, NEVER
from bench.robustness.judge import Verdict


@dataclass(frozen=True)
class Outcome:
    """What an attack did to n images, and what it used.

    Attributes:
        verdict: What the judge found.
        forwards: Forward passes of each image, shape (n,).
        backwards: Backward passes of each image, shape (n,).
        seconds: Seconds of all images together.
        passing: Seconds of it inside the victim model.
        memory: Peak memory in MiB, where the system reports it.
        errors: Errors of the attack by index of the image.
        fewest: Fewest changed pixels and elements of a success within each of
            `best_so_far.BUDGETS`, shape (n, budgets, 2); None where it was not noted.
    """

    verdict: Verdict
    forwards: Int[Tensor, " n"]
    backwards: Int[Tensor, " n"]
    seconds: float
    passing: float
    memory: float | None
    errors: Mapping[int, str]
    fewest: Int[Tensor, "n budgets 2"] | None = None


def join(parts: Sequence[Outcome]) -> Outcome:
    """Join the outcomes of several blocks of images, or of several goals."""
    verdicts = [part.verdict for part in parts]
    peaks = [part.memory for part in parts if part.memory is not None]
    noted = [part.fewest for part in parts if part.fewest is not None]
    return Outcome(
        verdict=Verdict(
            **{
                field.name: torch.cat([getattr(verdict, field.name) for verdict in verdicts])
                for field in dataclasses.fields(Verdict)
            }
        ),
        forwards=torch.cat([part.forwards for part in parts]),
        backwards=torch.cat([part.backwards for part in parts]),
        seconds=sum(part.seconds for part in parts),
        passing=sum(part.passing for part in parts),
        memory=max(peaks, default=None),
        errors={i: text for part in parts for i, text in part.errors.items()},
        fewest=torch.cat(noted) if len(noted) == len(parts) else None,
    )


def summarise(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the metrics of one attack with one seed.

    With several goals per image (all other classes), metrics are averages over images and goals;
    ``_best`` and ``_worst`` are those of each image's easiest and hardest goal. Mean norms are over
    the successes and missing without any; medians and quartiles count failures as infinite and are
    missing where they are infinite.

    Args:
        outcomes: One outcome per goal.
    """
    whole = join(outcomes)
    verdict, n = whole.verdict, len(whole.verdict.success)
    won = verdict.success
    metrics = {
        "images": float(n // len(outcomes)),
        "success": _mean(won),
        "misclassified": _mean(verdict.misclassified),
        "success_8bit": _mean(verdict.success_8bit),
        "errors": float(sum(len(each.errors) for each in outcomes)),
        **{
            name: float(getattr(verdict, name).sum())
            for name in ("not_finite", "outside_box", "beyond_eps")
        },
        **({"outside_region": strayed} if (strayed := float(verdict.outside_region.sum())) else {}),
        "forwards": _mean(whole.forwards),
        "backwards": _mean(whole.backwards),
        "forwards_max": float(whole.forwards.max()),
        "backwards_max": float(whole.backwards.max()),
        "seconds_per_image": whole.seconds / n,
    }
    low, high = _rate(outcomes)
    if low is not None and high is not None:
        metrics |= {"success_low": low, "success_high": high}
    if whole.passing:
        metrics["pass_ratio"] = whole.seconds / whole.passing
    if whole.memory is not None:
        metrics["peak_memory_mb"] = whole.memory
    metrics |= _norms(verdict)
    for unit in ("pixels", "elements"):
        distances = np.stack([each.verdict.distance(unit) for each in outcomes])
        metrics |= over_images.quartiles(f"l0_{unit}", distances.ravel())
        if len(outcomes) > 1:
            metrics |= over_images.extremes(f"l0_{unit}", distances)
    return metrics


def _norms(verdict: Verdict) -> dict[str, float]:
    """Return mean norms over the successes, and over those that remain after rounding."""
    won, kept = verdict.success, verdict.success_8bit
    found: dict[str, float] = {}
    if won.any():
        found |= {
            "l0_pixels_mean": _mean(verdict.l0_pixels[won]),
            "l0_elements_mean": _mean(verdict.l0_elements[won]),
            "l2": _mean(verdict.l2[won]),
            "linf": _mean(verdict.linf[won]),
            "linf_max": float(verdict.linf[won].max()),
        }
    if kept.any():
        found |= {
            "l0_pixels_8bit": _mean(verdict.l0_pixels_8bit[kept]),
            "l0_elements_8bit": _mean(verdict.l0_elements_8bit[kept]),
        }
    return found


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _rate(outcomes: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """Return Wilson's interval of the success, or `share_interval` where goals share an image."""
    successes = torch.stack([each.verdict.success for each in outcomes]).double()
    if len(outcomes) == 1:
        return wilson(int(successes.sum()), successes.shape[1])
    return share_interval(successes.mean(0).numpy())


def share_interval(shares: Float[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """Return Student's interval of the mean of n shares, cut off at 0 and 1.

    Both ends are None where all shares are equal, which says nothing about their spread.

    >>> share_interval(np.array([0.5, 1.0])), share_interval(np.array([1.0, 1.0]))
    ((0.0, 1.0), (None, None))
    """
    interval = mean_interval(shares)
    if not interval.std or interval.low is None or interval.high is None:
        return None, None
    return max(interval.low, 0.0), min(interval.high, 1.0)


def curve(verdict: Verdict) -> list[dict[str, float]]:
    """Return the share of images on which the attack succeeds with at most so many changes.

    One entry per number of ``changes`` at which the share in ``pixels`` or ``elements`` rises.
    """
    return over_images.success_curve(verdict.distance("pixels"), verdict.distance("elements"))


def per_image(outcomes: Sequence[Outcome]) -> list[dict[str, int | float]]:
    """Return what an attack did to each image, goal by goal.

    Each entry has ``misclassified`` and ``success_8bit`` (0 or 1), ``forwards`` and ``backwards``;
    where the attack succeeds also ``pixels``, ``elements``, ``l2`` and ``linf``.

    Args:
        outcomes: One outcome per goal.
    """
    whole = join(outcomes)
    verdict = whole.verdict
    norms = ("l0_pixels", "l0_elements", "l2", "linf")
    columns: dict[str, list[int | float]] = {
        "misclassified": verdict.misclassified.int().tolist(),
        "success_8bit": verdict.success_8bit.int().tolist(),
        "forwards": whole.forwards.tolist(),
        "backwards": whole.backwards.tolist(),
        **{name.removeprefix("l0_"): getattr(verdict, name).tolist() for name in norms},
    }
    kept = list(columns)[:4]
    return [
        {name: columns[name][image] for name in (columns if won else kept)}
        for image, won in enumerate(verdict.success.tolist())
    ]


def trace(outcomes: Sequence[Outcome]) -> list[dict[str, float]]:
    """Return what an attack had reached after so many passes, one entry per budget.

    Each entry has ``passes``, the share ``success`` of the images with a success by then, and the
    medians ``pixels`` and ``elements`` of the fewest changes so far, in which images without a
    success count as infinite; each with ``_low`` and ``_high``, the ends of its 95 % interval over
    the images. What is infinite or does not exist is left out, and so are all intervals where
    several goals share an image. Empty where nothing was noted.

    Args:
        outcomes: One outcome per goal.
    """
    whole = join(outcomes)
    if whole.fewest is None:
        return []
    counts = whole.fewest.double().numpy()
    counts[counts >= NEVER] = np.inf
    entries = []
    for place, passes in enumerate(BUDGETS):
        won = np.isfinite(counts[:, place, 0])
        found = {
            "success": over_images.share(int(won.sum()), len(won)),
            "pixels": over_images.median(counts[:, place, 0]),
            "elements": over_images.median(counts[:, place, 1]),
        }
        entry = {"passes": float(passes)}
        for name, each in found.items():
            ends = (each.low, each.high) if len(outcomes) == 1 else (None, None)
            named = {name: each.value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
            entry |= {key: v for key, v in named.items() if v is not None and np.isfinite(v)}
        entries.append(entry)
    return entries
