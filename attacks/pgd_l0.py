"""PGD-l0: projected gradient steps on images that may change in k pixels, or elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape
from attacks.draws import draw
from attacks.fewest import attempts, fewest_changes
from attacks.norms import box, counter, largest


@dataclass(frozen=True)
class PGDL0(BaseAttack):
    """Gradient steps, each projected on the changes of at most ``k`` pixels within the box.

    Croce and Hein 2019, section 4: a random start in the box, then ``steps`` steps along the
    cross-entropy's gradient over its l1 norm, and up to ``restarts`` of it.

    Deviations: the released step, 120000/255 for 3072 elements, is 0.15 for any eps, 4.9 times
    8/255, and forgets the earlier steps; here it is a share of eps. Without a bound it is twice as
    long as the released one. Targeted goals; an
    image is done at its first success; the last iterate is judged too, so a start costs ``steps``
    + 1 forward and ``steps`` backward passes. The gradient is that of ``Goal.soft_margin``, in the
    same direction but without underflow.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        k: Most pixels, or elements, that may change; None for the smallest k of each image, by
            doubling and bisection.
        unit: What k counts, ``"pixels"`` with all their channels or ``"elements"``.
        steps: Steps of a start.
        restarts: Most starts.
        step: Mean change of an element before the projection, as a share of ``eps`` (None: of 1).

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = PGDL0(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = 8 / 255
    k: int | None = None
    unit: Literal["pixels", "elements"] = "pixels"
    steps: int = 100
    restarts: int = 1
    step: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and self.k < 1:
            raise ValueError(f"k is {self.k}: allow at least 1 change, or None for the fewest")
        if self.unit not in ("pixels", "elements"):
            raise ValueError(f"unit is {self.unit!r}: choose 'pixels' or 'elements'")
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if not self.step > 0:
            raise ValueError(f"step is {self.step}: it must be positive")

    @classmethod
    def published(cls, eps: float | None = 8 / 255) -> PGDL0:
        """The released budget of five starts for every k, with the step of the defaults.

        That is a share of eps: a sixteenth of the released step at 8/255, and twice the released
        one without a bound. The search for the smallest k is an addition.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, restarts=5)

    def passes(self, shape: Shape) -> int:
        """One on the image, and for every k that is tried and every restart all steps."""
        most = math.prod(shape[1:] if self.unit == "pixels" else shape)
        tried = attempts(most) if self.k is None else 1
        return 1 + tried * self.restarts * (2 * self.steps + 1)

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        most = images[0, 0].numel() if self.unit == "pixels" else images[0].numel()
        size = counter(self.unit)

        def attempt(
            rows: Int[Tensor, " m"], counts: Int[Tensor, " m"]
        ) -> tuple[Images, Int[Tensor, " m"]]:
            chosen = [generators[row] for row in rows.tolist()]
            attacked = self._attempt(model, images[rows], goal[rows], chosen, counts)
            return attacked, size(attacked - images[rows])

        pending = ~goal.reached(model(images))
        if self.k is None:
            return fewest_changes(attempt, images, pending, most)
        result = images.clone()
        rows = pending.nonzero()[:, 0]
        if len(rows):
            result[rows], _ = attempt(rows, torch.full_like(rows, min(self.k, most)))
        return result

    def _attempt(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        generators: list[Generator],
        counts: Int[Tensor, " b"],
    ) -> Images:
        """The images that reach the goal within ``counts`` changes; the others unchanged."""
        result = images.clone()
        eps = self.bound
        lower, upper = box(images, eps, goal.region)
        pending = torch.arange(len(images), device=images.device)
        for _ in range(self.restarts):
            if not len(pending):
                break
            rows = pending
            chosen = [generators[row] for row in rows.tolist()]
            place = draw(torch.rand, chosen, images.shape[1:], images.device, images.dtype)
            delta = lower[rows] + place * (upper - lower)[rows]
            failed = torch.ones(len(images), dtype=torch.bool, device=images.device)
            for step in range(self.steps + 1):
                if not len(rows):
                    break
                delta = project(delta, lower[rows], upper[rows], counts[rows], self.unit)
                with torch.set_grad_enabled(step < self.steps):
                    inputs = (images[rows] + delta).clamp(0, 1).requires_grad_(step < self.steps)
                    logits = model(inputs)
                reached = goal[rows].reached(logits.detach())
                result[rows[reached]] = inputs.detach()[reached]
                failed[rows[reached]] = False
                if step == self.steps or reached.all():
                    break
                with torch.enable_grad():
                    distance = goal[rows].soft_margin(logits).sum()
                (gradient,) = torch.autograd.grad(distance, inputs)
                keep = ~reached & gradient.flatten(1).isfinite().all(1)
                rows, gradient = rows[keep], gradient[keep]
                mean = gradient.abs().mean((1, 2, 3), keepdim=True)
                tiny = torch.finfo(mean.dtype).tiny
                delta = delta[keep] - self.step * eps * gradient / mean.clamp(min=tiny)
            pending = pending[failed[pending]]
        return result


def project(
    delta: Images,
    lower: Images,
    upper: Images,
    counts: Int[Tensor, " b"],
    unit: Literal["pixels", "elements"] = "pixels",
) -> Images:
    """The nearest change within the bounds that touches at most ``counts`` pixels or elements.

    Exact in the Euclidean norm: a place is worth what keeping its clipped change saves over
    undoing it, and the ``counts`` best places of each image stay.
    """
    clipped = delta.clamp(lower, upper)
    worth = delta.square() - (delta - clipped).square()
    if unit == "pixels":
        worth = worth.sum(1, keepdim=True)
    return clipped * largest(worth.flatten(1), counts).view(worth.shape)
