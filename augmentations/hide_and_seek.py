"""Hide-and-Seek: a grid of patches, each hidden by a coin of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, extent, on_device_of, scaled
from augmentations.checks import fraction, pixels
from augmentations.relocation import Movable, Rule, demanded, exchange_cells


@dataclass(frozen=True)
class HideAndSeek(Movable):
    """Tile each image with square patches and delete each with a probability.

    Singh and Lee 2017, and Singh et al. 2018 for the mixed patch sizes: the size is drawn per image
    from ``sizes`` (every entry equally likely, 0 hides nothing) and the tiling starts at the top
    left, so patches at the right and the lower border may be cut. Sizes for CIFAR were not
    published; the default is ImageNet's mix (0, 16, 32, 44, 56) at 32/224 of its size, rounded to
    even numbers. It deletes 40 % of the pixels on average.

    Args:
        sizes: Sides of the patches in pixels; 0 hides nothing, at least one is above.
        probability: That a patch is hidden, from 0 to 1.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.
        points: ``"seek"`` or ``"avoid"`` hide as many patches, drawn among those with many or few
            points; see `augmentations.relocation`. Not in the paper.

    Raises:
        ValueError: There is no size above 0, the probability is out of range, or ``fill`` or
            ``points`` is unknown.

    >>> images = torch.zeros(1, 3, 4, 4)
    >>> HideAndSeek(sizes=(4,), probability=1.0).mask(images, torch.Generator()).all()
    tensor(True)
    """

    sizes: tuple[int, ...] = (0, 2, 4, 6, 8)
    probability: float = 0.5
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    points: Rule = "ignore"

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, tuple | list) or not any(self.sizes):
            raise ValueError(
                f"sizes is {self.sizes}: give sides in pixels, 0 for no hiding, at least one above"
            )
        pixels("sizes", *self.sizes, least=0)
        fraction("probability", self.probability)
        super().__post_init__()

    @classmethod
    def preset(cls, data: str, side: int) -> HideAndSeek:
        """ImageNet's published sizes, the default in proportion to the side everywhere else."""
        if data == "imagenet":
            return cls(sizes=tuple(s and scaled(s, side, 224) for s in (0, 16, 32, 44, 56)))
        return cls(sizes=tuple(s and scaled(s, side) for s in cls.sizes))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw the size of every image, then the coins: for each size those of its images.

        Where points are sought or avoided two numbers per patch follow the coins; raises
        ``ValueError`` where the guide is missing.
        """
        if self.points != "ignore":
            guide = demanded(guide, images, "HideAndSeek")
        b, h, w = extent(images)
        device = generator.device
        here = on_device_of(images)
        kinds = len(self.sizes)
        chosen = torch.randint(kinds, (b,), generator=generator, device=device)
        counts = torch.bincount(chosen, minlength=kinds).tolist()
        grids = []
        for size, count in zip(self.sizes, counts, strict=True):
            side = min(size, max(h, w)) or max(h, w)
            rows, columns = -(-h // side), -(-w // side)
            coins = torch.rand(count, rows, 1, columns, 1, generator=generator, device=device)
            grids.append((side, here(coins < (self.probability if size else 0))))
        if guide is not None and self.points != "ignore":
            owners = here(chosen.argsort()).split(counts)
            for number, ((side, hidden), own) in enumerate(zip(grids, owners, strict=True)):
                cells = exchange_cells(
                    hidden[:, :, 0, :, 0], guide[own], side, self.points, generator
                )
                grids[number] = side, cells[:, :, None, :, None]
        masks = []
        for side, hidden in grids:
            count, rows, _, columns, _ = hidden.shape
            tiles = hidden.expand(count, rows, side, columns, side)
            masks.append(tiles.reshape(count, rows * side, columns * side)[:, :h, :w])
        return torch.cat(masks)[here(chosen.argsort().argsort())][:, None]
