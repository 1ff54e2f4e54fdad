"""PGDTrim: PGD on ever fewer pixels, chosen by the losses of sampled subsets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape, Unit
from attacks.draws import draw
from attacks.norms import box, largest

Pixels = Bool[Tensor, "b n"]


@dataclass(frozen=True)
class PGDTrim(BaseAttack):
    """Halve the number of pixels again and again, with PGD on those that are left.

    Nemcovsky et al., "Sparse patches adversarial attacks via extrapolating point-wise information",
    2024, the attack PGDTrim. It starts with PGD on all pixels. To trim to half as many, ``samples``
    subsets of that size are drawn, half uniformly and half by the change of a pixel; a pixel is
    worth the mean of the negative margins of the subsets that hold it, and the best ones stay. Then
    PGD goes on from there, and the perturbation of the smallest margin is what is trimmed next.

    Deviations: the paper trims to a given number; here an image is done at the smallest number at
    which PGD reaches the goal: halved until it fails, then bisected, each time from the smallest
    success. The subsets are drawn by Gumbel's method, without dropout and without restarts. The
    margin replaces the cross-entropy.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        k: Number of pixels at which an image is done; None for the fewest.
        steps: Steps of PGD for every number of pixels.
        samples: Subsets drawn to trim once.
        step: Change of an element per step of PGD, as a share of eps (None: of 1).

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = PGDTrim(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "pixels"
    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = None
    k: int | None = None
    steps: int = 20
    samples: int = 20
    step: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and self.k < 1:
            raise ValueError(f"k is {self.k}: change at least 1 pixel, or None for the fewest")
        for name in ("steps", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if not self.step > 0:
            raise ValueError(f"step is {self.step}: it must be positive")

    @classmethod
    def published(cls, eps: float | None = None) -> PGDTrim:
        """The budget of the paper: 100 steps and 1000 subsets for every number of pixels.

        The search for the fewest pixels, which spends it several times, is an addition.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, steps=100, samples=1000)

    def passes(self, shape: Shape) -> int:
        """One on the image; for each number both passes of all steps, one more, and the subsets."""
        tried = 1 + 2 * math.ceil(math.log2(max(2, math.prod(shape[1:]))))
        return 1 + tried * (2 * self.steps + 1 + self.samples)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        result = images.clone()
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        if len(rows):
            chosen = [generators[row] for row in rows.tolist()]
            result[rows] = self._trim(model, images[rows], goal[rows], chosen)
        return result

    def _trim(
        self, model: nn.Module, images: Images, goal: Goal, generators: list[Generator]
    ) -> Images:
        result = images.clone()
        low, high = box(images, self.eps, goal.region)
        held = ((low < 0) | (high > 0)).any(1).flatten(1)  # the pixels of the smallest success
        start = draw(torch.rand, generators, images.shape[1:], images.device, images.dtype)
        change = low + start * (high - low)
        works, fails = held.sum(1), torch.zeros(len(images), dtype=torch.long, device=held.device)
        rows, chosen, count = (works > 0).nonzero()[:, 0], held, works
        while len(rows):
            margin, moved = self._descend(
                model, images[rows], goal[rows], change[rows], chosen[rows], low[rows], high[rows]
            )
            won, lost = rows[margin < 0], rows[~(margin < 0)]
            change[won], held[won] = moved[margin < 0], chosen[won]
            works[won], fails[lost] = count[won], count[lost]
            shown = held[won].view(len(won), 1, *images.shape[2:])
            result[won] = (images[won] + change[won] * shown).clamp(0, 1)
            left = works[rows] > (self.k or 1)
            rows = rows[left & (works[rows] - fails[rows] > 1)]
            if not len(rows):
                break
            count = (works + fails) // 2  # halves it until it fails
            count = count.clamp(min=self.k or 1)
            chosen = held.clone()
            chosen[rows] = self._choose(
                model, images[rows], goal[rows], change[rows], held[rows], count[rows],
                [generators[row] for row in rows.tolist()],
            )  # fmt: skip
        return result

    def _descend(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        change: Images,
        chosen: Pixels,
        low: Images,
        high: Images,
    ) -> tuple[Float[Tensor, " b"], Images]:
        """The smallest margin of PGD on the chosen pixels, and its change."""
        shown = chosen.view(len(images), 1, *images.shape[2:])
        length = self.step * self.bound
        least = torch.full_like(images[:, 0, 0, 0], torch.inf)
        nearest, lost = change, torch.zeros_like(chosen[:, 0])
        for step in range(self.steps + 1):
            last = step == self.steps
            point = (images + change * shown).clamp(0, 1).requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                margin = goal.margin(model(point))
            better = margin.detach() < least
            least = torch.where(better, margin.detach(), least)
            nearest = torch.where(better[:, None, None, None], change, nearest)
            if last:
                break
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(margin.sum(), point)
            lost |= ~slope.flatten(1).isfinite().all(1)
            change = (change - length * (slope * shown).sign()).clamp(low, high)
        return least.masked_fill(lost, torch.inf), nearest

    def _choose(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        change: Images,
        held: Pixels,
        count: Int[Tensor, " b"],
        generators: list[Generator],
    ) -> Pixels:
        """The ``count`` pixels of each image whose subsets come closest to the goal."""
        size = change.square().sum(1).flatten(1).sqrt() * held
        size = size / size.sum(1, keepdim=True).clamp(min=1e-30)
        even = held / held.sum(1, keepdim=True)
        odds = ((size + even) / 2).log()  # -inf outside
        total, times = torch.zeros_like(odds), torch.zeros_like(odds)
        for _ in range(self.samples):
            uniform = draw(torch.rand, generators, odds.shape[1:], odds.device, odds.dtype)
            subset = largest(odds - (-uniform.clamp(min=1e-12).log()).log(), count)
            shown = subset.view(len(images), 1, *images.shape[2:])
            margin = goal.margin(model((images + change * shown).clamp(0, 1)))
            total -= subset * margin.nan_to_num(1e6)[:, None]
            times += subset
        worth = (total / times.clamp(min=1)).nan_to_num()  # of infinite margins
        # one subset alone has as many pixels as are asked for: the others are never needed
        return largest(worth.where(times > 0, -torch.inf), count)
