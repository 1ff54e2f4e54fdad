"""Figures for a paper, as vector PDF and as PNG; only this module imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.attack_tables import rows
from bench.records import Record

Curve = Sequence[Mapping[str, float]]

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#4d4d4d"),
)
"""Told apart by colour-blind readers (Okabe and Ito), with a brown and a grey."""

STYLES = ("-", "--", ":")

WIDTH = 4.0  # inches of a panel


@dataclass(frozen=True)
class Line:
    """One line of a panel; ``steps`` for a share that rises at each point."""

    label: str
    points: Sequence[tuple[float, float]]
    steps: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    across: str
    up: str
    lines: Sequence[Line]
    logarithmic: bool = False


def attacks(
    curves: Sequence[tuple[Record, Curve]], unit: Literal["pixels", "elements"] = "pixels"
) -> list[Panel]:
    """The share of pictures broken with at most so many changes; one panel for each eps.

    With several seeds the line is the mean of theirs.
    """
    panels = []
    found = {id(record): curve for record, curve in curves}
    for eps in dict.fromkeys(record.labels["eps"] for record, _ in curves):
        members = [record for record, _ in curves if record.labels["eps"] == eps]
        lines = [
            Line(label, mean([steps(found[id(record)], unit) for record in same]), steps=True)
            for label, same in rows(members).items()
            if same[0].labels["role"] != "ceiling"
        ]
        panels.append(
            Panel(f"eps = {eps}", f"changed {unit}, at most", "success", lines, logarithmic=True)
        )
    return panels


def steps(curve: Curve, unit: str) -> list[tuple[float, float]]:
    """Where the share of one unit rises, and to what.

    >>> steps([{"changes": 1.0, "pixels": 0.0, "elements": 0.5}], "elements")
    [(1.0, 0.5)]
    """
    found: list[tuple[float, float]] = []
    for entry in curve:
        if entry[unit] > (found[-1][1] if found else 0):
            found.append((entry["changes"], entry[unit]))
    return found


def mean(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean of step functions that begin at 0.

    >>> mean([[(1.0, 0.5)], [(2.0, 1.0)]])
    [(1.0, 0.25), (2.0, 0.75)]
    """
    if len(curves) == 1:
        return list(curves[0])
    places = sorted({place for curve in curves for place, _ in curve})

    def at(curve: Sequence[tuple[float, float]], place: float) -> float:
        return max((share for where, share in curve if where <= place), default=0.0)

    return [(place, sum(at(each, place) for each in curves) / len(curves)) for place in places]


def draw(panels: Sequence[Panel], style: Literal["pdf", "png"]) -> bytes:
    """The panels side by side with one legend; the same panels give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {"font.size": 8, "pdf.fonttype": 42, "axes.spines.top": False,
                "axes.spines.right": False}  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH * len(panels), 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        handles: dict[str, Any] = {}
        for place, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
            _fill(ax, panel, labels, handles)
            ax.set_ylabel("" if place else panel.up)
        axes[0].set_ylim(bottom=0)  # shared, and last: it fixes the top as well
        figure.legend(
            list(handles.values()), list(handles),
            loc="outside lower center", ncols=2 * len(panels), frameon=False,
        )  # fmt: skip
        buffer = io.BytesIO()
        undated = {"CreationDate": None} if style == "pdf" else {}
        figure.savefig(buffer, format=style, dpi=200, metadata=undated)
    return buffer.getvalue()


def _fill(ax: Any, panel: Panel, labels: Sequence[str], handles: dict[str, Any]) -> None:
    places = [place for line in panel.lines for place, _ in line.points] or [1.0]
    first, last = (0.8 * min(places) if panel.logarithmic else 0.0), max(places)
    for line in panel.lines:
        number = labels.index(line.label)
        x, y = [place for place, _ in line.points], [value for _, value in line.points]
        if line.steps:  # from nothing before the first point, level after the last
            x, y = [first, *x, last], [0.0, *y, y[-1] if y else 0.0]
        (handles[line.label],) = ax.plot(
            x, y, label=line.label, linewidth=1.2,
            drawstyle="steps-post" if line.steps else "default",
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number // len(COLOURS) % len(STYLES)],
        )  # fmt: skip
    if panel.logarithmic:
        ax.set_xscale("log")
    ax.set(title=panel.title, xlabel=panel.across)
    ax.grid(visible=True, linewidth=0.3)
