"""Which experiments were run in a results folder: a report shows those, and adopts no other runs.

The recipes of a small experiment are easily those of somebody's own comparison, which is no table
of the paper until it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock

from bench.files import atomic
from bench.files.json_text import parse
from bench.paper import tables
from bench.paper.experiments import Experiment
from bench.paper.scales import OtherData

FILE, LARGEST, LONGEST = "experiments.jsonl", 2**20, 300
"""The file's name, the most bytes that are read of it, and the most characters of a name."""


def note(experiments: Iterable[Experiment], results: Path) -> None:
    """Add experiments to the list of a results folder, each once."""
    path = results / FILE
    with FileLock(path.with_suffix(".lock")):
        lines = path.read_text().splitlines() if path.exists() else []
        for each in experiments:
            entry: dict[str, object] = {"name": each.name, "scale": each.scale.name}
            if (data := each.scale.other) is not None:
                entry["data"] = data._asdict()
            lines.append(json.dumps(entry))
        atomic.write(path, "".join(f"{line}\n" for line in dict.fromkeys(lines)))


def asked(results: Path) -> Iterator[Experiment]:
    """The experiments that were run in a results folder; malformed lines are left out."""
    path = results / FILE
    if not path.is_file() or path.stat().st_size > LARGEST:
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = parse(line)
            data = entry.get("data")
            other = None if data is None else _data(data)
            yield tables.experiment(str(entry["name"]), str(entry["scale"]), other)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue


def _data(entry: dict[str, object]) -> OtherData:
    """A dataset as `note` wrote it; raises ``ValueError`` for anything else."""
    name, side, digest = entry["name"], entry["side"], entry["digest"]
    if not (isinstance(name, str) and isinstance(side, int) and isinstance(digest, str)):
        raise ValueError("a dataset has a name, a side and a digest")
    if not 0 < side <= 4096 or len(name) > LONGEST or len(digest) > LONGEST:
        raise ValueError("the side or a text is out of its range")
    return OtherData(name, side, digest)
