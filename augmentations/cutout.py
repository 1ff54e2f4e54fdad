"""Cutout: one square per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, on_device_of, rectangles, scaled

PUBLISHED = {"cifar10": 16, "cifar100": 8, "svhn": 20}  # lengths for images of 32 x 32


@dataclass(frozen=True)
class Cutout:
    """Delete one square per image (DeVries and Taylor 2017, section 3).

    The centre is uniform over the pixels, so squares may stick out at the border and are clipped:
    at 32 pixels, length 16 deletes 19 % of an image on average. As in the released code the square
    reaches ``length // 2`` pixels to each side, so an odd ``length`` acts as the even one below.
    """

    length: int = 16  # side of the square in pixels
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"length is {self.length}: the square needs at least 2 pixels a side")

    @classmethod
    def preset(cls, data: str, side: int) -> Cutout:
        """The published length for CIFAR-10, CIFAR-100 and SVHN, in proportion to the side.

        Other data sets get CIFAR-10's.
        """
        return cls(length=max(2, scaled(PUBLISHED.get(data, PUBLISHED["cifar10"]), side)))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw the centre's row, then its column, for every image."""
        b, _, h, w = images.shape
        here = on_device_of(generator, images)
        row, column = (
            here(torch.randint(size, (b,), generator=generator, device=generator.device))
            for size in (h, w)
        )
        half = self.length // 2
        side = torch.full_like(row, 2 * half)
        return rectangles(row - half, column - half, side, side, images)
