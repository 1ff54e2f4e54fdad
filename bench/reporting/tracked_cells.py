"""What the parent runs of the tracker show: intervals, tables and the learning curve over seeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from bench.records.record import Curve, Record
from bench.records.tracking.runs import Place, place
from bench.records.tracking.shown import Cell, band, title
from bench.reporting import attack_tables, commands, formats, plots, run_tables
from bench.reporting.panels import Panel, error_lines
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

    @functools.cache
    def tables(data: str) -> dict[str, str]:
        table = run_tables.grid([record for record in runs if place(record)[0] == data])
        return {"table.tex": formats.latex(table), "table.md": formats.markdown(table)}

    return [
        Cell(
            records=each,
            intervals=intervals.get(where, ()),
            curve=functools.partial(_band, each, curve),
            files=functools.partial(_files, each, curve, tables),
            note=_note(each),
        )
        for where, each in members.items()
        if only is None or where in only
    ]


def _band(records: Sequence[Record], curve: Callable[[Record], Curve]) -> Curve:
    """Mean and interval of the learning curves of finished trainings, epoch by epoch."""
    finished = [each for each in records if each.kind == "run" and each.status == "finished"]
    return band([curve(each) for each in finished], BANDS)


def _files(
    records: Sequence[Record],
    curve: Callable[[Record], Curve],
    tables: Callable[[str], Mapping[str, str]],
) -> dict[str, str | bytes]:
    """The tables of all trainings on the dataset, and the learning curve with its band."""
    if records[0].kind != "run":
        return {}
    found: dict[str, str | bytes] = dict(tables(place(records[0])[0]))
    curves = [curve(each) for each in records if each.status == "finished"]
    lines = error_lines({title(records[0]): [each for each in curves if each]})
    if any(line.band for line in lines):
        panel = Panel("", "epoch", f"test error / %, n = {len(curves)} seeds", lines)
        found["learning-curve.png"] = plots.draw([panel], "png")
    return found


def _note(records: Sequence[Record]) -> str:
    """The command that makes the records of a training again; empty if it is unknown."""
    if records[0].kind != "run":
        return ""
    try:
        recipe = Recipe.from_json(dict(records[0].job))
        return f"`{commands.run(recipe, [record.seed for record in records])}`"
    except (ValueError, TypeError, LookupError):
        return ""
