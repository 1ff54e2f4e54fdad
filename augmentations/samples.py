"""What the dataset wrappers share: samples by index, their epoch, their points and draws."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.utils.data import Dataset

from augmentations.checks import whole


@runtime_checkable
class Indexed(Protocol):
    """Anything that is read by an index, as datasets, lists and tensors are."""

    def __getitem__(self, index: int, /) -> Any:
        """The entry of one image."""
        ...


class Samples(Dataset[tuple[Any, Any]]):
    """A map-style dataset that wraps another one and knows the epoch and the points of each image.

    The epoch of an image is the number of times that its index was read before, counted in shared
    memory for all workers alike; `set_epoch` states it instead.
    """

    def __init__(
        self, dataset: Indexed, points: Indexed | None, seed: int, epochs: int | None
    ) -> None:
        if not isinstance(dataset, Sized):
            raise ValueError(f"{type(dataset).__name__} has no length: give a map-style dataset")
        count = len(dataset)
        if epochs is not None:
            whole("epochs", epochs, least=1)
        entries = getattr(points, "__len__", lambda: count)()
        if entries != count:
            raise ValueError(f"there are points for {entries} images, but {count} images")
        self.dataset = dataset
        self.points = points
        self.seed = seed
        self.epochs = epochs
        self._count = count
        # in shared memory, so that workers that persist see what the others do
        self._reads = torch.zeros(count, dtype=torch.int32).share_memory_()
        self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()  # -1: count reads
        self._compared = torch.zeros(count, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """State the epoch of every image that is read from now on; persistent workers hear of it.

        Args:
            epoch: From 0. Until the next call the same index gives the same image.

        Raises:
            ValueError: The epoch is below 0.
        """
        whole("epoch", epoch, least=0)
        self._epoch.fill_(epoch)

    def _next_epoch(self, index: int) -> int:
        """The epoch of an image that is read now."""
        epoch = int(self._epoch)
        if epoch < 0:
            epoch = int(self._reads[index])
            self._reads[index] += 1
        return epoch

    def _progress(self, epoch: int) -> float:
        """How much of the training is done, from 0 to 1."""
        return 1.0 if self.epochs is None else min(1.0, (epoch + 1) / self.epochs)

    def _sample(self, index: int) -> tuple[Any, Any]:
        """The image and the label of an index, as the dataset gives them."""
        sample = self.dataset[index]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise ValueError(
                f"sample {index} of the dataset is a {type(sample).__name__}: "
                f"{type(self).__name__} needs (image, label) pairs"
            )
        return sample[0], sample[1]

    def _compare(self, index: int, image: Float[Tensor, "c h w"]) -> None:
        """Refuse an image that is not the one whose points were found; it is compared once."""
        contents = getattr(self.points, "contents", None)
        if contents is None or self._compared[index]:
            return
        found = fingerprint(image)
        if found is not None and found != int(contents[index]):
            raise ValueError(
                f"image {index} is not the one whose points were found: the dataset has changed, "
                "or changes its images at random; find the points of this dataset with "
                "bench.find_points(model, dataset), and leave crops and flips to "
                f"{type(self).__name__}"
            )
        self._compared[index] = True

    def _guide(self, index: int, h: int, w: int) -> Float[Tensor, "1 h w"]:
        """The map of one image's points."""
        entry = self._entry(index, h, w)
        if entry.shape == (1, h, w):
            return entry.float()
        row, column = entry.long().unbind(1)
        guide = torch.zeros(1, h, w)
        guide[0, row, column] = 1.0
        return guide

    def _places(self, index: int, h: int, w: int) -> Int[Tensor, "n 2"]:
        """The points of one image as (row, column) pairs."""
        entry = self._entry(index, h, w)
        return entry[0].nonzero() if entry.ndim == 3 else entry.long()

    def _entry(self, index: int, h: int, w: int) -> Tensor:
        """The entry of one image, checked: a map (1, h, w), or pairs (n, 2)."""
        assert self.points is not None
        entry = torch.as_tensor(self.points[index])
        if entry.shape in ((h, w), (1, h, w)):
            return entry.reshape(1, h, w)
        if entry.numel() == 0:
            return torch.zeros(0, 2)
        if entry.ndim != 2 or entry.shape[1] != 2:
            raise ValueError(
                f"the points of image {index} have shape {tuple(entry.shape)}: "
                f"give a map {(h, w)} or (row, column) pairs of shape (n, 2)"
            )
        if entry.is_floating_point() and not torch.equal(entry, entry.round()):
            raise ValueError(
                f"the points of image {index} are fractions of pixels: round them to whole numbers"
            )
        row, column = entry.long().unbind(1)
        outside = (row < 0) | (row >= h) | (column < 0) | (column >= w)
        if outside.any():
            raise ValueError(
                f"point {tuple(entry[outside][0].tolist())} of image {index} "
                f"is outside the image of {h} x {w} pixels"
            )
        return entry


