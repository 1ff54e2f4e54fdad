"""Sizes of a change, per image, and the box that keeps it small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attacks.goal import Images, Region


def l0_elements(delta: Images) -> Int[Tensor, " b"]:
    """How many values of an image change (at most c·h·w)."""
    return delta.flatten(1).count_nonzero(1)


def l0_pixels(delta: Images) -> Int[Tensor, " b"]:
    """How many pixels change in at least one channel (at most h·w)."""
    return delta.abs().amax(1).flatten(1).count_nonzero(1)


def counter(unit: Literal["pixels", "elements"]) -> Callable[[Images], Int[Tensor, " b"]]:
    """What counts the changed units of each image: `l0_pixels` or `l0_elements`."""
    return l0_pixels if unit == "pixels" else l0_elements


def l2(delta: Images) -> Float[Tensor, " b"]:
    """Euclidean length of the change."""
    return delta.flatten(1).square().sum(1).sqrt()


def linf(delta: Images) -> Float[Tensor, " b"]:
    """Largest change of a value."""
    return delta.flatten(1).abs().amax(1)


def box(images: Images, eps: float | None, region: Region | None = None) -> tuple[Images, Images]:
    """The lowest and highest change within ``eps`` (None: no bound) that keeps to [0, 1].

    Outside ``region``, if there is one, both are 0.
    """
    eps = 1.0 if eps is None else eps
    low, high = (-images).clamp(min=-eps), (1 - images).clamp(max=eps)
    return (low, high) if region is None else (low * region, high * region)


def interval(
    images: Images, eps: float | None, region: Region | None = None
) -> tuple[Images, Images]:
    """The lowest and highest image within ``eps`` (None: no bound), [0, 1] and ``region``.

    Their distance from ``images`` stays at most ``eps`` when it is computed again from the rounded
    values, which ``images`` plus ``box`` may exceed by a rounding error.
    """
    eps = 1.0 if eps is None else eps
    lower, upper = box(images, eps, region)
    low, high = images + lower, images + upper
    low = torch.where(images - low > eps, low.nextafter(images), low)
    return low, torch.where(high - images > eps, high.nextafter(images), high)


def largest(scores: Float[Tensor, "b n"], count: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """Mark the ``count`` largest scores of each row, exactly that many (ties by index).

    Scores may be infinite, but not NaN; of a row with fewer scores than its count all are marked.
    """
    most = min(max([1, *count.tolist()]), scores.shape[1])
    # not a whole sort: all above the count-th score, and of those equal to it the first
    best = scores.topk(most, dim=1).values
    least = best.gather(1, (count - 1).clamp(0, most - 1)[:, None])
    above, equal = scores > least, scores == least
    left = count[:, None] - above.sum(1, keepdim=True)
    return above | (equal & (equal.cumsum(1, dtype=torch.int32) <= left))
