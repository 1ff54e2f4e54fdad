"""What a run costs, with the search for adversarial points counted in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.files.json_text import parse
from bench.points import guides
from bench.records.record import Record
from bench.records.statistics import Interval, mean_interval
from bench.reporting.table import Key, Table
from bench.training.recipes import Recipe

POINTS = ("attack", "random", "corners-matched", "saliency")
"""Guides that need the adversarial points: as they are, or their number."""


def table(groups: Mapping[str, Mapping[str, Sequence[Record]]], folder: Path) -> Table | None:
    """Seconds of training of each column and row, and with the points; None where none are known.

    ``folder`` is the results folder, whose sets of points say how long they took.
    """
    searches = point_seconds(folder)
    cells: dict[Key, Interval | str | None] = {}
    heads = ("accuracy", "seconds per run", "points / s", "seconds per run including points")
    for column, rows in groups.items():
        for row, members in rows.items():
            done = [record for record in members if record.status == "finished"]
            taken = [float(r.metrics["seconds"]) for r in done if "seconds" in r.metrics]
            right = [float(r.metrics["accuracy"]) for r in done if "accuracy" in r.metrics]
            if not taken:
                continue
            name = f"{row}, {column}"
            points = 0.0
            if uses_points(done[0]):
                points = searches.get(done[0].labels["data"], math.nan)
            whole = [points + seconds for seconds in taken]
            cells[name, heads[0]] = mean_interval(right) if right else None
            cells[name, heads[1]] = mean_interval(taken)
            cells[name, heads[2]] = "not known" if math.isnan(points) else f"{points:.1f}"
            cells[name, heads[3]] = "not known" if math.isnan(points) else mean_interval(whole)
    if not cells:
        return None
    return Table(
        title="Cost of a run",
        rows=list(dict.fromkeys(row for row, _ in cells)),
        columns=heads,
        cells=cells,
        corner="method, data / network",
        percent=[heads[0]],
        measure="Accuracy in percent and seconds of training and testing. The adversarial points "
        "of a data set are found once and shared by all runs; the last column charges the whole "
        "search to a single run, without the training of the network that is attacked",
    )


def point_seconds(folder: Path) -> dict[str, float]:
    """Data set → the seconds that finding its adversarial points took, the longest of several."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, float] = {}
    for path in sorted((folder / "points").glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                about = parse((file.metadata() or {})["about"])
            data, seconds = str(about["data"]), float(about["seconds"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
        if math.isfinite(seconds):
            found[data] = max(found.get(data, 0.0), seconds)
    return found


def uses_points(record: Record) -> bool:
    """Whether a run could not have been without the adversarial points."""
    try:
        return guides.needed(Recipe.from_json(dict(record.job))) in POINTS
    except (ValueError, TypeError, LookupError):
        return False
