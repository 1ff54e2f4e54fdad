"""Augmentations that spare the points: the reverse of AdvMask (IPF-RDA, arXiv 2509.16678).

Selective cut draws a square among those with few points and deletes it. Selective paste deletes as
another augmentation does and then gives back one square with many points. "Few" and "many" are
measured against a quantile of the sums of points over all squares of the image, computed exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, required, scaled
from augmentations.checks import choice, fraction, pixels
from augmentations.gridmask import GridMask, Mode
from augmentations.hide_and_seek import HideAndSeek
from augmentations.squares import one_of, slack, square_at, square_sums, threshold

PUBLISHED = {"cifar10": 16, "cifar100": 8}  # sides of the square for images of 32 x 32
QUANTILE = 0.6  # the released code's "ratio 60"
POINTS = "positive where a point is"


def published_length(data: str, side: int) -> int:
    """The side of the square for a dataset, in proportion to the images; CIFAR-10's for others.

    Args:
        data: Name of the dataset.
        side: Of its images, in pixels.
    """
    return max(2, scaled(PUBLISHED.get(data, PUBLISHED["cifar10"]), side))


def cut_square(
    images: Images,
    guide: Guide | None,
    generator: Generator,
    length: int = 16,
    quantile: float = QUANTILE,
    who: str = "selective cut",
) -> Mask:
    """Selective cut: one square per image, uniform among those with few points.

    A square is admissible where its sum of points is at most the ``quantile`` of the sums over all
    squares of the image, or where that threshold is 0, as in the released code, which draws again
    until a square is admissible; here one is drawn at once, which is the same law.

    Args:
        images: Only shape and device count.
        guide: Values of at least 0, shape (b, 1, h, w): in the paper 1 at points, 0 elsewhere.
        generator: One number per image is drawn.
        length: Side of the square in pixels, from 2; it is clipped at the border as Cutout's, and
            an odd one acts as the even one below.
        quantile: Sets the threshold, from 0 to 1.
        who: Is named in errors.

    Returns:
        Masks, shape (b, 1, h, w), True inside the square.

    Raises:
        ValueError: The guide is missing, of another size, or negative or undefined somewhere.
    """
    sums = square_sums(required(guide, images, who, POINTS), length)
    limit = threshold(sums, quantile)
    admissible = (sums <= limit + slack(sums)) | (limit <= slack(sums))
    return square_at(one_of(admissible, generator), length, images)


def paste_square(
    images: Images,
    guide: Guide | None,
    generator: Generator,
    length: int = 16,
    quantile: float = QUANTILE,
    who: str = "selective paste",
) -> Mask:
    """Selective paste: one square per image, uniform among those with many points.

    A square is admissible where its sum of points is at least the ``quantile`` of the sums over all
    squares of the image. The released code's quantile for pasting is not known to us: 0.6 is the
    one it uses for cutting. Arguments, result and errors are those of `cut_square`.
    """
    sums = square_sums(required(guide, images, who, POINTS), length)
    admissible = sums >= threshold(sums, quantile) - slack(sums)
    return square_at(one_of(admissible, generator), length, images)


def check(length: int, quantile: float) -> None:
    """Refuse a square or a quantile that is out of range."""
    pixels("length", length, least=2)
    fraction("quantile", quantile)


@dataclass(frozen=True)
class IPFCutout:
    """Cutout of a square with few points (IPF-RDA, selective cut); see `cut_square`.

    Args:
        length: Side of the square in pixels, 2 to 1,000,000: 16 for CIFAR-10, 8 for CIFAR-100.
        quantile: Of the sums of points over all squares of an image; sets the threshold.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> import torch
    >>> points = torch.ones(500, 1, 16, 16)
    >>> points[:, :, :, :8] = 0.1
    >>> cutout = IPFCutout(4, quantile=0.4)
    >>> mask = cutout.mask(torch.zeros(500, 3, 16, 16), torch.Generator(), points)
    >>> bool(mask.any((1, 2, 3)).all()), bool(mask[..., 8:].any())
    (True, False)
    """

    length: int = 16
    quantile: float = QUANTILE
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = "attack"

    def __post_init__(self) -> None:
        check(self.length, self.quantile)
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> IPFCutout:
        """The published length for CIFAR-10 and CIFAR-100, in proportion to the side."""
        return cls(length=published_length(data, side))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw one number per image: which of its admissible squares, in reading order.

        Raises ``ValueError`` without a guide and for one of another size or with negative or
        undefined values.
        """
        who = type(self).__name__
        return cut_square(images, guide, generator, self.length, self.quantile, who)


