"""An experiment is a table of recipes; its records make a table of results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.files.text import command
from bench.paper.attack_settings import AttackSettings
from bench.paper.contrasts import Contrasts
from bench.paper.scales import DATA, Scale
from bench.records.coverage import mean_coverage
from bench.records.record import Record
from bench.records.statistics import Comparison, compare, compare_pairs, mean_interval
from bench.reporting.cells import Column, Published, Row
from bench.reporting.run_tables import metric_of_runs
from bench.reporting.table import Table
from bench.reporting.worst_case import Reader
from bench.studies.jobs import Job
from bench.training.recipes import Recipe, described

Cell = tuple[str, Column]
"""The name of a row, and a column."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or figure of the paper, or a question: a recipe per cell and the metric to show.

    Attributes:
        name: Such as ``table1``.
        title: What it is about, without the dataset.
        source: Where the paper has it, or that it has not.
        scale: How large it is run.
        cells: The recipe of each cell.
        metric: The metric of runs that it shows.
        baseline: The row with which the others are compared.
        against: Rows that are compared with another row than the baseline, and that row.
        contrasts: Rows that are compared with each other, in tables of their own.
        published: What the paper prints, in the unit that it prints.
        replicable: Whether the paper gives the recipe, so that its numbers can be compared with.
        stands_for: The columns that are not the paper's, and which of its columns each replaces.
        chosen: What the paper leaves open and what is chosen at its own scale.
        attacks: An attack evaluation instead of recipes (Table 6).
        points: The dataset whose adversarial points are shown, instead of recipes (Figure 2).
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
    published: Mapping[Cell, Published] = field(default_factory=dict)
    replicable: bool = True
    stands_for: Mapping[Column, Column] = field(default_factory=dict)
    chosen: str = ""
    attacks: AttackSettings | None = None
    points: str | None = None
    kind: Literal["table", "figure"] = "table"

    @property
    def rows(self) -> list[str]:
        """Row names in order."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[Column]:
        """Columns in order."""
        return list(dict.fromkeys(column for _, column in self.cells))

    @property
    def heading(self) -> str:
        """What it is about, with the datasets that it is run on."""
        groups = list(dict.fromkeys(column.group for column in self.columns if column.group))
        if self.attacks is not None:
            groups = [self.attacks.victim.data]
        if self.points is not None:
            groups = [self.points]
        return f"{self.title} ({', '.join(groups)})" if groups else self.title

    @property
    def replaced(self) -> str:
        """What stands in for what in the paper, as a sentence; empty where all is the paper's."""
        pairs = [f"{ours.label} for {paper.label}" for ours, paper in self.stands_for.items()]
        return f"Stand-ins for the paper's setting: {'; '.join(pairs)}." if pairs else ""

    @property
    def settings(self) -> str:
        """The settings of all recipes, as sentences."""
        if self.attacks is not None:
            return self.attacks.described
        if not self.cells:
            return ""
        columns: dict[str, list[str]] = {}
        for (_, column), recipe in self.cells.items():
            own = columns.setdefault(described(recipe), [])
            own += [column.label] * (column.label not in own)
        first, *others = sorted(columns, key=lambda text: -len(columns[text]))
        if not others:
            return f"Recipe: {first}."
        rest = " ".join(f"Of {', '.join(columns[text])}: {text}." for text in others)
        if len(columns[first]) == 1:
            return f"Recipe of {columns[first][0]}: {first}. {rest}"
        return f"Recipe: {first}. {rest}"

    @property
    def told(self) -> list[str]:
        """What a caption says: stand-ins, the recipe, and what the paper leaves open."""
        chosen = f"Left open by the paper, and chosen at its scale: {self.chosen}"
        parts = self.replaced, self.settings, chosen * bool(self.chosen)
        return [part for part in parts if part]

    def jobs(self) -> list[Job]:
        """Every training that the experiment needs, each once."""
        recipes = list({recipe.key: recipe for recipe in self.cells.values()}.values())
        return [Job(recipe, seed) for recipe in recipes for seed in range(self.scale.seeds)]

    def command(self) -> str:
        """The command that runs it."""
        words = ["bench", "run", self.name, "--scale", self.scale.name]
        if self.scale.other is not None:
            words += ["--data", self.scale.other.name]
        return command(words)

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

    def seeded(self, records: Iterable[Record]) -> list[Record]:
        """The records of the seeds that the experiment has at its scale."""
        return [record for record in records if record.seed < self.scale.seeds]

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
        failures = Counter(each.key for each in self.seeded(records) if each.status == "failed")
        comparisons: dict[tuple[str, str], Comparison] = {}
        for column in self.columns:
            family = {row: found[row, column] for row in self.rows if (row, column) in found}
            for row, comparison in self._compare(family).items():
                comparisons[row, column.label] = comparison
        note = f", at scale {self.scale.name}, not comparable with the published"
        printed = {column for _, column in self.published}
        known = {} if self.replicable else {column: column for column in printed}
        return Table(
            title=self.heading,
            rows=[Row(row) for row in self.rows],
            columns=[replace(c, percent=metric.percent, best=metric.best) for c in self.columns],
            cells=_labelled(
                {cell: mean_interval(list(v.values())) if v else None for cell, v in found.items()}
            ),
            baseline=self.baseline,
            comparisons=comparisons,
            failed=_labelled({c: n for c, r in self.cells.items() if (n := failures[r.key])}),
            published=_labelled({c: v for c, v in self.published.items() if c in self.cells}),
            settings={ours.label: of for ours, of in {**known, **self.stands_for}.items()},
            measure=f"{self.heading}. {metric.measure()}" + note * bool(self.stands_for),
            note=" ".join(self.told),
            origin=self.source,
            coverage=_labelled({cell: self._coverage(cell, records) for cell in self.cells}),
        )

    def tables(
        self, records: Sequence[Record], images: Reader = lambda record: record.images
    ) -> list[Table]:
        """`table`, and one for the contrasts of each column; those of attacks, if it has them.

        Args:
            records: Records of any kind.
            images: Reads what an attack did to each image, for the worst case over attacks.
        """
        if self.attacks is not None:
            norms = self.attacks.tables(records, images)
            return [replace(each, note=" ".join(self.told)) for each in norms]
        found, whole = self.values(records), self.table(records)
        every = [whole]
        for column in self.columns:
            values = {row: seeds for (row, its), seeds in found.items() if its == column}
            own = [(row, (row, column.label)) for row in values]
            failed = {row: whole.failed[key] for row, key in own if key in whole.failed}
            coverage = {row: whole.coverage[key] for row, key in own}
            for contrasts in self.contrasts:
                made = contrasts.table(values, failed, column.label, self.metric, coverage)
                scale = f", at scale {self.scale.name}" if self.stands_for else ""
                every.append(replace(made, measure=made.measure + scale, origin=self.source))
        return every

    def _coverage(self, cell: Cell, records: Iterable[Record]) -> dict[str, float]:
        """What the masks of a cell's runs delete, as the mean over its seeds."""
        key, seeds = self.cells[cell].key, range(self.scale.seeds)
        return mean_coverage(each for each in records if each.key == key and each.seed in seeds)

    def _compare(self, family: Mapping[str, Mapping[int, float]]) -> dict[str, Comparison]:
        """The rows of one column against the baseline, or each against its own rival."""
        if self.against:
            return compare_pairs(
                {
                    row: (family[row], family[rival])
                    for row, rival in self.against.items()
                    if row in family and rival in family
                }
            )
        if self.baseline is not None and self.baseline in family:
            return compare(family, self.baseline)
        return {}


