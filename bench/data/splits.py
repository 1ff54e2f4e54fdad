"""Labelled images, and how to take parts of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor

from bench.data.file_images import FileImages
from bench.data.seeds import generator as stream


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their classes.

    Attributes:
        images: Bytes, shape (n, c, h, w); in memory, or in files where they are too large for it.
        labels: Classes, counted from 0.
        ids: The places of the images in the split they were first cut from; by default their own.
    """

    images: UInt8[Tensor, "n c h w"] | FileImages
    labels: Int[Tensor, " n"]
    ids: Int[Tensor, " n"] = field(default_factory=lambda: torch.arange(0))

    def __post_init__(self) -> None:
        if not len(self.ids):
            object.__setattr__(self, "ids", torch.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Int[Tensor, " m"]) -> Split:
        """The images at these places, which keep their ids."""
        images = self.images
        some = images.at(places) if isinstance(images, FileImages) else images[places]
        return Split(some, self.labels[places], self.ids[places])

    def alone(self) -> Split:
        """The same images as a split of its own, whose ids are its own places."""
        return Split(self.images, self.labels)


def decoded_by(workers: int, split: Split) -> Split:
    """The same split with another number of threads that decode images in files."""
    if not isinstance(split.images, FileImages):
        return split
    return replace(split, images=replace(split.images, workers=workers))


def in_memory(split: Split) -> Split:
    """The same split with its images in memory."""
    return split if isinstance(split.images, Tensor) else replace(split, images=split.images[:])


class Parts(NamedTuple):
    """What a reader finds: the names of the classes, the training part and the test part."""

    classes: tuple[str, ...]
    train: Split
    test: Split


def cut(split: Split, fraction: float, generator: Generator) -> tuple[Split, Split]:
    """Set a fraction of each class aside.

    Args:
        split: What is divided.
        fraction: The share of each class that is set aside, from 0 to below 1; the number of images
            is rounded per class.
        generator: Decides which ones.

    Returns:
        What is left and what was set aside, both in order: disjoint, and together the whole.

    Raises:
        ValueError: The fraction is outside [0, 1).
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
    """A fixed subset of ``count`` images, as even over the classes as they allow, in order.

    The subset of a smaller count is part of that of a larger one.

    Raises:
        ValueError: There are not that many images.
    """
    if not 0 < count <= len(split):
        raise ValueError(f"cannot take {count} of {len(split)} images")
    rank = _rank(split.labels, stream(0, "part"))
    return split.take(rank.argsort(stable=True)[:count].sort().values)


def _rank(labels: Int[Tensor, " n"], generator: Generator) -> Int[Tensor, " n"]:
    """The place of each image in a random order of its own class, from 0."""
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]
    first = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(labels)) - first[labels[order]]
    return rank
