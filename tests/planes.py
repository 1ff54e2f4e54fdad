"""Linear victims: how many changes the sparsest adversarial example needs is known."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from attacks import Goal
from attacks.norms import box

Size = tuple[int, int, int]


class Plane(nn.Module):
    """Logits are linear in the image."""

    def __init__(self, weight: Float[Tensor, "k c h w"], bias: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return images.flatten(1) @ self.weight.flatten(1).T + self.bias


def two_classes(weight: Float[Tensor, "c h w"], bias: float) -> Plane:
    """The margin of class 0 over class 1 is weight·image + bias."""
    both = torch.stack([weight, torch.zeros_like(weight)])
    return Plane(both, torch.tensor([bias, 0], dtype=weight.dtype))


def some_images(size: Size, count: int, seed: int, spread: float = 0.1) -> Tensor:
    generator = Generator().manual_seed(seed)
    noise = torch.randn(count, *size, generator=generator, dtype=torch.float64)
    return (0.5 + spread * noise).clamp(0, 1)


def plane(size: Size, classes: int, seed: int = 0) -> Plane:
    """Random directions; all classes tie on the grey image."""
    generator = Generator().manual_seed(seed)
    weight = torch.randn(classes, *size, generator=generator, dtype=torch.float64)
    return Plane(weight, -0.5 * weight.flatten(1).sum(1))


def ladder(size: Size, classes: int, seed: int = 0) -> Plane:
    """One direction for all classes, so that each is an interval of one score.

    The score is 0 on the grey image, which lies at the end of the middle class; the intervals are
    as wide as a tenth of the direction's l1 norm.
    """
    direction = torch.randn(*size, generator=Generator().manual_seed(seed), dtype=torch.float64)
    width = 0.1 * direction.abs().sum()
    slopes = torch.arange(classes, dtype=torch.float64)
    ends = (slopes[1:] - classes // 2) * width  # where class k takes over from class k - 1
    bias = torch.cat([torch.zeros(1, dtype=torch.float64), -ends.cumsum(0)])
    weight = slopes[:, None, None, None] * direction
    return Plane(weight, bias - 0.5 * weight.flatten(1).sum(1))


@torch.no_grad()
def fewest(
    victim: Plane,
    images: Float[Tensor, "b c h w"],
    goal: Goal,
    eps: float,
    unit: Literal["elements", "pixels"] = "elements",
) -> Int[Tensor, " b"]:
    """How many elements, or pixels, must change at least; more than there are if none suffice.

    Against one other class the largest reachable gains are taken first until the two logits cross.
    Untargeted, the easiest class counts: exact. Targeted, the hardest: exact for two classes and on
    a ladder, else a lower bound.
    """
    lower, upper = box(images, eps)
    logits = victim(images)
    counts = []
    for other in range(len(victim.bias)):
        sign = 1 if goal.targeted else -1
        pull = sign * (victim.weight[goal.labels] - victim.weight[other])
        gap = sign * (logits[:, other] - logits.gather(1, goal.labels[:, None])[:, 0])
        gain = torch.where(pull > 0, pull * upper, pull * lower)
        if unit == "pixels":
            gain = gain.sum(1)
        reach = gain.flatten(1).sort(1, descending=True).values.cumsum(1)
        needed = (reach <= gap[:, None]).sum(1) + 1
        needed[gap < 0] = 0
        needed[goal.labels == other] = 0 if goal.targeted else gain[0].numel() + 1
        counts.append(needed)
    return torch.stack(counts).amax(0) if goal.targeted else torch.stack(counts).amin(0)