def stand_in(experiment: Experiment, paper: Experiment) -> Experiment:
    """Head the columns of an experiment with what is run, where that is not what the paper ran.

    Two columns of the paper with the same stand-in become one, whose published numbers are those
    of the first.

    Args:
        experiment: The experiment at some scale, with the headings of the paper.
        paper: The same at the paper's scale.
    """
    whole = _replaced(experiment, paper)
    if whole:
        return replace(experiment, stands_for=whole)
    headings: dict[Column, Column] = {}
    for column in experiment.columns:
        own = {cell: each for cell, each in experiment.cells.items() if cell[1] == column}
        same = all(recipe.key == paper.cells[cell].key for cell, recipe in own.items())
        recipe = next(iter(own.values()))
        headings[column] = column if same else _heading(column, recipe)
    stands_for: dict[Column, Column] = {}
    for column, heading in headings.items():
        if heading != column:
            stands_for.setdefault(heading, column)
    kept = {
        column for column, heading in headings.items() if stands_for.get(heading, column) == column
    }
    return replace(
        experiment,
        cells={(row, headings[c]): recipe for (row, c), recipe in experiment.cells.items()},
        published={
            (row, headings[c]): value
            for (row, c), value in experiment.published.items()
            if c in kept
        },
        stands_for=stands_for,
    )


def _replaced(experiment: Experiment, paper: Experiment) -> dict[Column, Column]:
    """What stands in for what in an experiment without recipes."""
    ours, theirs = experiment.attacks, paper.attacks
    if ours is not None and theirs is not None and ours != theirs:
        victim = Column(ours.victim.model, group=ours.victim.data)
        return {victim: Column("a network that is not named", group="CIFAR-10")}
    if experiment.points is not None and experiment.points != paper.points:
        return {Column(experiment.points): Column("ImageNet")}
    return {}


def _heading(column: Column, recipe: Recipe) -> Column:
    """A column under the dataset and the network of a recipe."""
    if column.group in DATA:
        return Column(recipe.model, group=recipe.data)
    return Column(column.name, group=f"{recipe.data} / {recipe.model}")


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