@dataclass(frozen=True)
class IPFRandomErasing(IPFCutout):
    """Random Erasing as IPF-RDA's code has it: the square of `IPFCutout` in half of the images.

    The square is filled with the mean colour; its side is fixed, where Random Erasing draws a
    rectangle. For Random Erasing's own rectangles away from the points, use
    ``RandomErasing(points="avoid")``. That half of the images get one is Random Erasing's share.

    Args:
        length: Side of the square in pixels, 2 to 1,000,000: 16 for CIFAR-10, 8 for CIFAR-100.
        quantile: Of the sums of points over all squares of an image; sets the threshold.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> IPFRandomErasing.preset("cifar100", 32).length, IPFRandomErasing().share.at(1.0)
    (8, 0.5)
    """

    share: Ramp = Ramp(0.5)


@dataclass(frozen=True)
class IPFHideAndSeek:
    """Hide-and-Seek, then one square with many points is given back (IPF-RDA, selective paste).

    See `HideAndSeek` for what is hidden and `paste_square` for what is given back.

    Args:
        sizes: Sides of Hide-and-Seek's patches in pixels; 0 hides nothing.
        probability: That a patch is hidden, from 0 to 1.
        length: Side of the square in pixels, 2 to 1,000,000: 16 for CIFAR-10, 8 for CIFAR-100.
        quantile: Of the sums of points over all squares of an image; sets the threshold.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> import torch
    >>> points = torch.zeros(1, 1, 8, 8)
    >>> points[:, :, 2:4, 2:4] = 1.0
    >>> hide = IPFHideAndSeek(sizes=(2,), probability=1.0, length=8, quantile=1.0)
    >>> mask = hide.mask(torch.zeros(1, 3, 8, 8), torch.Generator(), points)
    >>> bool(mask.any()), bool((mask & (points > 0)).any())
    (True, False)
    """

    sizes: tuple[int, ...] = (0, 2, 4, 6, 8)
    probability: float = 0.5
    length: int = 16
    quantile: float = QUANTILE
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = "attack"

    def __post_init__(self) -> None:
        HideAndSeek(self.sizes, self.probability)
        check(self.length, self.quantile)
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> IPFHideAndSeek:
        """Hide-and-Seek's sizes, and the published length, in proportion to the side."""
        sizes = HideAndSeek.preset(data, side).sizes
        return cls(sizes=sizes, length=published_length(data, side))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw Hide-and-Seek's mask, then one number per image for the square given back.

        Raises ``ValueError`` without a guide and for one of another size or with negative or
        undefined values.
        """
        hidden = HideAndSeek(self.sizes, self.probability).mask(images, generator)
        who = type(self).__name__
        return hidden & ~paste_square(images, guide, generator, self.length, self.quantile, who)


@dataclass(frozen=True)
class IPFGridMask:
    """GridMask, then one square with many points is given back (IPF-RDA, selective paste).

    See `GridMask` for what is deleted and `paste_square` for what is given back.

    Args:
        period: GridMask's smallest and largest period in pixels.
        ratio: The kept part of a period, between 0 and 1.
        rotation: Degrees, 1 to 360, below which the angle is drawn; 1 does not rotate.
        mode: What the lattice deletes: its ``"squares"`` or the ``"lines"`` between them.
        length: Side of the square in pixels, 2 to 1,000,000: 16 for CIFAR-10, 8 for CIFAR-100.
        quantile: Of the sums of points over all squares of an image; sets the threshold.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.

    Raises:
        ValueError: A hyperparameter is out of its range.

    >>> import torch
    >>> points = torch.zeros(100, 1, 32, 32)
    >>> points[:, :, 20:24, 20:24] = 1.0
    >>> grid = IPFGridMask(length=16, quantile=1.0)
    >>> mask = grid.mask(torch.zeros(100, 3, 32, 32), torch.Generator(), points)
    >>> bool(mask.any()), bool((mask & (points > 0)).any())
    (True, False)
    """

    period: tuple[int, int] = (24, 32)
    ratio: float = 0.4
    rotation: int = 1
    mode: Mode = "squares"
    length: int = 16
    quantile: float = QUANTILE
    share: Ramp = GridMask.share
    fill: Fill = "mean"
    wants: ClassVar[str | None] = "attack"

    def __post_init__(self) -> None:
        GridMask(self.period, self.ratio, self.rotation, self.mode)
        check(self.length, self.quantile)
        choice("fill", self.fill, Fill)

    @classmethod
    def preset(cls, data: str, side: int) -> IPFGridMask:
        """GridMask's values, and the published length in proportion to the side."""
        grid = GridMask.preset(data, side)
        return cls(
            period=grid.period,
            ratio=grid.ratio,
            rotation=grid.rotation,
            length=published_length(data, side),
            share=grid.share,
        )

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw GridMask's mask, then one number per image for the square given back.

        Raises ``ValueError`` without a guide and for one of another size or with negative or
        undefined values.
        """
        lattice = GridMask(self.period, self.ratio, self.rotation, self.mode)
        deleted = lattice.mask(images, generator)
        who = type(self).__name__
        return deleted & ~paste_square(images, guide, generator, self.length, self.quantile, who)
