"""Labelled pictures, and how to take parts of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor

from bench.data.seeds import generator as stream


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures with their classes.

    ``images`` hold bytes, shape (n, c, h, w); ``labels`` count classes from 0; ``ids`` are the
    places of the pictures in the split they were first cut from (their own places by default).
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    ids: Int[Tensor, " n"] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if getattr(self, "ids", None) is None:
            object.__setattr__(self, "ids", torch.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Int[Tensor, " m"]) -> Split:
        """The pictures at these places, which keep their ids."""
        return Split(self.images[places], self.labels[places], self.ids[places])


def cut(split: Split, fraction: float, generator: Generator) -> tuple[Split, Split]:
    """Set a fraction of each class aside: what is left, and what was set aside (both in order).

    The parts are disjoint and together the whole; the number per class is rounded. Raises
    ValueError for a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}: what is set aside must be from 0 to below 1")
    if fraction == 0:
        return split, split.take(torch.arange(0))
    aside = (
        _rank(split.labels, generator)
        < ((torch.bincount(split.labels) * fraction).round()[split.labels])
    )
    return split.take((~aside).nonzero()[:, 0]), split.take(aside.nonzero()[:, 0])


def part(split: Split, count: int) -> Split:
    """A fixed subset of ``count`` pictures, as even over the classes as they allow, in order.

    The subset of a smaller count lies within that of a larger one. Raises ValueError when there are
    not that many pictures.
    """
    if not 0 < count <= len(split):
        raise ValueError(f"cannot take {count} of {len(split)} pictures")
    rank = _rank(split.labels, stream(0, "part"))
    return split.take(rank.argsort(stable=True)[:count].sort().values)


def _rank(labels: Int[Tensor, " n"], generator: Generator) -> Int[Tensor, " n"]:
    """The place of each picture in a random order of its own class, from 0."""
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    first = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(labels)) - first[labels[order]]
    return rank
