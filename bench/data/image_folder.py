"""Image folders: the layout of any folder, Tiny-ImageNet's, and that of Oxford's flowers."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.data import imagenet
from bench.data.class_folders import by_class, labels_of, of_classes, parts_of
from bench.data.image_files import SIDE, SUFFIXES, Files
from bench.data.matlab_files import rows
from bench.data.seeds import generator
from bench.data.splits import Parts, Split, cut
from bench.errors import Missing

PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}
"""What people call the folders of parts; only the exact names of `read` are taken as such."""


def read(path: Path, side: int | None) -> Parts:
    """Read a folder or zip of images: in a layout of ImageNet or Tiny-ImageNet, or by class.

    The class folders lie in ``train`` and ``test`` (or ``val``), or at the top: then a fixed fifth
    of each class becomes the test part. Raises ValueError when a part or a class has no images, or
    when two class folders are called like parts.
    """
    files = Files(path)
    if "wnids.txt" in files.names:
        return _tiny_imagenet(files, side)
    if imagenet.fits(files):
        return imagenet.of(files, side)
    tops = {name.partition("/")[0] for name in files.folders}
    if "train" not in tops:
        if tops & {"test", "val"}:
            raise ValueError(f"{path} has a test part but no train/ with a folder per class")
        if len(parts := [top for top in sorted(tops) if top.casefold() in PARTS]) > 1:
            raise ValueError(
                f"{path}: {' and '.join(f'{top}/' for top in parts)} look like parts of a dataset, "
                "not like classes: rename them to train/ and test/"
            )
        found = by_class(files, "")
        names = [name for some in found.values() for name in some]
        # which ones are set aside depends on the labels alone
        blank = torch.empty(len(names), 1, 0, 0, dtype=torch.uint8)
        train, test = cut(Split(blank, labels_of(found)), 0.2, generator(0, "test cut"))
        if not len(test):
            raise ValueError(f"{path}: the classes are too small to set a fifth aside for testing")
        kept = [[names[place] for place in each.ids.tolist()] for each in (train, test)]
        return parts_of(files, tuple(found), kept, [train.labels, test.labels], side)
    part = "test" if "test" in tops else "val"
    if part not in tops:
        raise ValueError(f"{path} has train/ but neither test/ nor val/ beside it")
    found, held = by_class(files, "train/"), by_class(files, f"{part}/")
    if lone := sorted(found.keys() ^ held.keys()):
        raise ValueError(f"{path}: class {lone[0]} is in one of train/ and {part}/ only")
    return of_classes(files, found, held, side)


def _tiny_imagenet(files: Files, side: int | None) -> Parts:
    """Train from the class folders; the validation part, whose labels are public, is the test."""
    train: dict[str, list[str]] = {label: [] for label in files.text("wnids.txt").split()}
    train = dict(sorted(train.items()))
    test: dict[str, list[str]] = {label: [] for label in train}
    for name in files.names:
        if name.startswith("train/") and name.lower().endswith(SUFFIXES):
            label = name.split("/")[1]
            if label not in train:
                raise ValueError(f"{files.path}: {label} is not in wnids.txt")
            train[label].append(name)
    annotations = "val/val_annotations.txt"
    known = set(files.names)
    if annotations not in known:
        raise Missing(f"{files.path} is incomplete: it lacks {annotations}")
    for line in files.text(annotations).splitlines():
        name, label, *_ = *line.split("\t"), "no class"
        if f"val/images/{name}" not in known or label not in test:
            raise Missing(f"{files.path} is incomplete: it lacks val/images/{name} of {label}")
        test[label].append(f"val/images/{name}")
    for label in train:
        if not train[label] or not test[label]:
            raise Missing(f"{files.path} is incomplete: it lacks images of {label}")
    return of_classes(files, train, test, side or SIDE)


def flowers102(path: Path, side: int | None) -> Parts:
    """Read Oxford's 102 flowers with the official split: 1,020 to train, 6,149 to test.

    Needs a folder with ``jpg/``, ``imagelabels.mat`` and ``setid.mat``. The official validation
    part is left out. The published labels carry no names, so the classes are numbers.
    """
    files = Files(path)
    for name in ("imagelabels.mat", "setid.mat"):
        if name not in files.names:
            raise Missing(f"{path} is incomplete: it lacks {name}")
    (labels,) = rows(files, "imagelabels.mat", "labels")
    parts = rows(files, "setid.mat", "trnid", "tstid")
    if any(numbers.min() < 1 or numbers.max() > len(labels) for numbers in parts):
        raise ValueError(f"{path}: setid.mat names images that imagelabels.mat does not have")
    names = [[f"jpg/image_{number:05d}.jpg" for number in numbers] for numbers in parts]
    if lacking := sorted({*names[0], *names[1]} - set(files.names)):
        raise Missing(f"{path} is incomplete: it lacks {lacking[0]}")
    classes = tuple(str(number + 1) for number in range(len(set(labels.tolist()))))
    targets = [torch.from_numpy(labels[numbers - 1] - 1) for numbers in parts]
    return parts_of(files, classes, names, targets, side or SIDE)
