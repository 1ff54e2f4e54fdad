"""Mixup, CutMix and their like: every image of a batch meets another one, and so do their labels.

They act after the crop and the flip, ahead of the deletion; but for Manifold Mixup, which blends
features inside the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from augmentations import ipf
from augmentations.base import Guide, Images, required
from augmentations.checks import fraction
from bench.data.manifold_mixup import ManifoldMixup
from bench.data.partners import cyclic
from bench.data.saliency_mix import SaliencyMix
from bench.errors import suggest

NAMES = {
    "mixup": "two images blended, lambda uniform (Zhang et al. 2018)",
    "cutmix": "a box of another image, in half of the batches (Yun et al. 2019)",
    "saliencymix": "the same, the box where the other image is salient (Uddin et al. 2021)",
    "manifold-mixup": "images or features of two stages blended (Verma et al. 2019)",
    "ipf-cutmix": "cutmix with the box where few points are, labels by the points (IPF-RDA)",
}
"""Mixes by name."""


@dataclass(frozen=True)
class Mix:
    """Mixup or CutMix as torchvision computes them, with draws of its own.

    A batch is mixed with ``probability``; lambda, drawn once for the batch, follows Beta(``alpha``,
    ``alpha``), and the labels of CutMix follow the area of its clipped box.

    Deviation: partners come from a random cyclic order of the batch, so no image meets itself,
    which in the originals' permutations happens to one image a batch on average.
    """

    points: ClassVar[bool] = False
    """Whether it needs the points of the images."""
    kind: Literal["mixup", "cutmix"]
    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}: it must be above 0")
        fraction("probability", self.probability)

    def apply(
        self,
        images: Images,
        labels: Int[Tensor, " b"],
        classes: int,
        generator: Generator,
        guide: Guide | None = None,
    ) -> tuple[Images, Float[Tensor, "b k"]]:
        """Return the mixed images and, for each, the weights of the classes, which sum to 1.

        Image i stays the one of weight lambda at place i.
        """
        from torchvision.transforms import v2

        device = generator.device
        due = float(torch.rand((), generator=generator, device=device)) < self.probability
        order = torch.randperm(len(images), generator=generator, device=device).to(images.device)
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        if not due:
            return images, torch.nn.functional.one_hot(labels, classes).to(images.dtype)
        transform = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[self.kind]
        # torchvision draws from the global generator, which is given back as it was
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            mixed, weights = transform(alpha=self.alpha, num_classes=classes)(
                images[order], labels[order]
            )
        back = order.argsort()
        return mixed[back], weights[back].to(images.dtype)


@dataclass(frozen=True)
class IPFCutMix:
    """CutMix that spares the points: selective cut, labels by the points (IPF-RDA).

    A batch is mixed with ``probability``. Each image loses one square, drawn among those with few
    of its points (see `augmentations.ipf.cut_square`), and gets the pixels of another image there.
    Its own label weighs the points that it keeps, the other label those that come in with the
    square: kept / (kept + brought). Where there are no points at all, the areas weigh.

    Every image has a square of its own; partners come from a random cyclic order of the batch, as
    in `Mix`.

    Attributes:
        length: Side of the square in pixels: 16 for CIFAR-10, 8 for CIFAR-100.
        quantile: Of the sums of points over all squares of an image; sets the threshold.
        probability: That a batch is mixed: CutMix's for CIFAR, since IPF-RDA's is not known to us.
    """

    points: ClassVar[bool] = True
    """Whether it needs the points of the images."""
    length: int = 16
    quantile: float = ipf.QUANTILE
    probability: float = 0.5

    def __post_init__(self) -> None:
        ipf.check(self.length, self.quantile)
        fraction("probability", self.probability)

    def apply(
        self,
        images: Images,
        labels: Int[Tensor, " b"],
        classes: int,
        generator: Generator,
        guide: Guide | None = None,
    ) -> tuple[Images, Float[Tensor, "b k"]]:
        """Return the mixed images and, for each, the weights of the classes, which sum to 1.

        Raises ``ValueError`` without a guide.
        """
        device = generator.device
        due = float(torch.rand((), generator=generator, device=device)) < self.probability
        order = torch.randperm(len(images), generator=generator, device=device).to(images.device)
        guide = required(guide, images, "ipf-cutmix", ipf.POINTS)
        box = ipf.cut_square(images, guide, generator, self.length, self.quantile)
        own = torch.nn.functional.one_hot(labels, classes).to(images.dtype)
        if not due:
            return images, own
        other = cyclic(order)
        kept = (guide * ~box).sum((1, 2, 3))
        brought = (guide[other] * box).sum((1, 2, 3))
        outside = 1 - box.float().mean((1, 2, 3))
        share = torch.where(kept + brought > 0, kept / (kept + brought), outside)
        weight = share.to(images.dtype)[:, None]
        return torch.where(box, images[other], images), weight * own + (1 - weight) * own[other]


AnyMix = Mix | IPFCutMix | SaliencyMix | ManifoldMixup


def build(name: str, *, data: str = "cifar10", side: int = 32) -> AnyMix:
    """The mix of that name as published for CIFAR.

    Args:
        name: One of `NAMES`.
        data: Name of the dataset; sets the square of ``ipf-cutmix``.
        side: Of its images, in pixels.

    Raises:
        ValueError: The name is unknown, or has options.
    """
    if name == "mixup":
        return Mix("mixup", alpha=1.0, probability=1.0)
    if name == "cutmix":
        return Mix("cutmix", alpha=1.0, probability=0.5)
    if name == "saliencymix":
        return SaliencyMix()
    if name == "manifold-mixup":
        return ManifoldMixup()
    if name == "ipf-cutmix":
        return IPFCutMix(ipf.published_length(data.partition("(")[0], side))
    if (plain := name.partition("(")[0].strip()) in NAMES:
        raise ValueError(f"a mix takes no options: write {plain} for {name}")
    raise ValueError(f"there is no mix {name!r}: {suggest(name, NAMES)}")
