"""A dataset in memory: images of classes, to train with and to test with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from augmentations.samples import as_pil
from bench.data.file_images import FileImages
from bench.data.splits import Parts, Split, part
from bench.errors import reason
from bench.files import checksums

Array = Tensor | NDArray[Any] | Sequence[Any]

NAME = re.compile(r"\w[\w.+-]*")
"""What an array may be called: no brackets, which take a part, and no slash, which is a path."""
BLOCK = 64  # images that are counted at a time
SAMPLED = 10_000  # training images in files of which mean and standard deviation are taken
REREAD = 8  # images that are read twice, to notice random transforms


MEMORY = "memory"
"""The source of a dataset that was made in memory and has no file."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images to train with and to test with.

    Attributes:
        name: What records call it: a name of the catalog, the name of a folder, or one's own.
        classes: The names of the classes; labels are places in it.
        train: The training part.
        test: The test part.
        mean: The mean over all pixels of the training part, per channel, in [0, 1]; see `make`.
        std: The standard deviation of the same; 1 for a channel with a single value.
        flip: Whether a mirrored image keeps its class.
        digest: 16 hexadecimal digits over all pixels and labels; see `make`.
        source: Where it was found, for messages.
        named: Whether the name alone says which pixels it has, as those of the catalog do.

    >>> images, labels = torch.eye(4).reshape(4, 1, 2, 2), [0, 1, 0, 1]
    >>> data = from_arrays("mine", images, labels, images, labels, classes=["cat", "dog"])
    >>> data.classes[int(data.train.labels[1])], data.mean.tolist()
    ('dog', [0.25])
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    flip: bool
    digest: str
    source: str
    named: bool = False

    @property
    def pin(self) -> str:
        """What a recipe adds to the name: the digest, unless the name alone is enough."""
        return "" if self.named else self.digest


class Measured(NamedTuple):
    """What is measured of the images of a dataset; see `Dataset`."""

    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    digest: str


def make(
    name: str,
    parts: Parts,
    *,
    source: str,
    flip: bool = True,
    named: bool = False,
    known: Measured | None = None,
) -> Dataset:
    """A dataset from its parts, with the statistics of the training part and the digest.

    They are exact for images in memory. For images in files the statistics are those of a fixed
    subset of 10,000 training images, even over the classes (`splits.part`), and the digest is over
    the names and sizes of the files and the labels.

    Args:
        name: As in `Dataset`.
        parts: The classes and the two parts.
        source: As in `Dataset`.
        flip: Likewise.
        named: Likewise.
        known: What was measured of the same images before, so that they are not read again.

    Raises:
        ValueError: Images and labels do not belong together, wherever they are from.
    """
    classes, train, test = parts
    for split in (train, test):
        n = len(split.labels)
        if not n or n != len(split.images):
            raise ValueError(f"{source}: {n} labels for {len(split.images)} images")
        if int(split.labels.min()) < 0 or int(split.labels.max()) >= len(classes):
            raise ValueError(f"{source}: some labels are not among the {len(classes)} classes")
    if train.images.shape[1:] != test.images.shape[1:] or not train.images.shape.numel():
        raise ValueError(f"{source}: training and test images differ in size, or have no pixels")
    if known is None:
        known = _measured(parts, source)
    return Dataset(
        name, classes, train, test, known.mean, known.std, flip, known.digest, source, named
    )


def _measured(parts: Parts, source: str) -> Measured:
    _, train, test = parts
    values = torch.arange(256, dtype=torch.float64) / 255
    in_files = isinstance(train.images, FileImages) and len(train) > SAMPLED
    sample = part(train, SAMPLED).images if in_files else train.images
    counts = torch.zeros(sample.shape[1], 256, dtype=torch.long)
    for start in range(0, len(sample), BLOCK):  # in pieces: each needs a copy
        channels = sample[start : start + BLOCK].unbind(1)
        counts += torch.stack([c.flatten().bincount(minlength=256) for c in channels])
    weights = counts.double() / counts.sum(1, keepdim=True)
    constant = (counts > 0).sum(1) == 1
    if constant.all():
        raise ValueError(
            f"{source}: all training images have one and the same color, so that nothing can be "
            "learned from them: check the files"
        )
    mean = weights @ values
    std = (weights * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std[constant] = 1  # a channel without contrast is normalized to 0, not to 0 / 0
    content: list[Tensor] = []
    for each in (train, test):
        images = each.images
        content.append(images.fingerprint() if isinstance(images, FileImages) else images)
        content.append(each.labels)
    digest = checksums.of_arrays(content)
    return Measured(mean.float(), std.float(), digest[:16])


def from_arrays(
    name: str,
    train_images: Array,
    train_labels: Array,
    test_images: Array,
    test_labels: Array,
    classes: Sequence[str] | None = None,
    flip: bool = True,
) -> Dataset:
    """A dataset from images and labels in memory.

    Args:
        name: What records call it: letters, digits and ``._+-``. Records also hold a digest of the
            content, so that two datasets of one name are never taken for each other.
        train_images: Tensor, array or sequence of images, shape (n, 3, h, w), or (n, 1, h, w) or
            (n, h, w) for one channel: bytes (uint8), or floats in [0, 1]. A float x becomes the
            byte ``round(255 * x)``: exact for k/255, as torchvision's ``ToTensor`` makes them, and
            half a level off at most for others.
        train_labels: Whole numbers from 0, shape (n,).
        test_images: Like the training images, with the same channels and size.
        test_labels: Like the training labels.
        classes: The names of the classes; by default the numbers from 0 to the largest label.
        flip: Whether a mirrored image keeps its class, so that training may mirror at random.

    Raises:
        ValueError: A part is empty, the images differ in size, have values that are not pixels or
            other than 1 or 3 channels, or some labels are not integers or not among the classes.

    >>> images, labels = torch.rand(4, 3, 8, 8), [0, 1, 0, 1]
    >>> from_arrays("mine", images, labels, images, labels).classes
    ('0', '1')
    """
    train = _split("train", train_images, train_labels)
    test = _split("test", test_images, test_labels)
    for part_name, split in (("train", train), ("test", test)):
        if (c := split.images.shape[1]) not in (1, 3):
            raise ValueError(
                f"{part_name} images have {c} channels: give 1 for grey or 3 for RGB, which the "
                "corruptions of test images need"
            )
    return _own(name, train, test, classes, flip)


def read_split(dataset: Any, name: str = "dataset") -> Split:
    """The images and labels of a torch dataset as one split, in the order of the indices.

    Args:
        dataset: A map-style dataset (with a length) of (image, label). Images are PIL's, or tensors
            of shape (c, h, w) or (h, w) of bytes or of floats in [0, 1], as in `from_arrays`; a
            PIL image becomes grey or RGB (`as_pil`). Labels are integers.
        name: What messages call it.

    Raises:
        ValueError: It is empty, has no length, gives another image when read twice, or holds images
            of several sizes or labels that are not integers.
    """
    try:
        count = len(dataset)
    except TypeError:
        raise ValueError(
            f"{name} has no length: give a map-style dataset of (image, label)"
        ) from None
    images: list[Tensor] = []
    labels: list[Any] = []
    for index in range(count):
        try:
            image, label = dataset[index]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}[{index}] is not a pair (image, label): {reason(error)}"
            ) from None
        images.append(_pixels(f"{name}[{index}]", _tensor(f"{name}[{index}]", image)))
        labels.append(label.item() if isinstance(label, Tensor) and label.numel() == 1 else label)
    found = _split(name, images, labels)
    for index in range(min(REREAD, count)):
        again = _pixels(name, _tensor(name, dataset[index][0]))
        if not torch.equal(again, images[index]):
            raise ValueError(
                f"{name}[{index}] differs when it is read twice: remove its random transforms"
            )
    return found


