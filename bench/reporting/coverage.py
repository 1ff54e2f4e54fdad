"""What each augmentation really deletes: from records, or measured on a dataset without training.

Shares are those of the image that a mask deletes; see `bench.points.coverage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench import registry
from bench.data import masks
from bench.data.dataset import Dataset
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.points import coverage, find, guides
from bench.points.store import stored
from bench.records.coverage import mean_coverage
from bench.records.record import Record
from bench.records.statistics import Interval, mean_interval
from bench.reporting.cells import Cell, Column, Key, Row
from bench.reporting.grouping import group_runs
from bench.reporting.panels import Distribution, Distributions
from bench.reporting.table import Table
from bench.training import victims

SHOWN = {
    "deleted_share": Column("deleted", percent=True),
    "masks_below_minimum": Column("below minimum", percent=True),
    "masks_at_maximum": Column("at maximum", percent=True),
    "points_mean": Column("points"),
}
"""The metrics that tables show; JSON has all of `bench.records.coverage.NAMES`."""

MEANING = (
    "deleted share of an image, masks below p_min and masks at p_max, in percent; points per image"
)


def recorded(runs: Iterable[Record]) -> tuple[Table, list[dict[str, Any]]] | None:
    """What the masks of runs have deleted: methods against datasets and networks.

    Args:
        runs: Records of runs.

    Returns:
        A table, and its cells as JSON; None where no record has a deleted share, as those of
        version 0.1.
    """
    groups = [
        group for group in group_runs(runs) if "deleted_share" in mean_coverage(group.records)
    ]
    if not groups:
        return None
    rows: list[tuple[Row, Column, dict[str, Cell]]] = []
    entries = []
    for group in groups:
        values = {name: list(group.values(name).values()) for name in SHOWN}
        cells: dict[str, Cell] = {name: mean_interval(v) for name, v in values.items() if v}
        rows.append((group.row, group.column, cells))
        first = group.records[0]
        entry = {
            "augmentation": group.row.label,
            "model": first.labels.get("model", ""),
            "data": first.labels.get("data", ""),
            "key": first.key,
            "source": "records",
            "n": len(group.values("deleted_share")),
        }
        entries.append(entry | mean_coverage(group.records))
    measure = f"Masks of the last epoch: {MEANING}"
    return _table("Coverage of runs", rows, measure), entries


@dataclass(frozen=True)
class Measured:
    """The masks of one augmentation on the training images of a dataset.

    Attributes:
        name: Name of the augmentation.
        guide: The points that guide it, by the attack that found them or by the name of imported
            ones; ``"saliency"`` for that of a victim model; empty without a guide.
        coverage: What its masks delete.
        points: Statistics of its points, as records carry them; empty without points.
    """

    name: str
    guide: str
    coverage: coverage.Coverage
    points: dict[str, float]

    @property
    def row(self) -> Row:
        """The row of a table."""
        return Row(self.name, settings=self.guide)

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of coverage that is known."""
        return self.coverage.metrics | self.points


def measure(data: Dataset, workspace: Workspace) -> tuple[list[Measured], list[str]]:
    """Measure every registered augmentation on training images, without a training.

    Augmentations have the hyperparameters of the dataset. Those that want points are measured with
    each set of points that is stored for it, and those that want saliency with that of the victim
    model on which points are found, if it is stored.

    Args:
        data: The dataset; of more than `coverage.MOST` training images, so many are taken.
        workspace: Where points and victim models are stored.

    Returns:
        The measurements, and one line for each augmentation whose guide is not stored.

    Raises:
        ValueError: A stored set of points is damaged.
    """
    ids = coverage.sample(len(data.train.labels))
    h, w = data.train.images.shape[-2:]
    sets = {
        source: (points.guide()[ids], coverage.of_points(points))
        for source, points in stored(workspace.results, data).items()
    }
    found, missing = [], []
    for name in registry.classes("augmentations"):
        augmentation = registry.build("augmentations", name, data=data.name, side=w)
        if not augmentation.share.end:
            continue
        if augmentation.wants is None:
            covered = coverage.measure(augmentation, len(ids), (h, w))
            found.append(Measured(name, "", covered, {}))
        elif augmentation.wants == "saliency":
            victim = find.points_victim(data)
            assert victim.recipe is not None  # the default is trained here
            if not victims.place(victim.recipe, data, workspace).exists():
                missing.append(
                    f"{name} is left out: no victim model of {data.name} is stored, whose saliency "
                    "would guide it; bench points build trains one"
                )
                continue
            network = victim.load(workspace, Silent())
            guide = guides.gradients(data, network, workspace.device, ids=ids)
            covered = coverage.measure(augmentation, len(ids), (h, w), guide)
            found.append(Measured(name, "saliency", covered, {}))
        else:
            if not sets:
                missing.append(
                    f"{name} is left out: no points of {data.name} are stored; bench points build "
                    "finds them"
                )
            for source, (some, known) in sets.items():
                covered = coverage.measure(augmentation, len(ids), (h, w), some)
                found.append(Measured(name, source, covered, known))
    return found, missing


def measured_table(measured: Sequence[Measured], data: Dataset) -> Table:
    """The measurements of a dataset as a table."""
    column = Column(data.name)
    rows: list[tuple[Row, Column, dict[str, Cell]]] = [
        (
            each.row,
            column,
            {
                name: Interval(value, None, None, 1)
                for name, value in each.metrics.items()
                if name in SHOWN
            },
        )
        for each in measured
    ]
    count = len(measured[0].coverage.deleted) if measured else 0
    title = f"Masks on {count} training images of {data.name}, measured without a training"
    return _table(title, rows, f"{title}: {MEANING}")


def measured_entries(measured: Iterable[Measured], data: Dataset) -> list[dict[str, Any]]:
    """The measurements of a dataset as JSON."""
    return [
        {
            "augmentation": each.row.label,
            "model": "",
            "data": data.name,
            "source": "measured",
            "n": len(each.coverage.deleted),
            **each.metrics,
        }
        for each in measured
    ]


def panels(measured: Sequence[Measured], data: Dataset) -> list[Distributions]:
    """The distribution of the deleted share of each augmentation, with the bounds of AdvMask."""
    limits = sorted(
        {100 * end for each in measured for end in masks.bounds(each.coverage.augmentation) or ()}
    )
    entries = [
        Distribution(each.row.label, (100 * each.coverage.shares).tolist()) for each in measured
    ]
    title = f"{data.name}, without a training"
    return [Distributions(title, "deleted / %", entries, (0.0, 100.0), limits)]


def quantiles(measured: Measured) -> list[float]:
    """The deleted share at every twentieth of the masks, from the least to the most."""
    shares = measured.coverage.shares.double()
    found: list[float] = shares.quantile(torch.linspace(0, 1, 21, dtype=torch.float64)).tolist()
    return found


def _table(title: str, rows: Sequence[tuple[Row, Column, dict[str, Cell]]], measure: str) -> Table:
    """A table with a group of columns for each dataset and network."""
    cells: dict[Key, Cell] = {}
    columns: dict[Column, None] = {}
    for where in dict.fromkeys(column for _, column, _ in rows):
        own = [(row, found) for row, column, found in rows if column == where]
        for name, shown in SHOWN.items():
            if not any(name in found for _, found in own):
                continue
            column = Column(shown.name, group=where.label, percent=shown.percent)
            columns[column] = None
            for row, found in own:
                cells[row.label, column.label] = found.get(name, "")
    return Table(
        title=title,
        rows=list(dict.fromkeys(row for row, _, _ in rows)),
        columns=list(columns),
        cells=cells,
        measure=measure,
    )
