"""Sums of a guide over squares, and draws among those that are admissible."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn.functional import pad

from augmentations.base import Guide, Images, Mask, rectangles

SLACK = 1e-9  # sums of equal values differ in their last bits


def square_sums(guide: Guide, length: int) -> Float[Tensor, "b centres"]:
    """The guide's sum over the square around each pixel, by a summed-area table.

    Args:
        guide: Values of at least 0, shape (b, 1, h, w).
        length: Side of the squares in pixels, from 2; an odd one acts as the even one below. They
            reach ``length // 2`` pixels to each side and are clipped at the border, as Cutout's.

    Returns:
        Double precision, shape (b, h · w): one sum for each centre, in reading order.
    """
    h, w = guide.shape[-2:]
    half = length // 2
    table = pad(guide.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
    # beyond the border the table goes on as at the border, which clips the squares
    table = pad(table, (half, half - 1, half, half - 1), mode="replicate")
    reach = 2 * half
    bands = table[:, :, reach : reach + h] - table[:, :, :h]
    return (bands[..., reach : reach + w] - bands[..., :w]).flatten(1)


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
    number = admissible.cumsum(1, dtype=torch.int32)
    draws = torch.rand(
        len(admissible), 1, generator=generator, device=generator.device, dtype=torch.float64
    )
    pick = (draws.to(number.device) * number[:, -1:]).int()
    return torch.searchsorted(number, pick, right=True)[:, 0]


def square_at(centre: Int[Tensor, " b"], length: int, images: Images) -> Mask:
    """The square around a pixel of each image, numbered in reading order; clipped at the border."""
    w, half = images.shape[-1], length // 2
    row, column = torch.div(centre, w, rounding_mode="floor"), centre % w
    side = torch.full_like(row, 2 * half)
    return rectangles(row - half, column - half, side, side, images)
