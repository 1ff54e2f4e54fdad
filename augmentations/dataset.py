"""Any dataset of (image, label), cropped, flipped and deleted from, its points moved alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from augmentations.base import Augmentation, delete, draw, fields
from augmentations.checks import pixels
from augmentations.samples import (
    Draws,
    Indexed,
    Samples,
    as_bytes,
    as_floats,
    drawn,
    fractions,
    kept_states,
    per_channel,
    stream,
)

SAMPLED = 2000  # images that the mean colour is estimated from


class WithMask(Samples):
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
        flip: Whether each image is mirrored left to right with probability 1/2.
        epochs: The length of the training, for augmentations whose share of masked images grows:
            in epoch e (from 0) ``(e + 1) / epochs`` of the training counts as done. None uses the
            final share throughout.
        mean: The colour of deleted pixels per channel, on the scale of the images: in [0, 1] where
            they are bytes. By default that of the dataset, estimated once from at most 2,000 images
            at even distances.
        std: Standard deviation per channel, for augmentations that fill with noise; by default
            estimated with the mean.
        transform: Applied to each masked image, as a PIL image of bytes; timm's ``create_loader``
            puts its own pipeline here. Its draws from torch, numpy and ``random`` depend on the
            seed, the epoch and the index too.

    Raises:
        ValueError: The augmentation needs points and has none, there are not as many entries as
            images, an entry does not fit its image, an image is not the one whose points were
            found, a sample is no (image, label) pair, or a number is out of range.

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
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        fields(augmentation)
        pixels("padding", padding, least=0)
        if augmentation.wants is not None and points is None:
            raise ValueError(_lacking(type(augmentation).__name__, augmentation.wants))
        super().__init__(dataset, points, seed, epochs)
        self.augmentation = augmentation
        self.padding = padding
        self.flip = flip
        self.transform = transform
        if mean is None or (std is None and augmentation.fill == "noise"):
            found = self._colours()
            mean = found[0] if mean is None else mean
            std = found[1] if std is None else std
        self.mean = tuple(mean)
        self.std = None if std is None else tuple(std)
        self._beyond = not all(0 <= value <= 1 for value in self.mean)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        index = range(self._count)[index]  # from the end, or refused
        given, label = self._sample(index)
        image = as_floats(given)
        if self._beyond and not _is_float(given):
            fractions(self.mean)
        epoch = self._next_epoch(index)
        generator = stream(self.seed, epoch, index)
        progress = self._progress(epoch)
        guide = None
        if self.augmentation.wants is not None:
            self._compare(index, image)
            guide = self._guide(index, image.shape[-2], image.shape[-1])
        image, guide = self._moved(image, guide, generator)
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
            mean=per_channel("mean", self.mean, c),
            std=None if self.std is None else per_channel("std", self.std, c),
            fill=self.augmentation.fill,
            generator=generator,
        )
        if self.transform is None:
            return masked[0], label
        from PIL import Image

        if not 0 <= image.amin() <= image.amax() <= 1:
            raise ValueError(
                f"image {index} has values from {image.amin():.3g} to {image.amax():.3g}: a "
                "transform after the mask needs images in [0, 1], before any normalisation"
            )
        with drawn(Draws(generator, progress)):
            return self.transform(Image.fromarray(as_bytes(masked[0]))), label

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
        with kept_states():  # the dataset may draw
            for index in chosen.tolist():
                values = as_floats(self._sample(index)[0]).double().flatten(1)
                n = torch.full((len(values),), values.shape[1])
                sums = sums + torch.stack([n, values.sum(1), values.square().sum(1)])
        pixels, total, squares = sums
        mean = total / pixels
        std = (squares / pixels - mean**2).clamp(min=0).sqrt()
        return tuple(mean.tolist()), tuple(std.tolist())


def _is_float(image: Any) -> bool:
    """Whether an image has values of any range, and not bytes."""
    dtype = getattr(image, "dtype", None)  # a PIL image has none
    return dtype is not None and "float" in str(dtype)


def _lacking(name: str, wants: str) -> str:
    """What an augmentation says that has no points or no other guide."""
    given = f"WithMask(dataset, {name}(), points)"
    if wants == "saliency":
        return (
            f"{name} needs the saliency of each image, one map (h, w) of values of at least 0 per "
            f"image: {given}; MaskedLoader takes that of a network in training"
        )
    return (
        f"{name} needs points, one entry per image: {given}; "
        "bench.find_points(model, dataset) finds adversarial points"
    )
