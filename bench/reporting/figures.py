"""Figures of the records themselves (differences, attacks, occlusion) and the files they make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.data.dataset import Dataset
from bench.execution.workspace import Workspace
from bench.files import atomic
from bench.files.text import printable_lines
from bench.records.record import Curve, Record
from bench.reporting import budgets, coverage, plots, quality_table, run_tables
from bench.reporting.cells import Row
from bench.reporting.grouping import group_attacks, group_runs, rows_by_column
from bench.reporting.panels import (
    Distributions,
    Estimates,
    Panel,
    Unit,
    attack_caption,
    attack_panels,
    count_span,
    gain_panels,
    occlusion_panels,
)
from bench.robustness import occlusion


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as files.

    Attributes:
        name: The name of the files, without a suffix.
        drawings: Their contents by suffix: ``pdf`` and ``png``.
        caption: What the figure shows.
        numbers: The numbers behind it, for a JSON file; None without one.
        records: The records behind it, for a file with one on each line.
        missing: What the figure lacks, one line each.
    """

    name: str
    drawings: Mapping[str, bytes]
    caption: str
    numbers: Mapping[str, Any] | None = None
    records: Sequence[Record] = ()
    missing: Sequence[str] = ()

    def write(self, folder: Path) -> list[Path]:
        """Write the drawings with caption and numbers beside; returns the paths of the drawings."""
        paths = {folder / f"{self.name}.{style}": each for style, each in self.drawings.items()}
        for path, content in paths.items():
            atomic.write(path, content)
        atomic.write(folder / f"{self.name}.txt", printable_lines(self.caption) + "\n")
        if self.numbers is not None:
            whole = {"caption": self.caption, **self.numbers}
            text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
            atomic.write(folder / f"{self.name}.json", text)
        if self.records:
            lines = [json.dumps(each.to_json()) + "\n" for each in self.records]
            atomic.write(folder / f"{self.name}.jsonl", "".join(lines))
        return list(paths)


def draw_panels(panels: Sequence[Panel | Estimates | Distributions]) -> dict[str, bytes]:
    """The panels as PDF and as PNG."""
    return {"pdf": plots.draw(panels, "pdf"), "png": plots.draw(panels, "png")}


def difference_figure(runs: Sequence[Record], baseline: str = "none") -> DrawnFigure:
    """What each method gains over the baseline, a panel for each dataset and network.

    Args:
        runs: Finished runs.
        baseline: The method with which others are compared.

    Raises:
        ValueError: There is no run, or no method shares a seed with the baseline.
    """
    if not runs:
        raise ValueError("there are no runs for such a figure yet: bench run makes them")
    gained = run_tables.gains(runs, baseline=baseline)
    n = count_span({len(values) for values in gained.values()})
    caption = (
        f"Accuracy after the last epoch minus that of {baseline} with the same seed, in percentage "
        f"points. Markers: mean; bars: 95 % t-interval; grey dots: single seeds. n = {n} seeds."
    )
    numbers = [
        {"row": row.label, "column": column.label, "gained": values}
        for (row, column), values in gained.items()
    ]
    return DrawnFigure(
        "differences",
        draw_panels(gain_panels(gained)),
        caption,
        {"baseline": baseline, "numbers": numbers},
    )


def quality_figure(runs: Sequence[Record], baseline: str = "none") -> DrawnFigure:
    """What each method gains on clean, occluded and corrupted images, a panel for each.

    Args:
        runs: Finished runs.
        baseline: The method with which others are compared.

    Raises:
        ValueError: No run has these metrics, or no method shares a seed with the baseline.
    """
    known = quality_table.measured(runs)
    panels: list[Estimates] = []
    numbers: list[dict[str, Any]] = []
    counts: set[int] = set()
    for metric in quality_table.ACCURACIES:
        gained = run_tables.gains(known, metric, baseline)
        counts |= {len(values) for values in gained.values()}
        heading = quality_table.NAMES[metric]
        for panel in gain_panels(gained):
            panels.append(replace(panel, title=f"{heading} images\n{panel.title}"))
        numbers += [
            {"metric": metric, "row": row.label, "column": column.label, "gained": values}
            for (row, column), values in gained.items()
        ]
    caption = (
        f"Accuracy after the last epoch minus that of {baseline} with the same seed, in percentage "
        f"points, on clean images, {quality_table.MEANING} Markers: mean; bars: 95 % t-interval; "
        f"grey dots: single seeds. n = {count_span(counts)} seeds."
    )
    about = {"baseline": baseline, "numbers": numbers}
    return DrawnFigure("quality", draw_panels(panels), caption, about)


