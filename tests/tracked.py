"""Whether a tracker shows what the records hold, read with SQL alone."""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.records.record import Record


def runs(folder: Path) -> list[dict[str, Any]]:
    """Every run that is not deleted: its id, status, tags, and last value of each metric."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        found = {
            run: {"id": run, "status": status, "place": place, "tags": {}, "metrics": {}}
            for run, status, place in database.execute(
                "SELECT run_uuid, status, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
            )
        }
        for table, part in (("tags", "tags"), ("latest_metrics", "metrics")):
            for run, name, value in database.execute(f"SELECT run_uuid, key, value FROM {table}"):
                if run in found:
                    found[run][part][name] = value
    return list(found.values())


def records(folder: Path) -> dict[str, Record]:
    """The newest record of each name."""
    path = folder / "records.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Record.from_json(json.loads(line)) for line in lines]
    return {record.name: record for record in found}


def differences(folder: Path) -> list[str]:
    """What the tracker of a folder shows otherwise than the records, one line each."""
    known, found = records(folder), runs(folder)
    seeds = {run["tags"]["bench.name"]: run for run in found if kind(run) == "seed"}
    cells = {run["tags"]["bench.key"]: run for run in found if kind(run) == "cell"}
    members = defaultdict(list)
    for record in known.values():
        members[record.cell].append(record)
    rest = [run for name, run in seeds.items() if name not in known]
    rest += [run for key, run in cells.items() if key not in members]
    return [
        *(f"{name}: {n} runs" for name, n in Counter(map(named, found)).items() if n > 1),
        *(f"{run['id']}: artifacts elsewhere" for run in found if not inside(run, folder)),
        *(f"{named(run)}: {run['status']}" for run in rest if run["status"] != "KILLED"),
        *(
            f"{name}: {line}"
            for name, record in known.items()
            for line in of_seed(record, seeds.get(name), cells.get(record.cell, {}))
        ),
        *(
            f"{key}: {line}"
            for key, each in members.items()
            for line in of_cell(each, cells.get(key))
        ),
    ]


def of_seed(record: Record, run: dict[str, Any] | None, cell: dict[str, Any]) -> Iterator[str]:
    """What a child shows otherwise than its record."""
    if run is None:
        yield "no run"
        return
    state = "FINISHED" if record.status == "finished" else "FAILED"
    if run["status"] != state:
        yield f"{run['status']} and not {state}"
    for metric, value in record.metrics.items():
        if run["metrics"].get(metric) != value:
            yield f"{metric} is {run['metrics'].get(metric)}"
    if run["tags"].get("mlflow.parentRunId") != cell.get("id"):
        yield "another parent"
    if not (Path(run["place"].removeprefix("file://")) / "record.json").exists():
        yield "no artifact"


def of_cell(members: list[Record], run: dict[str, Any] | None) -> Iterator[str]:
    """What a parent shows otherwise than its records."""
    if run is None:
        yield "no parent"
        return
    done = [record for record in members if record.status == "finished"]
    state = "FINISHED" if len(done) == len(members) else "FAILED"
    if (run["status"], run["tags"]["bench.n"]) != (state, str(len(done))):
        yield f"{run['status']}, n = {run['tags']['bench.n']} of {len(done)}"
    if done and members[0].kind == "run":
        mean = statistics.fmean(record.metrics["accuracy"] for record in done)
        if abs(run["metrics"].get("accuracy_mean", -1) - mean) > 1e-9:
            yield f"mean {run['metrics'].get('accuracy_mean')} and not {mean}"
        if run["metrics"].get("accuracy_n") != len(done):
            yield f"n {run['metrics'].get('accuracy_n')} and not {len(done)}"


def kind(run: dict[str, Any]) -> str | None:
    """Whether a run is a child or a parent."""
    found: str | None = run["tags"].get("bench.kind")
    return found


def named(run: dict[str, Any]) -> str:
    """What a run is of."""
    found: str = run["tags"].get("bench.name") or run["tags"].get("bench.key") or run["id"]
    return found


def inside(run: dict[str, Any], folder: Path) -> bool:
    """Whether the artifacts of a run lie in the folder."""
    return Path(run["place"].removeprefix("file://")).is_relative_to(folder.resolve())
