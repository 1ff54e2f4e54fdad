"""Manifold Mixup: Mixup of images or of features inside the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from bench.data.partners import cyclic


@dataclass(frozen=True)
class Blend:
    """How a batch is blended with itself: ``weight`` · own + (1 - ``weight``) · other.

    Attributes:
        stage: The stage of the network whose output is blended, from 1; 0 for the images.
        other: Which image each one meets.
        weight: The weight of its own.
    """

    stage: int
    other: Int[Tensor, " b"]
    weight: float

    def __call__(self, features: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return the blended images or features."""
        return torch.lerp(features[self.other], features, self.weight)


@dataclass(frozen=True)
class ManifoldMixup:
    """Mixup of the images or of the features after a stage of the network (Verma et al. 2019).

    For each batch the place is drawn among the images and the first ``stages`` stages, lambda from
    Beta(``alpha``, ``alpha``); every image meets another one, as in `Mix`. Alpha 2 and two stages
    are those of the paper's ResNets on CIFAR. A deletion acts on the images that meet: where
    features are blended, on both, before.

    Attributes:
        alpha: A whole number, from 1: Beta(a, a) is the law of the middle one of 2a - 1 uniform
            numbers.
        stages: How many stages may be chosen.
    """

    points: ClassVar[bool] = False
    """Whether it needs the points of the images."""
    alpha: int = 2
    stages: int = 2

    def __post_init__(self) -> None:
        if self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}: it must be a whole number, at least 1")
        if self.stages < 0:
            raise ValueError(f"stages is {self.stages}: it must be at least 0")

    def draw(
        self, labels: Int[Tensor, " b"], classes: int, generator: Generator
    ) -> tuple[Blend, Float[Tensor, "b k"]]:
        """Return how a batch is blended and, for each image, the weights of the classes."""
        device = generator.device
        stage = int(torch.randint(self.stages + 1, (), generator=generator, device=device))
        uniform = torch.rand(2 * self.alpha - 1, generator=generator, device=device)
        weight = float(uniform.median())
        order = torch.randperm(len(labels), generator=generator, device=device).to(labels.device)
        own = torch.nn.functional.one_hot(labels, classes).float()
        blend = Blend(stage, cyclic(order), weight)
        return blend, blend(own)
