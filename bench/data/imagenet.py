"""ImageNet (ILSVRC 2012) in its official layouts.

The test part are the validation images, whose labels are public.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.class_folders import by_class, of_classes
from bench.data.image_files import SUFFIXES, Files
from bench.data.matlab_files import table
from bench.data.splits import Parts
from bench.errors import Missing

SIDE = 224  # pixels
TRAIN = ("train/", "ILSVRC2012_img_train/", "ILSVRC/Data/CLS-LOC/train/", "Data/CLS-LOC/train/")
VAL = ("val/", "ILSVRC2012_img_val/", "ILSVRC/Data/CLS-LOC/val/", "Data/CLS-LOC/val/")
TRUTH, CLASSES = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
"""The files of the development kit: a number per validation image, and the class of each number."""
SOLUTION = "LOC_val_solution.csv"
"""Kaggle's file: a line per validation image, with its class ahead of its boxes."""


def read(path: Path, side: int | None) -> Parts:
    """Read ImageNet from a folder or a zip archive.

    Needs the training images in a folder for each class, and the validation images either in such
    folders too, or side by side with the ground truth of the development kit
    (``ILSVRC2012_devkit_t12``) or of Kaggle's copy. Classes are the WordNet ids of the folders, in
    their order.

    Args:
        path: The folder or archive.
        side: As in `image_files.Files.images`; None for 224.

    Raises:
        Missing: Images or the ground truth are not there.
        ValueError: The parts do not belong together.
    """
    return of(Files(path), side)


def fits(files: Files) -> bool:
    """Whether a folder of images has ImageNet's ground truth, or a flat ``val/`` that needs it."""
    if any(name.endswith((TRUTH, SOLUTION)) for name in files.names):
        return True
    flat = not any(name.startswith("val/") for name in files.folders)
    return {"train", "val"} <= files.folders and flat


def of(files: Files, side: int | None) -> Parts:
    """`read` of files that have been listed."""
    train = by_class(files, _place(files, TRAIN, "training"))
    below = _place(files, VAL, "validation")
    names = [n for n in files.names if n.startswith(below) and n.lower().endswith(SUFFIXES)]
    flat = [name for name in names if "/" not in name.removeprefix(below)]
    test = _labelled(files, flat, below, train) if flat else by_class(files, below)
    if lone := sorted(test.keys() - train.keys()):
        raise ValueError(
            f"{files.path}: class {lone[0]} is in {below} and not among the training images"
        )
    for label in train:
        if not test.get(label):
            raise Missing(f"{files.path} is incomplete: it lacks validation images of {label}")
    return of_classes(files, train, {label: test[label] for label in train}, side or SIDE)


def _place(files: Files, places: tuple[str, ...], what: str) -> str:
    """The first of these folders that is there."""
    for place in places:
        if place.rstrip("/") in files.folders:
            return place
    raise Missing(f"{files.path} has no {what} images of ImageNet: looked for {', '.join(places)}")


def _labelled(
    files: Files, names: list[str], below: str, train: dict[str, list[str]]
) -> dict[str, list[str]]:
    """The validation images of each class, by the ground truth."""
    truth, classes, solution = (
        next((each for each in files.names if Path(each).name == wanted), None)
        for wanted in (TRUTH, CLASSES, SOLUTION)
    )
    if truth is not None and classes is not None:
        numbers = files.text(truth).split()
        if len(numbers) != len(names):
            raise ValueError(
                f"{files.path}: {truth} has {len(numbers)} lines for {len(names)} images in {below}"
            )
        known = table(files, classes, "synsets", "ILSVRC2012_ID", "WNID")
        # the names of the images end in their number, so that their order is that of the lines
        labels = [known.get(number, f"number {number}") for number in numbers]
        pairs = dict(zip(names, labels, strict=True))
    elif solution is not None:
        lines = (line.split(",", 1) for line in files.text(solution).splitlines()[1:])
        known = {line[0]: line[-1].split(" ")[0] for line in lines}
        pairs = {name: known.get(Path(name).stem, "no class") for name in names}
    else:
        raise Missing(
            f"{files.path} has no classes of the images in {below}: looked for {TRUTH} with "
            f"{CLASSES} (unpack ILSVRC2012_devkit_t12.tar.gz there), for {SOLUTION}, and for a "
            f"folder per class in {below}"
        )
    found: dict[str, list[str]] = {label: [] for label in train}
    for name, label in pairs.items():
        if label not in found:
            raise ValueError(f"{files.path}: {name} is of {label}, which has no training images")
        found[label].append(name)
    return found
