"""Hide-and-Seek: a grid of patches, each hidden by a coin of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from augmentations.base import Fill, Guide, Images, Mask, Ramp, on_device_of, scaled


@dataclass(frozen=True)
class HideAndSeek:
    """Tile each image with square patches and delete each with a probability.

    Singh and Lee 2017, and Singh et al. 2018 for the mixed patch sizes: the size is drawn per image
    from ``sizes`` (every entry equally likely, 0 hides nothing) and the tiling starts at the top
    left, so patches at the right and the lower border may be cut. Sizes for CIFAR were not
    published; the default is ImageNet's mix (0, 16, 32, 44, 56) at 32/224 of its size, rounded to
    even numbers. It deletes 40 % of the pixels on average.
    """

    sizes: tuple[int, ...] = (0, 2, 4, 6, 8)  # sides of the patches in pixels
    probability: float = 0.5  # that a patch is hidden
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    wants: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 0 or max(self.sizes) == 0:
            raise ValueError(
                f"sizes is {self.sizes}: give sides in pixels, 0 for no hiding, at least one above"
            )
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}: it must lie in [0, 1]")

    @classmethod
    def preset(cls, data: str, side: int) -> HideAndSeek:
        """ImageNet's published sizes, the default in proportion to the side everywhere else."""
        if data == "imagenet":
            return cls(sizes=tuple(s and scaled(s, side, 224) for s in (0, 16, 32, 44, 56)))
        return cls(sizes=tuple(s and scaled(s, side) for s in cls.sizes))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw the size of every image, then the coins: for each size those of its images."""
        b, _, h, w = images.shape
        device = generator.device
        here = on_device_of(generator, images)
        kinds = len(self.sizes)
        chosen = torch.randint(kinds, (b,), generator=generator, device=device)
        counts = torch.bincount(chosen, minlength=kinds).tolist()
        masks = []
        for size, count in zip(self.sizes, counts, strict=True):
            side = size or max(h, w)
            rows, columns = -(-h // side), -(-w // side)
            coins = torch.rand(count, rows, 1, columns, 1, generator=generator, device=device)
            hidden = here(coins < (self.probability if size else 0))
            tiles = hidden.expand(count, rows, side, columns, side)
            masks.append(tiles.reshape(count, rows * side, columns * side)[:, :h, :w])
        place = here(chosen.argsort().argsort())
        return torch.cat(masks)[place][:, None]