def as_floats(image: Any) -> Float[Tensor, "c h w"]:
    """A tensor, an array or a PIL image as a float tensor; uint8 becomes [0, 1]."""
    if is_pil(image):
        image = np.array(as_pil(image))
    if isinstance(image, np.ndarray):
        h, w = image.shape[:2]
        pixels = np.ascontiguousarray(image.reshape(h, w, -1))  # [..., ::-1] has negative strides
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.ndim != 3:
        what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"an image of the dataset is {what}: it must be a tensor (c, h, w), "
            "an array (h, w, c) or a PIL image"
        )
    if image.is_floating_point():
        return image.float()
    only_bytes(image)
    return image.float() / 255


def only_bytes(image: Tensor) -> None:
    """Refuse an image of whole numbers that are not bytes."""
    if image.dtype != torch.uint8:
        raise ValueError(f"images are {image.dtype}: they must be floats in [0, 1] or uint8")


def as_pil(image: Any, what: str = "an image of the dataset") -> Any:
    """A PIL image as grey (``L``) or RGB, without palette or transparency.

    Args:
        image: Of any mode with at most 8 bits per channel; black and white becomes grey, all others
            but ``L`` become RGB.
        what: What messages call it.

    Raises:
        ValueError: It has more than 8 bits per channel.
    """
    if image.mode in ("L", "RGB"):
        return image
    if image.mode[0] in "IF":
        raise ValueError(
            f"{what} has more than 8 bits per channel: convert it to 8 (its mode is {image.mode})"
        )
    return image.convert("L" if image.mode == "1" else "RGB")


def as_bytes(image: Float[Tensor, "c h w"]) -> Any:
    """A float image in [0, 1] as an array (h, w, c) or (h, w) of bytes, rounded and clipped."""
    array = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return array[:, :, 0] if array.shape[2] == 1 else array


def is_pil(image: Any) -> bool:
    """Whether an image is one of PIL's, which is not imported for this."""
    return hasattr(image, "convert") and hasattr(image, "mode")


def per_channel(name: str, values: Sequence[float], c: int) -> Float[Tensor, " c"]:
    """Values as a tensor of one for each channel; a single one is for all of them.

    >>> per_channel("mean", (0.5,), 3).tolist()
    [0.5, 0.5, 0.5]
    """
    found = torch.tensor(values)
    if found.numel() not in (1, c):
        raise ValueError(
            f"{name} has {found.numel()} values, but the image has {c} channel{'s' * (c > 1)}: "
            "give one value per channel, or one for all"
        )
    return found.expand(c)


def fractions(mean: Sequence[float]) -> None:
    """Refuse a mean colour outside of [0, 1]."""
    given = torch.tensor(mean)
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"mean is {mean}: give values in [0, 1], those of bytes divided by 255")


def guided(augmentation: Any, guide: Any, remedy: str) -> None:
    """Refuse a missing guide, and say what to pass where.

    Args:
        augmentation: What deletes.
        guide: Its guide or None.
        remedy: What gives it one.
    """
    if augmentation.wants is not None and guide is None:
        what = {"attack": "positive where a point is", "saliency": "the saliency of each pixel"}
        told = what.get(augmentation.wants, augmentation.wants)
        raise ValueError(f"{type(augmentation).__name__} needs a guide: {told}; {remedy}")


def fingerprint(image: Float[Tensor, "c h w"]) -> int | None:
    """Return a checksum of the pixels of an image in [0, 1] as bytes; None for other values.

    Args:
        image: Floats; rounded to 255ths, as `bench.find_points` does.
    """
    if image.numel() == 0 or not 0 <= image.min() <= image.max() <= 1:
        return None
    pixels = (image * 255).round().to(torch.uint8).contiguous()
    return zlib.crc32(pixels.numpy().tobytes(), zlib.crc32(str(tuple(image.shape)).encode()))


def stream(seed: int, epoch: int, index: int) -> Generator:
    """The random numbers of one image in one epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class Draws:
    """What the transforms of `interop` use inside of a wrapped dataset instead of their own.

    Attributes:
        generator: Gives all random numbers of one image in one epoch.
        progress: How much of the training is done; None: what the transform says itself.
    """

    generator: Generator
    progress: float | None


_current: ContextVar[Draws | None] = ContextVar("draws", default=None)


def current() -> Draws | None:
    """The draws of the image that is being read; None outside of a wrapped dataset."""
    return _current.get()


@contextmanager
def drawn(draws: Draws) -> Iterator[int]:
    """Let everything random that happens to one image depend on its own stream alone.

    The global states of torch, of numpy and of ``random``, which the transforms of other libraries
    use, get back what they held.

    Yields:
        A seed for random states that are not global.
    """
    one, two, three, four = torch.randint(2**31, (4,), generator=draws.generator).tolist()
    token = _current.set(draws)
    try:
        with kept_states():
            torch.default_generator.manual_seed(one)
            random.seed(two)
            np.random.seed(three)  # noqa: NPY002
            yield four
    finally:
        _current.reset(token)


@contextmanager
def kept_states() -> Iterator[None]:
    """Give the global random states of torch, numpy and ``random`` back what they held."""
    before, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numbers)  # noqa: NPY002
