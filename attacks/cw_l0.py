"""C&W-l0: sparse attack that takes pixels out of a dense one, a few at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Region, Shape
from attacks.norms import counter, interval

TOUCHED = 1e-4  # smaller changes count as none: a tanh never returns exactly to where it started


@dataclass(frozen=True)
class CWL0(BaseAttack):
    """Solve an l2 attack, forbid the units that mattered least, and solve again until it fails.

    Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017, section 6,
    with the constants of the released code in `official`. A round minimises
    c · max(margin + ``confidence``, 0) + squared length of the change with Adam, in the
    variable of a tanh that keeps the image in its box, and ends at the first iterate without margin
    loss; ``c`` doubles after ``steps`` steps in vain, up to ``c_max``, and is kept between rounds.
    It draws nothing.

    Deviations: after each round changes below 1e-4 are undone, the result is judged again, and the
    sparsest success is returned, where the released code returns the last iterate with its
    rounding errors. ``importance="change"`` ranks units by |change · gradient of the margin|
    summed over the channels, in image space, as the paper describes; ``"released"`` is the code's
    |sum of changes| · |gradient of the loss in the tanh variable|, which says nothing about the
    margin where a round has ended and vanishes at the bounds. Units left untouched by a round are
    forbidden along with the ``fraction`` · sqrt(n) least important of the n touched, unless
    ``released``. The defaults are a preset whose last, failing round is short: fewer steps per c,
    a larger learning rate and first c, and ``c_max`` 1e3 instead of 2e6.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        mode: What bounds the change: ``"projected"``, ``eps`` and the box; ``"free"``, the box
            alone, as published.
        l0: Number of units at which an image is done, to match the sparsity of another attack; None
            to go on to the fewest.
        unit: What is forbidden and counted: ``"pixels"`` with all their channels, or
            ``"elements"``.
        steps: Steps in vain after which c doubles.
        lr: Learning rate of Adam.
        c: First weight of the margin loss.
        c_max: Largest c, at which a round fails.
        fraction: Units forbidden per round, as a multiple of the root of the number touched.
        small: Importance up to which more than one unit may be forbidden.
        confidence: Margin, in logits, that a round has to reach.
        importance: How units are ranked: ``"change"`` or ``"released"``.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = CWL0(eps=0.1, steps=20)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    readings: ClassVar[tuple[str, ...]] = ("official", "published")

    eps: float | None = 8 / 255
    mode: Literal["projected", "free"] = "projected"
    l0: int | None = None
    unit: Literal["pixels", "elements"] = "pixels"
    steps: int = 50
    lr: float = 0.1
    c: float = 10.0
    c_max: float = 1e3
    fraction: float = 0.3
    small: float = 0.01
    confidence: float = 0.01
    importance: Literal["change", "released"] = "change"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("projected", "free"):
            raise ValueError(f"mode is {self.mode!r}: choose 'projected' or 'free'")
        if self.unit not in ("pixels", "elements"):
            raise ValueError(f"unit is {self.unit!r}: choose 'pixels' or 'elements'")
        if self.importance not in ("change", "released"):
            raise ValueError(f"importance is {self.importance!r}: choose 'change' or 'released'")
        if self.l0 is not None and self.l0 < 1:
            raise ValueError(f"l0 is {self.l0}: give at least 1, or None to go on to the fewest")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: give at least 1")
        for name in ("lr", "c", "fraction", "small", "confidence"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if not self.c_max >= self.c:
            raise ValueError(f"c_max is {self.c_max}: it must be at least c = {self.c}")

    @classmethod
    def official(cls, eps: float | None = 8 / 255) -> CWL0:
        """The constants of the released code: up to 31 000 steps in the last round."""
        return cls(eps, "free", steps=1000, lr=0.01, c=1e-3, c_max=2e6, importance="released")

    @classmethod
    def published(cls, eps: float | None = 8 / 255) -> CWL0:
        """The released budget of steps and values of c within ``eps``; ``official`` ignores eps.

        The rest is as in the defaults, such as the order in which units are given up.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, steps=1000, lr=0.01, c=1e-3, c_max=2e6)

    @property
    def bounded(self) -> bool:
        """Whether ``eps`` bounds every change."""
        return self.mode == "projected" and self.eps is not None

    def passes(self, shape: Shape) -> int:
        """``steps`` passes both ways for every forbidden unit and value of c, and some to judge."""
        units = math.prod(shape[1:] if self.unit == "pixels" else shape)
        values = math.floor(math.log2(self.c_max / self.c)) + 1
        return 1 + (units + values) * 2 * self.steps + units

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        best = images.clone()
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        state = self._start(images[rows], rows, goal[rows].region)
        while len(state.rows):
            self._tick(model, goal[state.rows], state, best)
        return best

    def _start(self, images: Images, rows: Int[Tensor, " b"], region: Region | None) -> _State:
        low, high = interval(images, self.eps if self.bounded else None)
        allowed = torch.ones_like(images if self.unit == "elements" else images[:, :1]).bool()
        zeros, count = torch.zeros_like(images), torch.zeros_like(rows)
        return _State(
            rows=rows,
            image=images,
            low=low,
            high=high,
            start=_unsquash(images, low, high),
            w=zeros,
            first=zeros,
            second=zeros,
            allowed=allowed if region is None else allowed & region,
            age=count,
            c=images.new_full((len(images),), self.c),
            fewest=count + images.shape[1:].numel() + 1,
        )

    def _tick(self, model: nn.Module, goal: Goal, state: _State, best: Images) -> None:
        """One pass for every image still at work, each at its own step."""
        squashed = (state.w + state.start).tanh()
        half = (state.high - state.low) / 2
        inside = (state.low + half * (squashed + 1)).clamp(state.low, state.high)
        point = torch.where(state.allowed, inside, state.image)
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            margin = goal.margin(model(leaf))
            (gradient,) = torch.autograd.grad(margin.sum(), leaf)
        lacking = margin.detach() + self.confidence
        weight = torch.where(lacking > 0, state.c, 0)[:, None, None, None]
        change = point - state.image
        slope = torch.where(state.allowed, half * (1 - squashed.square()), 0)
        loss_gradient = (weight * gradient + 2 * change) * slope

        state.age = state.age + 1
        state.descend(loss_gradient, self.lr)
        in_vain = (lacking > 0) & (state.age % self.steps == 0)
        state.c = torch.where(in_vain, 2 * state.c, state.c)
        done = (in_vain & (state.c > self.c_max)) | ~gradient.flatten(1).isfinite().all(1)
        won = ((lacking <= 0) & ~done).nonzero()[:, 0]
        if len(won):
            tidy, count = self._judge(model, goal[won], state.image[won], point[won])
            better = count < state.fewest[won]
            state.fewest[won[better]] = count[better]
            best[state.rows[won[better]]] = tidy[better]
            if self.importance == "change":
                scores = self._per_unit(change * gradient).abs()
            else:
                scores = self._per_unit(change).abs() * self._per_unit(loss_gradient.abs())
            state.restart(
                won, point[won], self._forbid(scores[won], change[won], state.allowed[won])
            )
            done |= ~state.allowed.flatten(1).any(1)
            if self.l0 is not None:
                done |= state.fewest <= self.l0
        if done.any():
            state.keep(~done)

    def _judge(
        self, model: nn.Module, goal: Goal, image: Images, point: Images
    ) -> tuple[Images, Int[Tensor, " b"]]:
        """The points without changes too small to count, and their size; the largest if failed."""
        tidy = torch.where((point - image).abs() < TOUCHED, image, point)
        count = counter(self.unit)(tidy - image)
        return tidy, torch.where(goal.reached(model(tidy)), count, image[0].numel() + 1)

    def _forbid(
        self,
        scores: Float[Tensor, "b u h w"],
        change: Images,
        allowed: Bool[Tensor, "b u h w"],
    ) -> Bool[Tensor, "b u h w"]:
        """What stays allowed: without the least important units, up to the first that matters."""
        touched = change.abs() >= TOUCHED
        if self.unit == "pixels":
            touched = touched.any(1, keepdim=True)
        candidates = (touched & allowed if self.importance == "change" else allowed).flatten(1)
        # one leaves at least, or a success without a change to speak of would be found for ever
        limit = (self.fraction * touched.flatten(1).sum(1, keepdim=True).sqrt()).clamp(min=1)
        scores = scores.flatten(1).where(candidates, torch.inf)
        rank = scores.argsort(dim=1, stable=True).argsort(dim=1)
        spared = (rank >= limit) | (rank > (scores <= self.small).sum(1, keepdim=True))
        return (candidates & spared).view_as(allowed)

    def _per_unit(self, values: Images) -> Float[Tensor, "b u h w"]:
        return values.sum(1, keepdim=True) if self.unit == "pixels" else values


@dataclass
class _State:
    """One row for each image still at work; no row depends on another."""

    rows: Int[Tensor, " b"]  # which image of the batch
    image: Images
    low: Images
    high: Images
    start: Images  # where the round began, in the tanh variable
    w: Images  # how far it has come since
    first: Images  # Adam's moments
    second: Images
    allowed: Bool[Tensor, "b u h w"]
    age: Int[Tensor, " b"]  # steps of the round
    c: Float[Tensor, " b"]
    fewest: Int[Tensor, " b"]  # units changed in the sparsest success

    def descend(self, gradient: Images, lr: float) -> None:
        """One step of Adam, with the age of each row."""
        age = self.age[:, None, None, None].to(gradient.dtype)
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        spread = (self.second / (1 - 0.999**age)).sqrt() + 1e-8
        self.w = self.w - lr * self.first / (1 - 0.9**age) / spread

    def restart(
        self, rows: Int[Tensor, " b"], point: Images, allowed: Bool[Tensor, "b u h w"]
    ) -> None:
        """Begin the next round of some rows at ``point``."""
        self.allowed[rows] = allowed
        self.start[rows] = _unsquash(point, self.low[rows], self.high[rows])
        for moving in (self.w, self.first, self.second, self.age):
            moving[rows] = 0

    def keep(self, mask: Bool[Tensor, " b"]) -> None:
        """Drop the other rows."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])


def _unsquash(point: Images, low: Images, high: Images) -> Images:
    """The tanh variable of a point; just short of infinite at the bounds."""
    return (0.999999 * (2 * (point - low) / (high - low) - 1)).atanh()
