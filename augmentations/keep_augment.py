"""KeepAugment: Cutout that spares what matters most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import pad

from augmentations.base import Fill, Guide, Images, Mask, Ramp, on_device_of, rectangles, required
from augmentations.cutout import Cutout


@dataclass(frozen=True)
class KeepAugment:
    """Cutout at a uniform place among those of low importance (Gong et al. 2021, selective cut).

    The importance of a region is the sum of the guide over it, for all centres (clipped at the
    border as Cutout's). A centre is admissible where it lies below the ``quantile`` (tau) of the
    importances of all centres in that image; one of them is drawn at once, which is the law of the
    paper's redrawing until the region is admissible. Where no centre lies below the quantile, as
    under a constant guide, those that reach it count too.

    Deviations: length 16 and tau 0.6 are the paper's for CIFAR-10; other lengths follow the image's
    side. The guide is the caller's: in the paper the live saliency of the network in training.
    """

    length: int = 16  # side of the square in pixels, as Cutout's
    quantile: float = 0.6  # tau
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = "saliency"

    def __post_init__(self) -> None:
        Cutout(self.length)
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile is {self.quantile}: it must lie in [0, 1]")

    @classmethod
    def preset(cls, data: str, side: int) -> KeepAugment:
        """CIFAR-10's published values, which the paper uses for CIFAR-100 too, scaled to side."""
        return cls(length=Cutout.preset("cifar10", side).length)

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw one number per image: which of its admissible centres, in reading order.

        Raises ``ValueError`` without a guide and for one of another size or with negative or
        undefined values.
        """
        guide = required(guide, images, "KeepAugment", "the saliency of each pixel")
        b, _, h, w = images.shape
        half = self.length // 2
        importance = self.importance(guide)
        rank = 1 + math.floor(self.quantile * (h * w - 1))
        threshold = importance.kthvalue(rank, dim=1, keepdim=True).values
        # sums of equal values differ in their last bits
        slack = importance.amax(1, keepdim=True) * 1e-9
        admissible = importance < threshold - slack
        admissible |= ~admissible.any(1, keepdim=True) & (importance <= threshold + slack)
        number = admissible.cumsum(1, dtype=torch.int32)
        draws = torch.rand(b, 1, generator=generator, device=generator.device, dtype=torch.float64)
        pick = (on_device_of(generator, images)(draws) * number[:, -1:]).int()
        centre = torch.searchsorted(number, pick, right=True)[:, 0]
        row, column = torch.div(centre, w, rounding_mode="floor"), centre % w
        side = torch.full_like(row, 2 * half)
        return rectangles(row - half, column - half, side, side, images)

    def importance(self, guide: Guide) -> Float[Tensor, "b centres"]:
        """The guide's sum over the square around each pixel, by a summed-area table."""
        h, w = guide.shape[-2:]
        half = self.length // 2
        table = pad(guide.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
        # beyond the border the table goes on as at the border, which clips the squares
        table = pad(table, (half, half - 1, half, half - 1), mode="replicate")
        reach = 2 * half
        bands = table[:, :, reach : reach + h] - table[:, :, :h]
        return (bands[..., reach : reach + w] - bands[..., :w]).flatten(1)
