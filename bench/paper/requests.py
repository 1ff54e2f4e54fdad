"""The tables and figures that ``bench tables`` and ``bench figures`` make by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from bench import registry
from bench.data.dataset import Dataset
from bench.errors import Missing
from bench.execution.workspace import Workspace
from bench.paper import figures, image_figures, published, tables
from bench.paper.experiments import Experiment, missing_lines
from bench.paper.scales import OtherData
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import (
    attack_tables,
    budgets,
    commands,
    coverage,
    formats,
    plots,
    quality_table,
    run_tables,
)
from bench.reporting.cells import Column
from bench.reporting.figures import (
    DrawnFigure,
    attack_figures,
    coverage_figure,
    difference_figure,
    draw_panels,
    occlusion_figures,
    passes_figures,
    quality_figure,
)
from bench.reporting.grouping import Selection, group_attacks, group_runs
from bench.reporting.latex import Layout
from bench.reporting.panels import Unit
from bench.reporting.table import Table

TABLES = ("runs", "differences", "quality", "attacks", "changes", "passes", "coverage")
"""Tables of the records themselves; the others are those of experiments."""

PAPER_FIGURES = tuple(name for name in tables.EXPERIMENTS if name.startswith("figure"))
OWN_FIGURES = ("differences", "quality", "attacks", "passes", "occlusion", "coverage")
"""Figures of the records themselves."""
OF_RUNS = {"differences": difference_figure, "quality": quality_figure}
"""Those that compare runs with a baseline."""

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
            replace(table, columns=[each for each in table.columns if _headed(each, patterns)])
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
    names = (*TABLES, *tables.EXPERIMENTS)
    if request.name not in names:
        raise ValueError(
            f"there is no table {request.name!r}: {registry.suggest(request.name, names)}"
        )
    metric, selected = request.metric, request.selection
    store = Store(workspace.results)
    if request.name == "coverage":
        return _tables_of_coverage(selected, store, workspace)
    if request.name in ("changes", "passes"):
        return MadeTables(_tables_of_budgets(request, _attacks(selected, store), store))
    if request.name != "attacks" and metric not in (None, *run_tables.METRICS):
        known = ", ".join(run_tables.METRICS)
        raise ValueError(f"runs have no metric {metric!r}: choose one of {known}")
    if request.name in ("runs", "differences", "quality"):
        return _tables_of_runs(request, selected.runs(store.all()))
    if request.name == "attacks":
        return _tables_of_attacks(_attacks(selected, store), metric)
    data = None if selected.data is None else _dataset(selected.data, workspace)
    experiment = tables.experiment(request.name, request.scale, _other(data))
    records = store.all()
    if experiment.attacks is not None:
        return _experiment_of_attacks(experiment, selected.attacks(records), metric)
    if experiment.points is not None:
        raise ValueError(f"{request.name} has no table: bench figures {request.name} draws it")
    if metric is not None:
        experiment = replace(experiment, metric=metric)
    missing = missing_lines(experiment, experiment.missing(records))
    return MadeTables(experiment.tables(records), missing, complete=not missing)


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
    return [budgets.success_within(members, store.curve, unit) for members in settings]


def _experiment_of_attacks(
    experiment: Experiment, records: Sequence[Record], metric: str | None
) -> MadeTables:
    """The attacks of an experiment, and those that it lacks."""
    settings = experiment.attacks
    assert settings is not None
    own = settings.own(records)
    missing = [f"missing: {each}" for each in settings.missing(own)]
    if missing:
        missing.append(f"{experiment.name} is not complete: {experiment.command()}")
    made = experiment.tables(own)
    if metric is not None:
        made = [attack_tables.across_victims(own, metric)] if own else []
    return MadeTables(made, missing, not missing, attack_tables.attack_entries(own))


def _other(data: Dataset | None) -> OtherData | None:
    return None if data is None else OtherData.of(data)


def _dataset(typed: str, workspace: Workspace) -> Dataset:
    """A dataset by the name or path that a user types."""
    workspace, name = workspace.locate(typed)
    return workspace.dataset(name)


def _tables_of_runs(request: TableRequest, runs: Sequence[Record]) -> MadeTables:
    if not runs:
        raise ValueError("there are no runs for such a table yet: bench run makes them")
    metric, baseline = request.metric or "accuracy", request.baseline
    rows = dict.fromkeys(group.row.label for group in group_runs(runs))
    if request.name == "runs" and baseline not in rows and baseline != TableRequest.baseline:
        raise ValueError(f"no run is called {baseline!r}: {registry.suggest(baseline, rows)}")
    if request.name == "differences":
        return MadeTables([run_tables.differences(runs, metric, baseline)])
    if request.name == "quality":
        return MadeTables([quality_table.quality(runs, baseline)])
    table = run_tables.grid(runs, metric, baseline)
    entries = run_tables.intervals(runs, baseline, metric)
    return MadeTables([table], commands.missing_cells(table, runs), entries=entries)


def _tables_of_coverage(selected: Selection, store: Store, workspace: Workspace) -> MadeTables:
    """What the masks of runs delete, and those on a chosen dataset without any run."""
    made: list[Table] = []
    missing: list[str] = []
    entries: list[dict[str, Any]] = []
    if (found := coverage.recorded(selected.runs(store.all()))) is not None:
        made, entries = [found[0]], found[1]
    if selected.data is not None:
        try:
            data = _dataset(selected.data, workspace)
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


@dataclass(frozen=True, kw_only=True)
class FigureRequest:
    """Which figure is drawn.

    Attributes:
        name: One of `PAPER_FIGURES` or `OWN_FIGURES`, or ``all``.
        scale: The scale of a figure of the paper.
        unit: What counts as a change in the figure of attacks.
        baseline: The method with which runs are compared in the figure of differences.
        selection: Which records are used; a figure of the paper is that of its dataset.
    """

    name: str
    scale: str = "smoke"
    unit: Unit = "pixels"
    baseline: str = "none"
    selection: Selection = field(default_factory=Selection)


def make_figures(request: FigureRequest, workspace: Workspace) -> Iterator[DrawnFigure | str]:
    """Draw the figures of a request, one after the other.

    Args:
        request: What to draw.
        workspace: Where the records are, and the device of networks for activation maps.

    Yields:
        Each figure; of ``all`` also a line for each that cannot be drawn.

    Raises:
        ValueError: There are no records for such a figure.
        Missing: A dataset is not on this machine.
    """
    names = [request.name] if request.name != "all" else [*PAPER_FIGURES, *OWN_FIGURES]
    store = Store(workspace.results)
    records = store.all()
    finished = [record for record in records if record.status == "finished"]
    runs = request.selection.runs(finished)
    for name in names:
        try:
            if name in OF_RUNS:
                yield OF_RUNS[name](runs, request.baseline)
            elif name == "attacks":
                attacks = request.selection.attacks(finished)
                yield from attack_figures(attacks, store.curve, request.unit)
            elif name == "passes":
                attacks = request.selection.attacks(finished)
                yield from passes_figures(attacks, store.trace, request.unit)
            elif name == "occlusion":
                yield from occlusion_figures(runs, store.folder)
            elif name == "coverage":
                typed = request.selection.data
                known = sorted({run.labels["data"] for run in runs}) or ["digits"]
                for each in [typed] if typed else known:
                    yield coverage_figure(_dataset(each, workspace), workspace)
            else:
                yield paper_figure(replace(request, name=name), workspace)
        except (ValueError, Missing) as error:
            if request.name != "all":
                raise
            yield f"{name}: {error}"


def paper_figure(request: FigureRequest, workspace: Workspace) -> DrawnFigure:
    """Draw one figure of the paper; arguments and errors are those of `make_figures`."""
    store, typed = Store(workspace.results), request.selection.data
    records = store.all()
    data = None if typed is None else _dataset(typed, workspace)
    experiment = tables.experiment(request.name, request.scale, _other(data))
    numbers: Any
    found: figures.Figure | image_figures.ImageFigure
    if request.name in figures.PANELS:
        found = figures.figure_of(experiment, records, store.curve)
        drawings = draw_panels(found.panels)
        numbers = json.loads(formats.json(experiment.table(records)))["cells"]
    else:
        if data is None:
            shown = experiment.points or next(iter(experiment.cells.values())).data
            data = workspace.dataset(shown)
        if experiment.points is not None:
            found = image_figures.masks(experiment, data, store.folder)
        else:
            found = image_figures.activation_maps(
                experiment, records, data, store.folder, workspace.device
            )
        drawings = {
            "pdf": plots.draw_images(found.columns, "pdf"),
            "png": plots.draw_images(found.columns, "png"),
        }
        numbers = list(found.numbers)
    about = {
        "experiment": request.name,
        "scale": request.scale,
        "missing": [
            {"row": row, "column": column.label, "seeds": seeds}
            for (row, column), seeds in found.missing.items()
        ],
        "command": experiment.command(),
        "numbers": numbers,
    }
    return DrawnFigure(
        found.name, drawings, found.caption, about, missing=missing_lines(experiment, found.missing)
    )
