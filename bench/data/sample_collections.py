"""Datasets of two other libraries: ``hf:NAME`` of Hugging Face and ``wds:PATTERN`` of WebDataset.

Both are read whole into memory, and the library is needed only where such a name is typed.
"""

from __future__ import annotations

import glob
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from bench.data.image_files import FORMATS, SIDE, square
from bench.data.splits import Parts, Split
from bench.errors import Missing, reason

PREFIXES = ("hf:", "wds:")
ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "tif", "tiff", "gif")
TRAIN, TEST = ("train", "training"), ("test", "validation", "val", "valid")

Pair = tuple[Image.Image, int]


def is_collection(name: str) -> bool:
    """Whether a dataset is one of this module.

    >>> is_collection("hf:owner/flowers"), is_collection("cifar10")
    (True, False)
    """
    return name.startswith(PREFIXES)


def title(name: str) -> str:
    """What records call a dataset: the last part of its name, and the library.

    >>> title("hf:owner/flowers"), title("wds:data/shards/*.tar")
    ('flowers-hf', 'shards-wds')
    """
    kind, _, place = name.partition(":")
    parts = [part for part in Path(place).parts if not set("*?[]{}") & set(part)]
    return f"{Path(parts[-1]).name if parts else 'data'}-{kind}"


def read(name: str, side: int | None = None, download: bool = False) -> Parts:
    """Read training and test images.

    Args:
        name: ``hf:NAME``, a dataset of the hub or a folder that ``save_to_disk`` wrote, or
            ``wds:PATTERN``, tar files or a folder of them, whose names say train or test.
        side: Scale the images to this side in pixels; None: their own where all are equal squares,
            else 64.
        download: Whether a dataset of the hub may be downloaded; tar files are only read from this
            machine.

    Raises:
        Missing: It is not on this machine.
        ValueError: The name is empty, the library is not installed, or there is no image, class,
            training or test part in it.
    """
    if name in PREFIXES:
        raise ValueError(f"--data {name} has no name: write it as hf:NAME or wds:PATTERN")
    if name.startswith("hf:"):
        return _hugging_face(name, side, download)
    return _web_dataset(name, side)


