"""Zip archives that come from outside: opened only when they are harmless, read within bounds."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from bench.errors import reason

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that unpack piece by piece
LONGEST = 1024  # characters of a name; the format would allow 65,535, in 32,768 nested folders


def open_zip(path: Path, largest_file: int, largest_whole: int) -> zipfile.ZipFile:
    """Open an archive none of whose files unpacks to more than ``largest_file`` bytes.

    All of them together unpack to no more than ``largest_whole``. Raises ``FileNotFoundError`` for
    one that is not there and ``ValueError`` for one that is damaged, encrypted or too large, and
    for entries that are links or lead out of the archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged directory raises what its bytes happen to mean
        if path.is_file() and not path.stat().st_size:
            raise ValueError(f"{path} is empty: give a zip archive") from error
        why = reason(error)
        more = "" if why == "File is not a zip file" else f": {why}"
        raise ValueError(f"{path} is not a zip archive{more}") from error
    try:
        entries = archive.infolist()
        for entry in entries:
            if why := _refused(entry, largest_file):
                raise ValueError(f"{path} is refused: {entry.filename[:100]} {why}")
        if (size := sum(entry.file_size for entry in entries)) > largest_whole:
            raise ValueError(f"{path} is refused: it unpacks to {size} bytes")
    except BaseException:
        archive.close()
        raise
    return archive


def _refused(entry: zipfile.ZipInfo, largest: int) -> str:
    """Why an entry is refused, or nothing."""
    inside = PurePosixPath(entry.filename)
    if inside.is_absolute() or ".." in inside.parts or "\\" in entry.filename:
        return "leads out of the archive"
    if len(entry.filename) > LONGEST:
        return f"is a name of {len(entry.filename)} characters"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in METHODS:
        return "is packed by another method than deflate"
    if entry.file_size > largest:
        return f"unpacks to {entry.file_size} bytes"
    return ""


def read(archive: zipfile.ZipFile, name: str) -> bytes:
    """The contents of an entry, not a byte more than its directory says.

    Safe to call from several threads. Raises ``ValueError`` for one that is damaged.
    """
    try:
        entry = archive.getinfo(name)
        with archive.open(entry) as file:
            # read() without a number unpacks everything at once, however much that is
            content = file.read(entry.file_size)
            file.read(1)  # the checksum is compared at the end
        if len(content) != entry.file_size:
            raise EOFError("it is cut off")
    except Exception as error:  # so many things can be wrong with a file, and none of them is ours
        where = f"{name} in {archive.filename}"
        raise ValueError(f"{where} cannot be unpacked: {reason(error)}") from error
    return content
