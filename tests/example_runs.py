"""Example runs, their curve, and what a tracker holds of them."""

from __future__ import annotations

import math
from typing import Any

from bench.records.record import Record
from bench.records.tracking.shown import Cell
from bench.records.tracking.tracker import Tracker
from bench.reporting.tracked_cells import cells

CURVE = [{"epoch": epoch + 1, "loss": 1 / (epoch + 1), "test_accuracy": 0.5} for epoch in range(9)]


def record(seed: int = 0, method: str = "cutout", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kind": "run",
        "key": f"key-of-{method}",
        "seed": seed,
        "labels": {"augmentation": method, "data": "digits", "model": "resnet18"},
        "metrics": {"accuracy": 0.75 + seed / 100, "l0": math.inf, "loss": math.nan},
        "job": {"epochs": 9, "victim": {"data": "digits"}},
        "machine": {"device": "cpu"},
    }
    return Record(**fields | changes)


def shown(found: list[Record]) -> list[Cell]:
    """What the parents of these records show."""
    return cells(found, lambda each: CURVE)


def runs(tracker: Tracker, kind: str) -> list[Any]:
    """The seeds or the cells, oldest first."""
    experiments = [each.experiment_id for each in tracker.client.search_experiments()]
    return list(
        tracker.client.search_runs(
            experiments, f"tags.`bench.kind` = '{kind}'", order_by=["attributes.start_time ASC"]
        )
    )


def both() -> list[Record]:
    better = [record(seed, metrics={"accuracy": 0.9 + seed**2 / 1000}) for seed in range(3)]
    return [*(record(seed, "none") for seed in range(3)), *better]
