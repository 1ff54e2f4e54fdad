"""GreedyFool: add the pixels with the largest gradient, then take back those that aren't needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from attacks.base import BaseAttack, Goal, Images, Shape, Unit, frozen
from attacks.norms import box

Weights = Float[Tensor, "b n"]
DistortionMap = Callable[[Tensor], Tensor]
"""Maps images to how visible a change of each pixel would be."""


@dataclass(frozen=True)
class GreedyFool(BaseAttack):
    """Add pixels greedily until the goal is reached, then drop pixels while it stays reached.

    Dong et al. 2020, algorithm 1, with the constants of the released code. Stage 1: iteration i
    (from 0) adds the i + 1 pixels with the largest mean |gradient| of the margin and moves all
    chosen ones along the gradient, the largest by eps/2; from ``eps`` 128/255 on it adds one new
    pixel at a time. Stage 2 goes through the pixels from the smallest change up: without the pixel,
    the rest is scaled to a largest change a = step, 2 step, ... eps with a step of about eps/10,
    and the smallest a that reaches the goal is kept.

    Deviations: targeted goals; the label instead of the clean prediction; stage 2 only where
    stage 1 succeeded; maps are smoothed in two dimensions; stage 2 has no limit of 3000 tries;
    a = 0, the clean image, isn't asked. The released code asks a generative network how well a
    change hides, for which no weights exist for small images: ``distortion`` takes such a network,
    and without one computes it or leaves it out.
    It draws nothing.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None leaves only [0, 1].
        distortion: How the gradient is weighted by how well a change hides: ``"none"``; ``"hill"``,
            a steganographic cost of the texture; ``"sigma"``, the local standard deviation; or a
            network or function that maps images in [0, 1], shape (b, c, h, w), to the distortion of
            each pixel, shape (b, 1, h, w) in [0, 1], low where a change hides, as the paper's
            generator does. All trade more pixels for less visible ones.
        scan: ``"all"`` asks every a, as the released code; ``"largest-first"`` asks eps first and
            the others only where that succeeds, which skips the futile ones.
        steps: Most steps of stage 1.

    Raises:
        ValueError: For a value out of its range, naming it, or a distortion of another shape or
            range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = GreedyFool(eps=0.1)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.1 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "pixels"
    readings: ClassVar[tuple[str, ...]] = ("published",)

    eps: float | None = 8 / 255
    distortion: Literal["none", "hill", "sigma"] | DistortionMap = "none"
    scan: Literal["largest-first", "all"] = "largest-first"
    steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.distortion) and self.distortion not in ("none", "hill", "sigma"):
            raise ValueError(
                f"distortion is {self.distortion!r}: choose 'none', 'hill' or 'sigma', or give a "
                "network"
            )
        if self.scan not in ("largest-first", "all"):
            raise ValueError(f"scan is {self.scan!r}: choose 'largest-first' or 'all'")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: give at least 1")

    @classmethod
    def published(cls, eps: float | None = 8 / 255) -> GreedyFool:
        """The released scan, which asks every size of the change.

        Args:
            eps: Largest change of an element; None leaves only [0, 1].
        """
        return cls(eps, scan="all")

    def passes(self, shape: Shape) -> int:
        """Both of every step of stage 1, and in stage 2 one per pixel and size of the change."""
        _, sizes = _sizes(self.bound)
        return 2 * self.steps + 1 + shape[1] * shape[2] * sizes

    def _attack(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        delta, reached = self._increase(model, images, goal)
        rows = reached.nonzero()[:, 0]
        if len(rows):
            delta[rows] = self._reduce(model, images[rows], goal[rows], delta[rows])
        return (images + delta).clamp(0, 1)

    def _increase(
        self, model: nn.Module, images: Images, goal: Goal
    ) -> tuple[Images, Bool[Tensor, " b"]]:
        """Changes that reach the goal, 0 where none was found, and where some were needed."""
        eps = self.bound
        lower, upper = box(images, eps, goal.region)
        weights = self._weights(images)
        found = torch.zeros_like(images)
        success = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        rows = torch.arange(len(images), device=images.device)
        delta, chosen = torch.zeros_like(images), torch.zeros_like(weights, dtype=torch.bool)
        for step in range(self.steps + 1):
            with torch.set_grad_enabled(step < self.steps):
                inputs = (images[rows] + delta).clamp(0, 1).requires_grad_(step < self.steps)
                margin = goal[rows].margin(model(inputs))
            reached = margin.detach() < 0
            found[rows[reached]] = delta[reached]
            success[rows[reached]] = step > 0
            if step == self.steps or reached.all():
                break
            with torch.enable_grad():
                distance = margin.sum()
            (gradient,) = torch.autograd.grad(distance, inputs)
            keep = ~reached & gradient.flatten(1).isfinite().all(1)
            rows, delta, chosen, gradient = rows[keep], delta[keep], chosen[keep], gradient[keep]
            if not len(rows):
                break
            if goal.region is not None:
                gradient = gradient * goal.region[rows]
            score = weights[rows] * gradient.abs().mean(1).flatten(1)
            boost = eps < 128 / 255
            count = min(step + 1, score.shape[1]) if boost else 1
            candidates = score if boost else score.masked_fill(chosen, -1)
            chosen = chosen.scatter(1, candidates.topk(count, dim=1).indices, True)
            move = gradient * chosen.view(len(rows), 1, *images.shape[2:])
            move = eps / 2 * move / _peak(move)
            delta = (delta - move).clamp(lower[rows], upper[rows])
        return found, success

    def _reduce(self, model: nn.Module, images: Images, goal: Goal, delta: Images) -> Images:
        """The changes with the pixels dropped that the goal doesn't need."""
        eps = self.bound
        lower, upper = box(images, eps, goal.region)
        stride, sizes = _sizes(eps)
        scales = torch.arange(1, sizes + 1, device=images.device)
        scales = (scales.to(images.dtype) * stride).clamp(max=eps)
        result = delta.clone()
        rows = torch.arange(len(images), device=images.device)
        pointer = torch.zeros_like(rows)
        while len(rows):
            size = delta.abs().mean(1).flatten(1)
            count = (size > 0).sum(1)
            unfinished = (pointer < count) & (count > 1)
            rows, pointer, delta, size = (
                state[unfinished] for state in (rows, pointer, delta, size)
            )
            if not len(rows):
                break
            order = size.masked_fill(size == 0, torch.inf).argsort(dim=1, stable=True)
            dropped = order.gather(1, pointer[:, None])
            rest = torch.ones_like(size).scatter(1, dropped, 0)
            rest = delta * rest.view(len(rows), 1, *images.shape[2:])
            direction = rest / _peak(rest)
            tried = (direction[:, None] * scales.view(-1, 1, 1, 1)).clamp(
                lower[rows, None], upper[rows, None]
            )
            works = self._works(model, images[rows], goal[rows], tried)
            success = works.any(1)
            smallest = tried[torch.arange(len(rows), device=rows.device), works.byte().argmax(1)]
            delta = torch.where(success[:, None, None, None], smallest, delta)
            result[rows] = delta
            pointer = pointer + ~success
        return result

    def _works(
        self, model: nn.Module, images: Images, goal: Goal, tried: Float[Tensor, "b s c h w"]
    ) -> Bool[Tensor, "b s"]:
        """Which of the changes reach the goal, all in one call or the last of each image first."""
        attacked = (images[:, None] + tried).clamp(0, 1)

        def ask(some: Float[Tensor, "m s c h w"], labels: Tensor) -> Bool[Tensor, "m s"]:
            repeated = Goal(labels.repeat_interleave(some.shape[1]), goal.targeted)
            return repeated.reached(model(some.flatten(0, 1))).view(some.shape[:2])

        if self.scan == "all":
            return ask(attacked, goal.labels)
        works = torch.zeros(tried.shape[:2], dtype=torch.bool, device=images.device)
        works[:, -1:] = ask(attacked[:, -1:], goal.labels)
        rows = works[:, -1].nonzero()[:, 0]
        if tried.shape[1] > 1 and len(rows):
            works[rows, :-1] = ask(attacked[rows, :-1], goal.labels[rows])
        return works

    def _weights(self, images: Images) -> Weights:
        """How well each pixel hides a change, in (0, 1]."""
        if self.distortion == "none":
            return torch.ones_like(images[:, 0]).flatten(1)
        if self.distortion == "hill":
            cost = _hill(images)
            low, high = cost.flatten(1).aminmax(dim=1)
            hides = 1 - (cost - _rowwise(low)) / _rowwise(high - low).clamp(min=1e-12)
        elif self.distortion == "sigma":
            hides = _sigma(images)
        else:
            hides = 1 - _asked(self.distortion, images)
        flat = hides.flatten(1)
        flat = (flat - flat.quantile(0.3, dim=1, keepdim=True)).clamp(min=0)
        flat = flat / flat.quantile(0.75, dim=1, keepdim=True).clamp(min=1e-12)
        smooth = _mean(flat.clamp(max=1).view_as(hides), 3)
        # never 0, or a third of the pixels could not be chosen at all
        return smooth.flatten(1) + 1e-6


def _asked(network: DistortionMap, images: Images) -> Float[Tensor, "b 1 h w"]:
    """The distortion map of a network, once it has the right shape and range."""
    with frozen(network) if isinstance(network, nn.Module) else nullcontext():
        found: Tensor = network(images)
    b, _, h, w = images.shape
    if found.shape != (b, 1, h, w):
        raise ValueError(
            f"the distortion has shape {tuple(found.shape)}: it must be one value per pixel, "
            f"{(b, 1, h, w)}"
        )
    if not 0 <= found.amin() <= found.amax() <= 1:
        raise ValueError(
            f"the distortion spans {found.amin():.3g} to {found.amax():.3g}: it must lie in [0, 1]"
        )
    return found.to(images)


def _sizes(eps: float) -> tuple[float, int]:
    """The largest changes that stage 2 tries: their distance, and how many there are up to ``eps``.

    The distance is about a tenth of eps in whole grey levels of 8 bits, at least one.
    """
    stride = max(math.floor(eps * 25.5 + 1e-9), 1) / 255
    return stride, max(math.ceil(eps / stride - 1e-6), 1)


def _peak(change: Images) -> Float[Tensor, "b 1 1 1"]:
    """The largest absolute value of each image, never 0."""
    return change.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(change.dtype).tiny)


def _rowwise(values: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1"]:
    return values[:, None, None, None]


def _mean(maps: Images, width: int) -> Images:
    """The mean over squares; at the border over the part inside the image."""
    return F.avg_pool2d(maps, width, stride=1, padding=width // 2, count_include_pad=False)


def _hill(images: Images) -> Float[Tensor, "b 1 h w"]:
    """The steganographic cost HILL of each pixel (Li et al. 2014): low in texture.

    The outer mean is over 7 x 7 instead of 15 x 15 pixels, for small images.
    """
    grey = images.mean(1, keepdim=True)
    high_pass = images.new_tensor([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]])[None, None]
    residue = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), high_pass).abs()
    return _mean(1 / _mean(residue, 3).clamp(min=1 / 255), 7)


def _sigma(images: Images) -> Float[Tensor, "b 1 h w"]:
    """Croce and Hein's sigma map (2019, section 3.2), averaged over the channels.

    Per channel the square root of the smaller of the standard deviations of a pixel and its two
    neighbours, horizontally and vertically.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1].unfold(3, 3, 1).std(-1, correction=0)
    down = padded[:, :, :, 1:-1].unfold(2, 3, 1).std(-1, correction=0)
    return torch.minimum(across, down).sqrt().mean(1, keepdim=True)
