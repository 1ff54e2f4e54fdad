"""Any dataset of (image, label), cropped, flipped and deleted from, its points moved alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.utils.data import Dataset

from augmentations.base import Augmentation, delete, draw

SAMPLED = 2000  # images that the mean colour is estimated from


@runtime_checkable
class Indexed(Protocol):
    """Anything that is read by an index, as datasets, lists and tensors are."""

    def __getitem__(self, index: int, /) -> Any:
        """The entry of one image."""
        ...


class WithMask(Dataset[tuple[Tensor, Any]]):
    """A dataset whose images are cropped, flipped and deleted from as an augmentation says.

    It is an ordinary map-style dataset: give it to any ``DataLoader``. Image and points are shifted
    and mirrored together, then the mask is drawn and its pixels are replaced. Leave crops and flips
    to ``WithMask`` where points are used: what the wrapped dataset does to its images is unknown to
    the points.

    All draws of an image depend on the seed, the epoch and its index only: on no number of workers,
    no batch size and no order, whether workers persist or not. The epoch of an image is the number
    of times that its index was read before, counted in shared memory for all workers alike;
    `set_epoch` states it instead, as a resumed training or a loader that is left early needs.

    Args:
        dataset: A map-style dataset of (image, label). Images are tensors (c, h, w), floats in
            [0, 1] or uint8, PIL images, or arrays (h, w) or (h, w, c). Labels pass unchanged.
        augmentation: What to delete, such as ``AdvMask()``.
        points: One entry for each index, as ``bench.find_points(model, dataset)`` gives them: a map
            (h, w) or (1, h, w) of values of at least 0, or (row, column) pairs of shape (n, 2),
            whole numbers counted from the upper left pixel (0, 0). A tensor (n, 1, h, w) will do.
            Needed where the augmentation's ``wants`` is not None, otherwise not read.
        seed: Any whole number.
        padding: The crop shifts an image by up to this many pixels in each direction, into a frame
            of zeros; 0 does not crop.
        flip: Whether every other image is mirrored left to right.
        epochs: The length of the training, for augmentations whose share of masked images grows:
            in epoch e (from 0) ``(e + 1) / epochs`` of the training counts as done. None uses the
            final share throughout.
        mean: The colour of deleted pixels per channel, on the scale of the images. By default that
            of the dataset, estimated once from at most 2,000 images at even distances.
        std: Standard deviation per channel, for augmentations that fill with noise; by default
            estimated with the mean.

    Raises:
        ValueError: The augmentation needs points and has none, there are not as many entries as
            images, an entry does not fit its image, a sample is no (image, label) pair, or a number
            is out of range.

    Images come out as float tensors (c, h, w) on the scale of the given ones, uint8 divided by 255.
    Normalise them afterwards, in the model or the loop; a dataset of normalised images works too.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from augmentations import AdvMask, Ramp
    >>> images, labels = torch.ones(4, 3, 8, 8), torch.arange(4)
    >>> points = torch.zeros(4, 1, 8, 8)
    >>> points[:, :, 2:4, 2:4] = 1.0
    >>> advmask = AdvMask(length=(2, 3), share=Ramp(1.0))
    >>> train_set = WithMask(
    ...     TensorDataset(images, labels), advmask, points, padding=1, flip=True, mean=(0.0,) * 3
    ... )
    >>> batch, _ = next(iter(DataLoader(train_set, batch_size=4)))
    >>> batch.shape, bool((batch == 0).flatten(1).any(1).all())
    (torch.Size([4, 3, 8, 8]), True)
    """

    def __init__(
        self,
        dataset: Indexed,
        augmentation: Augmentation,
        points: Indexed | None = None,
        seed: int = 0,
        *,
        padding: int = 0,
        flip: bool = False,
        epochs: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if not isinstance(dataset, Sized):
            raise ValueError(f"{type(dataset).__name__} has no length: give a map-style dataset")
        count, name = len(dataset), type(augmentation).__name__
        if padding < 0:
            raise ValueError(f"padding is {padding}: it must be at least 0 pixels")
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs is {epochs}: it must be at least 1")
        if augmentation.wants is not None and points is None:
            raise ValueError(
                f"{name} needs points, one entry per image: WithMask(dataset, {name}(), points); "
                "bench.find_points(model, dataset) finds adversarial points"
            )
        entries = getattr(points, "__len__", lambda: count)()
        if entries != count:
            raise ValueError(f"there are points for {entries} images, but {count} images")
        self.dataset = dataset
        self.augmentation = augmentation
        self.points = points
        self.seed = seed
        self.padding = padding
        self.flip = flip
        self.epochs = epochs
        self._count = count
        # in shared memory, so that workers that persist see what the others do
        self._reads = torch.zeros(count, dtype=torch.int32).share_memory_()
        self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()  # -1: count reads
        if mean is None or (std is None and augmentation.fill == "noise"):
            found = self._colours()
            mean = found[0] if mean is None else mean
            std = found[1] if std is None else std
        self.mean = tuple(mean)
        self.std = None if std is None else tuple(std)

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """State the epoch of every image that is read from now on; persistent workers hear of it.

        Args:
            epoch: From 0. Until the next call the same index gives the same image.

        Raises:
            ValueError: The epoch is below 0.
        """
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}: it must be at least 0")
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        index = range(self._count)[index]  # from the end, or refused
        image, label = self._sample(index)
        epoch = int(self._epoch)
        if epoch < 0:
            epoch = int(self._reads[index])
            self._reads[index] += 1
        generator = stream(self.seed, epoch, index)
        guide = None
        if self.augmentation.wants is not None:
            guide = self._guide(index, image.shape[-2], image.shape[-1])
        image, guide = self._moved(image, guide, generator)
        progress = 1.0 if self.epochs is None else min(1.0, (epoch + 1) / self.epochs)
        c = len(image)
        mask = draw(
            self.augmentation,
            image[None],
            generator,
            guide=None if guide is None else guide[None],
            progress=progress,
        )
        masked = delete(
            image[None],
            mask,
            mean=torch.tensor(self.mean).expand(c),
            std=None if self.std is None else torch.tensor(self.std).expand(c),
            fill=self.augmentation.fill,
            generator=generator,
        )
        return masked[0], label

    def _sample(self, index: int) -> tuple[Float[Tensor, "c h w"], Any]:
        sample = self.dataset[index]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise ValueError(
                f"sample {index} of the dataset is a {type(sample).__name__}: "
                "WithMask needs (image, label) pairs"
            )
        return as_floats(sample[0]), sample[1]

    def _guide(self, index: int, h: int, w: int) -> Float[Tensor, "1 h w"]:
        """The map of one image's points."""
        assert self.points is not None
        entry = torch.as_tensor(self.points[index])
        if entry.shape in ((h, w), (1, h, w)):
            return entry.reshape(1, h, w).float()
        if entry.numel() == 0:
            return torch.zeros(1, h, w)
        if entry.ndim != 2 or entry.shape[1] != 2:
            raise ValueError(
                f"the points of image {index} have shape {tuple(entry.shape)}: "
                f"give a map {(h, w)} or (row, column) pairs of shape (n, 2)"
            )
        row, column = entry.long().unbind(1)
        outside = (row < 0) | (row >= h) | (column < 0) | (column >= w)
        if outside.any():
            raise ValueError(
                f"point {tuple(entry[outside][0].tolist())} of image {index} "
                f"is outside the image of {h} x {w} pixels"
            )
        guide = torch.zeros(1, h, w)
        guide[0, row, column] = 1.0
        return guide

    def _moved(
        self, image: Tensor, guide: Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Image and guide, shifted and mirrored by the same draws."""
        reach = self.padding
        down, right = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
        mirrored = bool(torch.rand((), generator=generator) < 0.5) and self.flip
        both = image if guide is None else torch.cat([image, guide.to(image)])
        h, w = both.shape[-2:]
        if reach:
            both = torch.nn.functional.pad(both, (reach, reach, reach, reach))
            both = both[:, down : down + h, right : right + w]
        if mirrored:
            both = both.flip(-1)
        return (both, None) if guide is None else (both[:-1], both[-1:])

    def _colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over the pixels of some images."""
        if not self._count:
            raise ValueError("the dataset is empty: give mean and std, or images")
        chosen = torch.linspace(0, self._count - 1, min(self._count, SAMPLED)).round().long()
        sums: Any = 0
        with torch.random.fork_rng(devices=[]):  # the dataset may draw
            for index in chosen.tolist():
                values = self._sample(index)[0].double().flatten(1)
                n = torch.full((len(values),), values.shape[1])
                sums = sums + torch.stack([n, values.sum(1), values.square().sum(1)])
        pixels, total, squares = sums
        mean = total / pixels
        std = (squares / pixels - mean**2).clamp(min=0).sqrt()
        return tuple(mean.tolist()), tuple(std.tolist())


def as_floats(image: Any) -> Float[Tensor, "c h w"]:
    """A tensor, an array or a PIL image as a float tensor; uint8 becomes [0, 1]."""
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL's, not imported for this
        image = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if isinstance(image, np.ndarray):
        h, w = image.shape[:2]
        image = torch.from_numpy(image.reshape(h, w, -1)).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.ndim != 3:
        what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"an image of the dataset is {what}: it must be a tensor (c, h, w), "
            "an array (h, w, c) or a PIL image"
        )
    if image.is_floating_point():
        return image.float()
    if image.dtype != torch.uint8:
        raise ValueError(f"images are {image.dtype}: they must be floats in [0, 1] or uint8")
    return image.float() / 255


def stream(seed: int, epoch: int, index: int) -> Generator:
    """The random numbers of one image in one epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
