"""Cutout: one square per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from augmentations.base import (
    Fill,
    Guide,
    Images,
    Mask,
    Ramp,
    extent,
    on_device_of,
    rectangles,
    scaled,
)
from augmentations.checks import pixels
from augmentations.relocation import Movable, Rule, demanded, move_rectangles

PUBLISHED = {"cifar10": 16, "cifar100": 8, "svhn": 20}  # lengths for images of 32 x 32


@dataclass(frozen=True)
class Cutout(Movable):
    """Delete one square per image (DeVries and Taylor 2017, section 3).

    The centre is uniform over the pixels, so squares may reach over the border and are clipped: at
    32 pixels, length 16 deletes 19 % of an image on average. As in the released code the square
    reaches ``length // 2`` pixels to each side, so an odd ``length`` acts as the even one below.

    Args:
        length: Side of the square in pixels, 2 to 1,000,000.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.
        points: ``"seek"`` or ``"avoid"`` move what was drawn, a square or what the border leaves of
            it, to a place inside the image with many or few points; see
            `augmentations.relocation`. Not in the paper.

    Raises:
        ValueError: The length is out of range, or ``fill`` or ``points`` is unknown.

    >>> images = torch.zeros(2, 3, 32, 32)
    >>> mask = Cutout(length=8).mask(images, torch.Generator().manual_seed(0))
    >>> mask.shape, mask.sum((1, 2, 3)).tolist()
    (torch.Size([2, 1, 32, 32]), [64, 32])
    """

    length: int = 16
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    points: Rule = "ignore"

    def __post_init__(self) -> None:
        pixels("length", self.length, least=2)
        super().__post_init__()

    @classmethod
    def preset(cls, data: str, side: int) -> Cutout:
        """The published length for CIFAR-10, CIFAR-100 and SVHN, in proportion to the side.

        Other datasets get CIFAR-10's.
        """
        return cls(length=max(2, scaled(PUBLISHED.get(data, PUBLISHED["cifar10"]), side)))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw the centre's row, then its column, for every image; then, if due, a better place.

        Raises ``ValueError`` where points are sought or avoided and the guide is missing.
        """
        b, h, w = extent(images)
        here = on_device_of(images)
        row, column = (
            here(torch.randint(size, (b,), generator=generator, device=generator.device))
            for size in (h, w)
        )
        half = self.length // 2
        side = torch.full_like(row, 2 * half)
        mask = rectangles(row - half, column - half, side, side, images)
        if self.points == "ignore":
            return mask
        guide = demanded(guide, images, "Cutout")
        return move_rectangles(mask, guide, images, self.points, generator)
