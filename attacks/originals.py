"""From which image under attack each row of a batch was made."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attacks.goal import Images

COMPARED = 2**24
"""Elements that are compared at a time."""


class Originals:
    """The images under attack, and the owner of a row: the image that it was made from.

    That is the nearest image (AttackBench, Cinà et al. 2025). Deviation: a row that lies farther
    from it than half the way to another image belongs to the one with which it has the most
    elements in common, the nearest of several, since sparse changes may be large. A row with less
    than half of its elements in common with any image is dense and could be taken for another
    image's: in a batch of as many rows as the last one it keeps the owner of the same row there,
    since attacks keep the order of their rows. Of equal images the first owns all rows:
    `occurrence` tells them apart.

    Args:
        images: Distinct images, of shape (b, c, h, w).
    """

    def __init__(self, images: Images) -> None:
        self.flat = images.flatten(1)
        self.half_squares = self.flat.square().sum(1) / 2
        gaps = self._scores(self.flat) + self.half_squares[:, None]
        gaps.fill_diagonal_(torch.inf)
        self.reach = gaps.amin(1) / 4
        """Half of the squared distance within which a row is surely an image's, of shape (b,)."""
        self.last = torch.empty(0, dtype=torch.long, device=images.device)
        """The owners of the last rows that were asked for."""

    def owner(self, attempts: Images) -> Int[Tensor, " m"]:
        """The index of the image that each of m rows was made from."""
        flat = attempts.flatten(1)
        scores = self._scores(flat)
        least, owner = scores.min(1)
        far = least + flat.square().sum(1) / 2 > self.reach[owner]
        rows = far.nonzero()[:, 0]
        if len(rows) and len(self.flat) > 1:
            for some in rows.split(max(1, COMPARED // self.flat.numel())):
                found, dense = self._most_in_common(flat[some], scores[some])
                if len(self.last) == len(flat):
                    found = torch.where(dense, self.last[some], found)
                owner[some] = found
        self.last = owner
        return owner

    def _scores(self, flat: Float[Tensor, "m d"]) -> Float[Tensor, "m b"]:
        """Half of the squared distance of each row to each image, less the row's half square."""
        return self.half_squares - flat @ self.flat.T

    def _most_in_common(
        self, flat: Float[Tensor, "m d"], scores: Float[Tensor, "m b"]
    ) -> tuple[Int[Tensor, " m"], Bool[Tensor, " m"]]:
        """Whose row each one is by its elements, and whether it has less than half in common."""
        common = (flat[:, None] == self.flat).sum(2)
        most = common.amax(1, keepdim=True)
        fewer: Bool[Tensor, "m b"] = common < most
        return scores.masked_fill(fewer, torch.inf).argmin(1), 2 * most[:, 0] < flat.shape[1]


def occurrence(values: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """How many equal values stand before each one.

    >>> occurrence(torch.tensor([3, 5, 3, 3, 5]))
    tensor([0, 0, 1, 2, 1])
    """
    grouped, order = values.sort(stable=True)
    place = torch.arange(len(values), device=values.device)
    earlier = torch.empty_like(values)
    earlier[order] = place - torch.searchsorted(grouped, grouped)
    return earlier


def copies(images: Images) -> Int[Tensor, " b"]:
    """How many equal images stand before each one in a batch of shape (b, c, h, w)."""
    if len(images) < 2:
        return torch.zeros(len(images), dtype=torch.long, device=images.device)
    return occurrence(images.flatten(1).unique(dim=0, return_inverse=True)[1])
