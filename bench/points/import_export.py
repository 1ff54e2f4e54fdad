"""Export of points to a NumPy file, and import from such files and from lists, one per image."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int16
from torch import Tensor

from bench.data.dataset import Dataset
from bench.errors import reason
from bench.files import zips
from bench.files.json_text import parse
from bench.points.store import Points, check

if TYPE_CHECKING:
    import numpy as np


def to_numpy(points: Points) -> bytes:
    """Return points as the content of an ``.npz`` file that any program can read.

    Args:
        points: Points of n images.

    Returns:
        Bytes of an archive of ``places`` (int16, shape (p, 2): row and column of the points of all
        images, one image after the other), ``offsets`` (int64, shape (n + 1,): image i has
        ``places[offsets[i]:offsets[i + 1]]``), ``reached`` (bool, shape (n,): the attack succeeded)
        and ``about`` (JSON text).
    """
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        places=points.places.numpy(),
        offsets=points.offsets.numpy(),
        reached=points.reached.numpy(),
        about=np.array(json.dumps(points.about)),
    )
    return buffer.getvalue()


def from_numpy(path: Path, data: Dataset) -> Points:
    """Read the points of a dataset from an ``.npz`` file.

    Nothing in the file is executed, and its uncompressed size is limited by what the dataset can
    need.

    Args:
        path: A file that `to_numpy` wrote, or one with an array ``masks`` of shape (n, h, w) that
            is not zero at the points of each training image.
        data: The dataset, with n training images of h times w pixels.

    Raises:
        ValueError: The file is damaged or does not belong to the dataset.
    """
    n, _, h, w = data.train.images.shape
    try:
        arrays = _arrays(path, 8 * n * h * w + 2**20)
        about: Any = {"data": data.name, "digest": data.digest, "imported": path.name}
        if "about" in arrays:
            about = parse(str(arrays["about"]))
        if not isinstance(about, dict):
            raise ValueError("its field about is not a JSON object")
        if "masks" in arrays:
            masks = torch.from_numpy(arrays["masks"] != 0)
            if masks.shape != (n, h, w):
                raise ValueError(f"masks have shape {tuple(masks.shape)}, not {(n, h, w)}")
            found = Points.of(masks, masks.flatten(1).any(1), about)
        else:
            wide = _integers(arrays, "places", 2)
            offsets = _integers(arrays, "offsets", 1)
            reached = offsets.diff() > 0
            if "reached" in arrays:
                reached = _integers(arrays, "reached", 1) != 0
            about |= {"size": [h, w]}
            check({"places": wide, "offsets": offsets, "reached": reached}, about)
            found = Points(wide.to(torch.int16), offsets, reached, about)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold points ({reason(error)}): "
            "give an .npz file with places and offsets, or with masks"
        ) from None
    found.fits(data)
    return found


def from_folder(folder: Path, data: Dataset, *, xy: bool = False) -> Points:
    """Read the points of a dataset from a folder with one list per training image.

    A list is an ``.npy`` file of integers or floats of shape (n, 2), one point per row; fractions
    are rounded, and a point that occurs twice counts once. AdvMask's authors release theirs as
    (row, column), each named by the number of its image. Nothing in a file is executed, no file may
    be larger than a list of all pixels, and one file is in memory at a time.

    Args:
        folder: The folder. Its files are named by the index of their training image: the last
            digits of ``17.npy`` or ``image_017.npy``; an image without a file has no points. Or it
            has a folder for each class: folders with the names of the classes belong to them, and
            others to the classes in sorted order; the sorted files of a class, numbers by their
            value, belong to its images in the order of the dataset, and there must be one for each.
        data: The dataset, with n training images of h times w pixels.
        xy: The lists hold (x, y), column first.

    Raises:
        ValueError: There is no list or no point, a list is damaged, is too large, holds Python
            objects or has another shape, a point is outside its image, or the lists belong to other
            images.
    """
    n, _, h, w = data.train.images.shape
    files = files_by_image(folder, data)
    changed: list[Tensor] = []
    counts = torch.zeros(n, dtype=torch.int64)
    for index in sorted(files):
        places = _list(files[index], h, w, xy)
        counts[index] = len(places)
        changed.append(places)
    offsets = torch.zeros(n + 1, dtype=torch.int64)
    offsets[1:] = counts.cumsum(0)
    about = {"data": data.name, "digest": data.digest, "imported": folder.name, "size": [h, w]}
    found = Points(torch.cat(changed), offsets, counts > 0, about)
    if not len(found.places):
        raise ValueError(f"{folder} has {len(files)} lists, but no point in them")
    found.fits(data)
    return found


def files_by_image(folder: Path, data: Dataset) -> dict[int, Path]:
    """The file of each training image that has one, by the index of the image.

    Args:
        folder: As `from_folder` takes it.
        data: The dataset.

    Raises:
        ValueError: As in `from_folder`, for the names of the files.
    """
    n = len(data.train.labels)
    own = _lists(folder)
    nested = {
        path.name: files
        for path in _sorted(path for path in folder.iterdir() if path.is_dir())
        if (files := _lists(path)) and not path.name.startswith(".")
    }
    if own and nested:
        raise ValueError(f"{folder} has lists beside folders with lists: give one or the other")
    if nested:
        return _files_of_classes(folder, nested, data)
    if not own:
        raise ValueError(f"{folder} has no lists of points: give one .npy file per training image")
    found: dict[int, Path] = {}
    for path in own:
        digits = re.findall(r"[0-9]+", path.stem)
        if not digits:
            raise ValueError(f"{path} has no number in its name: which training image is it of?")
        index = int(digits[-1][-18:])
        if index >= n or len(digits[-1].lstrip("0")) > 18:
            raise ValueError(
                f"{path} is of image {digits[-1][:20]}, but {data.name} has {n} training images, "
                f"from 0 to {n - 1}"
            )
        if index in found:
            raise ValueError(f"{path} and {found[index].name} are both of image {index}")
        found[index] = path
    return found


def _files_of_classes(
    folder: Path, nested: dict[str, list[Path]], data: Dataset
) -> dict[int, Path]:
    """The files of a folder with one folder per class."""
    classes = [str(name) for name in data.classes]
    if len(nested) != len(classes):
        raise ValueError(
            f"{folder} has {len(nested)} folders with lists, but {data.name} has {len(classes)} "
            "classes"
        )
    ordered = classes if set(nested) == set(classes) else list(nested)
    found: dict[int, Path] = {}
    for label, name in enumerate(ordered):
        ids = (data.train.labels == label).nonzero()[:, 0].tolist()
        if len(ids) != len(nested[name]):
            raise ValueError(
                f"{folder / name} has {len(nested[name])} lists, but class {classes[label]} of "
                f"{data.name} has {len(ids)} training images: the lists are of other images"
            )
        found |= dict(zip(ids, nested[name], strict=True))
    return found


def _lists(folder: Path) -> list[Path]:
    """The lists in a folder, sorted."""
    return _sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))


def _sorted(paths: Iterable[Path]) -> list[Path]:
    """Paths by name, with the numbers in names by their value."""

    def order(path: Path) -> list[tuple[bool, int, str]]:
        parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
        # a number is as long as its digits say, and is never converted
        return [
            (part.isdecimal(), len(part.lstrip("0")) * part.isdecimal(), part.lstrip("0"))
            for part in parts
        ]

    return sorted(paths, key=lambda path: (order(path), path.name))


def _list(path: Path, h: int, w: int, xy: bool) -> Int16[Tensor, "k 2"]:
    """The points of one file as rows and columns, in reading order, each once."""
    import numpy as np

    largest = 16 * h * w + 2**12  # two numbers of 8 bytes per pixel, and a header
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if (size := path.stat().st_size) > largest:
        raise ValueError(f"{path} has {size} bytes, more than a list of {h}x{w} pixels can have")
    values = _array(path.read_bytes(), str(path))
    if values.ndim != 2 or values.shape[1] != 2:
        if values.size == 0:
            values = values.reshape(0, 2)
        else:
            raise ValueError(f"{path} has shape {values.shape}: a list of points has shape (n, 2)")
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{path} holds {values.dtype}: a list of points holds integers or floats")
    with np.errstate(all="ignore"):
        rounded = np.rint(values.astype(np.float64))
    limits = np.array([w, h] if xy else [h, w])
    outside = ~((rounded >= 0) & (rounded < limits)).all(1)  # what is not a number, too
    if outside.any():
        point = tuple(float(value) for value in values[outside.argmax()])
        meant = "(x, y)" if xy else "(row, column)"
        raise ValueError(
            f"{path} has the point ({point[0]:g}, {point[1]:g}), which as {meant} is outside an "
            f"image of {h} rows and {w} columns"
        )
    places = np.unique(rounded[:, ::-1] if xy else rounded, axis=0)
    return torch.from_numpy(places.astype(np.int16))


def _arrays(path: Path, largest: int) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file of at most ``largest`` bytes uncompressed."""
    with zips.open_zip(path, largest, largest) as archive:
        return {
            name.removesuffix(".npy"): _array(zips.read(archive, name), name)
            for name in archive.namelist()
        }


def _array(content: bytes, name: str) -> np.ndarray:
    """Return the array of an ``.npy`` file, whose header cannot claim more than the file has."""
    import numpy as np

    buffer = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(buffer) == (1, 0):
            shape, fortran, kind = np.lib.format.read_array_header_1_0(buffer)
        else:
            shape, fortran, kind = np.lib.format.read_array_header_2_0(buffer)
        if kind.hasobject:
            raise ValueError("it holds Python objects, which are not loaded")
        values = np.frombuffer(content, kind, offset=buffer.tell())
        return values.reshape(shape, order="F" if fortran else "C")
    except Exception as error:  # a header is a Python literal and can be wrong in many ways
        raise ValueError(f"{name} is not an array of numbers: {reason(error)}") from error


def _integers(arrays: dict[str, np.ndarray], name: str, axes: int) -> Tensor:
    """Return an array of integers or booleans with so many axes."""
    found = arrays[name]
    if found.dtype.kind not in "iub" or found.ndim != axes:
        raise ValueError(f"{name} must hold integers and have {axes} axes")
    return torch.from_numpy(found.astype("int64"))
