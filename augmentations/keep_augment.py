"""KeepAugment: what matters most is not deleted, or is pasted back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, on_device_of, required
from augmentations.checks import choice, fraction, pixels
from augmentations.cutout import Cutout
from augmentations.squares import Squares, one_of, slack, square_at, square_sums, threshold

Saliency = Literal["full", "low", "early", "early-low"]
"""Whose saliency: the whole network's or an early head's, at full or at half the size."""


@dataclass(frozen=True)
class KeepAugment:
    """Cutout at a uniform place among those of low importance (Gong et al. 2021, selective cut).

    The importance of a region is the sum of the guide over it. A region is admissible where its
    importance lies below the ``quantile`` (tau) of the importances of all regions of that image;
    one of them is drawn at once, which is the law of the paper's redrawing until the region is
    admissible. Where no region lies below the quantile, as under a constant guide, those that reach
    it count too.

    With ``squares="inside"``, which `preset` takes and commands use, regions have a fixed size and
    lie inside the image. With ``"clipped"``, the default of the class, there is one around each
    pixel, clipped at the border as Cutout's: that is what ``keepaugment`` was in version 0.1, whose
    records keep their keys. Clipped regions sum over fewer pixels, so that the admissible ones lie
    at the border whatever the image shows.

    Deviations: length 16 and tau 0.6 are the paper's for CIFAR-10; other lengths follow the image's
    side. The guide is the caller's: in the paper the live saliency of the network in training.

    Args:
        length: Side of the square in pixels, 2 to 1,000,000.
        quantile: tau, from 0 to 1.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.
        squares: The regions: ``"inside"`` the image, or ``"clipped"`` at the border, where an odd
            length acts as the even one below.
        saliency: What a training loop takes as the guide (the paper's section 3.3): the saliency
            of the whole network, ``"full"``; of images of half the size, ``"low"``; of an early
            head that is trained along, ``"early"``; or both, ``"early-low"``.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> saliency = torch.ones(100, 1, 16, 16)
    >>> saliency[..., 8:] = 0.0
    >>> cut = KeepAugment(4, quantile=0.3, squares="inside")
    >>> mask = cut.mask(saliency, torch.Generator(), saliency)
    >>> mask.sum((1, 2, 3)).unique().tolist(), bool((mask & (saliency > 0)).any())
    ([16], False)
    """

    length: int = 16
    quantile: float = 0.6
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    squares: Squares = "clipped"
    saliency: Saliency = "full"
    wants: ClassVar[str | None] = "saliency"

    def __post_init__(self) -> None:
        pixels("length", self.length, least=2)
        fraction("quantile", self.quantile)
        choice("squares", self.squares, Squares)
        choice("saliency", self.saliency, Saliency)
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> KeepAugment:
        """CIFAR-10's published values, which the paper uses for CIFAR-100 too, scaled to side."""
        return cls(length=Cutout.preset("cifar10", side).length, squares="inside")

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw one number per image: which of its admissible squares, in reading order.

        Raises ``ValueError`` without a guide, for one of another size or with negative or undefined
        values, and where no square fits inside the image.
        """
        guide = required(guide, images, "KeepAugment", "the saliency of each pixel")
        sums = square_sums(guide, self.length, self.squares)
        limit, near = threshold(sums, self.quantile), slack(sums)
        admissible = sums < limit - near
        admissible |= ~admissible.any(1, keepdim=True) & (sums <= limit + near)
        return square_at(one_of(admissible, generator), self.length, images, self.squares)


def important_square(
    images: Images,
    guide: Guide | None,
    generator: Generator,
    length: int = 16,
    quantile: float = 0.6,
    squares: Squares = "inside",
) -> Mask:
    """Draw the square that selective paste gives back, one per image (Gong et al. 2021).

    A square is admissible where its sum of the guide exceeds the quantile tau of the sums over all
    squares of that image; one is drawn uniformly, which is the law of the paper's redrawing. If
    none exceeds it, as under a constant guide, those that equal it are admitted. Deviation: the
    paper's values for pasting are unknown here; 16 pixels and 0.6 are those of third-party code.

    Args:
        images: Only shape and device count, shape (b, c, h, w).
        guide: Importance of each pixel, at least 0, shape (b, 1, h, w).
        generator: Source of the places.
        length: Side of the square in pixels, 2 to 1,000,000.
        quantile: The quantile tau, from 0 to 1.
        squares: As of `KeepAugment`.

    Returns:
        Masks, shape (b, 1, h, w), True where the original is to be pasted back.

    Raises:
        ValueError: The guide is missing or has another shape, or as `KeepAugment`.
    """
    KeepAugment(length, quantile, squares=squares)
    guide = required(guide, images, "selective paste", "the saliency of each pixel")
    sums = square_sums(guide, length, squares)
    limit, near = threshold(sums, quantile), slack(sums)
    admissible = sums > limit + near
    admissible |= ~admissible.any(1, keepdim=True) & (sums >= limit - near)
    weights = admissible.to(generator.device, torch.float32)
    place = torch.multinomial(weights, 1, generator=generator)[:, 0]
    return square_at(on_device_of(images)(place), length, images, squares)
