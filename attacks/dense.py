"""Dense attacks within eps, the ceiling of a table of sparse ones: PGD and MI-FGSM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, nn

from attacks.base import BaseAttack, Goal, Images, Role, Shape
from attacks.draws import draw
from attacks.norms import box


@dataclass(frozen=True)
class PGD(BaseAttack):
    """Follow the sign of the gradient, keep to the box (Madry et al. 2018, section 2.1).

    Every iterate is judged, the last one too. Deviation: the paper's cross-entropy enters as
    `Goal.soft_margin`, which has the same direction without its underflow on images of which the
    model is certain.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        steps: Number of steps.
        step: Change of an element per step; None for 2.5 · eps / ``steps`` (appendix of the paper).
        random_start: Whether to start uniformly in the box instead of at the image.
        early_stop: Whether an image is done at its first success; else it takes all steps and the
            last success is returned.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = PGD(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    role: ClassVar[Role] = "ceiling"
    unit: ClassVar[None] = None

    eps: float | None = 8 / 255
    steps: int = 40
    step: float | None = None
    random_start: bool = True
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps, self.step)

    def passes(self, shape: Shape) -> int:
        """Both passes of every step, one on the image and one on the last iterate."""
        return 2 * self.steps + 2

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        eps = self.bound
        start = images.clone()
        if self.random_start:
            lower, upper = box(start, eps, goal.region)
            place = draw(torch.rand, generators, images.shape[1:], images.device, images.dtype)
            start += lower + place * (upper - lower)
        step = 2.5 * eps / self.steps if self.step is None else self.step
        return _follow_signs(
            model, images, goal, start, eps, self.steps, step, 0.0, self.early_stop
        )


@dataclass(frozen=True)
class MIFGSM(BaseAttack):
    """Follow the sign of an accumulated gradient from the image (Dong et al. 2018, algorithm 1).

    Per image, momentum ← ``decay`` · momentum + gradient / its mean absolute value. The loss is
    that of `PGD`.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        steps: Number of steps.
        step: Change of an element per step; None for eps / ``steps``, the paper's.
        decay: Decay of the momentum, at least 0.
        early_stop: Whether an image is done at its first success; else it takes all steps and the
            last success is returned.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = MIFGSM(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    role: ClassVar[Role] = "ceiling"
    unit: ClassVar[None] = None

    eps: float | None = 8 / 255
    steps: int = 10
    step: float | None = None
    decay: float = 1.0
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps, self.step)
        if self.decay < 0:
            raise ValueError(f"decay is {self.decay}: it must be 0 or larger")

    def passes(self, shape: Shape) -> int:
        """Both passes of every step, one on the image and one on the last iterate."""
        return 2 * self.steps + 2

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        eps = self.bound
        step = eps / self.steps if self.step is None else self.step
        return _follow_signs(
            model, images, goal, images, eps, self.steps, step, self.decay, self.early_stop
        )


def _check_steps(steps: int, step: float | None) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}: give at least 1")
    if step is not None and not step > 0:
        raise ValueError(f"step is {step}: it must be positive, or None for the paper's")


def _follow_signs(
    model: nn.Module,
    images: Images,
    goal: Goal,
    start: Images,
    eps: float,
    steps: int,
    step: float,
    decay: float,
    early_stop: bool,
) -> Images:
    result = images.clone()
    lower, upper = box(images, eps, goal.region)
    low, high = images + lower, images + upper
    rows = (~goal.reached(model(images))).nonzero()[:, 0]
    current, momentum = start[rows], torch.zeros_like(images[rows])
    for index in range(steps + 1):
        if not len(rows):
            break
        with torch.set_grad_enabled(index < steps):
            inputs = current.requires_grad_(index < steps)
            logits = model(inputs)
        reached = goal[rows].reached(logits.detach())
        result[rows[reached]] = inputs.detach()[reached]
        if index == steps or (early_stop and reached.all()):
            break
        with torch.enable_grad():
            distance = goal[rows].soft_margin(logits).sum()
        (gradient,) = torch.autograd.grad(distance, inputs)
        keep = gradient.flatten(1).isfinite().all(1)
        if early_stop:
            keep &= ~reached
        rows, current, gradient = rows[keep], inputs.detach()[keep], gradient[keep]
        mean = gradient.abs().mean((1, 2, 3), keepdim=True)
        tiny = torch.finfo(mean.dtype).tiny
        momentum = decay * momentum[keep] + gradient / mean.clamp(min=tiny)
        current = torch.clamp(current - step * momentum.sign(), low[rows], high[rows])
    return result
