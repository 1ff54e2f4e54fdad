"""A results folder as a whole: what is under way in it, and packing it for others."""

from __future__ import annotations

import importlib.metadata
import io
import json
import zipfile
from pathlib import Path

from filelock import FileLock, Timeout

from bench import records
from bench.records import Store

KEPT = ("tables", "figures", "curves")


def left_behind(folder: Path) -> dict[str, list[str]]:
    """Jobs that are ``running`` now, and jobs that were ``stopped`` and can be continued.

    A job that runs holds its lock, which the system gives back when its process dies.
    """
    running, stopped = [], []
    for path in sorted((folder / "cache/locks").glob("*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            running.append(path.stem)
    for checkpoint in sorted((folder / "cache/checkpoints").glob("*/checkpoint.json")):
        if checkpoint.parent.name not in running:
            stopped.append(checkpoint.parent.name)
    return {"running": running, "stopped": stopped}


def pack(folder: Path, path: Path) -> int:
    """Write records, curves, tables, figures and the environment to a zip; returns how many files.

    The archive is the same whenever it is made from the same folder in the same environment.
    Raises ``ValueError`` when there are no records.
    """
    from bench import grids, tables

    found = Store(folder).all()
    if not found:
        raise ValueError(f"there are no records in {folder} to pack")
    contents = {"records.jsonl": (folder / "records.jsonl").read_bytes()}
    for part in KEPT:
        for file in sorted((folder / part).rglob("*")):
            if file.is_file():
                contents[file.relative_to(folder).as_posix()] = file.read_bytes()
    runs = [record for record in found if record.kind == "run"]
    if runs:
        table = grids.grid(runs)
        contents["runs.tex"] = tables.latex(table).encode()
        contents["runs.md"] = tables.markdown(table).encode()
    packages = sorted(f"{d.name}=={d.version}" for d in importlib.metadata.distributions())
    contents["environment.json"] = json.dumps(
        {"packages": packages, "machine": dict(found[-1].machine)}, indent=1
    ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    records.write(path, buffer.getvalue())
    return len(contents)
