"""Parts of a dataset from the image files of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.image_files import SUFFIXES, Files
from bench.data.splits import Parts, Split


def of_classes(
    files: Files, train: dict[str, list[str]], test: dict[str, list[str]], side: int | None
) -> Parts:
    """The parts of a dataset from the files of each class, which both have in the same order."""
    names = [[name for some in each.values() for name in some] for each in (train, test)]
    return parts_of(files, tuple(train), names, [labels_of(train), labels_of(test)], side)


def parts_of(
    files: Files,
    classes: tuple[str, ...],
    names: list[list[str]],
    labels: list[Tensor],
    side: int | None,
) -> Parts:
    """The parts of a dataset from the files and labels of the training and of the test part."""
    train, test = map(Split, files.images(names, side), labels)
    return Parts(classes, train, test)


def labels_of(classes: dict[str, list[str]]) -> Tensor:
    """The label of each file, class after class."""
    counts = torch.tensor([len(found) for found in classes.values()])
    return torch.arange(len(counts)).repeat_interleave(counts)


def by_class(files: Files, below: str) -> dict[str, list[str]]:
    """The images of each class folder right below a folder."""
    found: dict[str, list[str]] = {
        name.removeprefix(below): []
        for name in sorted(files.folders)
        if name.startswith(below) and "/" not in name.removeprefix(below)
    }
    for name in files.names:
        top, _, rest = name.removeprefix(below).partition("/")
        if name.startswith(below) and rest and name.lower().endswith(SUFFIXES):
            found[top].append(name)
    if len(found) < 2:
        raise ValueError(
            f"{files.path}: {below or 'it'} holds {len(found)} class folders, at least 2 are "
            "needed: train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg"
        )
    for label, names in found.items():
        if not names:
            raise ValueError(f"{files.path}: class folder {below}{label} has no images")
    return found
