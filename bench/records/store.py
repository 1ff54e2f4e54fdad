"""The folder that keeps records: the source of truth.

``records.jsonl`` holds one line per record; the curves are beside it, one file per record, so that
listing thousands of records stays fast.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.files.atomic import write
from bench.files.json_text import parse
from bench.records.record import HEAD, Curve, Number, Record


def entries(curve: Any) -> list[dict[str, Number]]:
    """The curve that was read from a file; raises ``ValueError`` for what is none."""
    if not isinstance(curve, list) or not all(
        isinstance(entry, dict) and {int, float} >= set(map(type, entry.values()))
        for entry in curve
    ):
        raise ValueError("a curve is a list of numbers by name")
    return curve


class Store:
    """The records of one results folder, safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "records.jsonl"

    def add(self, record: Record) -> None:
        """Write a record: first curve and trace, then its line, each whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if record.curve:
            write(self._curve(record), json.dumps(list(record.curve)))
        if record.trace:
            write(self._trace(record), json.dumps(list(record.trace)))
        line = json.dumps(record.to_json(), allow_nan=True) + "\n"
        with FileLock(self.folder / "records.lock"), self.path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and not self._ends_a_line():
                line = "\n" + line  # what a crash left half-written stays on a line of its own
            content = line.encode()
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise

    def all(self) -> list[Record]:
        """Every readable record, the newest of each job and seed, in the order of first writing.

        Lines that are damaged or of another version are skipped with one warning that counts them.
        """
        return self._read(None)

    def _read(self, keys: Collection[str] | None) -> list[Record]:
        """The records of these jobs, or of all."""
        if not self.path.exists():
            return []
        found: dict[str, Record] = {}
        skipped = 0
        for line in self.path.read_bytes().splitlines():
            if not line.strip():
                continue
            # most lines of a large folder need not be read to see that they are of another job
            if keys is not None and (head := HEAD.match(line)) and head[1].decode() not in keys:
                continue
            try:
                record = Record.from_json(parse(line))
            except ValueError:
                skipped += 1
                continue
            found[record.name] = record
        if skipped:
            warnings.warn(
                f"{self.path}: skipped {skipped} line(s) that are damaged or of another version",
                stacklevel=3,
            )
        return list(found.values())

    def find(self, jobs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Record]:
        """The finished records among the given (key, seed) pairs."""
        wanted = set(jobs)
        return {
            (record.key, record.seed): record
            for record in self._read({key for key, _ in wanted})
            if record.status == "finished" and (record.key, record.seed) in wanted
        }

    def curve(self, record: Record) -> list[dict[str, Number]]:
        """The curve of a record, one entry an epoch; empty where none was kept or it is damaged."""
        return _read_entries(self._curve(record), record.curve)

    def trace(self, record: Record) -> list[dict[str, Number]]:
        """What an attack had reached after so many passes; empty where none was kept or damaged."""
        return _read_entries(self._trace(record), record.trace)

    def _curve(self, record: Record) -> Path:
        return self.folder / "curves" / f"{record.name}.json"

    def _trace(self, record: Record) -> Path:
        return self.folder / "curves" / f"{record.name}.passes.json"

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _read_entries(path: Path, own: Curve) -> list[dict[str, Number]]:
    """The entries of a file; those of the record itself without one, none if it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return list(map(dict, own))
    try:
        return entries(parse(content))
    except ValueError:
        return []
