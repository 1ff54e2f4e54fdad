"""What a run costs, with the search for adversarial points counted in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from bench.files import plain
from bench.files.json_text import parse
from bench.points import find, guides
from bench.records.record import Record
from bench.records.statistics import mean_interval
from bench.reporting.cells import Cell, Column, Key, Row
from bench.reporting.grouping import RunGroup
from bench.reporting.table import Table
from bench.training.recipes import Recipe

COLUMNS = (
    Column("accuracy", percent=True),
    Column("seconds per run"),
    Column("seconds for points"),
    Column("seconds per run including points"),
)


def cost_table(groups: Iterable[RunGroup], results: Path) -> Table | None:
    """Seconds of training of each recipe, without and with the search for adversarial points.

    Args:
        groups: The runs, as `group_runs` groups them.
        results: The results folder, whose sets of points say how long their search took.

    Returns:
        A row for each recipe; None where no run says how long it took.
    """
    searches = point_seconds(results)
    cells: dict[Key, Cell] = {}
    rows = []
    for group in groups:
        done = [record for record in group.records if record.status == "finished"]
        taken = list(group.values("seconds").values())
        right = list(group.values("accuracy").values())
        if not taken:
            continue
        row = Row(f"{group.row.label}, {group.column.label}")
        rows.append(row)
        points = 0.0
        if uses_points(done[0]):
            attack = str(done[0].job.get("points") or find.SPARSE)
            points = searches.get((done[0].labels["data"], attack), math.nan)
        whole = mean_interval([points + seconds for seconds in taken]) if points >= 0 else None
        shown: tuple[Cell, ...] = (
            mean_interval(right) if right else None,
            mean_interval(taken),
            "not known" if whole is None else f"{points:.1f}",
            "not known" if whole is None else whole,
        )
        cells |= {(row.label, column.label): c for column, c in zip(COLUMNS, shown, strict=True)}
    if not cells:
        return None
    return Table(
        title="Cost of a run",
        rows=rows,
        columns=COLUMNS,
        cells=cells,
        corner="method, data / network",
        measure="Accuracy in percent and seconds of training and testing. The adversarial points "
        "of a dataset are found once and shared by all runs; the last column charges the whole "
        "search to a single run, without the training of the network that is attacked",
    )


def point_seconds(results: Path) -> dict[tuple[str, str], float]:
    """The seconds that finding adversarial points took, by dataset and attack.

    Of several sets, such as those of several victim models, it is the longest.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[tuple[str, str], float] = {}
    for path in sorted((results / "points").glob("*.safetensors")):
        if plain.wrong(path, results):
            continue
        try:
            with safe_open(path, "pt") as file:
                about = parse((file.metadata() or {})["about"])
            key = str(about["data"]), str(about["attack"])
            seconds = float(about["seconds"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
        if math.isfinite(seconds):
            found[key] = max(found.get(key, 0.0), seconds)
    return found


def uses_points(record: Record) -> bool:
    """Whether a run needs the adversarial points of its dataset."""
    try:
        return guides.from_points(Recipe.from_json(dict(record.job)))
    except (ValueError, TypeError, LookupError):
        return False