def _hugging_face(name: str, side: int | None, download: bool) -> Parts:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"--data {name} needs: pip install datasets") from None
    place = name.removeprefix("hf:")
    try:
        if (Path(place) / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(place)
        else:
            with _offline(datasets, not download):
                found = datasets.load_dataset(place)
    except Exception as error:
        raise Missing(
            f"{name} is not on this machine: add --download, or give a folder that save_to_disk "
            f"wrote ({reason(error, 100)})"
        ) from None
    train, test = (_chosen(name, list(found), kinds) for kinds in (TRAIN, TEST))
    features = found[train].features
    image = _column(name, features, lambda each: isinstance(each, datasets.Image), "image")
    label = _column(name, features, lambda each: hasattr(each, "names"), "class label")
    classes = tuple(map(str, features[label].names))
    pairs = [
        ((_fitting(row[image], side), int(row[label])) for row in found[part])
        for part in (train, test)
    ]
    return _parts(name, classes, pairs, side)


def _fitting(image: Image.Image, side: int | None) -> Image.Image:
    """An image in RGB, scaled at once where its side is known."""
    image = image.convert("RGB")
    return image if side is None else square(image, side)


@contextmanager
def _offline(datasets: Any, wanted: bool) -> Iterator[None]:
    """Keep the library from the network."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = wanted or before
    try:
        import huggingface_hub.constants as constants

        known = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = wanted or known
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = known
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _web_dataset(name: str, side: int | None) -> Parts:
    try:
        import webdataset
    except ImportError:
        raise ValueError(f"--data {name} needs: pip install webdataset") from None
    place = name.removeprefix("wds:")
    pattern = str(Path(place) / "*.tar") if Path(place).is_dir() else place
    files = sorted(file for file in glob.glob(pattern) if Path(file).is_file())
    if not files:
        raise Missing(f"{name} is not there: no file matches {pattern}")
    pairs = []
    for some in _shards(name, files):
        # local files only: other addresses would be fetched, or run as commands
        shards = [f"file:{Path(file).resolve()}" for file in some]
        samples = webdataset.WebDataset(shards, shardshuffle=False)
        try:
            pairs.append([_sample(name, sample, side) for sample in samples])
        except tarfile.TarError as error:
            raise ValueError(f"a file of {name} is no whole tar file: {reason(error)}") from None
    count = 1 + max(label for some in pairs for _, label in some)
    return _parts(name, tuple(map(str, range(count))), pairs, side)


def _shards(name: str, files: list[str]) -> list[list[str]]:
    """The files of the training and of the test part, by the words of their names."""
    words = [set(re.split(r"[^a-z]+", Path(file).name.lower())) for file in files]
    parts = []
    for kinds in (TRAIN, TEST):
        kind = next((each for each in kinds if any(each in own for own in words)), None)
        if kind is None:
            raise ValueError(
                f"{name} has no {kinds[0]} part: call its files {kinds[0]}-000.tar and so on"
            )
        parts.append([file for file, own in zip(files, words, strict=True) if kind in own])
    if both := sorted({*parts[0]} & {*parts[1]}):
        raise ValueError(
            f"{Path(both[0]).name} of {name} is of the training and of the test part by its name: "
            "give it one of the two words"
        )
    return parts


def _sample(name: str, sample: dict[str, Any], side: int | None) -> Pair:
    """Image and class of a sample, from its bytes; nothing in it is unpickled.

    The image is scaled at once where its side is known, for whole ones may fill the memory.
    """
    key = sample.get("__key__")
    ending = next((each for each in ENDINGS if each in sample), None)
    if ending is None or "cls" not in sample:
        have = ", ".join(sorted(each for each in sample if not each.startswith("__")))
        raise ValueError(f"sample {key} of {name} has no image and .cls file: it has {have}")
    try:
        image = Image.open(io.BytesIO(sample[ending]), formats=FORMATS).convert("RGB")
        label = int(sample["cls"])
    except UnidentifiedImageError:  # its own text names no file
        known = ", ".join(FORMATS)
        raise ValueError(f"sample {key} of {name} is not an image of {known}") from None
    except Exception as error:
        raise ValueError(f"sample {key} of {name} cannot be read: {reason(error)}") from None
    if label < 0:
        raise ValueError(f"sample {key} of {name} has the class {label}: classes count from 0")
    return _fitting(image, side), label


def _chosen(name: str, splits: list[str], kinds: tuple[str, ...]) -> str:
    found = next((kind for kind in kinds if kind in splits), None)
    if found is None:
        raise ValueError(f"{name} has no {kinds[0]} split: it has {', '.join(splits)}")
    return found


def _column(name: str, features: dict[str, Any], fits: Callable[[Any], bool], what: str) -> str:
    found = [column for column, each in features.items() if fits(each)]
    if len(found) != 1:
        raise ValueError(f"{name} needs one column with an {what}: it has {', '.join(features)}")
    return found[0]


def _parts(name: str, classes: tuple[str, ...], pairs: list[Any], side: int | None) -> Parts:
    """Images of one size as bytes, and their classes."""
    train, test = ([*each] for each in pairs)
    sizes = {image.size for image, _ in [*train, *test]}
    if side is None:
        width, height = next(iter(sizes), (0, 0))
        side = width if len(sizes) == 1 and width == height else SIDE
    return Parts(classes, *(_split(name, each, side) for each in (train, test)))


def _split(name: str, pairs: Iterable[Pair], side: int) -> Split:
    images = [np.asarray(square(image, side)).transpose(2, 0, 1) for image, _ in pairs]
    if not images:
        raise ValueError(f"{name} has a part without images")
    labels = torch.tensor([label for _, label in pairs])
    return Split(torch.from_numpy(np.stack(images)), labels)
