"""The tables that ``bench tables`` makes by name.

Those of the records themselves need no torch: what does is imported where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import Missing, suggest
from bench.paper import published
from bench.records.method import Method
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import attack_tables, budgets, formats, quality_table, run_tables
from bench.reporting.cells import Column
from bench.reporting.grouping import Selection, group_attacks
from bench.reporting.latex import Layout
from bench.reporting.panels import Unit
from bench.reporting.table import Table
from bench.reporting.worst_case import compared

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from bench.execution.workspace import Workspace
    from bench.paper.experiments import Experiment
    from bench.paper.scales import OtherData

TABLES = ("runs", "differences", "quality", "attacks", "changes", "passes", "coverage")
"""Tables of the records themselves; the others are those of experiments."""

Style = Literal["text", "markdown", "latex", "csv", "json"]


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """Which table is made.

    Attributes:
        name: One of `TABLES`, or an experiment such as ``table1``.
        scale: The scale of an experiment.
        metric: The metric that is shown; None for the accuracy of runs and, of attacks, for all
            those of the paper's Table 6.
        baseline: The method with which runs are compared.
        selection: Which records are used; for an experiment with recipes only its dataset
            matters, on which the experiment is run then.
        unit: What counts as a change in the tables of changes and of passes.
        passes: The number of passes of one table over all victim models; None: a table for each
            with several numbers of passes.
        columns: Headings of the columns that are shown; none are all.
    """

    name: str = "runs"
    scale: str = "smoke"
    metric: str | None = None
    baseline: str = "none"
    selection: Selection = field(default_factory=Selection)
    unit: Unit = "pixels"
    passes: int | None = None
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class MadeTables:
    """The tables of a request.

    Attributes:
        tables: The tables; none where all their records are missing.
        missing: One line for each cell without results, with what to do.
        complete: Whether an experiment has all its results.
        entries: What JSON shows instead of the tables, where it has a form of its own.
    """

    tables: Sequence[Table]
    missing: Sequence[str] = ()
    complete: bool = True
    entries: Sequence[dict[str, Any]] | None = None

    def render(self, style: Style, layout: Layout = "one-column") -> str:
        """All tables in one of the formats; the layout is that of LaTeX."""
        if style == "json" and self.entries is not None:
            return json.dumps(self.entries, indent=1)
        if style == "csv":
            return formats.csv(*self.tables)
        if style == "json":
            return formats.json(*self.tables)
        if style == "latex":
            return "\n".join(formats.latex(table, layout) for table in self.tables)
        write = formats.text if style == "text" else formats.markdown
        return "\n".join(write(table) for table in self.tables)

    def only(self, patterns: Sequence[str]) -> MadeTables:
        """The same tables with some of their columns, and without those that have none of them.

        Args:
            patterns: Headings of columns: of one, of a group, or both as in "cifar10 / resnet18".
                They may hold the wildcards of a shell; none are all columns.

        Raises:
            ValueError: No table has a column of one of the patterns.
        """
        if not patterns:
            return self
        every = list(dict.fromkeys(column for table in self.tables for column in table.columns))
        for pattern in patterns:
            if not any(_headed(column, [pattern]) for column in every):
                known = ", ".join(column.label for column in every)
                raise ValueError(f"no column is headed {pattern!r}: there are {known}")
        made = [
            table.restricted([each for each in table.columns if _headed(each, patterns)])
            for table in self.tables
        ]
        return replace(self, tables=[table for table in made if table.columns])


def _headed(column: Column, patterns: Sequence[str]) -> bool:
    """Whether a heading of the column is one of the patterns."""
    headings = (column.name, column.group, column.label)
    return any(fnmatchcase(each.lower(), p.lower()) for p in patterns for each in headings)


def make_tables(request: TableRequest, workspace: Workspace) -> MadeTables:
    """Make the tables of a request.

    Args:
        request: What to make.
        workspace: Where the records are.

    Raises:
        ValueError: A name is unknown, or there are no records for such a table.
        Missing: The dataset of an experiment is not on this machine.
    """
    return _made(request, workspace).only(request.columns)


def _made(request: TableRequest, workspace: Workspace) -> MadeTables:
    """The tables of a request, with all of their columns."""
    metric, selected = request.metric, request.selection
    store = Store(workspace.results)
    if request.name == "coverage":
        return _tables_of_coverage(selected, store, workspace)
    if request.name in ("changes", "passes"):
        return MadeTables(_tables_of_budgets(request, _attacks(selected, store), store))
    if request.name not in TABLES:
        _check_experiment(request.name)
    if request.name != "attacks" and metric not in (None, *run_tables.METRICS):
        known = ", ".join(run_tables.METRICS)
        raise ValueError(f"runs have no metric {metric!r}: choose one of {known}")
    if request.name in ("runs", "differences", "quality"):
        return _tables_of_runs(request, _runs(request, store.all()))
    if request.name == "attacks":
        return _tables_of_attacks(compared(_attacks(selected, store), store.images), metric)
    return _tables_of_experiment(request, store, workspace)


def _check_experiment(name: str) -> None:
    from bench.paper import tables

    names = (*TABLES, *tables.EXPERIMENTS)
    if name not in names:
        raise ValueError(f"there is no table {name!r}: {suggest(name, names)}")


def _tables_of_experiment(request: TableRequest, store: Store, workspace: Workspace) -> MadeTables:
    from bench.paper import tables
    from bench.paper.experiments import missing_lines

    metric, selected = request.metric, request.selection
    data = None if selected.data is None else dataset(selected.data, workspace)
    experiment = tables.experiment(request.name, request.scale, other(data))
    records = store.all()
    if experiment.attacks is not None:
        return _experiment_of_attacks(experiment, selected.attacks(records), metric, store)
    if experiment.points is not None:
        raise ValueError(f"{request.name} has no table: bench figures {request.name} draws it")
    if metric is not None:
        experiment = replace(experiment, metric=metric)
    missing = missing_lines(experiment, experiment.missing(records))
    return MadeTables(experiment.tables(records), missing, complete=not missing)


def _runs(request: TableRequest, records: Sequence[Record]) -> list[Record]:
    """The runs that are selected, and always those of the baseline.

    Raises ``ValueError`` where there are runs, but none of the dataset and network.
    """
    selected = request.selection
    kept = selected.runs(records)
    if not kept and (others := run_tables.where(records)):
        asked = " / ".join(filter(None, (selected.data, selected.model)))
        raise ValueError(f"there are no runs of {asked}: there are {others}")
    if not selected.methods or request.baseline in selected.methods:
        return kept
    every = replace(selected, methods=()).runs(records)
    return [each for each in every if Method.of(each).name == request.baseline] + kept


def _attacks(selected: Selection, store: Store) -> list[Record]:
    """The attacks that are selected; raises ``ValueError`` without any."""
    attacks = selected.attacks(store.all())
    if not attacks:
        raise ValueError("there are no attacks for such a table yet: bench attack-eval makes them")
    return attacks


def _tables_of_budgets(
    request: TableRequest, attacks: Sequence[Record], store: Store
) -> list[Table]:
    """Success within so many changes, or the fewest changes after so many passes."""
    unit = request.unit
    if request.name == "passes" and request.passes is not None:
        return [budgets.equal_passes(attacks, store.trace, request.passes, unit)]
    settings = group_attacks(attacks).values()
    if request.name == "passes":
        return [budgets.fewest_after(members, store.trace, unit) for members in settings]
    return [
        budgets.success_within(compared(members, store.images), store.curve, unit)
        for members in settings
    ]


def _experiment_of_attacks(
    experiment: Experiment, records: Sequence[Record], metric: str | None, store: Store
) -> MadeTables:
    """The attacks of an experiment, and those that it lacks."""
    settings = experiment.attacks
    assert settings is not None
    own = settings.own(records)
    missing = [f"missing: {each}" for each in settings.missing(own)]
    if missing:
        missing.append(f"{experiment.name} is not complete: {experiment.command()}")
    made = experiment.tables(own, store.images)
    if metric is not None:
        shown = compared(own, store.images)
        made = [attack_tables.across_victims(shown, metric)] if own else []
    return MadeTables(made, missing, not missing, attack_tables.attack_entries(own))


def other(data: Dataset | None) -> OtherData | None:
    """How an experiment calls the dataset on which it is run instead; None: its own."""
    from bench.paper.scales import OtherData

    return None if data is None else OtherData.of(data)


def dataset(typed: str, workspace: Workspace) -> Dataset:
    """A dataset by the name or path that a user types."""
    workspace, name = workspace.locate(typed)
    return workspace.dataset(name)


def _tables_of_runs(request: TableRequest, runs: Sequence[Record]) -> MadeTables:
    if not runs:
        raise ValueError("there are no runs for such a table yet: bench run makes them")
    metric, baseline = request.metric or "accuracy", request.baseline
    run_tables.check_baseline(runs, baseline, whole=request.name == "runs")
    if request.name == "differences":
        return MadeTables([run_tables.differences(runs, metric, baseline)])
    if request.name == "quality":
        return MadeTables([quality_table.quality(runs, baseline)])
    table = run_tables.grid(runs, metric, baseline)
    entries = run_tables.intervals(runs, baseline, metric)
    missing: list[str] = []
    if table.missing():
        from bench.reporting import commands

        missing = commands.missing_cells(table, runs)
    return MadeTables([table], missing, entries=entries)


def _tables_of_coverage(selected: Selection, store: Store, workspace: Workspace) -> MadeTables:
    """What the masks of runs delete, and those on a chosen dataset without any run."""
    from bench.reporting import coverage

    made: list[Table] = []
    missing: list[str] = []
    entries: list[dict[str, Any]] = []
    if (found := coverage.recorded(selected.runs(store.all()))) is not None:
        made, entries = [found[0]], found[1]
    if selected.data is not None:
        try:
            data = dataset(selected.data, workspace)
        except Missing as error:
            if not made:
                raise
            missing = [str(error)]
        else:
            measured, missing = coverage.measure(data, workspace)
            made.append(coverage.measured_table(measured, data))
            entries += coverage.measured_entries(measured, data)
    if not made:
        raise ValueError(
            "no run says yet what its masks delete: bench run makes records that do, and --data "
            "measures the masks of every augmentation on a dataset"
        )
    return MadeTables(made, missing, entries=entries)


def _tables_of_attacks(attacks: Sequence[Record], metric: str | None) -> MadeTables:
    """Success and norms for each setting, or one metric over all of them."""
    if metric is not None:
        made = [attack_tables.across_victims(attacks, metric)]
    else:
        made = []
        for setting, members in group_attacks(attacks).items():
            # the paper's attacks have a target
            known = {} if setting.goal == "untargeted" else published.TABLE6
            made += attack_tables.norm_tables(members, known)
    return MadeTables(made, entries=attack_tables.attack_entries(attacks))
