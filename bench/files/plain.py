"""Regular files of a folder that anyone may have filled: no links, pipes or devices.

A link may lead to any file of the machine, whose content would then be shown, packed or
overwritten. A pipe has no end, nor have some devices.
"""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

LARGEST = 1 << 28  # bytes of a file that is read at once


def wrong(path: Path, folder: Path) -> str:
    """Why a file may not be used; empty for a regular file, and where there is nothing.

    Args:
        path: A path below the folder.
        folder: The folder, which may itself be a link.
    """
    for parent in list(path.relative_to(folder).parents)[:-1]:
        above = folder / parent
        if above.is_symlink():
            return f"{above} is a link"
        if above.exists() and not above.is_dir():
            return f"{above} is not a folder"
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(mode):
        return f"{path} is a link"
    return "" if stat.S_ISREG(mode) else f"{path} is not a regular file"


def check(path: Path, folder: Path) -> None:
    """Raise ``ValueError`` for what may not be used; arguments are those of `wrong`."""
    if why := wrong(path, folder):
        raise ValueError(
            f"{why}: a results folder has regular files only; put the file itself in its place"
        )


def check_folder(folder: Path) -> None:
    """Raise ``ValueError`` where a folder's own entries, or those of its cache, are links.

    Pipes and devices are refused as well. Files further down are checked when they are used.
    """
    for parent in (folder, folder / "cache"):
        try:
            entries = list(os.scandir(parent))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                check(Path(entry.path), folder)


def content(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a regular file; no link is followed at its own name.

    Type and size are those of the opened file, so that it cannot be exchanged in between.

    Args:
        path: The file.
        largest: Most bytes that it may have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is a link, a folder, a device or a pipe, or too large.
    """
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
            raise ValueError(f"{path} is refused: it is not a regular file")
        size = about.st_size
        if size > largest:
            raise ValueError(
                f"{path} is refused: it has {size} bytes, at most {largest} are allowed"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(size)
    finally:
        os.close(handle)


def read(path: Path, folder: Path, largest: int = LARGEST) -> bytes:
    """The `content` of a regular file of a folder, on the way to which there is no link either.

    Args:
        path: A path below the folder.
        folder: The folder.
        largest: Most bytes that it may have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a regular file of the folder, or too large.
    """
    check(path, folder)
    return content(path, largest)


def names(folder: Path, most: int) -> list[str]:
    """The names of the entries of a folder, sorted.

    Args:
        folder: The folder.
        most: Most entries that it may have.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such folder.
        ValueError: It has more entries.
    """
    with os.scandir(folder) as entries:
        found = [entry.name for entry in itertools.islice(entries, most + 1)]
    if len(found) > most:
        raise ValueError(f"{folder} has more than {most} files")
    return sorted(found)


def files(folder: Path) -> list[Path]:
    """The regular files below a folder, in order of their names; links are not followed."""
    found = []
    for top, inner, names in os.walk(folder):
        inner.sort()
        found += [path for name in names if not wrong(path := Path(top, name), folder)]
    return sorted(found)
