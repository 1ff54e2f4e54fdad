"""Noise of random signs: what an attack without any knowledge reaches, the floor of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Role, Shape
from attacks.fewest import attempts, fewest_changes
from attacks.norms import box, counter


@dataclass(frozen=True)
class RandomSigns(BaseAttack):
    """Change randomly chosen pixels, or elements, by ``eps`` up or down at random.

    Where the box leaves no room in the drawn direction the change goes the other way, so that every
    drawn element changes. It asks the model for no gradient.

    Attributes:
        eps: Change of an element, above 0 and at most 1; None for 1: to black or to white.
        count: Number of pixels, or elements, to change; None for the smallest number that reaches
            the goal, by doubling and bisection along one random order per image.
        unit: What is drawn and counted, ``"pixels"`` with all their channels or ``"elements"``.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = RandomSigns(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    role: ClassVar[Role] = "floor"

    eps: float | None = 8 / 255
    count: int | None = None
    unit: Literal["pixels", "elements"] = "pixels"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is {self.count}: change at least 1, or None for the fewest")
        if self.unit not in ("pixels", "elements"):
            raise ValueError(f"unit is {self.unit!r}: choose 'pixels' or 'elements'")

    def passes(self, shape: Shape) -> int:
        """A forward pass on the image and on every count that is tried."""
        most = math.prod(shape[1:] if self.unit == "pixels" else shape)
        return 1 + (attempts(most) if self.count is None else 1)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        shape = (1 if self.unit == "pixels" else images.shape[1], *images.shape[2:])
        draws = [_draw(g, shape, images[0]) for g in generators]
        ranks = torch.stack([rank for rank, _ in draws])
        up = torch.stack([sign for _, sign in draws])
        lower, upper = box(images, self.eps, goal.region)
        if goal.region is not None:  # the others come last
            late = ranks + ranks[0].numel() * ~goal.region
            ranks = late.flatten(1).argsort(1).argsort(1).view_as(ranks)
        noise = torch.where((up & (upper > 0)) | (lower == 0), upper, lower)
        size = counter(self.unit)

        def attempt(
            rows: Int[Tensor, " m"], counts: Int[Tensor, " m"]
        ) -> tuple[Images, Int[Tensor, " m"]]:
            drawn = ranks[rows] < counts[:, None, None, None]
            attacked = (images[rows] + noise[rows] * drawn).clamp(0, 1)
            changes = size(attacked - images[rows])
            return attacked, changes * goal[rows].reached(model(attacked))

        pending = ~goal.reached(model(images))
        if self.count is None:
            return fewest_changes(attempt, images, pending, ranks[0].numel())
        result = images.clone()
        rows = pending.nonzero()[:, 0]
        if len(rows):
            attacked, changes = attempt(rows, torch.full_like(rows, self.count))
            result[rows[changes > 0]] = attacked[changes > 0]
        return result


def _draw(generator: Generator, shape: tuple[int, ...], image: Tensor) -> tuple[Tensor, Tensor]:
    """A random rank for each place of ``shape`` and a random sign for each element."""
    order = torch.randperm(torch.Size(shape).numel(), generator=generator, device=generator.device)
    up = torch.rand(image.shape, generator=generator, device=generator.device) < 0.5
    return order.view(shape).to(image.device), up.to(image.device)
