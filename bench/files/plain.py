"""Regular files of a folder that anyone may have filled: no links, pipes or devices.

A link may lead to any file of the machine, whose content would then be shown, packed or
overwritten. A pipe has no end, nor have some devices.
"""

from __future__ import annotations

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


def read(path: Path, folder: Path, largest: int = LARGEST) -> bytes:
    """The content of a regular file of a folder.

    Args:
        path: A path below the folder.
        folder: The folder.
        largest: Most bytes of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a regular file of the folder, or too large.
    """
    check(path, folder)
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{path} has {size} bytes, more than {largest}")
    with path.open("rb") as file:
        return file.read(size)


def files(folder: Path) -> list[Path]:
    """The regular files below a folder, in order of their names; links are not followed."""
    found = []
    for top, inner, names in os.walk(folder):
        inner.sort()
        found += [path for name in names if not wrong(path := Path(top, name), folder)]
    return sorted(found)
