"""Matlab files: rows of numbers, and ImageNet's table of classes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

from bench.data.image_files import Files
from bench.errors import reason

LARGEST_MAT = 1 << 16  # bytes; the larger one of Flowers has 15,000, and zeros pack 1 to 1,000


PACKED = 15  # the type of an element that is compressed
LARGEST_TABLE = 1 << 24  # bytes, packed and unpacked; that of ImageNet has about a million


def table(files: Files, name: str, variable: str, key: str, value: str) -> dict[str, str]:
    """Two columns of a table of records, as texts; raises ValueError for anything else."""
    from scipy.io import loadmat

    content = files.read(name)
    try:
        _bounded(content)
        file: Any = io.BytesIO(content)
        records = loadmat(file, variable_names=[variable], squeeze_me=True)[variable]
        return {str(record[key]): str(record[value]) for record in records}
    except Exception as error:  # a damaged file raises what its bytes happen to mean
        raise ValueError(f"{name} in {files.path} cannot be read: {reason(error)}") from error


def _bounded(content: bytes) -> None:
    """Raise ValueError for what would unpack to more than `LARGEST_TABLE` bytes."""
    if content[126:128] != b"IM":
        raise ValueError("it is not a Matlab file of version 5, little-endian")
    whole, place = len(content), 128  # the header; then elements: type, length, content
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<II", content, place)
        if kind == PACKED:
            packed = content[place + 8 : place + 8 + length]
            whole += len(zlib.decompressobj().decompress(packed, LARGEST_TABLE + 1))
        if whole > LARGEST_TABLE:
            raise ValueError(f"it has more than {LARGEST_TABLE} bytes")
        place += 8 + length


def rows(files: Files, name: str, *variables: str) -> list[np.ndarray]:
    """Rows of integers from a Matlab file; raises ValueError for anything else."""
    from scipy.io import loadmat

    content = files.read(name)
    if len(content) > LARGEST_MAT:
        raise ValueError(f"{name} in {files.path} has {len(content)} bytes: too large")
    try:
        file: Any = io.BytesIO(content)
        found = loadmat(file, variable_names=variables)
        lines = [found[variable][0].astype(np.int64, casting="same_kind") for variable in variables]
    except Exception as error:  # a damaged file raises what its bytes happen to mean
        raise ValueError(f"{name} in {files.path} cannot be read: {reason(error)}") from error
    if any(row.ndim != 1 or not row.size for row in lines):
        raise ValueError(f"{name} in {files.path} holds no rows of numbers")
    return lines
