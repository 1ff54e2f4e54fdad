"""sigma-zero: sparse attack by a smooth count of the changes and an adaptive threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, nn

from attacks.base import BaseAttack, Goal, Images, Shape
from attacks.norms import box, counter
from attacks.sparsest import Sparsest


@dataclass(frozen=True)
class SigmaZero(BaseAttack):
    """Minimise the number of changed elements, or pixels, by gradient descent on a smooth count.

    Cina et al., "sigma-zero", ICLR 2025, algorithm 1 with its published defaults. The loss is
    max(margin, 0) + mean of s/(s + ``sigma``), s the squared change; Adam follows its gradient,
    divided by its largest component per image; changes below an adaptive threshold become 0. The
    sparsest iterate that reaches the goal is returned. With ``eps`` the attack optimises
    change/eps, so that ``sigma`` and the thresholds keep their meaning. It draws nothing.

    Deviations: targeted goals, ``eps`` and ``unit`` are additions; the last iterate is judged too
    (the released code drops it), so a call makes ``steps`` + 1 forward and ``steps`` backward
    passes. The default of 100 steps is the released function's; ``published`` takes the 1000 of the
    paper's tables.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        unit: What is counted. For ``"pixels"`` s is summed over the channels, and the threshold
            looks at a pixel's largest channel.
        steps: Number of steps.
        lr: Learning rate of Adam, which falls to a tenth along a cosine.
        sigma: Smoothness of the count.
        threshold: First threshold, as a share of eps (or of 1) from 0 to 1.
        threshold_step: Change of the threshold per step, times the learning rate.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = SigmaZero(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = None
    unit: Literal["elements", "pixels"] = "elements"
    steps: int = 100
    lr: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in ("elements", "pixels"):
            raise ValueError(f"unit is {self.unit!r}: choose 'elements' or 'pixels'")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: give at least 1")
        for name in ("lr", "sigma", "threshold_step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: it must be a fraction from 0 to 1")

    @classmethod
    def published(cls, eps: float | None = None) -> SigmaZero:
        """The 1000 steps of the paper's tables.

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
        z = torch.zeros_like(images)
        first, second = torch.zeros_like(z), torch.zeros_like(z)
        threshold = images.new_full((len(images), 1, 1, 1), self.threshold)
        for step in range(self.steps + 1):
            last = step == self.steps
            # the clip is outside the gradient, which would be 0 where rounding leaves the box
            attacked = (images + z * scale).clamp_(0, 1).requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                margin = goal.margin(model(attacked))
            reached = margin.detach() < 0
            best.keep(attacked.detach(), reached)
            if last:
                break
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(margin.clamp(min=0).sum(), attacked)
            gradient = gradient * scale + self._count_slope(z)
            rate = self._rate(step)
            z = _adam(z, gradient, first, second, rate, step).clamp_(low, high)
            move = self.threshold_step * self._rate(step + 1)  # the released scheduler has moved
            signed = torch.where(reached[:, None, None, None], move, -move)
            threshold = (threshold + signed).clamp_(0, 1)
            size = z.abs().amax(1, keepdim=True) if self.unit == "pixels" else z.abs()
            z = z.masked_fill_(size < threshold, 0)
        return best.images

    def _count_slope(self, z: Images) -> Images:
        """The gradient of the mean of s/(s + ``sigma``)."""
        squared = z.square()
        if self.unit == "pixels":
            squared = squared.sum(1, keepdim=True)
        factor = 2 * self.sigma / squared[0].numel()
        return z * factor / (squared + self.sigma).square()

    def _rate(self, step: int) -> float:
        """The learning rate: a cosine from ``lr`` down to a tenth of it."""
        return self.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * step / self.steps)))


def _adam(
    z: Images, gradient: Images, first: Images, second: Images, rate: float, step: int
) -> Images:
    """One step of Adam down the gradient, divided by its largest component; updates the moments."""
    largest = gradient.flatten(1).abs().amax(1).clamp(min=1e-12)
    gradient = gradient / largest[:, None, None, None]
    first.mul_(0.9).add_(gradient, alpha=0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    spread = (second / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
    return z - rate * (first / (1 - 0.9 ** (step + 1))) / spread
