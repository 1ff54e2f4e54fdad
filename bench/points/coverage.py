"""What augmentations really delete, and how many points images have: evidence beside accuracies.

A mask that was meant to delete 20 to 40 % of an image deletes less where points are few, so the
accuracy of a run says little about an augmentation without the share that it has deleted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from augmentations import Augmentation
from bench import registry
from bench.data import masks, seeds
from bench.data.dataset import Dataset
from bench.points.store import Points, describe_counts

TOLERATED = 0.1
"""Share of the masks that may delete less than their lower bound before a warning says so."""

MOST = 5000
"""Number of images whose masks are measured, if a dataset has more."""

BLOCK = 1024  # images whose masks are drawn at once, from one stream


@dataclass(frozen=True)
class Coverage:
    """What the masks of an augmentation delete.

    Attributes:
        augmentation: The augmentation.
        deleted: Number of pixels that each mask deletes, shape (n,).
        pixels: Number of pixels of an image.
    """

    augmentation: Augmentation
    deleted: Int[Tensor, " n"]
    pixels: int

    @property
    def shares(self) -> Shaped[Tensor, " n"]:
        """The deleted share of each image."""
        return self.deleted / self.pixels

    @property
    def metrics(self) -> dict[str, float]:
        """``deleted_share`` and the shares of masks that miss a bound; see `masks.describe`."""
        return masks.describe(self.deleted, self.pixels, self.augmentation)

    @property
    def warning(self) -> str | None:
        """One line if too many masks delete less than their lower bound, else None."""
        return warning(self.augmentation, self.metrics)

    def __str__(self) -> str:
        found, name = self.metrics, type(self.augmentation).__name__
        line = f"masks of {name} delete {found['deleted_share']:.1%} of an image on average"
        if (limits := masks.bounds(self.augmentation)) is not None:
            line += (
                f"; {found['masks_below_minimum']:.1%} of them delete less than its lower bound of "
                f"{limits[0]:.0%}, {found['masks_at_maximum']:.1%} reach its upper bound of "
                f"{limits[1]:.0%}"
            )
        return line


def measure(
    augmentation: Augmentation,
    count: int,
    size: tuple[int, int],
    guide: Shaped[Tensor, "n 1 h w"] | None = None,
) -> Coverage:
    """Draw one mask for each of some images and count what it deletes.

    Every image gets a mask, whatever the share of masked images in training, and neither images nor
    guide are cropped or mirrored. The same arguments give the same masks.

    Args:
        augmentation: The augmentation.
        count: Number of images, n.
        size: Height and width of the images.
        guide: One map per image, shape (n, 1, h, w); needed where the augmentation wants one.

    Raises:
        ValueError: A guide is needed and missing, or does not fit.
    """
    if guide is not None and guide.shape != (count, 1, *size):
        raise ValueError(
            f"the guide has shape {tuple(guide.shape)}, not {(count, 1, *size)}: one map per image"
        )
    counts = [torch.zeros(0, dtype=torch.int64)]
    for block, ids in enumerate(torch.arange(count).split(BLOCK)):
        blank = torch.zeros(1, 1, 1, 1).expand(len(ids), 3, *size)  # only its shape counts
        own = guide[ids].float() if guide is not None and augmentation.wants is not None else None
        mask = augmentation.mask(blank, seeds.generator(0, "coverage", block), own)
        counts.append(mask.flatten(1).sum(1).cpu())
    return Coverage(augmentation, torch.cat(counts), math.prod(size))


def of_advmask(points: Points, data: Dataset) -> Coverage:
    """Return what AdvMask's masks on points delete, with the hyperparameters of the dataset.

    Args:
        points: Points of the training images.
        data: The dataset.
    """
    h, w = data.train.images.shape[-2:]
    augmentation = registry.build("augmentations", "advmask", data=data.name, side=w)
    ids = sample(len(points))
    return measure(augmentation, len(ids), (h, w), points.guide()[ids])


def sample(count: int, most: int = MOST) -> Int[Tensor, " n"]:
    """Indices of at most ``most`` of ``count`` images, at even distances.

    >>> sample(7, 3).tolist(), sample(3).tolist()
    ([0, 3, 6], [0, 1, 2])
    """
    if count <= most:
        return torch.arange(count)
    return torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()


def of_guide(guide: Bool[Tensor, "n 1 h w"]) -> dict[str, float]:
    """Return statistics of the points of a guide, as records carry them.

    Args:
        guide: One map per training image, True at its points.

    Returns:
        ``points_mean``, ``points_median``, ``points_least`` and ``points_most`` (per image), and
        ``images_without_points`` (a share of the images).
    """
    return of_counts(guide.flatten(1).sum(1))


def of_counts(counts: Int[Tensor, " n"]) -> dict[str, float]:
    """Return what `of_guide` does, from the number of points of each image."""
    return describe_counts(counts) | {"images_without_points": float((counts == 0).double().mean())}


def of_points(points: Points) -> dict[str, float]:
    """Return statistics of points and of their search, as records carry them.

    Args:
        points: The points.

    Returns:
        What `of_guide` gives for their guide; ``images_broken``, the share of the training images
        on which the attack succeeded; and ``victim_accuracy``, the share that the victim model
        classifies correctly, where it is known. Predicted points have ``points_agreement`` as well,
        the share of the attack's points that they find, and ``points_epochs``, what they cost.
    """
    return of_counts(points.counts) | of_search(points)


def of_search(points: Points) -> dict[str, float]:
    """Return the part of `of_points` that says how the search went."""
    summary = points.summary()
    known = {"images_broken": summary["success"]}
    if "victim_accuracy" in summary:
        known["victim_accuracy"] = summary["victim_accuracy"]
    agreement, cost = points.about.get("agreement"), points.about.get("cost")
    if _numbers(agreement, ("found",)):
        known["points_agreement"] = float(agreement["found"])
    if _numbers(cost, ("epochs",)):
        known["points_epochs"] = float(cost["epochs"])
    return known


def of_prediction(about: Mapping[str, Any]) -> list[str]:
    """Return lines on what predicted points have cost and how far they agree with the attack's.

    Args:
        about: What is stored with points; points that were attacked give no lines.
    """
    lines = []
    cost, agreement = about.get("cost"), about.get("agreement")
    if _numbers(cost, ("passes", "epochs", "cheaper", "exact_passes", "seconds")):
        lines.append(
            f"{cost['passes']:.1f} forward and backward passes per image, as many as in "
            f"{cost['epochs']:.2g} epochs, {cost['cheaper']:.0f} times fewer than the attack's "
            f"{cost['exact_passes']:.0f}; {cost['seconds']:.0f} s"
        )
    if _numbers(agreement, ("images", "found", "chance", "near")):
        lines.append(
            f"on {agreement['images']} images that the estimator has not seen, "
            f"{agreement['found']:.0%} of the attack's points are among as many predicted ones "
            f"(by chance {agreement['chance']:.0%}), {agreement['near']:.0%} within one pixel"
        )
    return lines


def _numbers(found: Any, names: Sequence[str]) -> TypeGuard[dict[str, float]]:
    """Whether something read from a file has these numbers."""
    return isinstance(found, dict) and all(isinstance(found.get(n), int | float) for n in names)


def warning(augmentation: Augmentation, metrics: Mapping[str, float]) -> str | None:
    """Return one line if too many masks delete less than the lower bound of their augmentation.

    Args:
        augmentation: The augmentation.
        metrics: What its masks delete, with ``masks_below_minimum`` where it has bounds.

    Returns:
        The line; None if at most `TOLERATED` of the masks do, or nothing is known.

    >>> from augmentations import AdvMask
    >>> warning(AdvMask(), {"masks_below_minimum": 0.1})
    >>> print(warning(AdvMask(), {"masks_below_minimum": 0.56}).partition(":")[0])
    56 % of the masks of AdvMask delete less than its lower bound of 20 %
    """
    limits, below = masks.bounds(augmentation), metrics.get("masks_below_minimum", 0.0)
    if limits is None or not below > TOLERATED:
        return None
    name = type(augmentation).__name__
    return (
        f"{100 * below:.0f} % of the masks of {name} delete less than its lower bound of "
        f"{100 * limits[0]:.3g} %: there are too few points, or the option ratio is too narrow a "
        "range for its squares; use the points of an attack that changes more pixels, or of "
        "another victim model, or widen ratio"
    )
