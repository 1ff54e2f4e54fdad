"""Batches from memory; everything random about an image is drawn by its place, epoch and seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Generator, Tensor

from augmentations.base import Augmentation, Guide, Images, Mask, draw_all
from bench.data.crops import crop
from bench.data.file_images import FileImages, ahead
from bench.data.floats import as_floats
from bench.data.image_operations import Policy
from bench.data.seeds import generator
from bench.data.splits import Split

BLOCK = 1024  # images whose masks come from one stream of random numbers
CHANGED = 2**25  # bytes of images that a policy changes at a time, unless a block is larger


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to train on.

    Attributes:
        images: Cropped and mirrored, not yet deleted from; floats in [0, 1], shape (b, c, h, w).
        labels: Their classes.
        ids: Those of the split.
        mask: Where to delete; None where the training loop has to draw it, from a guide of the
            network in training.
        originals: The same images, moved alike, without the policy; None where nothing of them is
            pasted back.
        guide: The guide, moved alike; None unless a policy or a mix wants points.
        due: Which images were chosen for a mask; None where the training loop chooses.
    """

    images: Images
    labels: Int[Tensor, " b"]
    ids: Int[Tensor, " b"]
    mask: Mask | None
    originals: Images | None = None
    guide: Guide | None = None
    due: Bool[Tensor, " b"] | None = None


@dataclass(frozen=True, eq=False)
class Moves:
    """How each image of a split is moved in one epoch, and in which order they come."""

    shifts: Int[Tensor, "n 2"]
    flips: Bool[Tensor, " n"]
    order: Int[Tensor, " n"]


