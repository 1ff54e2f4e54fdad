"""Attacks under a budget: success within so many changes, and changes after so many passes.

A number over the images of a single seed has an interval over these images, a number over several
seeds one over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from bench.records import over_images
from bench.records.over_images import OverImages
from bench.records.record import Curve, Record
from bench.records.statistics import Interval, mean_interval
from bench.reporting.attack_tables import heading, in_common
from bench.reporting.cells import Cell, Column, Key, Row
from bench.reporting.grouping import (
    AttackSetting,
    bound_in_words,
    bounded,
    eps_values,
    group_attacks,
    rows_of_attacks,
)
from bench.reporting.panels import Line, Panel, Unit, share_steps
from bench.reporting.table import Table

CHANGES = (1, 2, 5, 10, 20, 50, 100, 200)
"""The numbers of changes at which the success is shown."""

PASSES = (50, 100, 300, 1000, 3000)
"""The numbers of passes after which the fewest changes are shown."""

Reader = Callable[[Record], Curve]


def once(read: Reader) -> Reader:
    """Return a reader that reads each record's file a single time."""
    known: dict[str, Curve] = {}

    def found(record: Record) -> Curve:
        if record.name not in known:
            known[record.name] = read(record)
        return known[record.name]

    return found


INFINITE = "∞: more than half of the images have no success."
MIDWAY = (
    "An attack that would go on for longer is shown as far as it had come, not at the end of a "
    "search of that length."
)


def success_within(records: Sequence[Record], curves: Reader, unit: Unit = "pixels") -> Table:
    """The success of the attacks of one setting with at most so many changes.

    Args:
        records: Records of attacks that may be compared, as `group_attacks` groups them.
        curves: Reads the curve of a record.
        unit: What counts as a change.
    """
    curves = once(curves)
    return _limited(
        records,
        CHANGES,
        lambda eps, k: Column(f"k={k}", group=f"eps {eps}", percent=True, best="high"),
        lambda same, k: _success(same, curves, unit, k),
        title=f"Success within so many {unit}, {_about(records)}",
        measure=f"{_about(records)}: success in percent with at most k changed {unit}",
    )


def fewest_after(records: Sequence[Record], traces: Reader, unit: Unit = "pixels") -> Table:
    """The median of the fewest changes after so many passes, for the attacks of one setting.

    Args:
        records: Records of attacks that may be compared, as `group_attacks` groups them.
        traces: Reads the trace of a record.
        unit: What counts as a change.
    """
    traces = once(traces)
    return _limited(
        records,
        PASSES,
        lambda eps, passes: Column(str(passes), group=f"eps {eps}", best="low"),
        lambda same, passes: _fewest(same, traces, unit, passes),
        title=f"Fewest {unit} after so many passes, {_about(records)}",
        measure=(
            f"{_about(records)}: median of the fewest changed {unit} after so many forward and "
            "backward passes of an image, failures counted as infinite"
        ),
        note=f"{INFINITE} {MIDWAY}",
    )


def _limited(
    records: Sequence[Record],
    limits: Sequence[int],
    column: Callable[[str, int], Column],
    cell: Callable[[Sequence[Record], int], Cell],
    *,
    title: str,
    measure: str,
    note: str = "",
) -> Table:
    """A table with a column for each eps and limit, and a row for each attack."""
    cells: dict[Key, Cell] = {}
    rows: dict[Row, None] = {}
    columns: list[Column] = []
    for eps, attacks in _by_eps(records):
        for limit in limits:
            columns.append(column(eps, limit))
            for row, same in attacks:
                rows[row] = None
                cells[row.label, columns[-1].label] = cell(same, limit)
    return Table(
        title=title,
        rows=list(rows),
        columns=columns,
        cells=cells,
        corner="attack",
        measure=measure,
        note=note,
        origin=f"{len(records)} records",
        references=_references(records),
    )


def equal_passes(
    records: Sequence[Record], traces: Reader, passes: int, unit: Unit = "pixels"
) -> Table:
    """Success and fewest changes at one number of passes: two columns for each setting and eps.

    Args:
        records: Records of attacks.
        traces: Reads the trace of a record.
        passes: One of `bench.robustness.best_so_far.BUDGETS`.
        unit: What counts as a change.

    Raises:
        ValueError: No record says what was found within so many passes.
    """
    traces = once(traces)
    known = sorted({int(entry["passes"]) for each in records for entry in traces(each)})
    if passes not in known:
        raise ValueError(
            f"no attack says what it had found after {passes} passes: choose one of "
            f"{', '.join(map(str, known))}"
            if known
            else "no attack says what it had found after so many passes, since they were run by an "
            "earlier version: run them again with bench attack-eval --fresh"
        )
    settings = group_attacks(records)
    several = len(eps_values(records)) > 1
    measure = ", ".join(
        [*in_common(settings), f"after {passes} forward and backward passes of an image"]
    )
    cells: dict[Key, Cell] = {}
    rows: dict[Row, None] = {}
    columns: list[Column] = []
    for setting, members in settings.items():
        about = heading(setting, members[0].labels["model"], settings)
        for eps, attacks in _by_eps(members):
            group = f"{about}, {bound_in_words(eps)}" if several else about
            won = Column("%", group=group, percent=True, best="high")
            size = Column(unit, group=group, best="low")
            columns += [won, size]
            for row, same in attacks:
                rows[row] = None
                cells[row.label, won.label] = _won(same, traces, passes)
                cells[row.label, size.label] = _fewest(same, traces, unit, passes)
    return Table(
        title=f"Attacks at {passes} passes",
        rows=list(rows),
        columns=columns,
        cells=cells,
        corner="attack",
        measure=(
            f"{measure[0].upper()}{measure[1:]}: success in percent, and "
            f"median of the fewest changed {unit}, failures counted as infinite"
        ),
        note=f"{INFINITE} {MIDWAY}",
        origin=f"{len(records)} records",
        references=_references(records),
    )


