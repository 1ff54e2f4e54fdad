"""What one job with one seed gave, and the folder that keeps it: the source of truth.

``records.jsonl`` holds one line per record; the curves lie beside it, one file per record, so that
listing thousands of records stays fast.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

VERSION = 1
TYPES: dict[str, type] = {
    "kind": str, "key": str, "seed": int, "status": str, "message": str, "job": dict,
    "machine": dict,
}  # fmt: skip
OWN = {"version", *TYPES}
SHARED = {"victim", "data", "eps", "aim", "images", "query_cap"}  # by attacks that are compared
KINDS, STATES = ("run", "attack"), ("finished", "failed")
HEAD = re.compile(rb'\{"version": 1, "kind": "[a-z]+", "key": "([\w.-]+)", ')  # of most lines
PLAIN = re.compile(r"[\w-][\w.-]{0,99}", re.ASCII)  # what a key may be, for files are named by it
Number = int | float


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one job with one seed gave.

    ``kind`` is ``"run"`` (a training) or ``"attack"``; ``key`` names the job without its seed.
    ``labels`` are what tables group by (augmentation, model, data, …), ``metrics`` fractions in
    [0, 1], seconds and counts, never percent. ``curve`` has one entry an epoch. A job that failed
    (``status``) says why in ``message``.
    """

    kind: Literal["run", "attack"]
    key: str
    seed: int
    labels: Mapping[str, str]
    metrics: Mapping[str, Number]
    job: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    status: Literal["finished", "failed"] = "finished"
    message: str = ""
    curve: Sequence[Mapping[str, Number]] = ()

    def __post_init__(self) -> None:
        names = [*self.labels, *self.metrics]
        if twice := {name for name in names if name in OWN or names.count(name) > 1}:
            raise ValueError(
                f"the label or metric {min(twice)!r} is taken in a record: give it another name"
            )

    @property
    def name(self) -> str:
        """The record's own name: the job's key and the seed."""
        return f"{self.key}-{self.seed}"

    @property
    def cell(self) -> str:
        """Names what the record shares with others: its job; for attacks, their victim and eps."""
        if self.kind == "run":
            return self.key
        shared = {name: value for name, value in self.job.items() if name in SHARED}
        text = json.dumps(shared, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """A flat object: labels are its texts, metrics its numbers; the curve is kept elsewhere."""
        return {
            "version": VERSION,
            "kind": self.kind,
            "key": self.key,
            "seed": self.seed,
            "status": self.status,
            "message": self.message,
            **self.labels,
            **self.metrics,
            "job": dict(self.job),
            "machine": dict(self.machine),
        }

    @classmethod
    def from_json(cls, line: Any) -> Record:
        """The record that `to_json` wrote; raises ``ValueError`` for anything else."""
        if not isinstance(line, Mapping) or line.get("version") != VERSION:
            raise ValueError("not a record of this version")
        if missing := OWN - set(line):
            raise ValueError(f"a record without {', '.join(sorted(missing))}")
        if wrong := [name for name, kind in TYPES.items() if not isinstance(line[name], kind)]:
            raise ValueError(f"a record whose {', '.join(wrong)} cannot be: {line[wrong[0]]!r}")
        if not PLAIN.fullmatch(line["key"]):
            raise ValueError(f"a record whose key is no plain name: {line['key'][:80]!r}")
        if line["kind"] not in KINDS or line["status"] not in STATES:
            raise ValueError(f"a record of kind {line['kind']!r} and status {line['status']!r}")
        rest = {name: value for name, value in line.items() if name not in OWN}
        return cls(
            **{name: line[name] for name in TYPES},
            labels={name: value for name, value in rest.items() if isinstance(value, str)},
            metrics={name: value for name, value in rest.items() if isinstance(value, int | float)},
        )


def parse(text: str | bytes) -> Any:
    """The value of a JSON text from outside; raises ``ValueError`` for whatever cannot be one.

    Numbers that no float can hold are refused.

    >>> parse('{"epoch": 1}')
    {'epoch': 1}
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def entries(curve: Any) -> list[dict[str, Number]]:
    """The curve that was read from a file; raises ``ValueError`` for what is none."""
    if not isinstance(curve, list) or not all(
        isinstance(entry, dict) and {int, float} >= set(map(type, entry.values()))
        for entry in curve
    ):
        raise ValueError("a curve is a list of numbers by name")
    return curve


def _whole(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


class Store:
    """The records of one results folder, safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "records.jsonl"

    def add(self, record: Record) -> None:
        """Write a record: first its curve, then its line, each whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if record.curve:
            write(self._curve(record), json.dumps(list(record.curve)))
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
        try:
            content = self._curve(record).read_bytes()
        except OSError:
            return list(map(dict, record.curve))
        try:
            return entries(parse(content))
        except ValueError:
            return []

    def _curve(self, record: Record) -> Path:
        return self.folder / "curves" / f"{record.name}.json"

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: into a neighbour first, then moved into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with neighbour.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)
