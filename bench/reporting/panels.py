"""What a figure shows, before it is drawn: lines and estimates with their intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.records.record import Curve, Record
from bench.records.statistics import LEVEL, Interval, mean_interval, quantile, wilson
from bench.reporting.cells import Column, Row
from bench.reporting.grouping import eps_values, rows_of_attacks

Unit = Literal["pixels", "elements"]

LONGEST_LINE = 120  # points of a line; more cannot be told apart in print


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: Its name in the legend.
        points: Its (x, y).
        steps: Whether it rises at each point and is level between them.
        band: The lower and upper end of an interval for each point; empty without one.
    """

    label: str
    points: Sequence[tuple[float, float]]
    steps: bool = False
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes with lines.

    Attributes:
        title: Above the axes.
        x: The label of the horizontal axis.
        y: The label of the vertical axis.
        lines: What is drawn.
        logarithmic: Whether the horizontal axis is.
        steep: Whether the vertical axis is logarithmic.
        marks: Positions on the horizontal axis at which a thin vertical line is drawn.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    logarithmic: bool = False
    marks: Sequence[float] = ()
    steep: bool = False


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval and the single seeds; without an interval it is drawn as a gap."""

    label: str
    interval: Interval | None
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Estimates:
    """One pair of axes with a row for each estimate, or with a line that joins them.

    Attributes:
        title: Above the axes.
        measure: What the numbers are, with their unit.
        entries: The estimates.
        parameter: The parameter whose values the labels are, for joined estimates; else empty.
        zero: Whether a line is drawn at zero, that is no difference.
    """

    title: str
    measure: str
    entries: Sequence[Estimate]
    parameter: str = ""
    zero: bool = False

    @property
    def joined(self) -> bool:
        """Whether the entries are values of one parameter."""
        return bool(self.parameter)


@dataclass(frozen=True)
class Distribution:
    """Many values under one name."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Distributions:
    """One pair of axes with a row for each distribution: its histogram, its mean and median.

    Attributes:
        title: Above the axes.
        measure: What the values are, with their unit.
        entries: The distributions.
        ends: The first and the last value of the horizontal axis.
        marks: Positions on the horizontal axis at which a thin vertical line is drawn.
    """

    title: str
    measure: str
    entries: Sequence[Distribution]
    ends: tuple[float, float]
    marks: Sequence[float] = ()


def count_span(counts: Collection[int]) -> str:
    """How many, from the fewest to the most.

    >>> count_span({5, 3, 4}), count_span({5}), count_span(set())
    ('3 to 5', '5', '0')
    """
    if not counts:
        return "0"
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))


def gain_panels(gained: Mapping[tuple[Row, Column], Sequence[float]]) -> list[Estimates]:
    """The paired differences of `run_tables.gains`, in points; one panel for each column."""
    methods = list(dict.fromkeys(row for row, _ in gained))
    panels = []
    for column in dict.fromkeys(column for _, column in gained):
        entries = []
        for row in methods:
            points = [100 * value for value in gained.get((row, column), ())]
            entries.append(Estimate(row.label, mean_interval(points) if points else None, points))
        title = textwrap.fill(column.label, 30)  # neighbours have little room
        panels.append(Estimates(title, "accuracy gained / points", entries, zero=True))
    return panels


def attack_caption(records: Sequence[Record], unit: Unit) -> str:
    """The caption of `attack_panels` for the records of one setting."""
    seeds = len({record.seed for record in records})
    spread = f"a line is the mean of n = {seeds} seeds, no band"
    if seeds == 1:
        spread = "a single seed; bands: Wilson's 95 % interval over the images"
    return (
        f"Share of {records[0].job['images']} images of {records[0].labels['data']} that each "
        f"attack breaks with at most so many changed {unit}; {spread}."
    )


def attack_panels(curves: Sequence[tuple[Record, Curve]], unit: Unit = "pixels") -> list[Panel]:
    """The share of images broken with at most so many changes, as the mean over seeds.

    Args:
        curves: The records of one setting, each with its curve.
        unit: What counts as a change.

    Returns:
        A panel for each eps with a line for each attack, without the dense attacks.
    """
    panels = []
    found = {id(record): curve for record, curve in curves}
    for eps in eps_values(record for record, _ in curves):
        members = [record for record, _ in curves if record.labels["eps"] == eps]
        lines = []
        for row, same in rows_of_attacks(members).items():
            if same[0].labels["role"] == "ceiling":
                continue
            points = mean_of_steps([share_steps(found[id(each)], unit) for each in same])
            band: list[tuple[float, float]] = []
            n = int(same[0].job.get("images", 0))
            # with all classes as targets, several attacks share an image
            if n and len(same) == 1 and same[0].labels.get("goal") != "all":
                band = [wilson(round(share * n), n) for _, share in points]
            lines.append(Line(row.label, points, steps=True, band=band))
        panels.append(
            Panel(f"eps = {eps}", f"changed {unit}, at most", "success", lines, logarithmic=True)
        )
    return panels


def share_steps(curve: Curve, unit: Unit) -> list[tuple[float, float]]:
    """The counts of changes at which the share of broken images rises, and that share.

    >>> share_steps([{"changes": 1.0, "pixels": 0.0, "elements": 0.5}], "elements")
    [(1.0, 0.5)]
    """
    found: list[tuple[float, float]] = []
    for entry in curve:
        if entry[unit] > (found[-1][1] if found else 0):
            found.append((entry["changes"], entry[unit]))
    return found


def mean_of_steps(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean of step functions that begin at 0.

    >>> mean_of_steps([[(1.0, 0.5)], [(2.0, 1.0)]])
    [(1.0, 0.25), (2.0, 0.75)]
    """
    if len(curves) == 1:
        return list(curves[0])
    places = sorted({place for curve in curves for place, _ in curve})

    whole = np.zeros(len(places))
    for curve in curves:
        known = [where for where, _ in curve]
        shares = np.maximum.accumulate([0.0, *(share for _, share in curve)])
        whole += shares[np.searchsorted(known, places, "right")]
    return list(zip(places, (whole / len(curves)).tolist(), strict=True))


def error_lines(members: Mapping[str, Iterable[Curve]]) -> list[Line]:
    """One line of test error in percent per label, with the t-interval of each epoch as a band."""
    lines = []
    for label, curves in members.items():
        series = [
            np.array([100 - 100 * float(entry.get("test_accuracy", math.nan)) for entry in curve])
            for curve in curves
            if curve
        ]
        if not series:
            continue
        length = min(len(each) for each in series)
        table = np.array([each[:length] for each in series])
        shown = np.unique(np.linspace(0, length - 1, min(length, LONGEST_LINE)).round().astype(int))
        mean = table.mean(0)
        band: list[tuple[float, float]] = []
        if len(table) > 1:
            half = quantile((1 + LEVEL) / 2, len(table) - 1) * table.std(0, ddof=1)
            half = half / math.sqrt(len(table))
            low, high = (mean - half).clip(min=0), (mean + half).clip(max=100)
            band = [(float(low[i]), float(high[i])) for i in shown]
        lines.append(Line(label, [(float(i + 1), float(mean[i])) for i in shown], band=band))
    return lines


OCCLUSIONS = {"random": "random cells", "important": "most important pixels"}


def occlusion_panels(members: Mapping[str, Sequence[Curve]], title: str = "") -> list[Panel]:
    """The accuracy under growing occlusion; a panel for each kind, a line with a band per label."""
    panels = []
    for kind, name in OCCLUSIONS.items():
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
