"""An augmentation of one's own.

bench run --aug none --aug examples/stripes.py:Stripes
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp
from augmentations.checks import choice, whole


@dataclass(frozen=True)
class Stripes:
    """Delete vertical stripes at a random offset.

    Args:
        width: Width of a stripe in pixels; the gap between two is twice as wide.
        share: Share of the images that get a mask, as training goes on.
        fill: What replaces a deleted pixel: ``"mean"`` or ``"noise"``.

    Raises:
        ValueError: The width is no whole number from 1, or ``fill`` is unknown.

    >>> mask = Stripes(2).mask(torch.zeros(1, 3, 1, 9), torch.Generator().manual_seed(0))
    >>> mask.int().tolist()
    [[[[0, 0, 0, 0, 1, 1, 0, 0, 0]]]]
    """

    wants: ClassVar[str | None] = None  # no guide
    width: int = 4
    share: Ramp = Ramp(0.5)
    fill: Fill = "mean"

    def __post_init__(self) -> None:
        whole("width", self.width)
        if self.width < 1:
            raise ValueError(f"width is {self.width}: a stripe needs at least 1 pixel")
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> "Stripes":
        """The hyperparameters for a dataset with images of ``side`` pixels."""
        return cls(width=max(1, side // 8))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """One mask per image, True where a pixel is deleted."""
        b, _, h, w = images.shape
        offset = torch.randint(3 * self.width, (b, 1), generator=generator)
        deleted = (torch.arange(w) + offset) // self.width % 3 == 0
        return deleted.view(b, 1, 1, w).expand(b, 1, h, w).to(images.device)
