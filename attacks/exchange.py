"""Exchange: a guided local search that takes changed units back, one success after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import Goal, Images
from attacks.draws import draw
from attacks.norms import box, largest

GREED = 2.0  # how strongly proposals follow the gradient: the exponent of a unit's expected gain
PART = 6  # a success leaves out its n-th part at once, at least one unit
KEPT = 3  # moves that share a gradient, which costs two passes
PATIENCE = 20  # proposals in vain after which only half as many units are left out

Units = Bool[Tensor, "b n"]


def exchange(
    model: nn.Module,
    images: Images,
    goal: Goal,
    adversarial: Images,
    eps: float,
    unit: Literal["pixels", "elements"],
    passes: int | Int[Tensor, " b"],
    generators: Sequence[Generator],
) -> Images:
    """Look for successes with fewer changed units than given ones have.

    A success with n units leaves a sixth of them out, at least one, those whose first-order effect
    is the smallest; then proposals exchange one of the remaining units for another, or its value
    for another corner of the box, and are accepted unless the margin rises. As soon as the goal is
    reached, the next units go; where twenty proposals do not reach it, half as many units leave
    the last success instead. Units that come in are drawn with a probability that grows with the
    gain that the gradient promises for them, and go to the corner that it points to. Three
    accepted moves share a gradient.

    Args:
        model: The model under attack, frozen.
        images: The originals, of shape (b, c, h, w).
        goal: Their goal.
        adversarial: Images that reach it, of shape (b, c, h, w); others come back as they are.
        eps: Largest change of an element.
        unit: What is counted.
        passes: Most forward and backward passes per image; one number, or one for each.
        generators: One per image.

    Returns:
        Images of the shape of ``images`` that reach the goal with as many units as ``adversarial``
        or fewer.
    """
    search = _Search(model, images, goal, adversarial, eps, unit)
    best = adversarial.clone()
    left = torch.zeros(len(images), dtype=torch.long, device=images.device) + passes
    rows = (search.used.sum(1) > 1).nonzero()[:, 0]
    while True:
        stale = rows[search.stale[rows] & (left[rows] >= 3)]
        if len(stale):
            search.differentiate(stale)
            left[stale] -= 2
        rows = rows[(left[rows] >= 1) & ~search.stale[rows]]
        if not len(rows):
            return best
        won = search.propose(rows, [generators[row] for row in rows.tolist()])
        left[rows] -= 1
        best[rows[won]] = search.current(rows[won])
        rows = rows[~search.full[rows] | (search.used[rows].sum(1) > 1)]


class _Search:
    """The state of every image: what is used, at which values, its margin and its gradient."""

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        adversarial: Images,
        eps: float,
        unit: Literal["pixels", "elements"],
    ) -> None:
        self.model, self.images, self.goal = model, images, goal
        self.groups = images.shape[1] if unit == "pixels" else 1
        low, high = box(images, eps, goal.region)
        self.low, self.high = self._units(low), self._units(high)
        self.values = self._units(adversarial - images)
        self.used = (self.values != 0).any(1)
        self.margin = torch.full_like(images[:, 0, 0, 0], -torch.inf)
        self.slope = torch.zeros_like(self.values)
        self.appeal = torch.zeros_like(self.values[:, 0])  # of units that could come, by the slope
        self.moves = torch.full_like(self.used[:, 0], KEPT, dtype=torch.long)  # of this gradient
        self.full = torch.ones_like(self.used[:, 0])  # whether the state is a success
        self.best = self.values.clone()  # the last success
        self.leaving = self._leaving(self.used)
        self.vain = torch.zeros_like(self.leaving)  # proposals since the last success

    @property
    def stale(self) -> Bool[Tensor, " b"]:
        """Whether an image needs a new gradient before its next proposal."""
        return self.moves >= KEPT

    def _leaving(self, used: Units) -> Int[Tensor, " b"]:
        """How many units a success leaves out at once."""
        return (used.sum(1) // PART).clamp(min=1)

    def _units(self, values: Images) -> Float[Tensor, "b g n"]:
        return values.reshape(len(values), self.groups, -1)

    def _attacked(self, rows: Int[Tensor, " m"], values: Float[Tensor, "m g n"]) -> Images:
        return (self.images[rows] + values.view_as(self.images[rows])).clamp(0, 1)

    def current(self, rows: Int[Tensor, " m"]) -> Images:
        """The images of some rows, as they are."""
        return self._attacked(rows, self.values[rows])

    def differentiate(self, rows: Int[Tensor, " m"]) -> None:
        """Refresh the margin and the gradient of some rows."""
        with torch.enable_grad():
            point = self.current(rows).requires_grad_()
            margin = self.goal[rows].margin(self.model(point))
            (slope,) = torch.autograd.grad(margin.sum(), point)
        self.margin[rows] = margin.detach().to(self.margin)
        self.slope[rows] = slope = self._units(slope.nan_to_num(0)).to(self.slope)
        corner = torch.where(slope > 0, self.low[rows], self.high[rows])
        gain = (-slope * corner).sum(1).clamp(min=0)
        self.appeal[rows] = GREED * (gain + 1e-30).log()
        self.moves[rows] = 0

    def propose(self, rows: Int[Tensor, " m"], generators: list[Generator]) -> Bool[Tensor, " m"]:
        """Try one change for each of some rows; returns which of them now are new successes."""
        values, used = self.values[rows], self.used[rows]
        n = used.shape[1]
        numbers = 2 * n + 1 + self.groups
        draws = draw(torch.rand, generators, (numbers,), values.device).to(values)
        shrinking = self.full[rows]
        # which unit goes: the one that the goal misses least, by the first order, or any
        loss = (-self.slope[rows] * values).sum(1)
        spread = loss.abs().amax(1, keepdim=True).clamp(min=1e-30)
        goes = torch.where(shrinking[:, None], -loss / spread, draws[:, :n])
        goes = goes.where(used, -torch.inf)
        out = goes.argmax(1)
        count = torch.where(shrinking, self.leaving[rows].minimum(used.sum(1) - 1), 1)
        # which one comes: none, another, or the same at other values
        gumbel = -(-draws[:, n : 2 * n].clamp(min=1e-9).log()).log()
        others = (self.appeal[rows] + gumbel).where(~used, -torch.inf)
        recolour = draws[:, 2 * n] < 0.25
        come = torch.where(recolour, out, others.argmax(1))
        low, high, slope = (each[rows, :, come] for each in (self.low, self.high, self.slope))
        random = torch.where(draws[:, 2 * n + 1 :] < 0.5, low, high)
        colour = torch.where(recolour[:, None], random, torch.where(slope > 0, low, high))
        index = torch.arange(len(rows), device=rows.device)
        tried = values.masked_fill(largest(goes, count)[:, None], 0)
        tried[index[~shrinking], :, come[~shrinking]] = colour[~shrinking]
        margin = self.goal[rows].margin(self.model(self._attacked(rows, tried))).to(self.margin)
        better = (margin <= self.margin[rows]) | shrinking
        there = rows[better]
        self.values[there], self.margin[there] = tried[better], margin[better]
        self.used[there] = (tried[better] != 0).any(1)
        self.moves[there] += 1
        won = better & (margin < 0)
        self.full[rows] = won
        self._retreat(rows, won)
        return won

    def _retreat(self, rows: Int[Tensor, " m"], won: Bool[Tensor, " m"]) -> None:
        """Remember new successes; go back to the last one where too many units were left out."""
        self.best[rows[won]] = self.values[rows[won]]
        self.leaving[rows[won]] = self._leaving(self.used[rows[won]])
        self.vain[rows] = torch.where(won, 0, self.vain[rows] + 1)
        back = rows[(self.vain[rows] >= PATIENCE) & (self.leaving[rows] > 1)]
        self.values[back] = self.best[back]
        self.used[back] = (self.best[back] != 0).any(1)
        self.leaving[back] //= 2
        self.vain[back] = 0
        self.full[back] = True
        self.moves[back] = KEPT
