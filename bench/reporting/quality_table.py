"""What deletion buys: accuracy on occluded and corrupted images, and calibration, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.records.record import Record
from bench.records.statistics import Comparison
from bench.reporting import run_tables
from bench.reporting.cells import Cell, Column, Key
from bench.reporting.table import Table

NAMES = {
    "accuracy": "clean",
    "accuracy_occlusion": "occluded",
    "accuracy_corruption": "corrupted",
    "ece": "calibration error",
    "nll": "cross-entropy",
}
"""The metrics, by their names in records, and the headings of their columns."""


ACCURACIES = tuple(name for name in NAMES if name.startswith("accuracy"))
MEANING = (
    "on images with 10 to 80 % hidden in random cells, and on images each corrupted by one of 15 "
    "kinds of noise, blur, weather and compression."
)


def measured(records: Sequence[Record]) -> list[Record]:
    """Return the runs that have the metrics, and failed ones.

    Args:
        records: Records of runs.

    Raises:
        ValueError: No finished run has them.
    """
    known = [each for each in records if "nll" in each.metrics or each.status == "failed"]
    if not any(each.status == "finished" for each in known):
        raise ValueError(
            "no run was measured on occluded and corrupted images yet: bench run measures new ones"
        )
    return known


def quality(records: Sequence[Record], baseline: str | None = "none") -> Table:
    """Methods against the five metrics of `NAMES`, for each dataset and network.

    Every column is tested on its own: paired by seed, with Holm's correction over the methods.

    Args:
        records: Records of runs; those of before version 0.2 have the first metric alone.
        baseline: The method with which others are compared; None for no comparison.

    Raises:
        ValueError: No run has the metrics.
    """
    known = measured(records)
    grids = {name: run_tables.grid(known, name, baseline) for name in NAMES}
    first = grids["accuracy"]
    columns: list[Column] = []
    cells: dict[Key, Cell] = {}
    comparisons: dict[Key, Comparison] = {}
    failed: dict[Key, int] = {}
    for place, where in enumerate(first.columns):
        for name, heading in NAMES.items():
            own = grids[name].columns[place]
            column = replace(own, name=heading, group=where.label)
            columns.append(column)
            for row in first.rows:
                key, old = (row.label, column.label), (row.label, own.label)
                cells[key] = grids[name].cells.get(old)
                if old in grids[name].comparisons:
                    comparisons[key] = grids[name].comparisons[old]
                if old in first.failed:
                    failed[key] = first.failed[old]
    return replace(
        first,
        title="Accuracy on clean, occluded and corrupted images, and calibration",
        columns=columns,
        cells=cells,
        comparisons=comparisons,
        failed=failed,
        coverage={},
        measure="Accuracy (higher is better), expected calibration error in 15 bins, both in "
        "percent, and cross-entropy in nats (lower is better), after the last epoch",
        note=f"Columns from the left: accuracy on clean images, {MEANING}",
    )
