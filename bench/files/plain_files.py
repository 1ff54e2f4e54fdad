"""Files in a folder that anyone may have filled: read only if they are plain and not too large."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def names(folder: Path, most: int) -> list[str]:
    """Return the names of the entries of a folder, sorted.

    Args:
        folder: The folder.
        most: Most entries that it may have.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such folder.
        ValueError: It has more entries.
    """
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(found) == most:
                raise ValueError(f"{folder} has more than {most} files")
            found.append(entry.name)
    return sorted(found)


def read(folder: Path, name: str, largest: int) -> bytes:
    """Return the contents of a plain file right in a folder; no link is followed.

    Type and size are those of the opened file, so that it cannot be exchanged in between.

    Args:
        folder: The folder.
        name: Name of the file, without a folder.
        largest: Most bytes that it may have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is a link, a folder, a device or a pipe, too large, or in another folder.
    """
    path = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is refused: it leads out of {folder}")
    if path.is_symlink():
        raise ValueError(f"{path} is refused: it is a link")
    # a pipe without a writer would block, and a link may appear after the check
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} is refused: {error.strerror}") from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{path} is refused: it is not a plain file")
        if about.st_size > largest:
            raise ValueError(
                f"{path} is refused: it has {about.st_size} bytes, at most {largest} are needed"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(largest)
    finally:
        os.close(handle)
