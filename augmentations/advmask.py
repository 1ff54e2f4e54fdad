"""AdvMask: squares on the points that an attack found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from augmentations.base import Fill, Guide, Images, Mask, Ramp, required, scaled
from augmentations.checks import LONGEST, choice, fraction, whole, within


@dataclass(frozen=True)
class AdvMask:
    """Delete squares centred on adversarial points (Yang et al. 2023, section 3.2).

    Per image a side l is drawn from ``length``, a target from ``ratio`` and an overlap o from
    [0, ``overlap``]. The points, where the guide is positive, are visited in random order. The
    square of a point is taken unless it shares more than ``floor(l**2 o)`` pixels with a single
    square taken before, or would push the deleted fraction above the end of ``ratio``; the image is
    done once the deleted fraction reaches its target. Images without points keep all their pixels,
    and those whose points are too few may end below the start of ``ratio``.

    Where the paper is silent: the target is uniform in ``ratio``; the fraction counts deleted
    pixels of the image, not ``|S| l**2``; squares of even side reach one pixel further to the lower
    right. The released code differs from the paper (its ranges and the side of the squares, random
    shifts, visits in raster order, the union of squares in place of pairs, GridMask where fewer
    than 100 pixels would go); none of that is followed. The share grows to 0.8 over the whole
    training, as in the released code; the paper says only that it grows.

    ``AdvMask(length=(1, 1), ratio=(1.0, 1.0))`` deletes exactly the points (the paper's table 8),
    and a guide that is positive everywhere gives squares at random places.

    Args:
        length: l_min and l_max in pixels, both included, from 1.
        ratio: p_min and p_max: deleted fractions of the image's pixels, from 0 to 1.
        overlap: o_max: the fraction of a square that two may share, from 0 to 1.
        fixed_overlap: Whether o is always o_max.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A range is not ordered or leaves its bounds.

    >>> points = torch.zeros(1, 1, 5, 5)
    >>> points[0, 0, 1, 1] = 1.0
    >>> advmask = AdvMask(length=(3, 3), ratio=(0.2, 0.4))
    >>> advmask.mask(torch.zeros(1, 3, 5, 5), torch.Generator(), points).int()[0, 0, :3].tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    """

    length: tuple[int, int] = (2, 15)
    ratio: tuple[float, float] = (0.2, 0.4)
    overlap: float = 0.1
    fixed_overlap: bool = False
    share: Ramp = Ramp(0.0, 0.8)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = "attack"

    def __post_init__(self) -> None:
        within("length", self.length, 1, LONGEST)
        whole("length", *self.length)
        within("ratio", self.ratio, 0, 1)
        fraction("overlap", self.overlap)
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> AdvMask:
        """The paper's values for CIFAR-100 and CIFAR-10, lengths in proportion to the side.

        Other datasets get CIFAR-10's: the paper gives none for them.
        """
        if data == "cifar100":
            return cls(length=(scaled(5, side), scaled(20, side)), ratio=(0.06, 0.5), overlap=0.2)
        return cls(length=(scaled(2, side), scaled(15, side)))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw the sides, the overlaps, the targets, and one number per point for the order.

        The squares are placed on the CPU, image after image. Raises ``ValueError`` without a guide
        and for one of another size or with negative or undefined values.
        """
        from augmentations.placement import place  # numba takes a second to import

        guide = required(guide, images, "AdvMask", "positive where a point is").cpu()
        b, _, h, w = guide.shape

        def uniform(count: int) -> Tensor:
            return torch.rand(
                count, generator=generator, device=generator.device, dtype=torch.float64
            ).cpu()

        shortest, longest = self.length
        low, high = self.ratio
        length = (shortest + uniform(b) * (longest - shortest + 1)).long()
        overlap = uniform(b) * self.overlap
        if self.fixed_overlap:
            overlap.fill_(self.overlap)
        target = low + uniform(b) * (high - low)
        draws = uniform(int((guide > 0).sum()))
        # products of fractions may end a hair beside the whole number they mean
        common = (length**2 * overlap + 1e-9).floor().long()
        wanted = (target * (h * w) - 1e-9).ceil().long()
        mask = torch.zeros(b, h, w, dtype=torch.bool)
        place(
            guide[:, 0].float().contiguous().numpy(),
            mask.numpy(),
            length.numpy(),
            common.numpy(),
            wanted.numpy(),
            int(high * h * w + 1e-9),
            draws.numpy(),
        )
        return mask[:, None].to(images.device)
