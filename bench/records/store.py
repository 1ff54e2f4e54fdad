"""The folder that keeps records: the source of truth.

``records.jsonl`` holds one line per record; the curves are beside it, one file per record, so that
listing thousands of records stays fast.
"""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.errors import name_file, reason
from bench.files import plain
from bench.files.atomic import flush_folder, write
from bench.files.json_text import parse
from bench.records.record import Curve, Record
from bench.records.validation import POINT, check, check_curve

HEAD = re.compile(rb'\{"version": 1, "kind": "[a-z]+", "key": "([\w.-]+)", ')  # of most lines
LONGEST_LINE = 1 << 20  # bytes
NAMED = 5  # lines that a warning names


class Store:
    """The records of one results folder, safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "records.jsonl"

    def add(self, record: Record) -> None:
        """Write a record: first curve, trace and images, then its line, each whole or not at all.

        Raises:
            ValueError: It could not be read back, or the folder has a link in its place.
            OSError: It cannot be written; the file is unchanged.
        """
        entry = record.to_json()
        check(entry)
        for curve in (record.curve, record.trace, record.images):
            check_curve(list(curve))
        beside = {
            self._curve(record): record.curve,
            self._trace(record): record.trace,
            self._images(record): record.images,
        }
        for path in (self.path, self.folder / "records.lock", *beside):
            plain.check(path, self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, curve in beside.items():
            if curve:
                write(path, json.dumps(list(curve)))
        self._append(json.dumps(entry) + "\n")
        for path, curve in beside.items():
            if not curve:  # what an earlier record of the same job and seed had is not of this one
                path.unlink(missing_ok=True)

    def _append(self, line: str) -> None:
        """Add a line to the records, whole or not at all."""
        with FileLock(self.folder / "records.lock"), self.path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and not self._ends_a_line():
                line = "\n" + line  # what a crash left half-written stays on a line of its own
            content = line.encode()
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(file.fileno())
                if not size:
                    flush_folder(self.folder)
            except OSError as error:
                file.truncate(size)
                name_file(error, self.path)
                raise

    def all(self) -> list[Record]:
        """Every record, the newest of each job and seed, in the order of first writing.

        Lines that hold no valid record are set aside with one warning that counts and names them.
        """
        records, troubles = self.read()
        _warn(troubles)
        return records

    def read(self) -> tuple[list[Record], list[str]]:
        """The records as `all` gives them, and the warning, if any, instead of giving it.

        Raises:
            ValueError: ``records.jsonl`` is a link, a pipe or a device.
        """
        return self._read(None)

    def _read(self, keys: Collection[str] | None) -> tuple[list[Record], list[str]]:
        """The records of these jobs, or of all."""
        found: dict[str, Record] = {}
        first: dict[str, Record] = {}  # of a job
        refused: list[str] = []
        count = 0
        machines: dict[tuple[Any, ...], Mapping[str, str]] = {}
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            # most lines of a large folder need not be read to see that they are of another job
            if keys is not None and (head := HEAD.match(line)) and head[1].decode() not in keys:
                continue
            try:
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"it has more than {LONGEST_LINE} bytes")
                record = Record.from_json(parse(line))
            except ValueError as error:
                count += 1
                if len(refused) < NAMED:
                    refused.append(f"line {number}: {reason(error)}")
                continue
            machine = machines.setdefault(tuple(record.machine.items()), record.machine)
            record = replace(record, machine=machine)
            record = record.sharing(first.setdefault(record.key, record))
            found[record.name] = record
        if count > NAMED:
            refused.append(f"and {count - NAMED} more")
        lines = "1 line is" if count == 1 else f"{count} lines are"
        what = f"{self.path}: {lines} set aside, which hold{'s' * (count == 1)} no valid record"
        return list(found.values()), [f"{what} ({'; '.join(refused)})"] if count else []

    def _lines(self) -> Iterator[bytes]:
        """Every line; of one that is too long only the beginning."""
        plain.check(self.path, self.folder)
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                rest = line
                while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(LONGEST_LINE + 1)
                yield line

    def find(self, jobs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Record]:
        """The finished records among the given (key, seed) pairs."""
        wanted = set(jobs)
        records, troubles = self._read({key for key, _ in wanted})
        _warn(troubles)
        return {
            (record.key, record.seed): record
            for record in records
            if record.status == "finished" and (record.key, record.seed) in wanted
        }

    def curve(self, record: Record) -> Curve:
        """The curve of a record, one entry an epoch; empty where none was kept or it is damaged."""
        needed = POINT if record.kind == "attack" else frozenset()
        return self._entries(self._curve(record), record.curve, needed)

    def trace(self, record: Record) -> Curve:
        """What an attack had reached after so many passes; empty where none was kept or damaged."""
        return self._entries(self._trace(record), record.trace, {"passes"})

    def images(self, record: Record) -> Curve:
        """What an attack did to each image; empty where none was kept or it is damaged."""
        return self._entries(self._images(record), record.images, {"forwards", "backwards"})

    def _entries(self, path: Path, own: Curve, needed: Collection[str]) -> Curve:
        """The entries of a file; those of the record itself without one, none if it is damaged."""
        try:
            return check_curve(parse(plain.read(path, self.folder)), needed)
        except OSError:
            return list(map(dict, own))
        except ValueError:
            return []

    def _curve(self, record: Record) -> Path:
        return self.folder / "curves" / f"{record.name}.json"

    def _trace(self, record: Record) -> Path:
        return self.folder / "curves" / f"{record.name}.passes.json"

    def _images(self, record: Record) -> Path:
        return self.folder / "curves" / f"{record.name}.images.json"

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _warn(troubles: Iterable[str]) -> None:
    for trouble in troubles:
        warnings.warn(trouble, stacklevel=4)
