"""FMN-l0: gradient steps inside an l0 ball whose size follows each image's success."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape
from attacks.norms import box, counter, largest
from attacks.sparsest import Sparsest


@dataclass(frozen=True)
class FMNL0(BaseAttack):
    """Walk along the normalised gradient within k changes; k falls after a success, else rises.

    Pintor et al., "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints",
    NeurIPS 2021, algorithm 1 with p = 0. From no change and k = 1, a step moves by ``step`` along
    the gradient of the margin over its Euclidean length, keeps the k largest changes and clips them
    to the box. At an adversarial iterate k becomes min(k - 1, floor(k · (1 - ``gamma``)), fewest so
    far), else max(k + 1, floor(k · (1 + ``gamma``))). Step and gamma fall along cosines, to a
    hundredth of the step and to ``gamma_end``. The sparsest adversarial iterate is returned. It
    draws nothing.

    Deviations: ``eps``, ``unit`` and targeted goals are additions; with ``eps`` the attack works on
    change/eps, so that the step keeps its meaning. k stays at least 1. The last iterate is judged
    too, so a call makes ``steps`` + 1 forward and ``steps`` backward passes. The default of 300
    steps is cheaper than the paper's 1000, which ``published`` takes.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        unit: What is counted and kept, ``"elements"``, as published, or ``"pixels"`` with all
            their channels, by the length of their change.
        steps: Number of steps.
        step: First length of a step, as a share of eps (None: of 1).
        gamma: First relative change of k per step, below 1.
        gamma_end: Last relative change of k per step.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = FMNL0(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = None
    unit: Literal["elements", "pixels"] = "elements"
    steps: int = 300
    step: float = 1.0
    gamma: float = 0.05
    gamma_end: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in ("elements", "pixels"):
            raise ValueError(f"unit is {self.unit!r}: choose 'elements' or 'pixels'")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: give at least 1")
        if not self.step > 0:
            raise ValueError(f"step is {self.step}: it must be positive")
        if not 0 <= self.gamma_end <= self.gamma < 1:
            raise ValueError(
                f"gamma falls from {self.gamma} to {self.gamma_end}: both must be in [0, 1), the "
                "first at least the second"
            )

    @classmethod
    def published(cls, eps: float | None = None) -> FMNL0:
        """The paper's 1000 steps.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, steps=1000)

    def passes(self, shape: Shape) -> int:
        """One forward and one backward pass per step, and a last forward pass."""
        return 2 * self.steps + 1

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        scale = self.bound
        low, high = (bound / scale for bound in box(images, scale, goal.region))
        best = Sparsest(images, counter(self.unit))
        units = images[0, :1].numel() if self.unit == "pixels" else images[0].numel()
        z = torch.zeros_like(images)
        k = torch.ones(len(images), dtype=torch.long, device=images.device)
        for step in range(self.steps + 1):
            with torch.set_grad_enabled(step < self.steps):
                attacked = (images + z * scale).clamp(0, 1).requires_grad_(step < self.steps)
                margin = goal.margin(model(attacked))
            reached = margin.detach() < 0
            best.keep(attacked.detach(), reached)
            if step == self.steps:
                break
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(margin.sum(), attacked)
            falling = (1 + math.cos(math.pi * step / self.steps)) / 2
            gamma = self.gamma_end + (self.gamma - self.gamma_end) * falling
            fewer = torch.minimum(k - 1, (k * (1 - gamma)).long()).minimum(best.fewest)
            more = torch.maximum(k + 1, (k * (1 + gamma)).long())
            k = torch.where(reached, fewer, more).clamp(1, units)
            length = gradient.flatten(1).square().sum(1).sqrt().clamp(min=1e-12)
            rate = self.step * (0.01 + 0.99 * falling)
            if goal.region is not None:
                gradient = gradient * goal.region
            z = z - rate * gradient / length[:, None, None, None]
            z = self._keep(z, k).clamp(low, high)
        return best.images

    def _keep(self, z: Images, k: Int[Tensor, " b"]) -> Images:
        """The change without all but its k largest elements or pixels."""
        size = z.square()
        if self.unit == "pixels":
            size = size.sum(1, keepdim=True)
        return torch.where(largest(size.flatten(1), k).view_as(size), z, 0)
