"""The published binary files: Fashion-MNIST's idx, CIFAR's python and binary batches."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bench.data.splits import Parts, Split
from bench.errors import Missing, reason

T = TypeVar("T")

FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
LARGEST = 1 << 29  # bytes of one file; the largest published one has 154 million


def fashion_mnist(path: Path) -> Parts:
    """Read the four idx files of Fashion-MNIST in a folder, packed (``.gz``) or not."""

    def read(stem: str, axes: int) -> torch.Tensor:
        plain, packed = path / stem, path / f"{stem}.gz"
        if plain.is_file():
            data = plain.read_bytes()
        elif packed.is_file():
            data = _unpack(packed)
        else:
            raise Missing(f"{path} lacks {stem}.gz: place all four files of Fashion-MNIST there")
        # two zero bytes, the type (8: bytes), the number of axes, their lengths, then the values
        if data[:4] != bytes([0, 0, 8, axes]) or len(data) < 4 + 4 * axes:
            raise ValueError(f"{path / stem} is not an idx file of bytes with {axes} axes")
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
        if values.size != math.prod(shape):
            raise ValueError(f"{path / stem} has {values.size} values, its header says {shape}")
        return torch.from_numpy(values.reshape(shape).copy())

    train, test = (
        Split(
            read(f"{part}-images-idx3-ubyte", 3)[:, None],
            read(f"{part}-labels-idx1-ubyte", 1).long(),
        )
        for part in ("train", "t10k")
    )
    return Parts(FASHION, train, test)


def cifar10(path: Path) -> Parts:
    """Read CIFAR-10 from its folder or archive, python or binary version."""
    train = [f"data_batch_{number}" for number in range(1, 6)]
    return _cifar(path, train, ["test_batch"], "batches.meta", ("label_names", "labels"))


def cifar100(path: Path) -> Parts:
    """Read CIFAR-100 with its fine labels from its folder or archive, python or binary version."""
    if (path / "train.bin").exists() or "binary" in path.name:
        return _cifar(path, ["train"], ["test"], "fine_label_names", ("", ""))
    return _cifar(path, ["train"], ["test"], "meta", ("fine_label_names", "fine_labels"))


def _cifar(
    path: Path, train: list[str], test: list[str], meta: str, keys: tuple[str, str]
) -> Parts:
    binary = path.name.endswith(("-bin", "-binary", "-binary.tar.gz")) or any(
        path.glob(f"{test[0]}.bin")
    )
    suffix, text = (".bin", ".txt") if binary else ("", "")
    files = _members(path, [f"{name}{suffix}" for name in train + test] + [meta + text])
    if binary:
        classes = tuple(files[meta + text].decode(errors="replace").split())
        # CIFAR-100 puts the coarse label ahead of the fine one
        lead = 2 if len(classes) == 100 else 1

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            rows = np.frombuffer(files[f"{name}.bin"], np.uint8)
            if rows.size % (lead + 3072):
                raise ValueError(f"{name}.bin in {path} is cut off: {rows.size} bytes")
            rows = rows.reshape(-1, lead + 3072)
            return rows[:, lead:], rows[:, lead - 1]

    else:
        classes = tuple(_entry(files, meta, keys[0], list))
        if not all(isinstance(label, str) for label in classes):
            raise ValueError(f"{meta} in {path} is not a CIFAR batch: its names are not texts")

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            pixels = _entry(files, name, "data", np.ndarray)
            labels = _entry(files, name, keys[1], list)
            # also keeps out arrays that claim more than the file has
            if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
                raise ValueError(f"{name} in {path} is not a CIFAR batch: its images do not fit")
            if not all(type(label) is int and 0 <= label < len(classes) for label in labels):
                raise ValueError(f"{name} in {path} is not a CIFAR batch: its labels do not fit")
            return pixels, np.asarray(labels, np.int64)

    def split(names: Sequence[str]) -> Split:
        images, labels = zip(*map(read, names), strict=True)
        pixels = torch.from_numpy(np.concatenate(images)).reshape(-1, 3, 32, 32)
        return Split(pixels, torch.from_numpy(np.concatenate(labels).astype(np.int64)))

    return Parts(classes, split(train), split(test))


def _members(path: Path, names: list[str]) -> dict[str, bytes]:
    """The contents of these files of a folder, or of a packed tar archive, which is not unpacked.

    Raises Missing for a file that is not there.
    """
    found = {}
    if path.is_dir():
        found = {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    else:
        try:
            # what is unpacked first bounds everything that the archive can claim
            with tarfile.open(fileobj=io.BytesIO(_unpack(path)), mode="r:") as archive:
                for member in archive:
                    name = member.name.rpartition("/")[2]
                    if name in names and member.isfile() and not member.issparse():
                        file = archive.extractfile(member)
                        found[name] = file.read() if file else b""
        except tarfile.TarError as error:
            raise ValueError(f"{path} cannot be unpacked: {reason(error)}") from error
    lacking = [name for name in names if name not in found]
    if lacking:
        raise Missing(f"{path} is incomplete: it lacks {', '.join(lacking)}")
    return found


def _unpack(path: Path) -> bytes:
    """The contents of a gzip file; raises ValueError for one that is damaged or a bomb."""
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {reason(error)}") from error
    if len(data) > LARGEST:
        raise ValueError(f"{path} unpacks to more than {LARGEST} bytes: too large")
    return data


class _Unpickler(pickle._Unpickler):
    """Builds arrays of numbers, lists, dictionaries and strings; refuses everything else.

    The one written in Python: its memory of what was read grows entry by entry, while a few bytes
    make that of the other one fill the machine.
    """

    def find_class(self, module: str, name: str) -> Any:
        # what arrays are made of, under numpy's old and new module names
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: text.encode("latin1")
        raise ValueError(f"it asks for {module}.{name}, which no CIFAR batch needs")


def _entry(files: dict[str, bytes], name: str, key: str, kind: type[T]) -> T:
    """An entry of a pickled dictionary; raises ValueError where it is not there."""
    found = _unpickle(files[name], name).get(key)
    if not isinstance(found, kind):
        raise ValueError(f"{name} is not a CIFAR batch: it has no {key}")
    return found


def _unpickle(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:
        raise ValueError(f"{name} is not a CIFAR batch: {reason(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a CIFAR batch: it holds no dictionary")
    return {k.decode(errors="replace") if isinstance(k, bytes) else k: v for k, v in found.items()}
