"""Sums of a guide over squares, and draws among those that are admissible."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn.functional import pad

from augmentations.base import Guide, Images, Mask, exact, rectangles

Squares = Literal["inside", "clipped"]
"""Which squares there are: those inside the image, or one around each pixel, clipped."""

SLACK = 1e-9  # sums of equal values differ in their last bits


def square_sums(
    guide: Guide, length: int, squares: Squares = "clipped"
) -> Float[Tensor, "b places"]:
    """The guide's sum over every square, by a summed-area table.

    Args:
        guide: Values of at least 0, shape (b, 1, h, w).
        length: Side of the squares in pixels. Clipped ones need at least 2 and reach
            ``length // 2`` pixels to each side of their centre, so that an odd length acts as the
            even one below.
        squares: ``"clipped"``: around each pixel and clipped at the border, as Cutout's;
            ``"inside"``: those that lie whole inside the image.

    Returns:
        Double precision: one sum for each centre, shape (b, h · w), or for each square inside,
        shape (b, (h - length + 1) · (w - length + 1)); in reading order.

    Raises:
        ValueError: No square fits inside.
    """
    h, w = guide.shape[-2:]
    table = pad(exact(guide).cumsum(2).cumsum(3), (1, 0, 1, 0))
    if squares == "inside":
        if length > min(h, w):
            raise ValueError(
                f"length is {length}: no square of that side fits into images of {h}x{w}; "
                f"give at most {min(h, w)}, or squares='clipped'"
            )
        reach = length
    else:
        half = min(length // 2, max(h, w))  # one that reaches further covers the image as well
        # beyond the border the table goes on as at the border, which clips the squares
        table = pad(table, (half, half - 1, half, half - 1), mode="replicate")
        reach = 2 * half
    bands = table[:, :, reach:] - table[:, :, :-reach]
    return (bands[..., reach:] - bands[..., :-reach]).flatten(1)


def threshold(sums: Float[Tensor, "b n"], quantile: float) -> Float[Tensor, "b 1"]:
    """The quantile of each image's sums: the one with ``floor(quantile · (n - 1))`` below it."""
    rank = 1 + math.floor(quantile * (sums.shape[1] - 1))
    found: Tensor = sums.kthvalue(rank, dim=1, keepdim=True).values
    return found


def slack(sums: Float[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
    """How far two sums of an image may differ and still count as equal."""
    return sums.amax(1, keepdim=True) * SLACK


def one_of(admissible: Bool[Tensor, "b n"], generator: Generator) -> Int[Tensor, " b"]:
    """Draw one number per image, uniform over its admissible places, of which there must be one."""
    return at_draw(admissible, draws(len(admissible), generator))


def draws(count: int, generator: Generator) -> Float[Tensor, "b 1"]:
    """One number in [0, 1) per image, in float64 on the generator's device."""
    return torch.rand(count, 1, generator=generator, device=generator.device, dtype=torch.float64)


def at_draw(admissible: Bool[Tensor, "b n"], drawn: Float[Tensor, "b 1"]) -> Int[Tensor, " b"]:
    """The admissible place of each image that its number in [0, 1) stands for; see `one_of`."""
    number = admissible.cumsum(1, dtype=torch.int32)
    pick = (drawn.to(number.device) * number[:, -1:]).int()
    return torch.searchsorted(number, pick, right=True)[:, 0]


def square_at(
    place: Int[Tensor, " b"], length: int, images: Images, squares: Squares = "clipped"
) -> Mask:
    """One of the squares of each image, by its place among the sums of `square_sums`."""
    w = images.shape[-1]
    if squares == "inside":
        columns, half, side = w - length + 1, 0, length
    else:
        columns, half, side = w, length // 2, 2 * (length // 2)
    row, column = torch.div(place, columns, rounding_mode="floor"), place % columns
    sides = torch.full_like(row, side)
    return rectangles(row - half, column - half, sides, sides, images)
