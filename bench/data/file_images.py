"""Images that stay in their files, and are decoded by threads when they are needed.

They stand in for the tensor of a split that is too large for memory: with a shape, a length, and
indices that give tensors.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")

LARGEST_IN_MEMORY = 1 << 32
"""Bytes, 4 GiB. Images of a dataset that needs more stay in their files. The number is the same on
every machine, because masks of such datasets are drawn in another order."""
AHEAD = 2  # batches that are prepared while one is used
CHUNK = 8  # images that a thread decodes in one go


@dataclass(frozen=True, eq=False)
class FileImages:
    """The images of a split that are read from their files, each time anew.

    Attributes:
        decode: Gives one image by its place among all files of the dataset: bytes, shape (h, w, 3).
        places: Which of them are in the split.
        side: Their height and width in pixels.
        content: Gives a checksum that changes when the files do.
        workers: How many threads decode; results do not depend on it.
    """

    decode: Callable[[int], NDArray[np.uint8]]
    places: Int[Tensor, " n"]
    side: int
    content: Callable[[], str]
    workers: int = 1

    @property
    def shape(self) -> torch.Size:
        """As of a tensor: (n, 3, h, w)."""
        return torch.Size((len(self), 3, self.side, self.side))

    @property
    def nbytes(self) -> int:
        """The bytes that they would need in memory."""
        return self.shape.numel()

    def fingerprint(self) -> Int[Tensor, " n"]:
        """Numbers that change when a file or the choice of images does."""
        head = torch.tensor([int(self.content(), 16)])
        return torch.cat([head, self.places])

    def __len__(self) -> int:
        return len(self.places)

    def at(self, places: Int[Tensor, " m"]) -> FileImages:
        """Some of the images, also in their files."""
        return replace(self, places=self.places[places])

    def __getitem__(self, key: int | slice | Tensor) -> UInt8[Tensor, "*m 3 h w"]:
        """Some of the images, or one, as bytes in memory; raises ``ValueError`` for a bad file."""
        places = self.places[key]
        if not places.ndim:
            return replace(self, places=places[None])[:][0]
        pixels = np.empty((len(places), 3, self.side, self.side), np.uint8)
        wanted = places.tolist()

        def fill(start: int) -> None:
            for row, place in enumerate(wanted[start : start + CHUNK], start):
                pixels[row] = self.decode(place).transpose(2, 0, 1)

        pool = _pool(self.workers)
        begun = [pool.submit(fill, start) for start in range(0, len(wanted), CHUNK)]
        for each in begun:
            each.result()
        return torch.from_numpy(pixels)


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """The threads that decode; Pillow gives the interpreter free while it does."""
    return ThreadPoolExecutor(workers, thread_name_prefix="decode")


def ahead(steps: Iterable[Callable[[], T]], count: int = AHEAD) -> Iterator[T]:
    """Yield what each step gives, in order, while the next ones run in the background."""
    steps = iter(steps)
    with ThreadPoolExecutor(count, thread_name_prefix="batches") as pool:
        begun: deque[Future[T]] = deque(
            pool.submit(step) for step in itertools.islice(steps, count)
        )
        try:
            while begun:
                found = begun.popleft().result()
                for step in itertools.islice(steps, 1):
                    begun.append(pool.submit(step))
                yield found
        finally:
            for each in begun:
                each.cancel()


def usual_workers() -> int:
    """One thread for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
