"""Crafted files that claim too much are refused in one line and take little memory."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import answer, image_file, matlab, zip_file

from bench.data import binary_formats, catalog
from bench.files import tensor_files
from bench.robustness.pass_counter import peak_memory

pytestmark = pytest.mark.usefixtures("no_copies")


def lying(content: bytes, name: bytes, size: int) -> bytes:
    """A zip whose directory says that an entry is smaller than it is."""
    found = bytearray(content)
    for signature, place, start in ((b"PK\1\2", 24, 46), (b"PK\3\4", 22, 30)):
        for offset in range(len(found)):
            if found[offset:].startswith(signature) and found[offset + start :].startswith(name):
                found[offset + place : offset + place + 4] = struct.pack("<I", size)
    return bytes(found)


def unpacked_image() -> bytes:
    """An image entry that unpacks to 256 MiB, though it says 100 bytes."""
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
            archive.writestr(name, image_file() if name != "train/a/1.png" else bytes(1 << 28))
    content = zeros.getvalue()
    # only the two headers of that entry, found by their place
    for signature, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        offset = content.index(signature) + place
        content = content[:offset] + struct.pack("<I", 100) + content[offset + 4 :]
    return content


def claiming(side: int) -> bytes:
    """A PNG of a few bytes whose header claims many pixels."""
    data = bytearray(image_file())
    header = data[12:16] + struct.pack(">II", side, side) + data[24:29]
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


def claiming_jpeg() -> bytes:
    data = bytearray(image_file("JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


def claiming_array() -> bytes:
    """An ``.npz`` whose array claims 4 GiB and has 100 bytes."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296,), }"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("places.npy", array)
        archive.writestr("offsets.npy", array)
    return file.getvalue()


def claiming_tensors(shape: int, header: int = 0) -> bytes:
    about = {
        "network.network.linear.weight": {
            "dtype": "F32",
            "shape": [shape],
            "data_offsets": [0, 4 * shape],
        }
    }
    text = json.dumps(about).encode()
    return struct.pack("<Q", header or len(text)) + text + bytes(64)


def large_points() -> bytes:
    """Points of images with a billion pixels."""
    tensors = {"places": torch.zeros(1, 2).short(), "offsets": torch.ones(9).long()}
    tensors |= {"reached": torch.ones(8).bool()}
    tensors["offsets"][0] = 0
    about = {"data": "tiny", "digest": "0123", "size": [32_000, 32_000]}
    return tensor_files.pack(tensors, {"about": json.dumps(about)})


def deep_names() -> bytes:
    """Names that lie in 30,000 nested folders each."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(4):
            archive.writestr(f"train/{number}/" + "a/" * 30_000 + "1.png", b"")
    return file.getvalue()


def other_method() -> bytes:
    """An image that unpacks to 256 MiB by a method that cannot do so piece by piece."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("train/a/1.png", bytes(1 << 28))
    return lying(file.getvalue(), b"train/a/1.png", 100)


def pickled(*codes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(codes) + b"."


def laughs() -> bytes:
    """Ten thousand million labels in a list of lists of lists."""
    labels: list[Any] = [0] * 10
    for _ in range(9):
        labels = [labels] * 10
    return pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": labels}, protocol=2)


class Vast:
    """An array that claims 8 GiB."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.ndarray, ((1 << 33,), "u1")


def archived(entry: tarfile.TarInfo, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def long_name() -> bytes:
    """A tar whose first name has 256 MiB."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 28
    return archived(entry, bytes(1 << 28))


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a zip entry that lies about its size": ("zip of PNG", unpacked_image),
    "a zip entry packed by another method": ("zip of PNG", other_method),
    "names in 30,000 folders": ("zip of PNG", deep_names),
    "a PNG of 900 million pixels": (
        "zip of PNG", lambda: zip_file(**{"train/a/2.png": claiming(30_000)})
    ),
    "a JPEG of 4,000 million pixels": (
        "zip of JPEG", lambda: zip_file("JPEG", **{"train/a/2.jpeg": claiming_jpeg()})
    ),
    "an array of 4 GiB": ("points to import", claiming_array),
    "points of a billion pixels": ("points", large_points),
    "a tensor of 4 TiB": ("foreign weights", lambda: claiming_tensors(1 << 40)),
    "a header of 64 GiB": ("foreign weights", lambda: claiming_tensors(16, 1 << 36)),
    "a state of 4 TiB": ("checkpoint", lambda: claiming_tensors(1 << 40)),
    "a pickle that remembers far ahead": (
        "cifar batch", lambda: pickled(b"}", b"r" + struct.pack("<I", 1 << 27))
    ),
    "a list of lists of lists": ("cifar batch", laughs),
    "a pickled array of 8 GiB": (
        "cifar batch", lambda: pickle.dumps({"data": Vast(), "labels": [0, 1]}, protocol=2)
    ),
    "a tar of one long name": ("cifar archive", long_name),
    "a gzip of zeros": ("idx, packed", lambda: gzip.compress(bytes(1 << 28))),
    "a Matlab file of zeros": (
        "labels of flowers", lambda: matlab(labels=[[0] * 100_000], more=[list(range(100_000))])
    ),
}  # fmt: skip
"""What it claims → who reads it, and the file."""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_claims_too_much_takes_little_memory(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_formats, "LARGEST", 1 << 24)
    what, make = BOMBS[bomb]
    content = make()
    answer(what, b"", tmp_path)  # what is imported at first use takes memory, too
    with peak_memory(torch.device("cpu")) as peak:
        said = answer(what, content, tmp_path)
        assert (peak() or 0) < 100  # MiB
    assert said or what == "checkpoint"  # which starts anew instead


def test_an_image_that_is_a_device_is_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(image_file())
    (tmp_path / "train/a/2.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"2\.png in .* is not a file of up to"):
        catalog.load(str(tmp_path))
