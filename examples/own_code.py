"""A network, an augmentation and an attack of one's own, for the command line.

bench run --aug none --aug examples/own_code.py:Stripes --model examples/own_code.py:make
bench attack-eval --attack examples/own_code.py:SignStep --model examples/own_code.py:make
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from attacks import BaseAttack, Goal, Role
from attacks.norms import box
from augmentations import Guide, Images, Mask, Ramp


def make(classes: int, channels: int = 3) -> nn.Module:
    """A network for images in [0, 1]."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, classes),
    )  # fmt: skip


@dataclass(frozen=True)
class Stripes:
    """Delete vertical stripes at a random offset."""

    wants: ClassVar[str | None] = None
    width: int = 4
    share: Ramp = Ramp(0.5)  # noqa: RUF009
    fill: str = "mean"

    @classmethod
    def preset(cls, data: str, side: int) -> "Stripes":
        return cls(width=max(1, side // 8))

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        b, _, h, w = images.shape
        offset = torch.randint(2 * self.width, (b, 1), generator=generator)
        deleted = (torch.arange(w) + offset) // self.width % 2 == 1
        return deleted.view(b, 1, 1, w).expand(b, 1, h, w).to(images.device)


@dataclass(frozen=True)
class SignStep(BaseAttack):
    """Change every value by ``eps`` in the direction of the gradient."""

    role: ClassVar[Role] = "ceiling"
    unit: ClassVar[None] = None
    eps: float | None = 8 / 255

    def passes(self, shape: tuple[int, int, int]) -> int:
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
