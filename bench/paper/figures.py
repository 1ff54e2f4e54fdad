"""Figures 3 to 8 of the paper from records: what is drawn, and what its caption must say."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.paper import experiments
from bench.paper.experiments import Cell, Experiment
from bench.records.record import Record
from bench.records.statistics import LEVEL, Interval, mean_interval
from bench.reporting.plots import Curve, Estimate, Estimates, Line, Panel, span
from bench.training import loop

Curves = Callable[[Record], Curve]

SETTLED = 0.001
"""A run has converged once its test accuracy stays this close to that of its last epoch."""
MOST = 120  # points of a line


@dataclass(frozen=True)
class Picture:
    """A figure before it is drawn; ``gaps`` are the seeds that each of its cells lacks."""

    name: str
    panels: Sequence[Panel | Estimates]
    caption: str
    gaps: Mapping[Cell, Sequence[int]]


def picture(experiment: Experiment, records: Sequence[Record], curves: Curves) -> Picture:
    """The figure of an experiment; raises ``ValueError`` for one that shows pictures or a table."""
    if experiment.name not in DRAWN:
        raise ValueError(
            f"{experiment.name} is not drawn from records: there are {', '.join(DRAWN)}"
        )
    keys = {recipe.key for recipe in experiment.cells.values()}
    mine = [record for record in records if record.key in keys]
    panels, meaning = DRAWN[experiment.name](experiment, mine, curves)
    gaps = experiments.gaps(experiment, mine)
    return Picture(
        f"{experiment.name}-{experiment.scale.name}",
        panels,
        caption(experiment, mine, meaning, gaps),
        gaps,
    )


def caption(
    experiment: Experiment,
    records: Sequence[Record],
    meaning: str,
    gaps: Mapping[Cell, Sequence[int]],
) -> str:
    """What is shown, over how many seeds, and what is missing."""
    counts = {len(seeds) for seeds in experiments.values(experiment, records).values() if seeds}
    n = span(counts)
    parts = [f"{experiment.title}. {meaning} n = {n} seeds."]
    if not experiment.scale.faithful:
        parts.append(
            f"Scale {experiment.scale.name} ({experiment.scale.about}): not comparable with the "
            "paper."
        )
    if gaps:
        names = textwrap.shorten(", ".join(f"{row} on {column}" for row, column in gaps), 300)
        parts.append(f"Missing or short of seeds: {names}.")
    return " ".join(parts)


def gains(
    experiment: Experiment, records: Sequence[Record], _: Curves
) -> tuple[list[Estimates], str]:
    """Figures 3 and 4: the accuracy above the baseline, or above the row's own rival."""
    found = experiments.values(experiment, records)
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
        panels.append(Estimates(column, "accuracy gained / points", entries, zero=True))
    of = "the same method without AdvMask" if experiment.against else "the baseline"
    return panels, (
        f"Accuracy after the last epoch minus that of {of}, paired by seed, in percentage points. "
        "Markers: mean; bars: 95 % t-interval; grey dots: single seeds."
    )


def converged(curve: Curve) -> int | None:
    """The first epoch from which the test accuracy stays within `SETTLED` of the last one's.

    >>> converged([{"test_accuracy": a} for a in (0.5, 0.9, 0.8, 0.9, 0.9)])
    4
    """
    accuracies = [entry.get("test_accuracy", math.nan) for entry in curve]
    if not accuracies:
        return None
    away = [abs(value - accuracies[-1]) > SETTLED + 1e-12 for value in accuracies]
    return max((epoch for epoch, far in enumerate(away, 1) if far), default=0) + 1


def times(
    experiment: Experiment, records: Sequence[Record], curves: Curves
) -> tuple[list[Estimates], str]:
    """Figure 6: seconds per epoch, and epochs until convergence."""
    by_key: dict[str, list[float]] = {}
    for record in records:
        epochs = converged(curves(record)) if record.status == "finished" else None
        if epochs is not None and record.seed < experiment.scale.seeds:
            by_key.setdefault(record.key, []).append(float(epochs))
    seconds, epochs_of = [], []
    for (row, _), found in experiments.values(experiment, records).items():
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


