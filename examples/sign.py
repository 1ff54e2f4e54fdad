"""An attack of one's own.

bench attack-eval --attack examples/sign.py:SignStep --data photos
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Role
from attacks.goal import Goal
from attacks.norms import box


@dataclass(frozen=True)
class SignStep(BaseAttack):
    """Change every value by ``eps`` in the direction of the gradient (Goodfellow et al. 2015).

    Args:
        eps: Largest change of a value, for images in [0, 1].
    """

    role: ClassVar[Role] = "ceiling"  # a dense attack; "sparse" is the default
    unit: ClassVar[None] = None  # what it minimises: "pixels", "elements" or neither
    eps: float | None = 8 / 255

    def passes(self, shape: tuple[int, int, int]) -> int:
        """The most forward and backward passes for one image of this shape."""
        return 4

    def _attack(
        self, model: nn.Module, images: Tensor, goal: Goal, generators: Sequence[Generator]
    ) -> Tensor:
        with torch.enable_grad():
            leaf = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(goal.margin(model(leaf)).sum(), leaf)
        low, high = box(images, self.eps, goal.region)
        step = torch.where(gradient > 0, low, torch.where(gradient < 0, high, 0.0))
        changed = images + step
        won = goal.reached(model(changed)) & ~goal.reached(model(images))
        won &= gradient.flatten(1).isfinite().all(1)
        return torch.where(won[:, None, None, None], changed, images)
