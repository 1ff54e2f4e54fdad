"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import name_file

LEFT = re.compile(r"\..+\.(\d{1,9})\.bench-part")  # a neighbour, with the process that writes it
HOUR = 3600.0


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: into a neighbour first, then moved into place.

    Args:
        path: The file; its folder is made, and what was there is replaced.
        content: Bytes, or text that is written as UTF-8.

    Raises:
        OSError: It cannot be written; what was there is unchanged.
    """
    with neighbour(path) as place:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def neighbour(path: Path) -> Iterator[Path]:
    """A place for content that becomes the file at the end of the block, unless the block fails.

    Args:
        path: The file; its folder is made, and what was there is replaced.

    Raises:
        OSError: It cannot be written; what was there is unchanged. The error names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = neighbour_of(path)
    try:
        yield place
        with place.open("rb+") as file:
            os.fsync(file.fileno())
        place.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(place)):
            name_file(error, path)
        raise
    finally:
        place.unlink(missing_ok=True)


def neighbour_of(path: Path) -> Path:
    """Where this process writes a file before it is moved into place; `sweep` knows it."""
    return path.with_name(f".{path.name}.{os.getpid()}.bench-part")


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left below a folder: half-written neighbours.

    Those of living processes stay, and so do those of the last hour, which may be of a process on
    another machine.
    """
    for top, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if name != "artifacts"]  # MLflow's, who has its own ways
        for name in names:
            if (found := LEFT.fullmatch(name)) and not _alive(int(found[1])):
                path = Path(top, name)
                with suppress(OSError):
                    if time.time() - path.lstat().st_mtime > HOUR:
                        path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def flush_folder(folder: Path) -> None:
    """Make new names in a folder outlast a power failure, where the file system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