def error_lines(members: Mapping[str, Sequence[Curve]]) -> list[Line]:
    """One line of test error in percent per label, with the t-interval of each epoch as a band."""
    lines = []
    for label, curves in members.items():
        series = [
            [100 - 100 * float(entry.get("test_accuracy", math.nan)) for entry in curve]
            for curve in curves
            if curve
        ]
        if not series:
            continue
        length = min(len(each) for each in series)
        table = np.array([each[:length] for each in series])
        shown = np.unique(np.linspace(0, length - 1, min(length, MOST)).round().astype(int))
        mean = table.mean(0)
        band: list[tuple[float, float]] = []
        if len(table) > 1:
            from scipy.stats import t

            half = t.ppf((1 + LEVEL) / 2, len(table) - 1) * table.std(0, ddof=1)
            half = half / math.sqrt(len(table))
            low, high = (mean - half).clip(min=0), (mean + half).clip(max=100)
            band = [(float(low[i]), float(high[i])) for i in shown]
        lines.append(Line(label, [(float(i + 1), float(mean[i])) for i in shown], band=band))
    return lines


def errors(
    experiment: Experiment, records: Sequence[Record], curves: Curves
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
                for record in records
                if record.key == recipe.key and record.status == "finished"
            ]
        marks = [step * epochs for step in loop.STEPS]
        panels.append(Panel(column, "epoch", "test error / %", error_lines(members), marks=marks))
    return panels, (
        "Lines: mean test error; bands: 95 % t-interval at each epoch; dotted: where the learning "
        "rate falls to a fifth."
    )


PARAMETERS = {"l": "length l / pixels of 32", "p": "deleted share p", "o": "overlap o"}


def sweeps(
    experiment: Experiment, records: Sequence[Record], _: Curves
) -> tuple[list[Estimates], str]:
    """Figure 8: the accuracy as one parameter moves."""
    found = experiments.values(experiment, records)
    panels = []
    for column in experiment.columns:
        entries = []
        for (row, other), seeds in found.items():
            if other == column:
                values = [100 * value for value in seeds.values()]
                entries.append(Estimate(row, mean_interval(values) if values else None, values))
        parameter = column.partition(" / ")[0]
        panels.append(
            Estimates(parameter, "accuracy / %", entries, PARAMETERS.get(parameter, parameter))
        )
    return panels, (
        "Accuracy after the last epoch as one parameter of AdvMask moves and the others keep their "
        "values. Circles: mean; bars: 95 % t-interval; grey dots: single seeds."
    )


DRAWN: dict[str, Callable[..., tuple[Sequence[Panel | Estimates], str]]] = {
    "figure3": gains,
    "figure4": gains,
    "figure6": times,
    "figure7": errors,
    "figure8": sweeps,
}
"""Experiment → what draws it."""

OCCLUDED = {"random": "random cells", "important": "most important pixels"}


def occlusions(members: Mapping[str, Sequence[Curve]], title: str = "") -> list[Panel]:
    """The accuracy under growing occlusion; a panel for each kind, a line with a band per label."""
    panels = []
    for kind, name in OCCLUDED.items():
        lines = []
        for label, curves in members.items():
            shares = [float(entry["share"]) for entry in curves[0]]
            intervals = [
                mean_interval([100 * float(curve[place][kind]) for curve in curves])
                for place in range(len(shares))
            ]
            lines.append(
                Line(
                    label,
                    [(100 * s, each.mean) for s, each in zip(shares, intervals, strict=True)],
                    band=[_ends(each) for each in intervals] if len(curves) > 1 else (),
                )
            )
        panels.append(Panel(f"{title} {name}".strip(), "hidden / %", "accuracy / %", lines))
    return panels


def _ends(interval: Interval) -> tuple[float, float]:
    half = interval.half or 0.0
    return max(interval.mean - half, 0.0), min(interval.mean + half, 100.0)
