"""GSE: group-wise sparse changes, by a proximal step whose price falls near what has changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from attacks.base import BaseAttack, Goal, Images, Shape, Unit
from attacks.norms import box, l0_pixels
from attacks.sparsest import Sparsest

Prices = Float[Tensor, "b 1 h w"]
THRESHOLD = 54 ** (1 / 3) / 4  # of the proximal operator of the 1/2-quasinorm


@dataclass(frozen=True)
class GSE(BaseAttack):
    """Find groups of pixels that belong together, then the shortest change within them.

    Sadiku, Wagner and Pokutta, "GSE: Group-wise Sparse and Explainable Adversarial Attacks", ICLR
    2025, algorithm 1. For the first ``first_steps`` steps, gradient descent on max(margin, 0) +
    ``weight`` · length of the change alternates with the proximal operator of price · 1/2-quasinorm
    to the power 1/2; after each, the price of a pixel is divided by 1 + the share of changed pixels
    near it (Gaussian of width ``blur`` in a window of 5 x 5), or by ``far`` where none is near.
    Pixels whose price has risen since then stay unchanged, and accelerated descent without a price
    goes on in the others. A run ends with the goal. The first price is the largest at which the
    first step changes anything, at which a success ends the search; else ``searches`` runs halve
    it until one succeeds, and then bisect.

    Lengths and rates are for values in [-1, 1], as in the paper. It draws nothing.

    Deviations: the gradient of the margin is divided by its largest value on the image, for the
    published rate of 0.0025 and weight of 1 presume logits of one scale and fail at others; here
    they are 0.02 and 0.2. Of the runs the success with the fewest pixels is returned (published:
    with the fewest 8 x 8 patches); the first price has a closed form (published: bisection);
    ``eps`` bounds the change where it is given.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        steps: Steps of a run.
        first_steps: Steps with the proximal operator, fewer than ``steps``.
        searches: Runs, each with another first price.
        rate: Length of a gradient step.
        weight: Weight of the length of the change.
        far: What the price of pixels far from all changes is divided by, above 0 and below 1.
        blur: Standard deviation of the Gaussian, in pixels.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = GSE(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "pixels"

    eps: float | None = None
    steps: int = 200
    first_steps: int = 30
    searches: int = 10
    rate: float = 0.02
    weight: float = 0.2
    far: float = 0.25
    blur: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.searches < 1:
            raise ValueError(f"searches is {self.searches}: give at least 1")
        if not 1 <= self.first_steps < self.steps:
            raise ValueError(
                f"first_steps is {self.first_steps} of {self.steps} steps: it must be at least 1 "
                "and fewer than all"
            )
        for name in ("rate", "blur"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if not self.weight >= 0:
            raise ValueError(f"weight is {self.weight}: it must not be negative")
        if not 0 < self.far < 1:
            raise ValueError(f"far is {self.far}: it must be above 0 and below 1")

    def passes(self, shape: Shape) -> int:
        """Both passes of every step of every run, one more to judge it, and both on the image."""
        return 2 + self.searches * (2 * self.steps + 1)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        best = Sparsest(images, l0_pixels)
        unit = torch.ones_like(images[:, :1, :1, :1])
        margin, slope = self._slope(model, images, goal, torch.zeros_like(images), unit)
        steep = slope.flatten(1).abs().amax(1)
        rows = (~(margin < 0) & (steep > 0) & steep.isfinite()).nonzero()[:, 0]
        scale = 1 / steep[rows, None, None, None]
        # the first step, of length rate at most, just passes the threshold at this price
        price = torch.full_like(steep[rows], (self.rate / THRESHOLD) ** 1.5 / self.rate * 0.9999)
        cheap, dear = torch.zeros_like(price), torch.full_like(price, torch.inf)
        for search in range(self.searches):
            if not len(rows):
                break
            found, won = self._run(
                model, images[rows], goal[rows], price[:, None, None, None], scale
            )
            best.keep(found, won, rows)
            if search == 0:  # at a higher price than the first nothing changes at all
                open_ = ~won
                rows, scale = rows[open_], scale[open_]
                price, cheap, dear, won = price[open_], cheap[open_], dear[open_], won[open_]
            cheap, dear = torch.where(won, price, cheap), torch.where(won, dear, price)
            price = torch.where(cheap == 0, price / 2, (cheap + dear) / 2)
        return best.images

    def _run(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        first: Float[Tensor, "b 1 1 1"],
        scale: Float[Tensor, "b 1 1 1"],
    ) -> tuple[Images, Bool[Tensor, " b"]]:
        """The images of the first iterates that reach the goal, and which images those are."""
        result = images.clone()
        won = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        low, high = (2 * bound for bound in box(images, self.eps, goal.region))
        rows = torch.arange(len(images), device=images.device)
        change, before = torch.zeros_like(images), torch.zeros_like(images)
        price = first.expand_as(images[:, :1]).clone()
        fixed = torch.zeros_like(price, dtype=torch.bool)
        pace = 1.0
        for step in range(self.steps + 1):
            if step < self.steps:
                margin, slope = self._slope(model, images[rows], goal[rows], change, scale[rows])
            else:
                margin = goal[rows].margin(model(_apply(images[rows], change)))
            reached = margin < 0
            result[rows[reached]] = _apply(images[rows], change)[reached]
            won[rows[reached]] = True
            if step == self.steps or reached.all():
                break
            keep = ~reached & slope.flatten(1).isfinite().all(1)
            rows, change, before, price, fixed, slope = (
                state[keep] for state in (rows, change, before, price, fixed, slope)
            )
            if not len(rows):
                break
            if step == self.first_steps:
                fixed, before = price > first[rows], change
            moved = change - self.rate * slope
            if step < self.first_steps:
                moved = shrink(moved, price * self.rate)
            following = (1 + math.sqrt(1 + 4 * pace**2)) / 2
            mixed = pace / following * moved + (1 - pace / following) * before
            before, pace = moved, following
            if step < self.first_steps:
                price = self._adjust(price, mixed)
            change = mixed.masked_fill(fixed, 0).clamp(low[rows], high[rows])
        return result, won

    def _slope(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        change: Images,
        scale: Float[Tensor, "b 1 1 1"],
    ) -> tuple[Float[Tensor, " b"], Images]:
        """The margin, and the gradient of the loss with ``scale`` times the margin."""
        with torch.enable_grad():
            point = _apply(images, change).requires_grad_()
            margin = goal.margin(model(point))
            (slope,) = torch.autograd.grad(margin.clamp(min=0).sum(), point)
        length = change.flatten(1).square().sum(1).sqrt().clamp(min=1e-12)
        slope = scale * slope + self.weight * change / length[:, None, None, None]
        if goal.region is not None:
            slope = slope * goal.region
        return margin.detach(), slope

    def _adjust(self, price: Prices, change: Images) -> Prices:
        """The prices after a step: lower near changed pixels, higher far from them."""
        changed = (change != 0).any(1, keepdim=True).to(change)
        near = _blur(changed, self.blur) + 1
        return price / torch.where(near == 1, self.far, near)


def shrink(point: Images, price: Prices) -> Images:
    """The proximal operator of ``price`` · sum of the roots of absolute values, element by element.

    The minimiser of (value - point)² + ``price`` · |value|^(1/2), after Cao, Sun and Xu 2013:
    0 up to a threshold, and beyond it (2/3) · point · (1 + cos(2π/3 - (2/3) · φ)).
    """
    size = point.abs()
    price = price.expand_as(point)
    stays = size > THRESHOLD * price ** (2 / 3)
    cosine = price / 8 * (size.clamp(min=1e-30) / 3) ** -1.5
    angle = torch.where(stays, cosine, 0).clamp(max=1).arccos()
    kept = 2 / 3 * point * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * angle))
    return torch.where(stays, kept, 0)


def _blur(maps: Prices, width: float) -> Prices:
    """A Gaussian in a window of 5 x 5, with the border repeated."""
    steps = torch.arange(-2, 3, device=maps.device, dtype=maps.dtype)
    weights = torch.exp(-(steps**2) / (2 * width**2))
    weights = weights / weights.sum()
    padded = functional.pad(maps, (2, 2, 2, 2), mode="replicate")
    across = functional.conv2d(padded, weights.view(1, 1, 1, 5))
    return functional.conv2d(across, weights.view(1, 1, 5, 1))


def _apply(images: Images, change: Images) -> Images:
    """The images after a change in units of [-1, 1]."""
    return (images + change / 2).clamp(0, 1)
