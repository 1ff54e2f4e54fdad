"""Runs made equal to records: what a process left half done is finished, ended or removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bench.records.record import Record
from bench.records.tracking import shown
from bench.records.tracking.runs import Place, StudyRuns, is_live, place
from bench.records.tracking.shown import Cell

SHOWS = "bench.shows"
"""The tag of a parent with the checksum of all that it shows."""


def interrupted(runs: StudyRuns) -> set[Place]:
    """The parents below which a process left something running when it ended."""
    found: set[Place] = set()
    busy: set[Place] = set()
    for experiment, data in runs.experiments().items():
        for run in runs.find([experiment], "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            key = tags.get("bench.key" if tags.get("bench.kind") == "cell" else "bench.cell")
            if key is not None:
                (busy if is_live(run) else found).add((data, key))
    return found - busy


def tidy(
    runs: StudyRuns,
    wanted: Mapping[str, Record],
    only: Collection[Place] | None,
    anew: bool,
) -> list[Record]:
    """Remove or end what has no record.

    Args:
        runs: The runs of the study.
        wanted: The records by name.
        only: The parents to look at; None: all of the study.
        anew: Also remove children that are whole.

    Returns:
        The records that no whole run holds now.
    """
    held: set[str] = set()
    cells = set(map(place, wanted.values()))
    for experiment, data in runs.experiments().items():
        for run in runs.find([experiment], "tags.`bench.kind` = 'seed'"):
            name, where = run.data.tags["bench.name"], (data, run.data.tags["bench.cell"])
            if only is not None and where not in only:
                continue
            if _keep(runs, experiment, run, wanted.get(name), anew or name in held):
                held |= {name} if name in wanted else set()
                cells.add(where)
        for run in runs.find([experiment], "tags.`bench.kind` = 'cell'"):
            if only is None and (data, run.data.tags["bench.key"]) not in cells:
                runs.drop(run)
    return [record for name, record in wanted.items() if name not in held]


def _keep(runs: StudyRuns, experiment: str, run: Any, record: Record | None, anew: bool) -> bool:
    """Whether a child stays; it is ended or removed if it does not show its record."""
    state = run.info.status
    whole = record is not None and run.data.tags.get("bench.record") == shown.digest(record)
    if is_live(run) and not whole:
        return record is None  # it is being written, or `log` fills it
    if record is None:
        if state == "RUNNING":
            runs.client.set_terminated(run.info.run_id, "KILLED")
        elif state in ("FINISHED", "FAILED"):
            runs.drop(run)
        return state not in ("FINISHED", "FAILED")
    if whole and not anew:
        return bool(state == shown.status(record))
    runs.open_parent(experiment, record)
    runs.drop(run)
    return False


def settle(runs: StudyRuns, cell: Cell, anew: bool = False) -> None:
    """Let a parent show its records, and end it unless a child is running.

    Args:
        runs: The runs of the study.
        cell: What the parent shows.
        anew: Also write what seems to be there.
    """
    experiment = runs.experiment(place(cell.first)[0])
    parents = runs.parents(experiment, cell.key)
    same = (run for run in parents if run.data.tags.get(SHOWS) == cell.digest and not anew)
    kept = next(same, None)
    rest = [run for run in parents if run is not kept]
    if kept is None:
        # metrics cannot be replaced: where there are some, another run takes the parent's place
        empty = next((run for run in rest if not run.data.metrics), None)
        rest = [run for run in rest if run is not empty]
        target = empty.info.run_id if empty else runs.create_parent(experiment, cell.first)
        runs.write_cell(target, cell)
    else:
        target = kept.info.run_id
    if kept is None or rest:
        for child in runs.children(experiment, cell.key):
            if child.data.tags.get("mlflow.parentRunId") != target:
                runs.client.set_tag(child.info.run_id, "mlflow.parentRunId", target)
        for run in rest:
            runs.drop(run)
        runs.client.set_tag(target, SHOWS, cell.digest)
    if kept is None or kept.info.status != cell.status:
        _close(runs, experiment, target, cell.key, cell.finished, cell.status)


def abandon(runs: StudyRuns, where: Place) -> None:
    """End the parent of no records, unless a child is running."""
    experiment = runs.experiment(where[0])
    for run in runs.parents(experiment, where[1]):
        if run.info.status == "RUNNING":
            _close(runs, experiment, run.info.run_id, where[1], 0, "KILLED")


def _close(
    runs: StudyRuns, experiment: str, run: str, key: str, finished: int, status: str
) -> None:
    running = any(map(is_live, runs.children(experiment, key)))
    state = "running" if running else status.lower()
    runs.write(run, (), {"bench.n": str(finished), "bench.status": state})
    if not running:
        runs.client.set_terminated(run, status)


def verify(runs: StudyRuns, records: Iterable[Record]) -> None:
    """Check that each record is held by exactly one whole run.

    Raises:
        ValueError: One is not, or by several.
    """
    wanted = {record.name: shown.digest(record) for record in records}
    held = [
        run.data.tags for run in runs.find(list(runs.experiments()), "tags.`bench.kind` = 'seed'")
    ]
    whole = {
        tags["bench.name"]
        for tags in held
        if tags.get("bench.record", "") == wanted.get(tags["bench.name"])
    }
    if lost := len(wanted) - len(whole):
        raise ValueError(f"it lacks {lost} of {len(wanted)} records")
    if twice := len(held) - len({tags["bench.name"] for tags in held}):
        raise ValueError(f"it holds {twice} seeds twice")
