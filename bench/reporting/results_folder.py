"""A results folder as a whole, packed for others."""

from __future__ import annotations

import importlib.metadata
import io
import json
import zipfile
from pathlib import Path

from bench.files import atomic, plain
from bench.records.store import Store
from bench.reporting import formats, run_tables

PACKED = ("tables", "figures", "curves")
"""The folders that are packed beside the records."""


def pack(folder: Path, path: Path) -> int:
    """Write records, curves, tables, figures and the environment to a zip.

    The same folder in the same environment gives the same archive.

    Args:
        folder: The results folder.
        path: The archive to write.

    Returns:
        How many files it has.

    Raises:
        ValueError: There are no records.
    """
    found = Store(folder).all()
    if not found:
        raise ValueError(f"there are no records in {folder} to pack")
    contents = {"records.jsonl": plain.read(folder / "records.jsonl", folder)}
    for part in PACKED:
        for file in plain.files(folder / part):  # no links: their targets are not of this folder
            contents[file.relative_to(folder).as_posix()] = plain.read(file, folder)
    runs = [record for record in found if record.kind == "run"]
    if runs:
        table = run_tables.grid(runs)
        contents["runs.tex"] = formats.latex(table).encode()
        contents["runs.md"] = formats.markdown(table).encode()
    packages = sorted(f"{d.name}=={d.version}" for d in importlib.metadata.distributions())
    contents["environment.json"] = json.dumps(
        {"packages": packages, "machine": dict(found[-1].machine)}, indent=1
    ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    atomic.write(path, buffer.getvalue())
    return len(contents)
