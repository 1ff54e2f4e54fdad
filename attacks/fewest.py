"""The smallest number of changes at which an attack of a given size succeeds, per image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attacks.base import Images

Attempt = Callable[[Int[Tensor, " m"], Int[Tensor, " m"]], tuple[Images, Int[Tensor, " m"]]]
"""Rows of the batch and a count for each → attacked images and their changes, 0 for a failure."""


def attempts(most: int) -> int:
    """The most calls of an attempt that `fewest_changes` makes for one image."""
    return 2 * (most - 1).bit_length() + 1


def fewest_changes(attempt: Attempt, images: Images, rows: Bool[Tensor, " b"], most: int) -> Images:
    """For each of the marked ``rows`` the success of ``attempt`` with the smallest count.

    Counts are doubled from 1 until the attempt succeeds, at most up to ``most``, and then bisected;
    the whole batch shares each call, every image at its own count. A success that needed fewer
    changes than it was allowed moves the bound further; one that reports more counts as having kept
    to its count, so that the search ends. Images without a success come back unchanged. Exact where
    success is monotone in the count.
    """
    best = images.clone()
    fails = torch.zeros_like(rows, dtype=torch.long)
    works = torch.full_like(fails, most + 1)
    while (pending := (rows & (works - fails > 1)).nonzero()[:, 0]).numel():
        low, high = fails[pending], works[pending]
        doubled = (2 * low).clamp(min=1, max=most)
        counts = torch.where(high > most, doubled, (low + high) // 2)
        attacked, changes = attempt(pending, counts)
        found = changes > 0
        best[pending[found]] = attacked[found]
        works[pending[found]] = changes.minimum(counts)[found]
        fails[pending[~found]] = counts[~found]
    return best
