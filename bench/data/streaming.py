"""Training batches of images that stay in their files: read, changed and cropped ahead of use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import torch
from jaxtyping import Float, Int
from torch import Tensor

from augmentations.base import Mask
from augmentations.relocation import AT_ONCE
from bench.data.crops import crop
from bench.data.dataset import Dataset
from bench.data.file_images import AHEAD, FileImages, ahead
from bench.data.loader import Batch, Loader, Moves
from bench.data.seeds import generator
from bench.data.splits import Split

BLOCK = 64  # images, in the order of the epoch, whose masks come from one stream of random numbers

MOVED = 65  # bytes of a place while masks are moved towards points or away from them

THREADS = 1 << 27  # bytes that the threads which decode and draw need beside their results

Masks = tuple[Mask, Float[Tensor, " b"]]


class StreamingLoader(Loader):
    """A `Loader` of a split whose images are in files.

    Batches are made in the background, two ahead: images are decoded by the threads of
    `FileImages`, then changed by the policy, cropped and mirrored. Order, shifts, flips and
    policies depend on the seed, the epoch and the image, as for images in memory. Masks are drawn
    in blocks of 64 images in the order of the epoch, and not in blocks of places: all masks of an
    epoch would need a third of the memory of the images. So they, too, depend on seed, epoch and
    image alone, on no batch size and no number of threads; but they are others than for images in
    memory.
    """

    def epoch(self, epoch: int, progress: float) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0), with ``progress`` of the training done."""
        moves = self.moves(epoch)
        blocks: dict[int, Future[Masks]] = {}

        def steps() -> Iterator[Callable[[], Batch]]:
            for start in range(0, len(self) * self.batch_size, self.batch_size):
                places = moves.order[start : start + self.batch_size]
                needed: list[Future[Masks]] = []
                if self.augmentation is not None:
                    last = (start + len(places) - 1) // BLOCK
                    # begun here, in the order of the epoch; finished by another thread
                    for block in range(start // BLOCK, last + 1):
                        if block not in blocks:
                            blocks[block] = self._thread.submit(self._block, epoch, block, moves)
                        needed.append(blocks[block])
                    for old in [block for block in blocks if block < last]:
                        del blocks[old]
                yield functools.partial(
                    self._batch, epoch, progress, moves, places, start % BLOCK, needed
                )

        return ahead(steps())

    def _batch(
        self,
        epoch: int,
        progress: float,
        moves: Moves,
        places: Int[Tensor, " b"],
        offset: int,
        blocks: list[Future[Masks]],
    ) -> Batch:
        """One batch; the first of its masks is ``offset`` places into the first block."""
        raw, ids = self.images[places], self.ids[places]
        here = torch.arange(len(places), device=self.device)
        shifts, flips = moves.shifts[places].to(self.device), moves.flips[places].to(self.device)
        changed = raw if self.policy is None else self.policy.apply(raw, self.seed, epoch, ids)
        images = crop(changed.to(self.device), here, shifts, flips, 255.0)
        originals = mask = due = None
        if self.policy is not None and self.policy.keep is not None:
            originals = crop(raw.to(self.device), here, shifts, flips, 255.0)
        if blocks:
            masks, chance = (
                torch.cat(each) for each in zip(*(b.result() for b in blocks), strict=True)
            )
            some = slice(offset, offset + len(places))
            assert self.augmentation is not None
            chosen = chance[some] < self.augmentation.share.at(progress)
            mask = (masks[some] & chosen[:, None, None, None]).to(self.device)
            due = chosen.to(self.device)
        guide = self._guide(places, moves).to(self.device) if self.guided else None
        labels = self.labels[places.to(self.device)]
        return Batch(images, labels, ids, mask, originals, guide, due)

    def _block(self, epoch: int, block: int, moves: Moves) -> Masks:
        """The masks of a block, and the numbers that decide whether they are used."""
        places = moves.order[block * BLOCK : (block + 1) * BLOCK]
        return self._masks(places, moves, generator(self.seed, "masks", epoch, block))


def open_loader(split: Split, **options: object) -> Loader:
    """The loader of a split, by where its images are; the arguments are those of `Loader`."""
    kind = StreamingLoader if isinstance(split.images, FileImages) else Loader
    return kind(split, **options)  # type: ignore[arg-type]


def memory(
    data: Dataset, batch_size: int, *, masks: bool, policy: bool, moved: bool = False
) -> int:
    """The most bytes of memory that the images of a dataset and their masks take in a training.

    Images in memory: themselves, the masks of two epochs, and two copies that a policy changed.
    Images in files: `AHEAD` batches, the one in use and the next, each as bytes and as floats,
    twice with a policy, with its masks; what the masks of a block take while they are drawn; and
    128 MiB for the threads. Where masks are moved, what choosing their places takes as well.

    Args:
        data: The dataset.
        batch_size: Images per step.
        masks: Whether masks are drawn.
        policy: Whether a policy changes the images.
        moved: Whether masks are moved towards points or away from them.
    """
    n, c, h, w = data.train.images.shape
    places = MOVED * min(AT_ONCE, n * h * w) * moved
    if isinstance(data.train.images, Tensor):
        images = (n + len(data.test)) * c * h * w
        return images + 2 * n * h * w * masks + 2 * n * c * h * w * policy + places
    image = h * w * (c * (1 + 4) * (1 + policy) + 2 * masks)
    return (AHEAD + 2) * batch_size * image + 16 * BLOCK * h * w * masks + places + THREADS
