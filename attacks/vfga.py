"""VFGA: one element after the other, by the best of some folded Gaussian draws."""

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
from attacks.norms import interval


@dataclass(frozen=True)
class VFGA(BaseAttack):
    """Change the element of the largest gain per step, by the best of ``2 · samples`` random sizes.

    Hajri et al., "Stochastic sparse adversarial attacks", ICTAI 2021, the Voting Folded Gaussian
    Attack. A step takes one gradient and picks two untouched elements: the one with the largest
    slope times the room above it, and the one with the largest slope times the room below. Each
    gets ``samples`` changes |N(0, 1)| times its room, clipped to the box; of all these images the
    one that serves the goal best is kept (the vote). It ends with the goal, or when every element
    has changed.

    Deviations: the room ends at ``eps`` where there is one (published: only at [0, 1]); the
    gradient and the vote are those of `Goal.soft_margin`, the log-odds, which order elements as the
    probability does but don't underflow. Successes come before others in the vote, as published.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        samples: Random sizes for each of the two elements of a step.
        share: Largest share of the elements that may change, above 0 and at most 1.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = VFGA(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "elements"

    eps: float | None = None
    samples: int = 10
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}: draw at least 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}: it must be above 0 and at most 1")

    def passes(self, shape: Shape) -> int:
        """One on the image; for each element one, its gradient, and at most one per sample."""
        return 1 + int(self.share * math.prod(shape)) * (2 + 2 * self.samples)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        result = images.clone()
        low, high = interval(images, self.eps, goal.region)
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        current, free = images[rows], (high > low)[rows].flatten(1)
        for _ in range(int(self.share * images[0].numel())):
            if not len(rows):
                break
            with torch.enable_grad():
                leaf = current.requires_grad_()
                (slope,) = torch.autograd.grad(goal[rows].soft_margin(model(leaf)).sum(), leaf)
            sound = slope.flatten(1).isfinite().all(1) & free.any(1)
            rows, free, slope = rows[sound], free[sound], slope[sound]
            current = leaf.detach()[sound]
            if not len(rows):
                break
            tried, touched, first = self._draw(
                current, slope, low[rows], high[rows], free, [generators[r] for r in rows.tolist()]
            )
            best, won = self._vote(model, goal[rows], tried, first)
            picked = torch.arange(len(rows), device=rows.device)
            current, place = tried[picked, best], touched[picked, best // self.samples]
            free = free.scatter(1, place[:, None], False)
            result[rows[won]] = current[won]
            rows, current, free = rows[~won], current[~won], free[~won]
        return result

    def _draw(
        self,
        current: Images,
        slope: Images,
        low: Images,
        high: Images,
        free: Bool[Tensor, "b n"],
        generators: list[Generator],
    ) -> tuple[Float[Tensor, "b s c h w"], Int[Tensor, "b 2"], Int[Tensor, "b s"]]:
        """The images to vote on, their two elements, and the first equal image of each.

        Returns:
            Images of shape (b, 2 · samples, c, h, w), those of one element after those of the
            other; the indices of both elements; and for each image the index of the first one that
            is equal to it: where there is a bound, a third of the draws reach it.
        """
        flat, low, high = (values.flatten(1) for values in (current, low, high))
        up, down = (-slope.flatten(1) * (high - flat)), (slope.flatten(1) * (flat - low))
        places = torch.stack([gain.where(free, -torch.inf).argmax(1) for gain in (up, down)], 1)
        room = torch.stack([(high - flat), (low - flat)], 1).gather(2, places[:, :, None])
        noise = draw(torch.randn, generators, (2, self.samples), current.device, current.dtype)
        sizes = noise.abs() * room
        tried = flat[:, None, None].repeat(1, 2, self.samples, 1)
        where = places[:, :, None, None].expand(-1, -1, self.samples, 1)
        tried = tried.scatter_add(3, where, sizes[..., None]).flatten(1, 2)
        tried = tried.maximum(low[:, None]).minimum(high[:, None])
        values = tried.gather(2, where.flatten(1, 2)).view(sizes.shape)
        first = (values[..., None] == values[..., None, :]).int().argmax(-1)
        first[:, 1] += self.samples
        return tried.unflatten(2, current.shape[1:]), places, first.flatten(1)

    def _vote(
        self,
        model: nn.Module,
        goal: Goal,
        tried: Float[Tensor, "b s c h w"],
        first: Int[Tensor, "b s"],
    ) -> tuple[Tensor, Bool[Tensor, " b"]]:
        """Which of the images of each row serves the goal best, and whether it reaches it.

        The model sees each of equal images once.
        """
        repeated = Goal(goal.labels.repeat_interleave(tried.shape[1]), goal.targeted)
        seen = first == torch.arange(tried.shape[1], device=first.device)
        answer = (seen.flatten().cumsum(0) - 1).view(first.shape).gather(1, first)
        logits = model(tried[seen])[answer.flatten()]
        reached = repeated.reached(logits).view(tried.shape[:2])
        odds = repeated.soft_margin(logits).view(tried.shape[:2]).nan_to_num(torch.inf)
        best = torch.where(reached | ~reached.any(1, keepdim=True), odds, torch.inf).argmin(1)
        return best, reached.any(1)
