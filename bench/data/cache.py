"""Decoded copies of datasets that are files: read once, then loaded in a fraction of the time.

A copy only saves time. It holds a checksum of its content, and one that is damaged, or that cannot
be written, is no obstacle.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from bench.data.dataset import Dataset
from bench.data.splits import Split
from bench.files import atomic, checksums, json_text, tensor_files

FORMAT = 2  # of the copies; another number makes them anew


def folder() -> Path:
    """The cache folder of the user."""
    import platformdirs

    return platformdirs.user_cache_path("bench")


def place(name: str, path: Path, side: int | None) -> Path | None:
    """Where the copy of these very files belongs: named after path, sizes and times.

    None where they cannot be looked at.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        state = [(str(file.relative_to(path)), file.stat()) for file in files]
    except OSError:
        return None
    listed = [[file, found.st_size, found.st_mtime_ns] for file, found in state]
    which, when = checksums.key([str(path), side]), checksums.key([FORMAT, listed])
    return folder() / "decoded" / f"{Path(name).stem}-{which}-{when}.safetensors"


def save(data: Dataset, copy: Path) -> None:
    """Write a copy, and remove those of an earlier state of the same files."""
    tensors = {
        "train.images": data.train.images,
        "train.labels": data.train.labels,
        "test.images": data.test.images,
        "test.labels": data.test.labels,
        "mean": data.mean,
        "std": data.std,
    }
    about = json.dumps({"classes": data.classes, "digest": data.digest})
    # without room or permission for it, work goes on
    with suppress(OSError):
        atomic.write(copy, tensor_files.pack(tensors, {"about": about}, covered="about"))
        for old in copy.parent.glob(f"{copy.stem.rpartition('-')[0]}-*.safetensors"):
            if old != copy:
                old.unlink(missing_ok=True)


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