def attack_figures(
    attacks: Sequence[Record], curves: Callable[[Record], Curve], unit: Unit = "pixels"
) -> Iterator[DrawnFigure]:
    """The success of attacks against the number of changes, a figure for each setting.

    Args:
        attacks: Records of attacks.
        curves: Reads the curve of a record.
        unit: What counts as a change.

    Raises:
        ValueError: There is no attack.
    """
    if not attacks:
        raise ValueError("there are no attacks for such a figure yet: bench attack-eval makes them")
    for setting, members in group_attacks(attacks).items():
        parts = (setting.victim_name, setting.data, setting.goal, setting.size)
        yield DrawnFigure(
            file_name("attacks", *parts, setting.limit, unit),
            draw_panels(attack_panels([(each, curves(each)) for each in members], unit)),
            attack_caption(members, unit),
            records=members,
        )


def passes_figures(
    attacks: Sequence[Record], traces: Callable[[Record], Curve], unit: Unit = "pixels"
) -> Iterator[DrawnFigure]:
    """The fewest changes of attacks against the passes spent, a figure for each setting.

    Args:
        attacks: Records of attacks.
        traces: Reads the trace of a record.
        unit: What counts as a change.

    Raises:
        ValueError: No attack says what it had found after so many passes.
    """
    drawn = False
    for setting, members in group_attacks(attacks).items():
        panels = budgets.trace_panels(members, traces, unit)
        if not panels:
            continue
        drawn = True
        parts = (setting.victim_name, setting.data, setting.goal, setting.size)
        yield DrawnFigure(
            file_name("passes", *parts, setting.limit, unit),
            draw_panels(panels),
            budgets.trace_caption(members, unit),
            records=members,
        )
    if not drawn:
        raise ValueError(
            "no attack says what it had found after so many passes yet: bench attack-eval does"
        )


def occlusion_figures(runs: Sequence[Record], results: Path) -> Iterator[DrawnFigure]:
    """The accuracy of trained networks under occlusion, a figure for each dataset and network.

    Args:
        runs: Finished runs.
        results: The results folder, where ``bench occlusion`` has stored its curves.

    Raises:
        ValueError: No network was tested under occlusion.
    """
    tested = False
    for column, rows in rows_by_column(group_runs(runs)).items():
        curves = {row.label: found for row, found in occlusion_curves(rows, results).items()}
        if not curves:
            continue
        tested = True
        data, model = column.group, column.name
        n = count_span({len(found) for found in curves.values()})
        caption = (
            f"Accuracy of {model} on the test images of {data} with growing parts hidden by the "
            "mean colour: random cells of an 8x8 division, and the pixels with the largest "
            f"gradient of the true class. Lines: mean over n = {n} seeds; bands: 95 % t-interval."
        )
        yield DrawnFigure(
            file_name("occlusion", data, model),
            draw_panels(occlusion_panels(curves)),
            caption,
            {"data": data, "model": model, "curves": curves},
        )
    if not tested:
        raise ValueError("no network was tested under occlusion yet: bench occlusion tests them")


def coverage_figure(data: Dataset, workspace: Workspace) -> DrawnFigure:
    """How much of an image the masks of each augmentation delete, as a distribution.

    Args:
        data: A dataset, on whose training images masks are drawn.
        workspace: Where its points are stored.
    """
    measured, missing = coverage.measure(data, workspace)
    count = len(measured[0].coverage.deleted) if measured else 0
    means = ", ".join(f"{each.row.label} {each.metrics['deleted_share']:.1%}" for each in measured)
    caption = (
        f"Share of an image that masks delete: one mask on each of {count} training images of "
        f"{data.name}, with the hyperparameters of the dataset; in brackets: the guide. Shapes: "
        "histograms, each as high as its fullest bin; dots: means; bars: medians; dotted lines: "
        f"the bounds of AdvMask. Means: {means}."
    )
    numbers = [
        entry | {"quantiles": coverage.quantiles(each)}
        for entry, each in zip(coverage.measured_entries(measured, data), measured, strict=True)
    ]
    return DrawnFigure(
        file_name("coverage", data.name),
        draw_panels(coverage.panels(measured, data)),
        caption,
        {"data": data.name, "numbers": numbers},
        missing=missing,
    )


def occlusion_curves(rows: Mapping[Row, Sequence[Record]], results: Path) -> dict[Row, list[Curve]]:
    """The curves that ``bench occlusion`` has stored for the runs of each row, if any."""
    found: dict[Row, list[Curve]] = {}
    for row, records in rows.items():
        curves = [curve for each in records if (curve := occlusion.stored_curve(each, results))]
        if curves:
            found[row] = list(curves)
    return found


def file_name(*parts: str) -> str:
    """The name of a file, from texts with any characters.

    >>> file_name("attacks", "../cifar10", "eps=8/255")
    'attacks-cifar10-eps-8-255'
    """
    return "-".join(re.findall(r"[A-Za-z0-9][A-Za-z0-9.]*", " ".join(parts)))
