"""AdvMask's attack: a perturbation and a mask of pixels, encoded from it, learnt together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from attacks.advmask_published import PublishedAdvMask
from attacks.base import BaseAttack, Goal, Images, Shape, check_eps
from attacks.encoder import SGD, Codes, Encoder, LinearEncoder, UNetEncoder
from attacks.exchange import exchange
from attacks.norms import box, counter
from attacks.sparsest import Sparsest

ENCODERS = ("auto", "linear", "u-net")
UNITS = ("pixels", "elements")
EXCHANGES = 300
"""Passes of the local search where it is not set: without a bound, and for elements."""


@dataclass(frozen=True)
class AdvMask(BaseAttack):
    """Learn together a change of all pixels and the mask of the few at which it is applied.

    Yang et al., "AdvMask", Pattern Recognition 2023, section 3.1, equations 2-6 and algorithm 1. A
    network of its own per image encodes the change ``delta`` into one code per pixel; the mask is
    m = sigmoid(alpha · code), and alpha grows by AutoPruner's schedule until m is binary. One loss,
    that the attack fails plus lambda times the mean of m, trains both: ``delta`` by steps of
    ``step``·eps along the sign of its gradient with momentum ``decay`` (eqs. 5, 6), the encoder by
    SGD with ``lr`` and ``momentum``. What is returned is ``delta`` where m > 0.5, else 0.

    The paper leaves most constants open. ``AdvMask.published`` has those that its authors published
    later, and finds many more pixels; this class looks for few of them, and differs in this:

    - The loss is the margin, not the cross-entropy, whose gradient vanishes on confident images.
      Per image and step it is scaled so that the largest gain of a pixel is 1: lambda then is the
      gain, relative to the best pixel's, below which a pixel isn't worth its place. It goes on
      once the goal is reached, so that a spare pixel shows as one.
    - Lambda rises per image by the factor 1 + ``adapt`` while the goal is reached and falls by
      1 - ``adapt`` while it isn't, within 0.03 and 10 times its start, ``sparsity`` (C in eq. 4,
      whose gamma is 0).
    - The classifier sees the binary mask, while gradients pass as if it saw m (straight-through),
      with the sigmoid's slope at least ``leak`` so that decided pixels can still turn. Every step
      so judges what would be returned, and the success with the fewest pixels is kept.
    - At the end, the codes rank the pixels: ``searches`` forward passes bisect for the shortest
      part of that ranking that reaches the goal.
    - With ``unit="elements"`` every element has a code and a mask of its own, and lambda starts
      twice as high.
    - A local search then takes units of the sparsest success back: `attacks.exchange.exchange`,
      with up to ``exchanges`` passes.
    - ``delta`` is projected onto eps and the box [0, 1] at once, and the encoder sees
      delta/(eps·√(c·h·w)), which makes its constants independent of eps and of the image size.

    The network is fully-connected, or a small U-Net for images of more than 64·64 pixels. A call
    makes 1 + ``steps`` + ``searches`` forward and ``steps`` backward passes, and those of the local
    search; ``budget`` sets how many these are together.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None is 1, which is no bound.
        steps: Steps of the joint training.
        step: Change of an element per step, as a share of eps.
        decay: Momentum of the gradients that the perturbation follows.
        sparsity: First lambda.
        adapt: Relative change of lambda per step, from 0 to below 1.
        alpha_start: First value of alpha.
        alpha_end: Last value of alpha where it does not hurry.
        leak: Least slope of the sigmoid, as a share of alpha.
        searches: Forward passes of the bisection at the end.
        lr: Learning rate of the encoder.
        momentum: Momentum of the encoder's SGD.
        encoder: ``"linear"``, fully connected; ``"u-net"``; or ``"auto"``, by the image's size.
        unit: What the mask selects and what is counted: ``"pixels"`` with all their channels, as
            published, or ``"elements"``.
        exchanges: Most passes of the local search, 0 for none; None for 300 without a bound, which
            is an eps of 1, and for elements, where it helps most, else 0.
        budget: Most passes of an image, forward and backward, at least ``searches`` + 4: a third of
            them are steps, at most ``steps``, and the local search has what is left, with what the
            bisection had no use for. None: as the other options say.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = AdvMask(eps=0.1, steps=20)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = 8 / 255
    steps: int = 200
    step: float = 0.125
    decay: float = 0.8
    sparsity: float = 0.1
    adapt: float = 0.03
    alpha_start: float = 0.1
    alpha_end: float = 100.0
    leak: float = 0.1
    searches: int = 12
    lr: float = 1e-3
    momentum: float = 0.5
    encoder: Literal["auto", "linear", "u-net"] = "auto"
    unit: Literal["pixels", "elements"] = "pixels"
    exchanges: int | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        check_eps(self.eps)
        for name in ("steps", "step", "alpha_start", "alpha_end", "searches", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("decay", "sparsity", "leak", "exchanges"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}: it must not be negative")
        for name in ("adapt", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be in [0, 1)")
        self._check_choices()

    def _check_choices(self) -> None:
        for name, known in (("encoder", ENCODERS), ("unit", UNITS)):
            if getattr(self, name) not in known:
                choices = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose {choices}")
        if self.budget is None:
            return
        if self.exchanges is not None:
            raise ValueError(
                f"budget is {self.budget} and exchanges {self.exchanges}: give one of them"
            )
        if self.budget < self.searches + 4:
            raise ValueError(f"budget is {self.budget}: give at least {self.searches + 4}")

    @classmethod
    def published(cls, eps: float | None = None) -> PublishedAdvMask:
        """The attack with the constants that the paper's authors published later.

        Args:
            eps: Largest change of an element; None for the authors' 4/255.
        """
        return PublishedAdvMask() if eps is None else PublishedAdvMask(eps=eps)

    def passes(self, shape: Shape) -> int:
        """Both passes of every step, one on the image and those of the two searches."""
        planned = self._planned
        return 1 + 2 * planned.steps + self.searches + (planned.exchanges or 0)

    @property
    def _planned(self) -> AdvMask:
        """This attack with the steps and exchanges that it makes, and without a budget."""
        if self.budget is not None:
            left = self.budget - 1 - self.searches
            steps = min(self.steps, left // 3)
            return replace(self, budget=None, steps=steps, exchanges=left - 2 * steps)
        if self.exchanges is not None:
            return self
        return replace(
            self, exchanges=EXCHANGES if self.bound == 1 or self.unit == "elements" else 0
        )

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        result = images.clone()
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        if len(rows):
            chosen = [generators[row] for row in rows.tolist()]
            planned = self._planned
            found, spare = planned._learn(model, images[rows], goal[rows], chosen)
            passes = (planned.exchanges or 0) + spare * (self.budget is not None)
            result[rows] = exchange(
                model, images[rows], goal[rows], found, self.bound, self.unit, passes, chosen
            )
        return result

    def _learn(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> tuple[Images, Int[Tensor, " b"]]:
        """The sparsest successes, and how many passes the bisection of each image left."""
        low, high = box(images, self.bound, goal.region)
        shape = images[:, :1].shape if self.unit == "pixels" else images.shape
        zoom = 1 / (self.bound * images[0].numel() ** 0.5)
        encoder = self._encoder(images, generators)
        delta, velocity = torch.zeros_like(images), torch.zeros_like(images)
        alpha = images.new_full((len(images), 1), self.alpha_start)
        factor = images.new_ones(len(images), 1)
        best = Sparsest(images, counter(self.unit))
        price = self.sparsity if self.unit == "pixels" else 2 * self.sparsity
        for step in range(self.steps):
            codes = encoder.encode(delta * zoom)
            mask = (alpha * codes).sigmoid()
            binary = (mask > 0.5).to(mask)
            with torch.enable_grad():
                attacked = (images + delta * binary.view(shape)).clamp_(0, 1).requires_grad_(True)
                margin = goal.margin(model(attacked))
                (slope,) = torch.autograd.grad(margin.sum(), attacked)
            attacked, reached = attacked.detach(), margin.detach() < 0
            best.keep(attacked, reached)

            gain = delta * slope
            gain = (gain.sum(1) if self.unit == "pixels" else gain).flatten(1)
            span = gain.abs().amax(1).clamp(min=1e-12)
            steepness = alpha * (mask * (1 - mask)).clamp(min=self.leak)
            back = encoder.learn(steepness * (gain / span[:, None] + factor * price))
            # in place: a step's own work is bound by memory, and new memory is the slowest
            gradient = slope.mul_(mask.view(shape)).div_(span[:, None, None, None])
            gradient += back.mul_(zoom)

            length = gradient.flatten(1).abs().sum(1).clamp(min=1e-30)
            velocity.mul_(self.decay).add_(gradient.div_(length[:, None, None, None]))
            delta.sub_(velocity.sign(), alpha=self.step * self.bound).clamp_(low, high)
            change = torch.where(reached, 1 + self.adapt, 1 - self.adapt)
            factor = (factor * change[:, None]).clamp(0.03, 10)
            alpha = self._sharpen(alpha, mask, step)
        asked = self._search(model, images, goal, delta, encoder.encode(delta * zoom), best)
        return best.images, self.searches - asked

    def _encoder(self, images: Images, generators: Sequence[Generator]) -> Encoder:
        sgd = SGD(self.lr, self.momentum)
        small = images[0, 0].numel() <= 64 * 64
        codes = 1 if self.unit == "pixels" else images.shape[1]
        if self.encoder == "linear" or (self.encoder == "auto" and small):
            return LinearEncoder(images, generators, sgd, self.steps, codes)
        return UNetEncoder(images, generators, sgd, per_pixel=codes)

    def _sharpen(self, alpha: Float[Tensor, "b 1"], mask: Codes, step: int) -> Float[Tensor, "b 1"]:
        """AutoPruner's schedule (Luo & Wu 2020, released code), per image.

        Linear over all steps; in the last fifth eleven times as fast while at most 90 % of the
        image's mask lies outside (0.1, 0.9).
        """
        rise = (self.alpha_end - self.alpha_start) / self.steps
        decided = ((mask < 0.1) | (mask > 0.9)).to(mask).mean(1, keepdim=True)
        hurried = (decided <= 0.9) & (step >= 0.8 * self.steps)
        return alpha + rise * torch.where(hurried, 11, 1)

    def _search(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        delta: Images,
        codes: Codes,
        best: Sparsest,
    ) -> Int[Tensor, " b"]:
        """Bisect for the shortest part of the codes' ranking that reaches the goal.

        The first guess is the mask itself: m > 0.5 where the code is positive. Returns how many
        passes it took for each image.
        """
        shape = images[:, :1].shape if self.unit == "pixels" else images.shape
        if goal.region is not None:  # what cannot change comes last
            codes = codes.masked_fill(~goal.region.expand(shape).flatten(1), -torch.inf)
        rank = codes.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        count = (codes > 0).sum(1)
        fails, works = torch.zeros_like(count), torch.full_like(count, codes.shape[1])
        passes = torch.zeros_like(count)
        for _ in range(self.searches):
            rows = (works - fails > 1).nonzero()[:, 0]
            if not len(rows):
                break
            asked = count[rows]
            passes[rows] += 1
            chosen = (rank[rows] < asked[:, None]).view(-1, *shape[1:])
            attacked = (images[rows] + delta[rows] * chosen).clamp_(0, 1)
            reached = goal[rows].reached(model(attacked))
            best.keep(attacked, reached, rows)
            works[rows] = torch.where(reached, asked, works[rows])
            fails[rows] = torch.where(reached, fails[rows], asked)
            works = torch.minimum(works, best.fewest.clamp(max=codes.shape[1]))
            count = (fails + works).div(2, rounding_mode="floor")
        return passes
