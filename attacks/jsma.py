"""JSMA: change the pair of elements that the saliency map likes best, again and again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Logits, Region, Shape, Unit
from attacks.norms import box


@dataclass(frozen=True)
class JSMA(BaseAttack):
    """Change two elements per step, each once and as far as the box allows.

    Papernot et al. 2016, algorithms 2 and 3. The pair maximises (a_p + a_q) · (d_p + d_q), both
    sums positive: a is how much the target's output rises, d how much the sum of the others falls.
    The outputs are the ``representation``:

    - ``"log-probabilities"`` (JSMA-F): probabilities add up to 1, so a = d and the pair is the top
      two of one gradient. The gradient is that of the log-odds, a positive multiple per image which
      doesn't underflow.
    - ``"logits"`` (JSMA-Z): two backward passes, and the exact pair by ``best_pair``.

    Deviations: the step is not a free theta but ``eps`` or what is left of it in the box (None: all
    the way to 0 or 1), and a and d are weighted by it. Elements that work against both sums are
    never used; when no pair is left, the best ``single`` element is taken. Untargeted goals, which
    the paper doesn't have, mirror the targeted ones: the label's output falls, the others' sum
    rises. It draws nothing.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        representation: The outputs whose gradients are compared.
        direction: Which way elements may go. The paper's algorithm 2 is ``"increase"``; ``"both"``
            lets each element go its better way, which takes fewer changes.
        gamma: Largest share of the elements that may change, above 0 and at most 1.
        single: Whether the best single element is taken when no pair is left, or when no more than
            one element may still change.
        untargeted: How a class is left: ``"mirror"`` lowers it, ``"runner-up"`` raises the class
            that is second on the image.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = JSMA(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "elements"
    readings: ClassVar[tuple[str, ...]] = ("official",)

    eps: float | None = 8 / 255
    representation: Literal["log-probabilities", "logits"] = "log-probabilities"
    direction: Literal["increase", "decrease", "both"] = "both"
    gamma: float = 1.0
    single: bool = True
    untargeted: Literal["mirror", "runner-up"] = "mirror"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.representation not in ("log-probabilities", "logits"):
            raise ValueError(
                f"representation is {self.representation!r}: choose 'log-probabilities' or 'logits'"
            )
        if self.direction not in ("increase", "decrease", "both"):
            raise ValueError(
                f"direction is {self.direction!r}: choose 'increase', 'decrease' or 'both'"
            )
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma is {self.gamma}: it is a share, above 0 and at most 1")
        if self.untargeted not in ("mirror", "runner-up"):
            raise ValueError(f"untargeted is {self.untargeted!r}: choose 'mirror' or 'runner-up'")

    @classmethod
    def official(cls, eps: float | None = 8 / 255) -> JSMA:
        """The paper's algorithm: pairs that only increase, at most 14.5 % of the elements."""
        return cls(eps, direction="increase", gamma=0.145, single=False, untargeted="runner-up")

    def passes(self, shape: Shape) -> int:
        """A forward pass, and one or two backward passes, per pair or single element."""
        changes = int(self.gamma * math.prod(shape)) // (1 if self.single else 2)
        return (changes + 1) * (2 if self.representation == "log-probabilities" else 3)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        result = images.clone()
        rows = torch.arange(len(images), device=images.device)
        current, moves = images.clone(), self._moves(images, goal.region)
        budget = int(self.gamma * moves.shape[2])
        left, least = torch.full_like(rows, budget), 1 if self.single else 2
        aim: Goal | None = None
        with torch.enable_grad():
            while len(rows):
                inputs = current.requires_grad_()
                logits = model(inputs)
                aim = self._aim(goal, logits.detach()) if aim is None else aim
                reached = goal[rows].reached(logits.detach())
                result[rows[reached]] = inputs.detach()[reached]
                if reached.all() or not (left[~reached] >= least).any():
                    break
                rise, fall = self._saliency(inputs, logits, aim[rows])
                chosen, found = self._choose(rise, fall, moves, left > 1)
                keep = ~reached & found & (left >= least)
                rows, chosen, moves = rows[keep], chosen[keep], moves[keep]
                current = _change(inputs.detach()[keep], moves, chosen)
                left = left[keep] - 1 - (chosen[:, 0] != chosen[:, 1]).long()
        return result

    def _aim(self, goal: Goal, logits: Logits) -> Goal:
        """What the saliency follows, given the outputs for the images."""
        if goal.targeted or self.untargeted == "mirror":
            return goal
        others = logits.scatter(1, goal.labels[:, None], -torch.inf)
        return Goal(others.argmax(1), targeted=True)

    def _moves(self, images: Images, region: Region | None) -> Float[Tensor, "b s d"]:
        """How far each element may go, per direction."""
        down, up = box(images, self.eps, region)
        sides = {"increase": [up], "decrease": [down], "both": [up, down]}[self.direction]
        if images[0].numel() == 1:  # two moves at least, of which one may go nowhere
            sides = [*sides, torch.zeros_like(up)]
        return torch.stack([side.flatten(1) for side in sides], 1)

    def _saliency(
        self, inputs: Images, logits: Logits, goal: Goal
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Gradients of what shall rise: the target's output, minus the sum of the others."""
        if self.representation == "log-probabilities":
            (gradient,) = torch.autograd.grad(-goal.soft_margin(logits).sum(), inputs)
            return gradient.flatten(1), gradient.flatten(1)
        own = logits.gather(1, goal.labels[:, None]).sum()
        (rise,) = torch.autograd.grad(own, inputs, retain_graph=True)
        (total,) = torch.autograd.grad(logits.sum(), inputs)
        sign = 1 if goal.targeted else -1
        return sign * rise.flatten(1), sign * (rise - total).flatten(1)

    def _choose(
        self,
        rise: Float[Tensor, "b d"],
        fall: Float[Tensor, "b d"],
        moves: Float[Tensor, "b s d"],
        paired: Bool[Tensor, " b"],
    ) -> tuple[Int[Tensor, "b 2"], Bool[Tensor, " b"]]:
        """The best pair among the moves, twice the same for a single one, and whether it exists.

        Pairs are for the ``paired`` images, single ones for all.
        """
        gain = (rise[:, None] * moves).flatten(1)
        finite = _finite(gain)
        if self.representation == "log-probabilities":
            best, pair = gain.topk(2, dim=1)  # a struck move gains 0
            found, alone, useful = best[:, 1] > 0, pair[:, 0], best[:, 0] > 0
        else:
            drop = (fall[:, None] * moves).flatten(1)
            finite &= _finite(drop)
            useless = (moves.flatten(1) == 0) | ((gain <= 0) & (drop <= 0))
            gain = gain.masked_fill(useless, -torch.inf)
            drop = drop.masked_fill(useless, -torch.inf)
            pair, found = best_pair(gain, drop)
            product = torch.where((gain > 0) & (drop > 0), gain * drop, 0)
            largest, alone = product.max(1)
            useful = largest > 0
        found = found & paired
        if self.single:
            pair = torch.where(found[:, None], pair, alone[:, None])
            found = found | useful
        return pair, found & finite


def _finite(scores: Float[Tensor, "b n"]) -> Bool[Tensor, " b"]:
    """Whether all of a row are numbers: times 0 all others are NaN, and a sum is the fastest."""
    return (scores * 0).sum(1) == 0


def _change(current: Images, moves: Float[Tensor, "b s d"], chosen: Int[Tensor, "b 2"]) -> Images:
    """The images after the chosen moves, whose elements are struck from ``moves`` in place."""
    sides, size = moves.shape[1:]
    element = chosen % size
    step = moves.flatten(1).gather(1, chosen)
    moves.scatter_(2, element[:, None].expand(-1, sides, -1), 0)
    flat = current.flatten(1)
    changed = (flat.gather(1, element) + step).clamp(0, 1)
    return flat.scatter(1, element, changed).view(current.shape)


def best_pair(
    gain: Float[Tensor, "b n"], drop: Float[Tensor, "b n"]
) -> tuple[Int[Tensor, "b 2"], Bool[Tensor, " b"]]:
    """The pair p ≠ q with the largest (gain_p + gain_q)(drop_p + drop_q), both sums positive.

    Exact, in O(n log n) plus the square of a small number: the product grows in gain and in drop,
    so some best pair lies among the points that at most one other point beats in both (the
    2-skyband). The second result tells whether there is a pair. An infinite negative gain and drop
    keep an element out.
    """
    order = gain.argsort(dim=1, descending=True)
    ranked = drop.gather(1, order)
    first = ranked.cummax(1).values
    second = torch.minimum(ranked[:, 1:], first[:, :-1]).cummax(1).values
    # the two with the largest gain stay; any other must exceed the second largest drop before it
    stays = torch.ones_like(ranked, dtype=torch.bool)
    stays[:, 2:] = ranked[:, 2:] > second[:, :-1]
    stays &= ranked > -torch.inf
    count = max(2, int(stays.sum(1).max()))
    place = stays.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
    points = order.gather(1, place)
    outside = ~stays.gather(1, place)
    gain = gain.gather(1, points).masked_fill(outside, -torch.inf)
    drop = drop.gather(1, points).masked_fill(outside, -torch.inf)

    rows = torch.arange(len(gain), device=gain.device)
    score = gain.new_zeros(len(gain))
    pair = points[:, :2].clone()
    for start in range(0, count, 256):  # in blocks, for the skyband of unusual maps is long
        block = slice(start, min(start + 256, count))
        rise = gain[:, block, None] + gain[:, None]
        fall = drop[:, block, None] + drop[:, None]
        product = torch.where((rise > 0) & (fall > 0), rise * fall, 0)
        product.diagonal(offset=start, dim1=1, dim2=2).zero_()
        best, where = product.flatten(1).max(1)
        p, q = where // count + start, where % count
        better = (best > score)[:, None]
        candidate = torch.stack([points[rows, p], points[rows, q]], 1)
        pair = torch.where(better, candidate, pair)
        score = torch.maximum(score, best)
    return pair, score > 0