def trace_panels(records: Sequence[Record], traces: Reader, unit: Unit = "pixels") -> list[Panel]:
    """The median of the fewest changes against the passes; a panel for each eps.

    A line begins where half of the images have a success and ends with the attack.

    Args:
        records: Records of one setting; those without a trace have no line.
        traces: Reads the trace of a record.
        unit: What counts as a change.
    """
    traces = once(traces)
    panels = []
    for eps, attacks in _by_eps(records):
        lines = []
        for row, same in attacks:
            points, band = [], []
            for passes in _budgets(same, traces):
                cell = _fewest(same, traces, unit, passes)
                if isinstance(cell, OverImages) and math.isfinite(cell.value):
                    points.append((float(passes), cell.value))
                    low, high = cell.low, over_images.finite(cell.high)
                elif isinstance(cell, Interval):
                    points.append((float(passes), cell.mean))
                    low, high = cell.low, cell.high
                else:
                    continue
                if low is None or high is None:
                    low = high = math.nan
                band.append((low, high))
            if points:
                lines.append(Line(row.label, points, band=band))
        if lines:
            y = f"fewest {unit}, median"
            title = f"eps = {eps}"
            panels.append(Panel(title, "passes", y, lines, logarithmic=True, steep=True))
    return panels


def trace_caption(records: Sequence[Record], unit: Unit) -> str:
    """The caption of `trace_panels` for the records of one setting."""
    seeds = len({record.seed for record in records})
    spread = (
        "a single seed; bands: 95 % interval of the median over the images"
        if seeds == 1
        else f"mean of n = {seeds} seeds; bands: 95 % t-interval"
    )
    return (
        f"Median of the fewest changed {unit} that each attack has found after so many forward "
        f"and backward passes of an image, failures counted as infinite; {_about(records)}; "
        f"{spread}. A line begins where half of the images have a success, and ends with the "
        "attack."
    )


def _budgets(same: Sequence[Record], traces: Reader) -> list[int]:
    """The budgets of a trace up to the first that the attack did not use up."""
    trace = traces(same[0])
    metrics = same[0].metrics
    most = metrics.get("forwards_max", 0) + metrics.get("backwards_max", 0)
    budgets = [int(entry["passes"]) for entry in trace]
    return [each for place, each in enumerate(budgets) if not place or budgets[place - 1] < most]


def _by_eps(
    records: Sequence[Record],
) -> Iterator[tuple[str, list[tuple[Row, list[Record]]]]]:
    """The attacks at each eps, without the dense ones."""
    for eps in eps_values(records):
        members = [each for each in records if each.labels["eps"] == eps]
        yield (
            eps,
            [
                (row, same)
                for row, same in rows_of_attacks(members).items()
                if same[0].labels["role"] != "ceiling"
            ],
        )


def _references(records: Sequence[Record]) -> set[str]:
    """The rows that do not compete: attacks without a bound, and noise."""
    return {
        row.label
        for row, same in rows_of_attacks(records).items()
        if not bounded(same[0]) or same[0].labels["role"] != "sparse"
    }


def _about(records: Sequence[Record]) -> str:
    setting = AttackSetting.of(records[0])
    model = records[0].labels["model"]
    parts = [model, setting.data, setting.goal_in_words, setting.size]
    return ", ".join([*parts, setting.limit] if setting.limit else parts)


def _images(record: Record) -> int:
    return int(record.metrics.get("images", record.job["images"]))


def _success(same: Sequence[Record], curves: Reader, unit: Unit, k: int) -> Cell:
    """The share of images broken with at most k changes; None where the curve was lost."""
    shares = []
    for record in same:
        curve = curves(record)
        if not curve and record.metrics.get("success"):
            return None
        steps = share_steps(curve, unit)
        shares.append(max((share for changes, share in steps if changes <= k), default=0.0))
    if len(same) > 1:
        return mean_interval(shares)
    n = _images(same[0])
    if same[0].labels["goal"] == "all":  # several goals share an image
        return OverImages(shares[0], None, None, n)
    return over_images.share(round(shares[0] * n), n)


def _entries(same: Sequence[Record], traces: Reader, passes: int) -> list[dict[str, float]] | None:
    """What each seed had reached; None where that is not known of all."""
    found = [
        dict(entry)
        for record in same
        for entry in traces(record)
        if entry.get("passes") == passes and "success" in entry
    ]
    return found if len(found) == len(same) else None


def _won(same: Sequence[Record], traces: Reader, passes: int) -> Cell:
    """The share of images with a success after so many passes."""
    entries = _entries(same, traces, passes)
    if entries is None:
        return None
    if len(entries) > 1:
        return mean_interval([each["success"] for each in entries])
    (one,) = entries
    ends = one.get("success_low"), one.get("success_high")
    return OverImages(one["success"], *ends, _images(same[0]))


def _fewest(same: Sequence[Record], traces: Reader, unit: Unit, passes: int) -> Cell:
    """The median of the fewest changes after so many passes."""
    entries = _entries(same, traces, passes)
    if entries is None:
        return None
    values = [each.get(unit, math.inf) for each in entries]
    if len(values) > 1:
        return mean_interval(values) if all(map(math.isfinite, values)) else "∞"
    low, high = (entries[0].get(f"{unit}_{end}") for end in ("low", "high"))
    if low is not None and high is None:
        high = math.inf
    return OverImages(values[0], low, high, _images(same[0]))
