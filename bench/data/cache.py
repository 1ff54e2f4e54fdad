"""Decoded copies of datasets that are files: read once, then loaded in a fraction of the time.

Of a dataset whose images stay in their files, only what was measured of them is kept. A copy only
saves time. It holds a checksum of its content, and one that is damaged, or that cannot be written,
is no obstacle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from bench.data.dataset import Dataset, Measured
from bench.data.splits import Split
from bench.files import checksums, json_text, tensor_files

FORMAT = 2  # of the copies; another number makes them anew


def folder() -> Path:
    """The cache folder of the user."""
    import platformdirs

    return platformdirs.user_cache_path("bench")


def place(name: str, path: Path, side: int | None) -> Path | None:
    """Where the copy of these very files belongs: named after path, sizes and times.

    None where they cannot be looked at.
    """
    try:
        state = sorted(_state(str(path))) if path.is_dir() else [_found(".", path.stat())]
    except OSError:
        return None
    which, when = checksums.key([str(path), side]), checksums.key([FORMAT, state])
    return folder() / "decoded" / f"{Path(name).stem}-{which}-{when}.safetensors"


def _state(path: str, below: str = "") -> Iterator[tuple[str, int, int]]:
    """What is below a folder; ``os.scandir`` because a dataset may have a million files."""
    with os.scandir(f"{path}/{below}") as entries:
        for entry in entries:
            yield _found(below + entry.name, entry.stat())
            if entry.is_dir(follow_symlinks=False):
                yield from _state(path, f"{below}{entry.name}/")


def _found(name: str, about: os.stat_result) -> tuple[str, int, int]:
    return name, about.st_size, about.st_mtime_ns


def save(data: Dataset, copy: Path) -> None:
    """Write a copy, and remove those of an earlier state of the same files."""
    tensors = {"mean": data.mean, "std": data.std}
    if isinstance(data.train.images, Tensor) and isinstance(data.test.images, Tensor):
        tensors |= {
            "train.images": data.train.images,
            "train.labels": data.train.labels,
            "test.images": data.test.images,
            "test.labels": data.test.labels,
        }
    about = json.dumps({"classes": data.classes, "digest": data.digest})
    # without room or permission for it, work goes on
    with suppress(OSError):
        tensor_files.write(copy, tensors, {"about": about}, covered="about")
        for old in copy.parent.glob(f"{copy.stem.rpartition('-')[0]}-*.safetensors"):
            if old != copy:
                old.unlink(missing_ok=True)


def measured(copy: Path) -> Measured | None:
    """What was measured of images that stay in their files; None where nothing is kept."""
    try:
        tensors, metadata = tensor_files.read(copy, covered="about")
        return Measured(
            tensors["mean"], tensors["std"], json_text.parse(metadata["about"])["digest"]
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def load(copy: Path, name: str, *, source: str, flip: bool, named: bool) -> Dataset | None:
    """The dataset of a copy; None where there is none, or one that is damaged."""
    try:
        tensors, metadata = tensor_files.read(copy, covered="about")
        about = json_text.parse(metadata["about"])
        return Dataset(
            name=name,
            classes=tuple(about["classes"]),
            train=Split(tensors["train.images"], tensors["train.labels"]),
            test=Split(tensors["test.images"], tensors["test.labels"]),
            mean=tensors["mean"],
            std=tensors["std"],
            flip=flip,
            digest=about["digest"],
            source=source,
            named=named,
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
