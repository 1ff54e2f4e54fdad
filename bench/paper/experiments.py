"""An experiment is a table of recipes; its records make a table of results."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

from bench.paper.contrasts import Contrasts
from bench.paper.scales import Scale
from bench.records.record import Record
from bench.records.statistics import Comparison, compare, mean_interval
from bench.reporting.cells import Column, Row
from bench.reporting.coverage import mean_coverage
from bench.reporting.formats import Table
from bench.reporting.run_tables import metric_of_runs
from bench.robustness.judge import Aim
from bench.studies.jobs import Job
from bench.training.recipes import Recipe

Cell = tuple[str, Column]
"""The name of a row, and a column."""


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The attack evaluation of an experiment, over all attacks.

    Attributes:
        data: The dataset of the images.
        eps: The bounds of a change.
        images: How many images are attacked.
        aim: How targets are chosen.
    """

    data: str
    eps: tuple[Fraction, ...]
    images: int
    aim: Aim


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or figure of the paper, or a question: a recipe per cell and the metric to show.

    Attributes:
        name: Such as ``table1``.
        title: What it is about.
        source: Where the paper has it, or that it has not.
        scale: How large it is run.
        cells: The recipe of each cell.
        metric: The metric of runs that it shows.
        baseline: The row with which the others are compared.
        against: Rows that are compared with another row than the baseline, and that row.
        contrasts: Rows that are compared with each other, in tables of their own.
        published: What the paper prints, in the unit that it prints.
        starred: The cells whose number the paper takes from other papers.
        chosen: What the paper leaves open and what is chosen here.
        attacks: An attack evaluation instead of recipes (Table 6).
        kind: Whether the paper prints or draws it.
    """

    name: str
    title: str
    source: str
    scale: Scale
    cells: Mapping[Cell, Recipe] = field(default_factory=dict)
    metric: str = "accuracy"
    baseline: str | None = None
    against: Mapping[str, str] = field(default_factory=dict)
    contrasts: Sequence[Contrasts] = ()
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
    def columns(self) -> list[Column]:
        """Columns in order."""
        return list(dict.fromkeys(column for _, column in self.cells))

    def jobs(self) -> list[Job]:
        """Every training that the experiment needs, each once."""
        recipes = list({recipe.key: recipe for recipe in self.cells.values()}.values())
        return [Job(recipe, seed) for recipe in recipes for seed in range(self.scale.seeds)]

    def command(self) -> str:
        """The command that runs it."""
        words = ["bench", "run", self.name, "--scale", self.scale.name]
        if self.scale.side is not None:  # of a dataset other than the scale's
            words += ["--data", self.scale.data["*"]]
        return shlex.join(words)

    def values(self, records: Iterable[Record]) -> dict[Cell, dict[int, float]]:
        """The metric of each cell, by seed; failed and missing seeds are left out."""
        by_key: dict[str, dict[int, float]] = {}
        for record in records:
            value = record.metrics.get(self.metric)
            if record.status == "finished" and value is not None and math.isfinite(value):
                by_key.setdefault(record.key, {})[record.seed] = float(value)
        seeds = set(range(self.scale.seeds))
        return {
            cell: {seed: v for seed, v in by_key.get(recipe.key, {}).items() if seed in seeds}
            for cell, recipe in self.cells.items()
        }

    def missing(self, records: Iterable[Record]) -> dict[Cell, list[int]]:
        """The seeds that each incomplete cell lacks, failed ones among them."""
        lacking = {
            cell: [seed for seed in range(self.scale.seeds) if seed not in seeds]
            for cell, seeds in self.values(records).items()
        }
        return {cell: seeds for cell, seeds in lacking.items() if seeds}

    def table(self, records: Sequence[Record]) -> Table:
        """The experiment as a table, with comparisons and the published numbers beside ours."""
        found, metric = self.values(records), metric_of_runs(self.metric)
        failures = Counter(record.key for record in records if record.status == "failed")
        comparisons: dict[tuple[str, str], Comparison] = {}
        for column in self.columns:
            family = {row: found[row, column] for row in self.rows if (row, column) in found}
            for row, comparison in self._compare(family).items():
                comparisons[row, column.label] = comparison
        scale = self.scale
        note = f", at scale {scale.name}, not comparable with the published"
        return Table(
            title=self.title,
            rows=[Row(row) for row in self.rows],
            columns=[replace(c, percent=metric.percent, best=metric.best) for c in self.columns],
            cells=_labelled(
                {cell: mean_interval(list(v.values())) if v else None for cell, v in found.items()}
            ),
            baseline=self.baseline,
            comparisons=comparisons,
            failed=_labelled({c: n for c, r in self.cells.items() if (n := failures[r.key])}),
            published=_labelled({c: v for c, v in self.published.items() if c in self.cells}),
            measure=metric.measure() + ("" if scale.faithful else note),
            origin=self.source,
            coverage=_labelled({cell: self._coverage(cell, records) for cell in self.cells}),
        )

    def tables(self, records: Sequence[Record]) -> list[Table]:
        """`table`, and one for the contrasts of each column."""
        found, whole = self.values(records), self.table(records)
        every = [whole]
        for column in self.columns:
            values = {row: seeds for (row, its), seeds in found.items() if its == column}
            own = [(row, (row, column.label)) for row in values]
            failed = {row: whole.failed[key] for row, key in own if key in whole.failed}
            coverage = {row: whole.coverage[key] for row, key in own}
            for contrasts in self.contrasts:
                made = contrasts.table(values, failed, column.label, self.metric, coverage)
                scale = "" if self.scale.faithful else f", at scale {self.scale.name}"
                every.append(replace(made, measure=made.measure + scale, origin=self.source))
        return every

    def _coverage(self, cell: Cell, records: Iterable[Record]) -> dict[str, float]:
        """What the masks of a cell's runs delete, as the mean over its seeds."""
        key, seeds = self.cells[cell].key, range(self.scale.seeds)
        return mean_coverage(each for each in records if each.key == key and each.seed in seeds)

    def _compare(self, family: Mapping[str, Mapping[int, float]]) -> dict[str, Comparison]:
        """The rows of one column against the baseline, or each against its own rival."""
        if self.against:
            return {
                row: compare({row: family[row], rival: family[rival]}, rival)[row]
                for row, rival in self.against.items()
                if row in family and rival in family
            }
        if self.baseline is not None and self.baseline in family:
            return compare(family, self.baseline)
        return {}


def missing_lines(experiment: Experiment, missing: Mapping[Cell, Sequence[int]]) -> list[str]:
    """One line for each incomplete cell, and one with the command that fills them."""
    lines = [
        f"missing: {row} on {column.label}: seed {', '.join(map(str, seeds))}"
        for (row, column), seeds in missing.items()
    ]
    if not missing:
        return []
    cells = f"{len(missing)} of {len(experiment.cells)} cells are missing or failed"
    return [*lines, f"{cells}: {experiment.command()}"]


def first_columns(cells: Mapping[Cell, Recipe], count: int | None) -> dict[Cell, Recipe]:
    """The cells of the first columns; of all where ``count`` is None."""
    kept = list(dict.fromkeys(column for _, column in cells))[:count]
    return {cell: value for cell, value in cells.items() if cell[1] in kept}


def _labelled(cells: Mapping[Cell, Any]) -> dict[tuple[str, str], Any]:
    """The same cells as a table names them."""
    return {(row, column.label): value for (row, column), value in cells.items()}
