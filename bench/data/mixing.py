"""Mixup and CutMix: every picture of a batch meets another one, and so do their labels.

They act after the crop and the flip, ahead of the deletion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from augmentations.base import Images
from bench import registry

NAMES = {
    "mixup": "two pictures blended, lambda uniform (Zhang et al. 2018)",
    "cutmix": "a box of another picture, in every other batch (Yun et al. 2019)",
}
"""Mixes by name."""


@dataclass(frozen=True)
class Mix:
    """Mixup or CutMix as torchvision computes them, with draws of its own.

    A batch is mixed with ``probability``; lambda, drawn once for the batch, follows Beta(``alpha``,
    ``alpha``), and the labels of CutMix follow the area of its clipped box.

    Deviation: partners come from a random cyclic order of the batch, so no picture meets itself,
    which in the originals' permutations happens to one picture a batch on average.
    """

    kind: Literal["mixup", "cutmix"]
    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}: it must be above 0")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability}: it must lie in [0, 1]")

    def apply(
        self, images: Images, labels: Int[Tensor, " b"], classes: int, generator: Generator
    ) -> tuple[Images, Float[Tensor, "b k"]]:
        """Return the mixed images and, for each, the weights of the classes, which sum to 1.

        Picture i stays the one of weight lambda at place i.
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


def build(name: str) -> Mix:
    """The mix of that name as published for CIFAR; raises ``ValueError`` for an unknown one."""
    if name == "mixup":
        return Mix("mixup", alpha=1.0, probability=1.0)
    if name == "cutmix":
        return Mix("cutmix", alpha=1.0, probability=0.5)
    raise ValueError(f"there is no mix {name!r}: {registry.suggest(name, NAMES)}")
