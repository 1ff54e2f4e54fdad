"""SAPF: sparse attack that factorises a perturbation into how much and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape, Unit
from attacks.lpbox import Labels, Selection, grid, select, superpixels
from attacks.norms import counter, interval, l2

STRONGEST = 100.0  # the search over strengths stops there


@dataclass(frozen=True)
class SAPF(BaseAttack):
    """Learn magnitudes e and a binary selection G of ``l0`` units: the change is e · G.

    Fan et al., "Sparse Adversarial Attack via Perturbation Factorization", ECCV 2020, section 3,
    with the constants of the released code. It minimises the squared change
    + ``strength`` · max(margin, 0) + ``group_weight`` · sum of the group norms of G: first over e
    with G = 1, then over G by ADMM, where being binary means lying in [0, 1] and on a sphere, then
    over e again with G fixed. ``steps`` counts these three. It draws nothing.

    ``l0`` given, the published attack: ``searches`` runs look, image by image, for the smallest
    ``strength`` that succeeds (tenfold from the first while nothing does, then by halving). ``l0``
    None, an addition: ``strength`` stays and the runs look for the smallest number of units that
    succeeds (from a sixteenth of all, fourfold while nothing does, then by halving its logarithm).
    A ``strength`` of None means 100, where the published search ends, or, with ``l0``, a first 0.1.
    Either way the sparsest success is returned, of equally sparse ones the shortest.

    Deviations: e is projected to the bounds after each step, where the released code clips the
    image inside the loss; G becomes binary by keeping its ``l0`` largest values, not those above
    1/2, which are only about ``l0`` many; the penalties are capped, without which the descent on G
    diverges for large images (see ``attacks.lpbox.penalties``); schedules are stretched or shrunk
    to ``steps``, and the step size of the last stage starts anew; the best success is returned, not
    the last. The defaults are a fast preset; ``official`` has the released numbers.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        mode: What bounds the change: ``"projected"``, ``eps`` and the box; ``"free"``, the box
            alone, as published.
        l0: Number of units that G selects; None to look for the smallest.
        unit: What G selects: ``"elements"``, as published, or ``"pixels"`` with all their channels.
        strength: Weight of the margin; None for 100 or, with ``l0``, a first 0.1.
        searches: Runs that look for the smallest strength or number of units.
        steps: Steps over e, over G and over e again.
        lr: First step size.
        lr_floor: Last step size.
        groups: Superpixels (``"slic"``) or square cells (``"grid"``), about 150 of them, or none.
        group_weight: Weight of the group norms, at least 0.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = SAPF(eps=0.1, searches=3)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    readings: ClassVar[tuple[str, ...]] = ("official", "published")

    eps: float | None = 8 / 255
    mode: Literal["projected", "free"] = "projected"
    l0: int | None = None
    unit: Literal["elements", "pixels"] = "elements"
    strength: float | None = None
    searches: int = 8
    steps: tuple[int, int, int] = (25, 50, 75)
    lr: float = 0.1
    lr_floor: float = 1e-3
    groups: Literal["none", "grid", "slic"] = "none"
    group_weight: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("projected", "free"):
            raise ValueError(f"mode is {self.mode!r}: choose 'projected' or 'free'")
        if self.unit not in ("elements", "pixels"):
            raise ValueError(f"unit is {self.unit!r}: choose 'elements' or 'pixels'")
        if self.groups not in ("none", "grid", "slic"):
            raise ValueError(f"groups is {self.groups!r}: choose 'none', 'grid' or 'slic'")
        if self.l0 is not None and self.l0 < 1:
            raise ValueError(f"l0 is {self.l0}: give at least 1, or None to search for it")
        if self.searches < 1 or min(self.steps) < 1:
            raise ValueError(
                f"searches is {self.searches} and steps are {self.steps}: give at least 1 each"
            )
        for name in ("strength", "lr", "lr_floor"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if not self.group_weight >= 0:
            raise ValueError(f"group_weight is {self.group_weight}: it must be at least 0")

    @classmethod
    def official(cls, l0: int = 200) -> SAPF:
        """The numbers of the released code: 30 000 forward and backward passes per image."""
        return cls(
            mode="free", l0=l0, strength=1e-3, searches=6, steps=(2000, 2000, 1000), groups="slic"
        )

    @classmethod
    def published(cls, eps: float | None = 8 / 255) -> SAPF:
        """The released budget of steps and searches within ``eps``.

        The search for the fewest elements is an addition; the paper sets their number.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, searches=6, steps=(2000, 2000, 1000))

    @property
    def bounded(self) -> bool:
        """Whether ``eps`` bounds every change."""
        return self.mode == "projected" and self.eps is not None

    def passes(self, shape: Shape) -> int:
        """All ``steps`` both ways in each of the ``searches``, and one on the image."""
        return 1 + self.searches * 2 * sum(self.steps)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        best = images.clone()
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        low, high = interval(images, self.eps if self.bounded else None, goal.region)
        labels = self._labels(images)
        units = images[0].numel() if self.unit == "elements" else images[0, 0].numel()
        given = self.strength or (STRONGEST if self.l0 is None else 0.1)
        first = float(-(-units // 16)) if self.l0 is None else given
        search = _Search.start(rows, first, STRONGEST if self.l0 else float(units))
        for _ in range(self.searches):
            rows, tried = search.rows, search.tried
            if not len(rows):
                break
            if self.l0 is None:
                count, strength = tried.long(), torch.full_like(tried, given)
            else:
                count, strength = torch.full_like(rows, min(self.l0, units)), tried
            run = _Run(
                model, goal[rows], images[rows], low[rows], high[rows],
                strength.to(images)[:, None, None, None], self.unit,
            )  # fmt: skip
            finite = self._factorise(run, count, None if labels is None else labels[rows])
            better = run.score < search.score
            best[rows[better]] = run.best[better]
            search.advance(run.score, finite, counting=self.l0 is None)
        return best

    def _factorise(
        self, run: _Run, count: Int[Tensor, " b"], labels: Labels | None
    ) -> Bool[Tensor, " b"]:
        """The three stages; returns which images had finite gradients throughout."""
        floor, ceiling = run.low - run.images, run.high - run.images
        e = torch.zeros_like(run.images)
        for rate in self._rates(self.steps[0]):
            e = (e - rate * (2 * e + run.slope(e))).clamp(floor, ceiling)
        room = run.per_unit(ceiling - floor)  # none outside a region: selecting that costs
        cost = torch.where(room > 0, run.per_unit(2 * e.square()), 1)
        G = select(
            lambda G: G * cost + run.per_unit(e * run.slope(e * G)),
            torch.ones_like(cost),
            count,
            self._rates(self.steps[1]),
            labels,
            self.group_weight,
        )
        e = e * G
        for rate in self._rates(self.steps[2]):
            e = (e - rate * G * (2 * e + run.slope(e, judge=True))).clamp(floor, ceiling)
        return e.flatten(1).isfinite().all(1)

    def _rates(self, steps: int) -> list[float]:
        """The step size of each step: from ``lr``, 0.9 times as long 40 times, to ``lr_floor``."""
        return [max(self.lr_floor, self.lr * 0.9 ** (40 * step // steps)) for step in range(steps)]

    def _labels(self, images: Images) -> Labels | None:
        """The group of every unit, or None where groups play no part."""
        if self.groups == "none" or self.group_weight == 0:
            return None
        labels = (superpixels if self.groups == "slic" else grid)(images)[:, None]
        return labels if self.unit == "pixels" else labels.expand(images.shape)


@dataclass
class _Run:
    """One factorisation of some images, and the best success it met."""

    model: nn.Module
    goal: Goal
    images: Images
    low: Images
    high: Images
    strength: Float[Tensor, "b 1 1 1"]
    unit: Unit

    def __post_init__(self) -> None:
        self.best = self.images
        self.score = torch.full_like(self.strength[:, 0, 0, 0], torch.inf, dtype=torch.double)

    def slope(self, delta: Images, judge: bool = False) -> Images:
        """The gradient of ``strength`` · max(margin, 0) at a change; judged, it may be the best."""
        with torch.enable_grad():
            point = (self.images + delta).clamp(self.low, self.high).requires_grad_()
            margin = self.goal.margin(self.model(point))
            (gradient,) = torch.autograd.grad(margin.sum(), point)
        lacking = ~(margin.detach() < 0)[:, None, None, None]
        if judge:
            self._keep(point.detach(), ~lacking)
        return torch.where(lacking, self.strength * gradient, 0)

    def _keep(self, point: Images, reached: Bool[Tensor, "b 1 1 1"]) -> None:
        """Fewer units first, then the shorter change."""
        change = point - self.images
        units = counter(self.unit)(change)
        length = l2(change).double()
        better = reached[:, 0, 0, 0] & (units + length / (1 + length) < self.score)
        self.best = torch.where(better[:, None, None, None], point, self.best)
        self.score = torch.where(better, units + length / (1 + length), self.score)

    def per_unit(self, values: Images) -> Selection:
        """Values of elements, summed over the channels of a pixel where pixels are the unit."""
        return values.sum(1, keepdim=True) if self.unit == "pixels" else values


@dataclass
class _Search:
    """What each image tries next: a number of units or a strength; no row depends on another."""

    rows: Int[Tensor, " b"]  # which image of the batch
    tried: Float[Tensor, " b"]
    failed: Float[Tensor, " b"]  # the largest
    succeeded: Float[Tensor, " b"]  # the smallest
    score: Float[Tensor, " b"]  # of the best success
    limit: float

    @classmethod
    def start(cls, rows: Int[Tensor, " b"], first: float, limit: float) -> _Search:
        """Every image begins with ``first`` and goes up to ``limit``."""
        ones = torch.ones(len(rows), dtype=torch.double, device=rows.device)
        infinite = torch.inf * ones
        return cls(rows, first * ones, 0 * ones, infinite, infinite, limit)

    def advance(
        self, score: Float[Tensor, " b"], finite: Bool[Tensor, " b"], counting: bool
    ) -> None:
        """Choose what to try next, given the score of each run (infinite: failed)."""
        success = score.isfinite()
        self.failed = torch.where(success, self.failed, self.tried)
        self.succeeded = torch.where(success, self.tried, self.succeeded)
        if counting:
            middle = (self.failed.clamp(min=1) * self.succeeded).sqrt().floor()
            middle = torch.maximum(middle, self.failed + 1)
            higher = 4 * self.tried
        else:
            middle = (self.failed + self.succeeded) / 2
            higher = 10 * self.tried
        unknown = self.succeeded.isinf()
        self.tried = torch.where(unknown, higher.clamp(max=self.limit), middle)
        self.score = torch.minimum(self.score, score)
        mask = finite & (self.tried < self.succeeded) & (self.tried > self.failed)
        self.rows, self.tried, self.failed, self.succeeded, self.score = (
            values[mask]
            for values in (self.rows, self.tried, self.failed, self.succeeded, self.score)
        )
