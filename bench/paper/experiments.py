"""An experiment is a table of jobs; run it and you have a table of records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from bench import registry
from bench.data.catalog import facts
from bench.records.record import Record
from bench.records.statistics import Comparison, compare, mean_interval
from bench.reporting.table import Table
from bench.robustness.judge import Aim
from bench.studies.jobs import Job
from bench.training.recipes import Recipe, usual

Cell = tuple[str, str]
"""(row, column)."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large an experiment is run.

    ``data`` and ``models`` name what stands in for the paper's data sets and networks, ``columns``
    how many of a table's columns are kept (None: all), ``settings`` replace those of the recipes.
    ``side`` and ``digest`` belong to a data set that has no name of its own.
    """

    name: str
    about: str
    seeds: int
    data: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    columns: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    side: int | None = None
    digest: str = ""

    @property
    def faithful(self) -> bool:
        """Whether its numbers may be held against the published ones."""
        return not (self.data or self.models or self.settings)

    def recipe(self, data: str, model: str, augmentation: str = "none", **fields: Any) -> Recipe:
        """The recipe of one cell: the paper's, or what stands in for it at this scale."""
        data = self.data.get(data, self.data.get("*", data))
        model = self.models.get(model, self.models.get("*", model))
        side = self.side or facts(data).side
        return Recipe(
            data=data,
            digest=self.digest,
            model=model,
            augmentation=registry.build("augmentations", augmentation, data=data, side=side),
            **(usual(data, model, side) | fields | dict(self.settings)),
        )


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """An evaluation of attacks: the dataset, the bounds, the images and how targets are chosen."""

    data: str
    eps: tuple[Fraction, ...]
    images: int
    aim: Aim


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table of jobs: a recipe per cell and the metric to show.

    ``published`` holds what the paper printed, in its units; ``starred`` the cells it took from
    other papers. ``against`` names the row that a row is compared with where that is not
    ``baseline``. ``chosen`` says what the paper leaves open and what we chose. ``attacks`` is an
    evaluation of attacks instead of recipes (Table 6).
    """

    name: str
    title: str
    source: str
    scale: Scale
    cells: Mapping[Cell, Recipe] = field(default_factory=dict)
    metric: str = "accuracy"
    baseline: str | None = None
    against: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[Cell, float] = field(default_factory=dict)
    starred: frozenset[Cell] = frozenset()
    chosen: str = ""
    attacks: AttackSettings | None = None
    kind: Literal["table", "figure"] = "table"

    @property
    def rows(self) -> list[str]:
        """Row names in order."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        """Column names in order."""
        return list(dict.fromkeys(column for _, column in self.cells))

    def jobs(self) -> list[Job]:
        """Every training that the experiment needs, each once."""
        recipes = list({recipe.key: recipe for recipe in self.cells.values()}.values())
        return [Job(recipe, seed) for recipe in recipes for seed in range(self.scale.seeds)]


def cut(cells: Mapping[Cell, Any], columns: int | None) -> dict[Cell, Any]:
    """The cells of the first columns."""
    kept = list(dict.fromkeys(column for _, column in cells))[:columns]
    return {cell: value for cell, value in cells.items() if cell[1] in kept}


def values(
    experiment: Experiment, records: Iterable[Record], metric: str | None = None
) -> dict[Cell, dict[int, float]]:
    """The metric of each cell, by seed; failed and missing seeds are left out."""
    metric = metric or experiment.metric
    by_key: dict[str, dict[int, float]] = {}
    for record in records:
        value = record.metrics.get(metric)
        if record.status == "finished" and value is not None and math.isfinite(value):
            by_key.setdefault(record.key, {})[record.seed] = float(value)
    seeds = set(range(experiment.scale.seeds))
    return {
        cell: {seed: value for seed, value in by_key.get(recipe.key, {}).items() if seed in seeds}
        for cell, recipe in experiment.cells.items()
    }


def gaps(
    experiment: Experiment, records: Iterable[Record], metric: str | None = None
) -> dict[Cell, list[int]]:
    """The seeds that each cell still lacks, failed ones among them; complete cells are left out."""
    found = values(experiment, records, metric)
    lacking = {
        cell: [seed for seed in range(experiment.scale.seeds) if seed not in seeds]
        for cell, seeds in found.items()
    }
    return {cell: seeds for cell, seeds in lacking.items() if seeds}


def table(experiment: Experiment, records: Sequence[Record]) -> Table:
    """The experiment as a table: an interval per cell, comparisons, published numbers beside."""
    found = values(experiment, records)
    failures = Counter(record.key for record in records if record.status == "failed")
    fraction = experiment.metric.startswith("accuracy")
    comparisons: dict[Cell, Comparison] = {}
    for column in experiment.columns:
        family = {row: found[row, column] for row in experiment.rows if (row, column) in found}
        comparisons |= {
            (row, column): comparison for row, comparison in held(experiment, family).items()
        }
    scale = experiment.scale
    note = "" if scale.faithful else f", at scale {scale.name}, not comparable with the published"
    return Table(
        title=experiment.title,
        rows=experiment.rows,
        columns=experiment.columns,
        cells={cell: mean_interval(list(v.values())) if v else None for cell, v in found.items()},
        percent=experiment.columns if fraction else (),
        best=dict.fromkeys(experiment.columns, "high" if fraction else "low"),
        baseline=experiment.baseline,
        comparisons=comparisons,
        failed={cell: n for cell, r in experiment.cells.items() if (n := failures[r.key])},
        published={c: v for c, v in experiment.published.items() if c in experiment.cells},
        measure=f"{experiment.metric.replace('_', ' ').capitalize()}"
        + " in percent after the last epoch" * fraction
        + note,
        origin=experiment.source,
    )


def held(
    experiment: Experiment, family: Mapping[str, Mapping[int, float]]
) -> dict[str, Comparison]:
    """The comparisons of one column: rows against the baseline, or each against its own rival."""
    if experiment.against:
        return {
            row: compare({row: family[row], rival: family[rival]}, rival)[row]
            for row, rival in experiment.against.items()
            if row in family and rival in family
        }
    if experiment.baseline is not None and experiment.baseline in family:
        return compare(family, experiment.baseline)
    return {}
