"""What commands leave when nothing happens, and whether it is there after a fault."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killed
from breaking.commands import ATTACKS, BEGINNINGS, POINTS, Case
from safetensors import numpy
from tracked import differences


@dataclass
class Count:
    """How often something was tried, and how often everything was there afterwards."""

    tried: int = 0
    survived: int = 0

    def note(self, good: bool) -> None:
        self.tried += 1
        self.survived += good


def bench(folder: Path, *arguments: str, start: tuple[str, ...] = ()) -> Any:
    """Start a command on a results folder of its own; in a new Python where that matters."""
    words = [word.replace("{folder}", str(folder)) for word in arguments]
    if not start and "--executor" not in words:
        return killed.Forked(words, folder)
    return subprocess.Popen(
        [sys.executable, *(start or ("-m", "bench")), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BENCH_RESULTS": str(folder)},
    )


def finish(process: Any) -> tuple[int, str]:
    """Wait; the exit code and what was said on stderr."""
    _, stderr = process.communicate(timeout=900)
    return process.returncode, stderr


def _kept(folder: Path, keep: Callable[[str], bool]) -> dict[str, dict[str, Any]]:
    """Some fields of each record by its name; fails for a record that is there twice."""
    found: dict[str, dict[str, Any]] = {}
    for line in (folder / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        name = f"{record['key']}-{record['seed']}"
        assert name not in found, f"{name} is there twice"
        found[name] = {field: value for field, value in record.items() if keep(field)}
    return found


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What the records say, without times."""
    return _kept(folder, lambda field: field.startswith("accuracy"))


def attacked(folder: Path) -> dict[str, dict[str, Any]]:
    """What the records say of attacks, without times and memory."""
    timed = ("seconds", "memory", "machine", "ratio")
    return _kept(folder, lambda field: not any(word in field for word in timed))


def blocks(folder: Path) -> dict[str, int]:
    """The finished blocks of attacked images, and when each was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.glob("attacks/*/goal-*.safetensors")
    }


def weights(folder: Path) -> dict[str, bytes]:
    """The final weights by name."""
    return {path.name: tensors(path) for path in (folder / "weights").glob("*.safetensors")}


def points(folder: Path) -> bytes:
    """The points that were found."""
    (path,) = (folder / "points").glob("*.safetensors")
    return tensors(path)


def tensors(path: Path) -> bytes:
    """The values of a safetensors file, without the header, whose entries come in any order."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


class Undisturbed:
    """What comes out when nothing happens, and how long it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.left: dict[str, dict[str, object]] = {}
        for name in ("run", "points", "attacks"):
            self.beginning(name)
        self.results, self.weights = results(folder / "run"), weights(folder / "run")
        self.points, self.attacked = points(folder / "points"), attacked(folder / "attacks")

    def beginning(self, name: str) -> Path:
        """A folder of `BEGINNINGS`, which is made when it is first asked for."""
        place = self.folder / name
        if not place.exists():
            begin, words = BEGINNINGS[name]
            if begin is not None:
                shutil.copytree(self.beginning(begin), place)
            start = time.monotonic()
            code, stderr = finish(bench(place, *words))
            assert code == 0, stderr
            self.seconds[name] = time.monotonic() - start
            if (place / "mine").exists():
                task = numpy.load_file(place / "mine/task.safetensors")
                unchanged = {part: task[part] for part in ("indices", "images")}
                numpy.save_file(unchanged, place / "mine/adversarial.safetensors")
        return place

    def begin(self, case: Case, place: Path) -> None:
        """Give a command the folder that it begins with."""
        if case.begin is not None:
            shutil.copytree(self.beginning(case.begin), place, dirs_exist_ok=True)

    def of(self, case: Case) -> dict[str, object]:
        """What a command leaves; see `content`."""
        if case.title in self.left:
            return self.left[case.title]
        made = (name for name, both in BEGINNINGS.items() if both == (None, case.words))
        if (name := next(made, None)) is not None:
            self.left[case.title] = content(self.beginning(name))
            self.seconds[case.title] = self.seconds[name]
        else:
            place = self.folder / "command"
            self.begin(case, place)
            start = time.monotonic()
            code, stderr = finish(bench(place, *case.words))
            assert code == 0, f"{case.title}: {code}, {stderr}"
            self.seconds[case.title] = time.monotonic() - start
            self.left[case.title] = content(place)
            shutil.rmtree(place, ignore_errors=True)
        return self.left[case.title]

    def completes(self, case: Case, place: Path) -> str:
        """Start a command again: what is then wrong, as text; empty if all is there."""
        code, stderr = finish(bench(place, *case.words))
        right, now = self.of(case), content(place)
        wrong = [name for name in right | now if right.get(name) != now.get(name)]
        return f"{code}, {wrong}\n{stderr}" if code or wrong or "Traceback" in stderr else ""

    def is_whole(self, folder: Path, arguments: list[str]) -> bool:
        """Whether a command has left there what it should."""
        if arguments is POINTS:
            return points(folder) == self.points
        if (folder / "mlflow.db").exists() and (lines := differences(folder)):
            print(f"  the tracker differs: {lines}", flush=True)
            return False
        if arguments is ATTACKS:
            return attacked(folder) == self.attacked
        return results(folder) == self.results and weights(folder) == self.weights


def content(folder: Path) -> dict[str, object]:
    """What a command leaves: its records, weights, points, names of files, and a true tracker."""
    found: dict[str, object] = {
        str(path.relative_to(folder)): tensors(path) if path.suffix == ".safetensors" else None
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] not in ("cache", "artifacts")
        and path.suffix != ".lock"
        and not path.name.startswith(".")  # what an ended process had not put into place
    }
    if (folder / "records.jsonl").exists():
        found |= attacked(folder)
    if (folder / "mlflow.db").exists():
        found["tracker"] = differences(folder) or None
    return found
