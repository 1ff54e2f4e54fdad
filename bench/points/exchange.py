"""Points as files of other programs."""

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
    """The points as an ``.npz`` file that needs nothing of this project.

    ``places`` (int16, rows and columns of all pictures), ``offsets`` (int64; picture ``i`` owns
    ``places[offsets[i]:offsets[i + 1]]``), ``reached`` (bool) and ``about`` (JSON text).
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
    """Points of a data set from an ``.npz`` file: what `to_numpy` wrote, or one array ``masks``.

    ``masks`` has shape (n, h, w) and is not zero at the points of each training picture. Nothing in
    the file is executed, and what it unpacks to is bounded by what the data set can need. Raises
    ``ValueError`` for anything that does not fit the data set.
    """
    n, _, h, w = data.train.images.shape
    try:
        arrays = _arrays(path, 8 * n * h * w + 2**20)
        about: Any = {"data": data.name, "digest": data.digest, "imported": path.name}
        if "about" in arrays:
            about = parse(str(arrays["about"]))
        if not isinstance(about, dict):
            raise ValueError("what it is about is no JSON object")
        if "masks" in arrays:
            masks = torch.from_numpy(arrays["masks"] != 0)
            if masks.shape != (n, h, w):
                raise ValueError(f"masks have shape {tuple(masks.shape)}, not {(n, h, w)}")
            found = Points.of(masks, masks.flatten(1).any(1), about)
        else:
            wide = _whole(arrays, "places", 2)
            offsets = _whole(arrays, "offsets", 1)
            reached = offsets.diff() > 0
            if "reached" in arrays:
                reached = _whole(arrays, "reached", 1) != 0
            about |= {"size": [h, w]}
            check({"places": wide, "offsets": offsets, "reached": reached}, about)
            found = Points(wide.to(torch.int16), offsets, reached, about)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} holds no points: an .npz file with places and offsets, or masks "
            f"({reason(error)})"
        ) from None
    found.fits(data)
    return found


def _arrays(path: Path, largest: int) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file that together unpack to no more than ``largest`` bytes."""
    with zips.open_zip(path, largest, largest) as archive:
        return {
            name.removesuffix(".npy"): _array(zips.read(archive, name), name)
            for name in archive.namelist()
        }


def _array(content: bytes, name: str) -> np.ndarray:
    """The array of an ``.npy`` file, whose header cannot claim more than the file has."""
    import numpy as np

    buffer = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(buffer) == (1, 0):
            shape, fortran, kind = np.lib.format.read_array_header_1_0(buffer)
        else:
            shape, fortran, kind = np.lib.format.read_array_header_2_0(buffer)
        if kind.hasobject:
            raise ValueError("it holds objects, which would have to be unpickled")
        values = np.frombuffer(content, kind, offset=buffer.tell())
        return values.reshape(shape, order="F" if fortran else "C")
    except Exception as error:  # a header is Python's own notation, and may be wrong in many ways
        raise ValueError(f"{name} is no array of numbers: {reason(error)}") from error


def _whole(arrays: dict[str, np.ndarray], name: str, axes: int) -> Tensor:
    """An array of whole numbers or truth values with so many axes."""
    found = arrays[name]
    if found.dtype.kind not in "iub" or found.ndim != axes:
        raise ValueError(f"{name} must be whole numbers with {axes} axes")
    return torch.from_numpy(found.astype("int64"))
