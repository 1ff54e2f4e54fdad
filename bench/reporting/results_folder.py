"""A results folder as a whole: packed for others, and its tracker made again from the records."""

from __future__ import annotations

import importlib.metadata
import io
import json
import zipfile
from pathlib import Path

from bench.files import atomic
from bench.records.record import Curve, Record
from bench.records.store import Store
from bench.records.tracking import Tracker
from bench.reporting import attack_tables, formats, run_tables

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
    contents = {"records.jsonl": (folder / "records.jsonl").read_bytes()}
    for part in PACKED:
        for file in sorted((folder / part).rglob("*")):
            if file.is_file():
                contents[file.relative_to(folder).as_posix()] = file.read_bytes()
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
            archive.writestr(zipfile.ZipInfo(name), content)
    atomic.write(path, buffer.getvalue())
    return len(contents)


def rebuild_tracker(folder: Path, tracker: Tracker) -> int:
    """Make the tracker of a results folder again from its records.

    Args:
        folder: The results folder.
        tracker: The tracker, whose contents are replaced.

    Returns:
        How many records were logged.
    """
    store = Store(folder)
    records = store.all()
    runs = [record for record in records if record.kind == "run"]
    attacks = [record for record in records if record.kind == "attack"]
    intervals = [*run_tables.intervals(runs), *attack_tables.attack_intervals(attacks)]

    def curve(record: Record) -> Curve:
        return store.curve(record) if record.kind == "run" else []

    tracker.rebuild(records, curve=curve, intervals=intervals)
    return len(records)
