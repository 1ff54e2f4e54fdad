"""Random Erasing: one rectangle of random area and aspect."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, extent, on_device_of, rectangles
from augmentations.checks import number, within
from augmentations.relocation import Movable, Rule, demanded, move_rectangles


@dataclass(frozen=True)
class RandomErasing(Movable):
    """Replace one rectangle per image by noise (Zhong et al. 2020, algorithm 1).

    The area S is uniform in ``area`` (a fraction of the image), the aspect r = height / width
    uniform in [``aspect``, 1 / ``aspect``], so three of four rectangles are tall; height
    ``round(sqrt(S r))`` and width ``round(sqrt(S / r))`` must be smaller than the image's, and the
    place is uniform among those inside. Half of the images get one.

    Deviations: 8 attempts at a fitting rectangle rather than 100, since at the published values all
    of 8 fail once in 10^10 images; sides are at least one pixel, which matters below 8 x 8; and
    the noise is normal with the dataset's mean and deviation (the paper's RE-R draws 0..255; the
    released code writes constants that are not the mean).

    Args:
        area: s_l and s_h, the smallest and largest area, as fractions of the image.
        aspect: r_1, the smallest height / width, in (0, 1]; the largest is its inverse.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: noise or the mean colour.
        points: ``"seek"`` or ``"avoid"`` move the rectangle to where many or few points are; see
            `augmentations.relocation`. Not in the paper.

    Raises:
        ValueError: A range is not ordered or leaves its bounds, or ``fill`` or ``points`` is
            unknown.

    >>> images = torch.zeros(2, 3, 32, 32)
    >>> mask = RandomErasing(area=(0.25, 0.25), aspect=1.0).mask(images, torch.Generator())
    >>> mask.sum((1, 2, 3)).tolist()
    [256, 256]
    """

    area: tuple[float, float] = (0.02, 0.4)
    aspect: float = 0.3
    share: Ramp = Ramp(0.5)
    fill: Fill = "noise"
    points: Rule = "ignore"

    def __post_init__(self) -> None:
        within("area", self.area, 0, 1)
        number("aspect", self.aspect)
        if not 0 < self.aspect <= 1:
            raise ValueError(f"aspect is {self.aspect}: it must be above 0 and at most 1")
        super().__post_init__()

    @classmethod
    def preset(cls, data: str, side: int) -> RandomErasing:
        """The published values, the same for every dataset."""
        return cls()

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw 8 areas and 8 aspects for every image, then the row and column of the first to fit.

        An image that none fits keeps all its pixels. Raises ``ValueError`` where points are sought
        or avoided and the guide is missing.
        """
        b, h, w = extent(images)
        here = on_device_of(images)
        draws = here(torch.rand(18, b, generator=generator, device=generator.device))
        low, high = self.area
        area = (low + (high - low) * draws[:8]) * (h * w)
        aspect = self.aspect + (1 / self.aspect - self.aspect) * draws[8:16]
        heights = torch.sqrt(area * aspect).round_().clamp_(min=1)
        widths = torch.sqrt(area / aspect).round_().clamp_(min=1)
        fits = (heights < h) & (widths < w)
        first = fits.view(torch.uint8).argmax(0, keepdim=True)
        found = fits.gather(0, first)[0]
        height = heights.gather(0, first)[0] * found
        width = widths.gather(0, first)[0] * found
        top = (draws[16] * (h - height + 1)).long()
        left = (draws[17] * (w - width + 1)).long()
        mask = rectangles(top, left, height.long(), width.long(), images)
        if self.points == "ignore":
            return mask
        guide = demanded(guide, images, "RandomErasing")
        return move_rectangles(mask, guide, images, self.points, generator)
