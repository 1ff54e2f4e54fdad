"""How much of an image masks delete, and how often they miss the bounds of their augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from augmentations import Augmentation

NAMES = ("deleted_share", "masks_below_minimum", "masks_at_maximum")
"""What `describe` measures, as records name it."""


def check(augmentation: Augmentation) -> None:
    """Refuse an augmentation without the fields that training needs.

    Raises:
        ValueError: ``share`` or ``fill`` is missing or of another kind.
    """
    from augmentations.base import Fill, Ramp, choice

    name, share = type(augmentation).__name__, getattr(augmentation, "share", None)
    if not isinstance(share, Ramp):
        raise ValueError(f"{name}: share is {share!r}: give it a field share: Ramp = Ramp(0.5)")
    if not hasattr(augmentation, "fill"):
        raise ValueError(f"{name} has no fill: give it a field fill: str = 'mean', or 'noise'")
    try:
        choice("fill", augmentation.fill, Fill)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def bounds(augmentation: Augmentation) -> tuple[float, float] | None:
    """The least and the largest share of an image that an augmentation means to delete.

    Args:
        augmentation: The augmentation.

    Returns:
        Its ``ratio`` (p_min and p_max of AdvMask); None if it has no such pair.
    """
    ratio = getattr(augmentation, "ratio", None)
    return ratio if isinstance(ratio, tuple) else None


def describe(
    deleted: Int[Tensor, " n"], pixels: int, augmentation: Augmentation
) -> dict[str, float]:
    """What the masks of an augmentation delete.

    Args:
        deleted: Number of pixels that each mask deletes, shape (n,). Negative numbers stand for
            images that were not due for a mask, and are left out.
        pixels: Number of pixels of an image.
        augmentation: The augmentation that drew the masks.

    Returns:
        ``deleted_share``: the mean deleted share of an image, over all masks that were due, empty
        ones included. Where the augmentation has `bounds` (p_min, p_max), also the shares of the
        masks ``masks_below_minimum``, which delete less than p_min, and ``masks_at_maximum``, which
        leave less room below p_max than its smallest square takes (``length[0]**2`` pixels; one
        pixel without ``length``). Nothing at all if no mask was due.

    >>> import torch
    >>> from augmentations import AdvMask
    >>> deleted = torch.tensor([0, 20, 36, 37, 40, -1])
    >>> describe(deleted, 100, AdvMask(length=(2, 3), ratio=(0.2, 0.4)))
    {'deleted_share': 0.266, 'masks_below_minimum': 0.2, 'masks_at_maximum': 0.4}
    """
    due = deleted[deleted >= 0]
    if not len(due):
        return {}
    found = {"deleted_share": int(due.sum()) / (len(due) * pixels)}
    if (limits := bounds(augmentation)) is not None:
        low, high = limits
        square = getattr(augmentation, "length", (1, 1))[0] ** 2
        # as AdvMask rounds them: a product of fractions may end a hair beside a whole number
        least, most = low * pixels - 1e-9, int(high * pixels + 1e-9)
        found["masks_below_minimum"] = int((due < least).sum()) / len(due)
        found["masks_at_maximum"] = int((due > most - square).sum()) / len(due)
    return found
