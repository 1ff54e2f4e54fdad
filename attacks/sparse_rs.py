"""Sparse-RS: random search over which pixels change, and to which corner of the box."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape, Unit
from attacks.draws import draw
from attacks.norms import interval, largest

ENDS = (50, 200, 500, 1000, 2000, 4000, 6000, 8000)
DIVISORS = (2, 4, 5, 6, 8, 10, 12, 15, 20)
"""Of 10000 queries: up to which the first share of exchanged pixels is divided by what."""


@dataclass(frozen=True)
class SparseRS(BaseAttack):
    """Exchange some of k changed pixels at random, and keep what lowers the margin.

    Croce et al., "Sparse-RS", AAAI 2022, algorithm 1 for pixels: a black-box attack, which asks for
    logits and never for a gradient. k pixels start at random with colours in the corners of the
    box. A query replaces max(1, floor(a · k)) of them by as many others with new corners, and is
    accepted unless the margin rises. The share a starts at ``share`` and falls by the released
    code's schedule, stretched to ``queries``.

    ``k`` given, the published attack, which ends at the first success. ``k`` None, an addition: k
    starts at a fiftieth of the pixels and doubles after each tenth of the queries in vain; once
    the goal is reached, every second query takes max(1, floor(a · k)) pixels back instead, and is
    accepted if the goal stays reached.

    Deviations: with ``eps`` the corners are those of what eps leaves of [0, 1]; targeted goals use
    the margin too (published: the cross-entropy); an exchange that leaves the margin as it is is
    accepted (published: only one that lowers it).

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None, as published, leaves only
            [0, 1].
        k: Number of pixels that change; None for few of them.
        queries: Forward passes per image, at least 2.
        share: First share of the pixels that a query exchanges, above 0 and at most 1.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = SparseRS(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "pixels"
    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = None
    k: int | None = None
    queries: int = 1000
    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and self.k < 1:
            raise ValueError(f"k is {self.k}: change at least 1 pixel, or None for few")
        if self.queries < 2:
            raise ValueError(f"queries is {self.queries}: give at least 2")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}: it must be above 0 and at most 1")

    @classmethod
    def published(cls, eps: float | None = None) -> SparseRS:
        """The paper's 10000 queries; that they look for the fewest pixels is an addition.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, queries=10_000)

    def passes(self, shape: Shape) -> int:
        """One forward pass per query; no backward pass."""
        return self.queries

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        result = images.clone()
        margin = goal.margin(model(images))
        rows = (~(margin < 0)).nonzero()[:, 0]
        low, high = interval(images, self.eps, goal.region)
        free = (high > low).flatten(2).any(1)
        room = free.sum(1)
        rows = rows[room[rows] > 0]
        k = room.clamp(max=self.k or max(1, images[0, 0].numel() // 50))
        chosen = torch.zeros_like(free)
        corners = images.clone()
        margin = torch.full_like(margin, torch.inf)
        for query in range(1, self.queries):
            if not len(rows):
                break
            before, won = chosen[rows], margin[rows] < 0
            if self.k is None and query % max(1, self.queries // 10) == 0:
                k[rows] = torch.where(won, k[rows], (2 * k[rows]).minimum(room[rows]))
            fewer = won & (query % 2 == 0)
            away = self._exchanged(k[rows], query)
            come = torch.where(fewer, 0, k[rows] - (before.sum(1) - away).clamp(min=0))
            ranks, signs = self._draw([generators[r] for r in rows.tolist()], images)
            kept = before & ~largest(ranks.where(before, -1), away)
            fresh = largest(ranks.where(~before & free[rows], -1), come) & ~before & free[rows]
            shape = (len(rows), 1, *images.shape[2:])
            corner = torch.where(signs, high[rows], low[rows])
            colours = torch.where(fresh.view(shape), corner, corners[rows])
            attacked = torch.where((kept | fresh).view(shape), colours, images[rows])
            found = goal[rows].margin(model(attacked))
            better = torch.where(fewer, found < 0, found <= margin[rows])
            taken = rows[better]
            chosen[taken], corners[taken] = (kept | fresh)[better], colours[better]
            margin[taken] = found[better]
            k[taken] = torch.where(fewer, chosen[rows].sum(1), k[rows])[better]
            reached = better & (found < 0)
            result[rows[reached]] = attacked[reached]
            done = reached
            if self.k is None:  # a single pixel cannot become fewer
                done = (margin[rows] < 0) & (chosen[rows].sum(1) == 1)
            rows = rows[~done]
        return result

    def _exchanged(self, k: Int[Tensor, " b"], query: int) -> Int[Tensor, " b"]:
        """How many of k pixels a query replaces."""
        place = bisect_left(ENDS, 10_000 * query // self.queries)
        return (self.share / DIVISORS[place] * k).long().clamp(min=1)

    def _draw(
        self, generators: list[Generator], images: Images
    ) -> tuple[Float[Tensor, "m n"], Bool[Tensor, "m c h w"]]:
        """A random number per pixel, and a corner of the box."""
        c, h, w = images.shape[1:]
        draws = draw(torch.rand, generators, (1 + c, h, w), images.device)
        return draws[:, 0].flatten(1), draws[:, 1:] < 0.5