class Loader:
    """The training batches of a split, epoch by epoch.

    The images are kept as bytes on ``device``. Masks are drawn on the CPU in blocks of 1,024
    places, those of the next epoch in the background while this one trains. So shifts, flips and
    masks depend on the seed, the epoch and an image's place in the split: on no batch size and no
    order. The order is another one each epoch. A last batch of a single image is left out, since
    batch normalisation cannot use it.

    Args:
        split: The training images.
        batch_size: Images per batch, at least 1.
        seed: Decides everything that is random.
        padding: The furthest shift of the random crop in pixels, into a frame of black.
        flip: Whether an image is mirrored with probability 1/2.
        device: Where the batches are needed.
        augmentation: Draws the masks; without one nothing is deleted.
        guide: One map per image, of bytes, floats or booleans, looked up by the ids of the split.
            It moves with its image before masks are drawn; what leaves the frame is lost.
        policy: Changes the stored bytes ahead of the crop, by the ids of the split; also on the CPU
            and an epoch ahead, which takes two more copies of the images.
        guided: Whether batches carry the guide, for a policy or a mix that wants points.

    Raises:
        ValueError: A number is out of its range, there are no images, or a guide is needed and
            absent, or does not fit.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        padding: int,
        flip: bool,
        device: str | torch.device,
        augmentation: Augmentation | None = None,
        guide: Shaped[Tensor, "m 1 h w"] | None = None,
        policy: Policy | None = None,
        guided: bool = False,
    ) -> None:
        if not len(split):
            raise ValueError(
                "there are no training images: lower --validation or take a larger part"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        if padding < 0:
            raise ValueError(f"padding is {padding}: it must not be negative")
        wants = None if augmentation is None else augmentation.wants
        if wants == "attack" and guide is None:
            raise ValueError(f"{augmentation} needs a guide: one map of points per image")
        if guided and guide is None:
            raise ValueError("the policy or the mix needs a guide: one map of points per image")
        if (wants is not None or guided) and guide is not None:
            size = split.images.shape[-2:]
            if guide.shape[-2:] != size or len(guide) <= int(split.ids.max()):
                raise ValueError(
                    f"the guide has shape {tuple(guide.shape)}, which does not fit images of "
                    f"{tuple(size)} with ids up to {int(split.ids.max())}"
                )
        images = split.images
        self.images: Any = images if isinstance(images, FileImages) else images.to(device)
        self.labels = split.labels.to(device)
        self.ids = split.ids
        self.batch_size = batch_size
        self.seed = seed
        self.padding = padding
        self.flip = flip
        self.device = torch.device(device)
        # a live guide is known to the training loop alone
        self.augmentation = None if wants is not None and guide is None else augmentation
        used = guide is not None and (wants is not None or guided)
        self.guide = guide.cpu().contiguous() if used and guide is not None else None
        self.guided = guided
        self.policy = policy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._ahead: dict[str, tuple[int, Future[Any]]] = {}

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        n = len(self.ids)
        return -(-n // self.batch_size) - (n > 1 and n % self.batch_size == 1)

    def epoch(self, epoch: int, progress: float) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0), with ``progress`` of the training done."""
        moves = self.moves(epoch)
        masks, due = self._due(epoch, progress)
        images = self.images
        if self.policy is not None:
            images = self._ready(self._change, epoch, progress).to(self.device)
        order = moves.order.to(self.device)
        all_shifts, all_flips = moves.shifts.to(self.device), moves.flips.to(self.device)
        pasted = self.policy is not None and self.policy.keep is not None
        for index in range(len(self)):
            some = slice(index * self.batch_size, (index + 1) * self.batch_size)
            places, here = moves.order[some], order[some]
            shifts, flips = all_shifts[here], all_flips[here]
            yield Batch(
                crop(images, here, shifts, flips, 255.0),
                self.labels[here],
                self.ids[places],
                None if masks is None else masks[here],
                crop(self.images, here, shifts, flips, 255.0) if pasted else None,
                self._guide(places, moves).to(self.device) if self.guided else None,
                None if due is None else due[here],
            )

    def moves(self, epoch: int) -> Moves:
        """Draw the shifts, flips and order of an epoch."""
        n, reach = len(self.ids), 2 * self.padding + 1
        shifts = torch.randint(reach, (n, 2), generator=generator(self.seed, "crops", epoch))
        flips = torch.rand(n, generator=generator(self.seed, "flips", epoch)) < 0.5
        order = torch.randperm(n, generator=generator(self.seed, "order", epoch))
        return Moves(shifts - self.padding, flips & self.flip, order)

    def _due(
        self, epoch: int, progress: float
    ) -> tuple[Mask, Bool[Tensor, " n"]] | tuple[None, None]:
        """The masks of an epoch, and which images are due; those of the next one are begun."""
        if self.augmentation is None:
            return None, None
        masks, chance = self._ready(self._draw, epoch, progress)
        # `augmentations.draw` in two halves: who gets a mask depends on the progress, which is not
        # known yet when masks are drawn ahead
        chosen = chance < self.augmentation.share.at(progress)
        due: Mask = (masks & chosen[:, None, None, None]).to(self.device)
        return due, chosen.to(self.device)

    def _ready(self, compute: Callable[[int], Any], epoch: int, progress: float) -> Any:
        """What ``compute`` gives for an epoch; unless it is the last, the next one's is begun."""
        begun, future = self._ahead.pop(compute.__name__, (None, None))
        found = compute(epoch) if future is None or begun != epoch else future.result()
        if progress < 1:
            self._ahead[compute.__name__] = (epoch + 1, self._thread.submit(compute, epoch + 1))
        return found

    def _change(self, epoch: int) -> UInt8[Tensor, "n c h w"]:
        """What the policy makes of every image, on the CPU."""
        assert self.policy is not None
        images = self.images.cpu()
        changed = torch.empty_like(images)
        # in large blocks, for images with the same operation go together
        size = max(BLOCK, CHANGED // math.prod(images.shape[1:]))
        for start in range(0, len(images), size):
            some = slice(start, start + size)
            changed[some] = self.policy.apply(images[some], self.seed, epoch, self.ids[some])
        return changed

    def _draw(self, epoch: int) -> tuple[Mask, Float[Tensor, " n"]]:
        """A mask for every image, and the number that decides whether it is used."""
        assert self.augmentation is not None
        n, _, h, w = self.images.shape
        moves = self.moves(epoch)
        masks = torch.empty(n, 1, h, w, dtype=torch.bool)
        chance = torch.empty(n)
        for block, places in enumerate(torch.arange(n).split(BLOCK)):
            stream = generator(self.seed, "masks", epoch, block)
            masks[places], chance[places] = self._masks(places, moves, stream)
        return masks, chance

    def _masks(
        self, places: Int[Tensor, " b"], moves: Moves, stream: Generator
    ) -> tuple[Mask, Float[Tensor, " b"]]:
        """A mask for each of some images, and the number that decides whether it is used."""
        assert self.augmentation is not None
        chance = torch.rand(len(places), generator=stream)
        guide = self._guide(places, moves) if self.augmentation.wants is not None else None
        # only the shape of the images counts
        blank = torch.zeros(1, 1, 1, 1).expand(len(places), *self.images.shape[1:])
        return draw_all(self.augmentation, blank, stream, guide), chance

    def _guide(self, places: Int[Tensor, " b"], moves: Moves) -> Guide:
        """The guide of some images, moved as they are."""
        assert self.guide is not None
        return crop(self.guide, self.ids[places], moves.shifts[places], moves.flips[places])


def batches(
    split: Split, batch_size: int, device: str | torch.device
) -> Iterator[tuple[Images, Int[Tensor, " b"]]]:
    """Yield the images and labels of a split in order, unchanged, the last batch too."""
    pieces = [slice(start, start + batch_size) for start in range(0, len(split), batch_size)]
    steps = (functools.partial(split.images.__getitem__, some) for some in pieces)
    in_files = isinstance(split.images, FileImages)
    images = ahead(steps) if in_files else (step() for step in steps)
    for some, found in zip(pieces, images, strict=True):
        yield as_floats(found, device), split.labels[some].to(device)
