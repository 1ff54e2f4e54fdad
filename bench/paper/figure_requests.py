"""The figures that ``bench figures`` makes by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bench.errors import Missing
from bench.execution.workspace import Workspace
from bench.paper import figures, image_figures, tables
from bench.paper.experiments import missing_lines
from bench.paper.requests import dataset, other
from bench.records.store import Store
from bench.reporting import formats, plots
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
from bench.reporting.grouping import Selection
from bench.reporting.panels import Unit

PAPER_FIGURES = tuple(name for name in tables.EXPERIMENTS if name.startswith("figure"))
OWN_FIGURES = ("differences", "quality", "attacks", "passes", "occlusion", "coverage")
"""Figures of the records themselves."""
OF_RUNS = {"differences": difference_figure, "quality": quality_figure}
"""Those that compare runs with a baseline."""


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
                    yield coverage_figure(dataset(each, workspace), workspace)
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
    data = None if typed is None else dataset(typed, workspace)
    experiment = tables.experiment(request.name, request.scale, other(data))
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
