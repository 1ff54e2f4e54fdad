"""Figures 3, 4 and 6 to 8 of the paper from records: what is drawn, and the caption."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.paper.experiments import Cell, Experiment
from bench.records.record import Curve, Record
from bench.records.statistics import mean_interval
from bench.reporting.panels import Estimate, Estimates, Panel, count_span, error_lines
from bench.training import optimizers

CurveReader = Callable[[Record], Curve]

SETTLED = 0.001
"""A run has converged once its test accuracy stays this close to that of its last epoch."""


@dataclass(frozen=True)
class Figure:
    """A figure before it is drawn.

    Attributes:
        name: The name of its files.
        panels: What is drawn.
        caption: What it shows, over how many seeds, and what is missing.
        missing: The seeds that each incomplete cell lacks.
    """

    name: str
    panels: Sequence[Panel | Estimates]
    caption: str
    missing: Mapping[Cell, Sequence[int]]


def figure_of(experiment: Experiment, records: Sequence[Record], curves: CurveReader) -> Figure:
    """The figure of an experiment.

    Args:
        experiment: One of those in `PANELS`, at any scale.
        records: Records of runs; those of other recipes are left out.
        curves: Reads the curve of a record.

    Raises:
        ValueError: The experiment is a table, or shows images.
    """
    if experiment.name not in PANELS:
        raise ValueError(
            f"{experiment.name} is not drawn from records: choose one of {', '.join(PANELS)}"
        )
    keys = {recipe.key for recipe in experiment.cells.values()}
    own = [record for record in records if record.key in keys]
    panels, meaning = PANELS[experiment.name](experiment, own, curves)
    missing = experiment.missing(own)
    counts = {len(seeds) for seeds in experiment.values(own).values() if seeds}
    parts = [f"{experiment.heading}. {meaning} n = {count_span(counts)} seeds."]
    scale = experiment.scale
    if experiment.stands_for:
        parts.append(f"Scale {scale.name} ({scale.about}): not comparable with the paper.")
    parts += experiment.told
    if missing:
        names = ", ".join(f"{row} on {column.label}" for row, column in missing)
        parts.append(f"Missing or short of seeds: {textwrap.shorten(names, 300)}.")
    return Figure(f"{experiment.name}-{scale.name}", panels, " ".join(parts), missing)


def gained_accuracy(
    experiment: Experiment, records: Sequence[Record], _: CurveReader
) -> tuple[list[Estimates], str]:
    """Figures 3 and 4: the accuracy gained over the baseline, or over the row without AdvMask."""
    found = experiment.values(records)
    rivals = dict(experiment.against) or {
        row: str(experiment.baseline) for row in experiment.rows if row != experiment.baseline
    }
    panels = []
    for column in experiment.columns:
        entries = []
        for row, rival in rivals.items():
            ours, theirs = found.get((row, column), {}), found.get((rival, column), {})
            gained = [100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]
            entries.append(Estimate(row, mean_interval(gained) if gained else None, gained))
        panels.append(Estimates(column.label, "accuracy gained / points", entries, zero=True))
    of = "the same method without AdvMask" if experiment.against else "the baseline"
    return panels, (
        f"Accuracy after the last epoch minus that of {of}, paired by seed, in percentage points. "
        "Markers: mean; bars: 95 % t-interval; grey dots: single seeds."
    )


def convergence_epoch(curve: Curve) -> int | None:
    """The first epoch from which the test accuracy stays within `SETTLED` of the last one's.

    >>> convergence_epoch([{"test_accuracy": a} for a in (0.5, 0.9, 0.8, 0.9, 0.9)])
    4
    """
    accuracies = [entry.get("test_accuracy", math.nan) for entry in curve]
    if not accuracies:
        return None
    away = [abs(value - accuracies[-1]) > SETTLED + 1e-12 for value in accuracies]
    return max((epoch for epoch, far in enumerate(away, 1) if far), default=0) + 1


def training_time(
    experiment: Experiment, records: Sequence[Record], curves: CurveReader
) -> tuple[list[Estimates], str]:
    """Figure 6: seconds per epoch, and epochs until convergence."""
    by_key: dict[str, list[float]] = {}
    for record in records:
        epochs = convergence_epoch(curves(record)) if record.status == "finished" else None
        if epochs is not None and record.seed < experiment.scale.seeds:
            by_key.setdefault(record.key, []).append(float(epochs))
    seconds, epochs_of = [], []
    for (row, _), found in experiment.values(records).items():
        values = list(found.values())
        seconds.append(Estimate(row, mean_interval(values) if values else None, values))
    for (row, _), recipe in experiment.cells.items():
        values = by_key.get(recipe.key, [])
        epochs_of.append(Estimate(row, mean_interval(values) if values else None, values))
    return [
        Estimates("Time", "seconds per epoch", seconds),
        Estimates("Convergence", "epochs", epochs_of),
    ], (
        "Left: seconds per training epoch, without the test. Right: first epoch from which the "
        "test accuracy stays within 0.1 points of the last epoch's. Markers: mean; bars: 95 % "
        "t-interval; grey dots: single seeds."
    )


def test_errors(
    experiment: Experiment, records: Sequence[Record], curves: CurveReader
) -> tuple[list[Panel], str]:
    """Figure 7: the test error over the epochs."""
    panels = []
    for column in experiment.columns:
        members: dict[str, list[Curve]] = {}
        epochs = 1
        for row in experiment.rows:
            recipe = experiment.cells[row, column]
            epochs = recipe.epochs
            members[row] = [
                curves(record)
                for record in experiment.seeded(records)
                if record.key == recipe.key and record.status == "finished"
            ]
        marks = [step * epochs for step in optimizers.STEPS]
        panels.append(
            Panel(column.label, "epoch", "test error / %", error_lines(members), marks=marks)
        )
    return panels, (
        "Lines: mean test error; bands: 95 % t-interval at each epoch; dotted: where the learning "
        "rate falls to a fifth."
    )


PARAMETERS = {"l": "length l / pixels of 32", "p": "deleted share p", "o": "overlap o"}


def parameter_sweeps(
    experiment: Experiment, records: Sequence[Record], _: CurveReader
) -> tuple[list[Estimates], str]:
    """Figure 8: the accuracy as one parameter moves."""
    found = experiment.values(records)
    panels = []
    for column in experiment.columns:
        entries = []
        for (row, other), seeds in found.items():
            if other == column:
                values = [100 * value for value in seeds.values()]
                entries.append(Estimate(row, mean_interval(values) if values else None, values))
        parameter = column.name
        panels.append(
            Estimates(parameter, "accuracy / %", entries, PARAMETERS.get(parameter, parameter))
        )
    return panels, (
        "Accuracy after the last epoch as one parameter of AdvMask moves and the others keep their "
        "values. Circles: mean; bars: 95 % t-interval; grey dots: single seeds."
    )


PANELS: dict[str, Callable[..., tuple[Sequence[Panel | Estimates], str]]] = {
    "figure3": gained_accuracy,
    "figure4": gained_accuracy,
    "figure6": training_time,
    "figure7": test_errors,
    "figure8": parameter_sweeps,
}
"""The figures that records alone suffice for, each with the function that makes its panels."""
