"""Drawing panels and images as PDF, PNG and SVG; only this module imports matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast, get_args

from bench.files.text import printable_lines
from bench.reporting.panels import Distributions, Estimates, Panel

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Drawn = Panel | Estimates | Distributions

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#4d4d4d"),
)
"""The palette of Okabe and Ito for colour-blind readers, with a brown and a grey."""

STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Lines differ in these as well, so that a print without colour can be read."""

COLUMN, PAGE = 3.25, 6.75
"""Widths in inches of a column of text and of a page with two columns."""

NAME, TITLE = 28, 40
"""Characters in a line of the name of a row, and of a title, in a column of text."""

LINE = 0.14
"""Height in inches of a line of a name or of a title."""

Style = Literal["pdf", "png", "svg"]


def style_of(path: Path) -> Style:
    """Return the format that the name of a file asks for.

    Args:
        path: The file.

    Raises:
        ValueError: It is none of the formats.
    """
    style = path.suffix.lstrip(".").lower()
    for known in get_args(Style):
        if style == known:
            return cast(Style, known)
    raise ValueError(f"cannot draw {path}: end its name with .png, .pdf or .svg")


def draw(panels: Sequence[Drawn], style: Style, name: str = "bench") -> bytes:
    """Draw panels, at most three in a row, with one legend.

    One panel has the width of a text column, several that of a page, and so has one whose rows have
    long names. The same panels give the same bytes.

    Args:
        panels: What to draw.
        style: The format of the file.
        name: Makes the ids in an SVG drawing differ from those of other drawings on a page.

    Returns:
        The contents of the file.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide = min(len(panels), 3)
    lines = -(-len(panels) // wide)
    panels = [_printable(panel) for panel in panels]
    width = COLUMN if wide == 1 and not any(map(_has_long_rows, panels)) else PAGE
    panels = [_wrapped(panel, 2 if width == PAGE and wide == 1 else 1) for panel in panels]
    labels = list(
        dict.fromkeys(
            line.label for panel in panels if isinstance(panel, Panel) for line in panel.lines
        )
    )
    longest = 40 + 4.5 * max((len(label) for label in labels), default=0)  # points, with its line
    across = min(max(1, int(72 * width / longest)), 2 if wide == 1 else 4)
    height = lines * _height(panels) + 0.17 * math.ceil(len(labels) / across)
    with matplotlib.rc_context(_settings(name)):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(lines, wide, squeeze=False, sharey="row").flatten()
        handles: dict[str, Any] = {}
        for place, (panel, ax) in enumerate(zip(panels, axes, strict=False)):
            if isinstance(panel, Panel):
                _fill(ax, panel, labels, handles)
                ax.set_ylabel("" if place % wide else panel.y)
            elif isinstance(panel, Distributions):
                _ridges(ax, panel)
            elif panel.joined:
                _sweep(ax, panel)
                ax.set_ylabel("" if place % wide else panel.measure)
            else:
                _forest(ax, panel)
        if any(isinstance(p, Panel) and any(line.steps for line in p.lines) for p in panels):
            axes[0].set_ylim(bottom=0)  # shared, and last: it fixes the top as well
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        if handles:
            figure.legend(
                list(handles.values()), list(handles), handlelength=3,
                loc="outside lower center", frameon=False,
                ncols=across,
            )  # fmt: skip
        return _saved(figure, style)


def draw_images(
    columns: Mapping[str, Float[Tensor, "n _ h w"]], style: Style, width: float = PAGE
) -> bytes:
    """Images side by side, pixel by pixel: one titled column for each entry, one row an image.

    The tensors hold values in [0, 1] with one or three channels; titles may have several lines.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, _, h, w = next(iter(columns.values())).shape
    cell = min(width / len(columns), 1.1)
    with matplotlib.rc_context(_settings("images")):
        figure = Figure(
            figsize=(cell * len(columns), cell * n * h / w + 0.45), layout="constrained"
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(n, len(columns), squeeze=False)
        for place, (title, images) in enumerate(columns.items()):
            for ax, image in zip(axes[:, place], images, strict=True):
                colour = image.expand(3, -1, -1).clamp(0, 1).permute(1, 2, 0)
                ax.imshow(colour.cpu().numpy(), interpolation="nearest")
                ax.set_axis_off()
            axes[0, place].set_title(printable_lines(title), fontsize=7)
        return _saved(figure, style)


def _printable(part: Any) -> Any:
    """A panel, or a part of one, all of whose texts can be printed."""
    if isinstance(part, str):
        return printable_lines(part)
    if isinstance(part, list | tuple) and part and is_dataclass(part[0]):
        return [_printable(each) for each in part]
    if is_dataclass(part) and not isinstance(part, type):
        own = {each.name: getattr(part, each.name) for each in fields(part)}
        return replace(part, **{name: _printable(value) for name, value in own.items()})
    return part


def _has_long_rows(panel: Drawn) -> bool:
    """Whether names of its rows would leave a text column no room for the axes."""
    return _in_rows(panel) and any(len(entry.label) > NAME for entry in panel.entries)


def _in_rows(panel: Drawn) -> TypeGuard[Estimates | Distributions]:
    """Whether it has a row for each entry."""
    return isinstance(panel, Distributions) or (isinstance(panel, Estimates) and not panel.joined)


def _wrapped(panel: Drawn, room: int) -> Drawn:
    """A panel whose title and names of rows are broken into lines.

    Args:
        panel: The panel.
        room: How many times the usual characters a line may have.
    """
    if not _in_rows(panel):
        return panel
    entries: Any = [replace(each, label=_broken(each.label, NAME * room)) for each in panel.entries]
    lines = [_broken(line, TITLE * room) for line in panel.title.split("\n")]
    return replace(panel, title="\n".join(lines), entries=entries)


def _broken(text: str, width: int) -> str:
    """A text in lines of at most so many characters, cut after the sixth."""
    return textwrap.fill(text, width, max_lines=6, placeholder=" …", break_on_hyphens=False)


def _settings(name: str) -> dict[Any, Any]:
    return {
        "font.size": 8,
        "text.parse_math": False,  # names may hold anything
        "axes.titlesize": 8,
        "legend.fontsize": 7,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _saved(figure: Any, style: Style) -> bytes:
    buffer = io.BytesIO()
    undated: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    with warnings.catch_warnings():
        # names may hold letters that the font lacks
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(buffer, format=style, dpi=200, metadata=undated[style])
    return buffer.getvalue()


def _height(panels: Sequence[Drawn]) -> float:
    """Inches of one line of panels: rows of estimates need room for each."""
    rows = [panel for panel in panels if _in_rows(panel)]
    if rows:
        title = max(panel.title.count("\n") for panel in rows)
        return 0.75 + LINE * title + max(map(_height_of_rows, rows))
    return 2.5 if any(isinstance(panel, Panel) for panel in panels) else 2.1


def _height_of_rows(panel: Estimates | Distributions) -> float:
    """Inches of the rows of a panel, each of which has room for the longest name."""
    least = 0.27 if isinstance(panel, Distributions) else 0.19
    lines = max((entry.label.count("\n") + 1 for entry in panel.entries), default=1)
    return len(panel.entries) * max(least, LINE * lines + 0.04)


def line_style(number: int) -> dict[str, str]:
    """Colour, dashes and marker of a line; the first 32 differ, even without colour.

    >>> line_style(0) == line_style(8)
    False
    """
    lap, place = divmod(number, len(COLOURS))
    return {
        "color": COLOURS[place],
        "linestyle": STYLES[(place + lap) % len(STYLES)],
        "marker": MARKERS[place],
    }


def _fill(ax: Any, panel: Panel, labels: Sequence[str], handles: dict[str, Any]) -> None:
    places = [place for line in panel.lines for place, _ in line.points] or [1.0]
    first, last = (0.8 * min(places) if panel.logarithmic else 0.0), max(places)
    for mark in panel.marks:
        ax.axvline(mark, color="0.6", linewidth=0.5, linestyle=":")
    for line in panel.lines:
        number = labels.index(line.label)
        colour = line_style(number)["color"]
        x, y = [place for place, _ in line.points], [value for _, value in line.points]
        if line.band:
            low, high = zip(*line.band, strict=True)
            step: Any = "post" if line.steps else None
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0, step=step)
        if line.steps:  # from nothing before the first point, level after the last
            x, y = [first, *x, last], [0.0, *y, y[-1] if y else 0.0]
        (handles[line.label],) = ax.plot(
            x, y, label=line.label, linewidth=1.1,
            drawstyle="steps-post" if line.steps else "default", markersize=3,
            **line_style(number),
            markevery=(number % 5 * 0.03, 0.15) if len(x) > 12 else 1,
        )  # fmt: skip
    if panel.logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")  # the usual 10^n is mathematics, which is off
    if panel.steep:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    ax.set(title=panel.title, xlabel=panel.x)
    ax.grid(visible=True, linewidth=0.3)


def _forest(ax: Any, panel: Estimates) -> None:
    """A row for each estimate: the mean, its interval, and every seed below it."""
    for row, entry in enumerate(panel.entries):
        colour = COLOURS[row % len(COLOURS)]
        ax.plot(list(entry.seeds), [row + 0.25] * len(entry.seeds), ".", color="0.55", markersize=2)
        if entry.interval is None:
            ax.text(
                0.5, row, "missing", transform=ax.get_yaxis_transform(), ha="center",
                va="center", color="0.4", fontsize=7,
            )  # fmt: skip
            continue
        ax.errorbar(
            entry.interval.mean, row, xerr=entry.interval.half or 0.0, color=colour,
            fmt=MARKERS[row % len(MARKERS)], markersize=4, capsize=2, linewidth=1,
        )  # fmt: skip
    if panel.zero:
        ax.axvline(0, color="0.3", linewidth=0.6)
    ax.set_yticks(range(len(panel.entries)), [entry.label for entry in panel.entries])
    ax.set_ylim(len(panel.entries) - 0.4, -0.6)
    ax.set(title=panel.title, xlabel=panel.measure)
    ax.grid(visible=True, axis="x", linewidth=0.3)


def _ridges(ax: Any, panel: Distributions) -> None:
    """A row for each distribution: a histogram as high as its fullest bin, mean and median."""
    import numpy as np

    for mark in panel.marks:
        ax.axvline(mark, color="0.4", linewidth=0.6, linestyle=":")
    for row, entry in enumerate(panel.entries):
        colour = COLOURS[row % len(COLOURS)]
        counts, edges = np.histogram(entry.values, bins=50, range=panel.ends)
        heights = 0.8 * counts / max(counts.max(), 1)
        ax.fill_between(
            edges, row + 0.3, row + 0.3 - np.append(heights, heights[-1]), step="post",
            color=colour, alpha=0.4, linewidth=0,
        )  # fmt: skip
        if len(entry.values):
            middle = float(np.median(entry.values))
            ax.plot([middle] * 2, [row + 0.3, row - 0.1], color=colour, linewidth=1.2)
            ax.plot(np.mean(entry.values), row + 0.3, color=colour, marker="o", markersize=4)
    ax.set_yticks(
        [row + 0.3 for row in range(len(panel.entries))], [each.label for each in panel.entries]
    )
    ax.set_ylim(len(panel.entries) - 0.4, -0.7)
    ax.set(title=panel.title, xlabel=panel.measure, xlim=panel.ends)
    ax.grid(visible=True, axis="x", linewidth=0.3)


def _sweep(ax: Any, panel: Estimates) -> None:
    """The estimates from left to right, joined where neighbours are there."""
    found = [entry.interval for entry in panel.entries]
    places = range(len(found))
    ax.plot(places, [each.mean if each else math.nan for each in found], "-", color=COLOURS[0])
    for place, (entry, interval) in enumerate(zip(panel.entries, found, strict=True)):
        seeds = [place + 0.18] * len(entry.seeds)
        ax.plot(seeds, list(entry.seeds), ".", color="0.55", markersize=2)
        if interval is None:
            ax.text(
                place, 0.5, "missing", transform=ax.get_xaxis_transform(), rotation=90,
                ha="center", va="center", color="0.4", fontsize=7,
            )  # fmt: skip
            continue
        ax.errorbar(
            place, interval.mean, yerr=interval.half or 0.0, fmt="o", color=COLOURS[0],
            markersize=3, capsize=2, linewidth=1,
        )  # fmt: skip
    ax.set_xticks(places, [entry.label for entry in panel.entries], rotation=45, fontsize=6)
    ax.set(title=panel.title, xlabel=panel.parameter)
    ax.grid(visible=True, axis="y", linewidth=0.3)
