"""SaliencyMix: CutMix whose box shows what is salient in the other image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional

from augmentations.base import Guide, Images, Mask, exact, rectangles
from augmentations.checks import fraction
from bench.data.partners import cyclic

REACHES = (12, 24, 28, 48, 56, 112)  # pixels from the centre to the edge of a surround
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class SaliencyMix:
    """Paste the most salient part of another image at its place (Uddin et al. 2021).

    A batch is mixed with ``probability``, CutMix's for CIFAR. Lambda is drawn once for it, uniform;
    the box of side ``sqrt(1 - lambda)`` is centred on the most salient pixel of the other image, is
    clipped at the border, and labels follow its area. Partners come from a random cyclic order of
    the batch, as in `Mix`.

    Deviations: every image has the box of its own partner, as the paper says, where the released
    code takes one image's box for the whole batch.

    Attributes:
        probability: That a batch is mixed.
    """

    points: ClassVar[bool] = False
    """Whether it needs the points of the images."""
    probability: float = 0.5

    def __post_init__(self) -> None:
        fraction("probability", self.probability)

    def apply(
        self,
        images: Images,
        labels: Int[Tensor, " b"],
        classes: int,
        generator: Generator,
        guide: Guide | None = None,
    ) -> tuple[Images, Float[Tensor, "b k"]]:
        """Return the mixed images and, for each, the weights of the classes, which sum to 1."""
        device = generator.device
        due, own_share = torch.rand(2, generator=generator, device=device).tolist()
        order = torch.randperm(len(images), generator=generator, device=device).to(images.device)
        own = functional.one_hot(labels, classes).to(images.dtype)
        if due >= self.probability:
            return images, own
        other = cyclic(order)
        box = self._box(images[other], own_share)
        kept = 1 - box.to(images.dtype).mean((1, 2, 3))[:, None]
        mixed = torch.where(box, images[other], images)
        return mixed, kept * own + (1 - kept) * own[other]

    def _box(self, images: Images, own_share: float) -> Mask:
        """The box around the most salient pixel of each image, of even sides as CutMix's."""
        h, w = images.shape[-2:]
        peak = fine_grained(images).flatten(1).argmax(1)
        row, column = torch.div(peak, w, rounding_mode="floor"), peak % w
        half_height, half_width = (int(size * (1 - own_share) ** 0.5) // 2 for size in (h, w))
        height, width = torch.full_like(row, 2 * half_height), torch.full_like(row, 2 * half_width)
        return rectangles(row - half_height, column - half_width, height, width, images)


def fine_grained(images: Images) -> Float[Tensor, "b 1 h w"]:
    """How much each pixel differs from its surround (Montabone and Soto 2010).

    For each of six sizes the grey value is held against the mean of the square around it, without
    the pixel itself and clipped at the border; what is brighter and what is darker counts alike,
    and the sizes are added up.

    Args:
        images: Shape (b, c, h, w), with 1 or 3 channels.

    Returns:
        Shape (b, 1, h, w), at least 0.
    """
    c, h, w = images.shape[1:]
    weights = torch.tensor(LUMA if c == 3 else [1 / c] * c, dtype=torch.float64)
    grey = (exact(images) * weights.to(images.device).view(1, -1, 1, 1)).sum(1)
    found = torch.zeros_like(grey)
    # surrounds that reach over the whole image are the same
    for reach, times in Counter(min(reach, max(h, w)) for reach in REACHES).items():
        rows, columns = _near(h, reach, grey), _near(w, reach, grey)
        count = rows.sum(1)[:, None] * columns.sum(1) - 1
        around = (rows @ grey @ columns).sub_(grey).div_(count.clamp(min=1))
        contrast = around.sub_(grey).abs_()
        contrast[contrast < 1e-9] = 0  # equal values, but for rounding
        found.add_(contrast, alpha=times)
    return found[:, None].to(images.dtype)


def _near(size: int, reach: int, like: Tensor) -> Float[Tensor, "n n"]:
    """1 where two places are at most ``reach`` apart."""
    place = torch.arange(size, device=like.device)
    return ((place[:, None] - place).abs() <= reach).to(like)
