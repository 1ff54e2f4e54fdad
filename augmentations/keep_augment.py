"""KeepAugment: Cutout that spares what matters most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, required
from augmentations.cutout import Cutout
from augmentations.squares import one_of, slack, square_at, square_sums, threshold


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

    Args:
        length: Side of the square in pixels, as Cutout's.
        quantile: tau, from 0 to 1.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> import torch
    >>> saliency = torch.ones(100, 1, 16, 16)
    >>> saliency[..., 8:] = 0.0
    >>> mask = KeepAugment(4, quantile=0.3).mask(saliency, torch.Generator(), saliency)
    >>> bool(mask.any((1, 2, 3)).all()), bool((mask & (saliency > 0)).any())
    (True, False)
    """

    length: int = 16
    quantile: float = 0.6
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = "saliency"

    def __post_init__(self) -> None:
        Cutout(self.length)
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile is {self.quantile}: it must be in [0, 1]")

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
        sums = square_sums(guide, self.length)
        limit, near = threshold(sums, self.quantile), slack(sums)
        admissible = sums < limit - near
        admissible |= ~admissible.any(1, keepdim=True) & (sums <= limit + near)
        return square_at(one_of(admissible, generator), self.length, images)
