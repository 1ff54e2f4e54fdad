"""What the parent runs of the tracker show: intervals, tables and the learning curve over seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from bench.records.record import Curve, Record
from bench.records.tracking.runs import Place, place
from bench.records.tracking.shown import Cell, band
from bench.reporting import attack_tables, commands, formats, run_tables
from bench.training.recipes import Recipe

BANDS = ("test_accuracy", "validation_accuracy", "loss")
"""The entries of learning curves whose mean and interval a parent shows for each epoch."""


def cells(
    records: Iterable[Record],
    curve: Callable[[Record], Curve],
    only: Collection[Place] | None = None,
) -> list[Cell]:
    """What the parents show.

    Args:
        records: All records of a results folder: a method is compared with the baseline's.
        curve: Reads the curve of a record.
        only: The parents that are wanted; None: all.
    """
    wanted = [each for each in records if only is None or place(each)[0] in {d for d, _ in only}]
    runs = [record for record in wanted if record.kind == "run"]
    attacks = [record for record in wanted if record.kind == "attack"]
    members: dict[Place, list[Record]] = {}
    for record in wanted:
        members.setdefault(place(record), []).append(record)
    intervals: dict[Place, list[dict[str, Any]]] = {}
    for interval in [*run_tables.intervals(runs), *attack_tables.attack_intervals(attacks)]:
        intervals.setdefault((interval["data"] or "other", interval["key"]), []).append(interval)
    tables: dict[str, dict[str, str]] = {}
    for data in sorted({place(record)[0] for record in runs}):
        table = run_tables.grid([record for record in runs if place(record)[0] == data])
        tables[data] = {"table.tex": formats.latex(table), "table.md": formats.markdown(table)}
    return [
        Cell(
            records=each,
            intervals=intervals.get(where, ()),
            curve=functools.partial(_band, each, curve),
            files=tables[where[0]] if each[0].kind == "run" else {},
            note=_note(each),
        )
        for where, each in members.items()
        if only is None or where in only
    ]


def _band(records: Sequence[Record], curve: Callable[[Record], Curve]) -> Curve:
    """Mean and interval of the learning curves of finished trainings, epoch by epoch."""
    finished = [each for each in records if each.kind == "run" and each.status == "finished"]
    return band([curve(each) for each in finished], BANDS)


def _note(records: Sequence[Record]) -> str:
    """The command that makes the records of a training again; empty if it is unknown."""
    if records[0].kind != "run":
        return ""
    try:
        recipe = Recipe.from_json(dict(records[0].job))
        return f"`{commands.run(recipe, [record.seed for record in records])}`"
    except (ValueError, TypeError, LookupError):
        return ""
