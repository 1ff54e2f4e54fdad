"""How much of an image masks delete, and how often they miss the bounds of their augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from augmentations import Augmentation

NAMES = ("deleted_share", "masks_below_minimum", "masks_at_maximum")
"""What `describe` measures, as records name it."""


def bounds(augmentation: Augmentation) -> tuple[float, float] | None:
    """The least and the largest share of an image that an augmentation means to delete.

    Args:
        augmentation: The augmentation.

    Returns:
        p_min and p_max of AdvMask; None for every other augmentation.
    """
    from augmentations import AdvMask

    return augmentation.ratio if isinstance(augmentation, AdvMask) else None


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
        ones included; nothing at all if no mask was due. Of AdvMask, whose bounds are (p_min,
        p_max), two more shares of these masks: ``masks_below_minimum`` delete less than p_min, or
        less than p_max where no whole number of pixels lies between the two;
        ``masks_at_maximum`` would delete more than p_max with one more of the smallest squares,
        ``length[0]**2`` pixels.

    >>> import torch
    >>> from augmentations import AdvMask
    >>> deleted = torch.tensor([0, 20, 36, 37, 40, -1])
    >>> describe(deleted, 100, AdvMask(length=(2, 3), ratio=(0.2, 0.4)))
    {'deleted_share': 0.266, 'masks_below_minimum': 0.2, 'masks_at_maximum': 0.4}
    """
    from augmentations import AdvMask

    due = deleted[deleted >= 0]
    if not len(due):
        return {}
    found = {"deleted_share": int(due.sum()) / (len(due) * pixels)}
    if isinstance(augmentation, AdvMask):
        (low, high), square = augmentation.ratio, augmentation.length[0] ** 2
        # as AdvMask rounds them: a product of fractions may end a hair beside a whole number
        most = int(high * pixels + 1e-9)
        least = min(low * pixels - 1e-9, most)
        found["masks_below_minimum"] = int((due < least).sum()) / len(due)
        found["masks_at_maximum"] = int((due > most - square).sum()) / len(due)
    return found