def from_split(split: Split) -> Dataset:
    """A dataset whose training part is a split, for what needs no test part."""
    classes = tuple(map(str, range(int(split.labels.max()) + 1)))
    return make("own", Parts(classes, split, split), source=MEMORY, flip=True)


def _own(
    name: str, train: Split, test: Split, classes: Sequence[str] | None, flip: bool
) -> Dataset:
    if not NAME.fullmatch(name):
        raise ValueError(f"a dataset cannot be called {name!r}: use letters, digits and ._+-")
    if classes is None:
        largest = max(int(split.labels.max()) for split in (train, test))
        classes = [str(number) for number in range(largest + 1)]
    return make(name, Parts(tuple(classes), train, test), source=MEMORY, flip=flip)


def _split(part: str, images: Array, labels: Array) -> Split:
    """Images and labels of a part, as bytes and integers."""
    if not len(images):
        raise ValueError(f"{part} has no images: at least one is needed")
    if isinstance(images, Tensor | np.ndarray):
        pixels = _pixels(f"{part} images", torch.as_tensor(images))
    else:
        each = [_pixels(f"{part} image {i}", torch.as_tensor(one)) for i, one in enumerate(images)]
        for index, one in enumerate(each):
            if one.shape != each[0].shape:
                raise ValueError(
                    f"{part} image {index} has shape {tuple(one.shape)}, image 0 has "
                    f"{tuple(each[0].shape)}: bring all to one size and number of channels"
                )
        pixels = torch.stack(each)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4:
        raise ValueError(
            f"{part} images have shape {tuple(pixels.shape)}: give (n, c, h, w) or (n, h, w)"
        )
    if pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3):
        raise ValueError(
            f"{part} images have shape {tuple(pixels.shape)}, with channels last: permute them to "
            "(n, c, h, w)"
        )
    numbers = _labels(part, labels)
    if len(numbers) != len(pixels):
        raise ValueError(f"{part} has {len(numbers)} labels for {len(pixels)} images")
    return Split(pixels.cpu().contiguous(), numbers)


def _pixels(what: str, images: Tensor) -> UInt8[Tensor, ...]:
    """Bytes of bytes, or of floats in [0, 1]."""
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise ValueError(
            f"{what}: type {kind} is not a type of pixels; give uint8, or floats in [0, 1]"
        )
    if images.numel():
        low, high = float(images.min()), float(images.max())
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"{what}: values from {low:.4g} to {high:.4g}; floats must be in [0, 1], before "
                "any normalization"
            )
    return (images.float() * 255).round().to(torch.uint8)


def _labels(part: str, labels: Array) -> Int[Tensor, " n"]:
    try:
        values = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{part} labels are not integers: {reason(error)}") from None
    if values.ndim != 1:
        raise ValueError(f"{part} labels have shape {tuple(values.shape)}: one number per image")
    if values.dtype == torch.bool or values.is_complex():
        raise ValueError(f"{part} labels are not integers but {values.dtype}")
    wrong = (values.double() % 1 != 0).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(f"{part} label {place} is {values[place].item()}: give integers")
    return values.cpu().long()


def _tensor(what: str, image: Any) -> Tensor:
    """An image of a torch dataset, channels first."""
    if isinstance(image, Image.Image):
        pixels = np.array(as_pil(image, what))
        return torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
    if isinstance(image, Tensor) and image.ndim in (2, 3):
        return image[0] if image.ndim == 3 and image.shape[0] == 1 else image
    kind = f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
    raise ValueError(f"{what} is {kind}: give a PIL image or a tensor of shape (c, h, w)")
