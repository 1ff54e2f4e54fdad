"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: into a neighbour first, then moved into place.

    Args:
        path: The file; its folder is made, and what was there is replaced.
        content: Bytes, or text that is written as UTF-8.

    Raises:
        OSError: It cannot be written; what was there is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with neighbour.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
        flush_folder(path.parent)
    finally:
        neighbour.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make new names in a folder outlast a power failure, where the file system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
