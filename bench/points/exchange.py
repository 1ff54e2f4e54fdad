"""Export of points to NumPy files, and import from them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
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
