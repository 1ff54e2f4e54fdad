"""Tables of trainings: methods as rows, datasets and networks as columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import registry
from bench.errors import suggest
from bench.records.coverage import mean_coverage
from bench.records.record import Record
from bench.records.statistics import (
    MARGIN,
    Comparison,
    Interval,
    Verdict,
    compare,
    decision,
    equivalence,
    mean_interval,
    p_value,
    two_digits,
)
from bench.reporting.cells import (
    Cell,
    Column,
    Direction,
    Key,
    Row,
    comparison_entry,
    interval_entry,
)
from bench.reporting.grouping import RunGroup, group_runs
from bench.reporting.table import Table


@dataclass(frozen=True)
class Metric:
    """How tables show a metric of runs.

    Attributes:
        title: What it is.
        percent: Whether it is a fraction that readers see in percent.
        best: Whether the highest or the lowest mean is the best.
        taken: When or over what it is taken.
    """

    title: str
    percent: bool = False
    best: Direction = "low"
    taken: str = ""

    def measure(self, unit: str = "percent") -> str:
        """What the numbers are, for a caption.

        >>> METRICS["accuracy"].measure()
        'Accuracy in percent after the last epoch'
        """
        parts = [self.title, f"in {unit}" if self.percent else "", self.taken]
        return " ".join(part for part in parts if part)


METRICS = {
    "accuracy": Metric("Accuracy", percent=True, best="high", taken="after the last epoch"),
    "accuracy_median10": Metric(
        "Accuracy", percent=True, best="high", taken="as the median of the last ten epochs"
    ),
    "accuracy_best_validation": Metric(
        "Accuracy", percent=True, best="high", taken="at the epoch with the best validation"
    ),
    "accuracy_occlusion": Metric(
        "Accuracy", percent=True, best="high", taken="with 10 to 80 % of each image hidden"
    ),
    "accuracy_corruption": Metric(
        "Accuracy", percent=True, best="high", taken="under 15 kinds of common corruption"
    ),
    "ece": Metric("Expected calibration error", percent=True, taken="in 15 bins"),
    "nll": Metric("Cross-entropy of the test images", taken="in nats"),
}
"""The metrics of a run that tables show, by their names in records."""


UNMEASURED = "not measured"
"""The cell of runs that finished without the metric, such as those of an older version."""

EQUIVALENT = (
    "Verdict: better or worse where the difference is significant; equivalent where it is shown to "
    f"be within ±{100 * MARGIN:g} points (two one-sided paired t-tests, each p < 0.05, not "
    "corrected for the number of tests); else undecided."
)


def metric_of_runs(name: str) -> Metric:
    """How a metric of runs is shown; one without an entry in `METRICS` is a number, best if low."""
    return METRICS.get(name) or Metric(name.replace("_", " ").capitalize())


def where(records: Iterable[Record]) -> str:
    """The datasets and networks of runs, for a message, as in ``digits / resnet8``."""
    return ", ".join(dict.fromkeys(group.column.label for group in group_runs(records)))


def check_baseline(records: Iterable[Record], baseline: str | None, *, whole: bool = False) -> None:
    """Refuse a baseline that no run is called; ``none``, which is the default, may have no runs.

    Args:
        records: Records of runs.
        baseline: The method with which others are compared; None for no comparison.
        whole: Whether it must be named as rows are, with the settings that tell them apart.

    Raises:
        ValueError: No run is called so.
    """
    groups = group_runs(records)
    rows = dict.fromkeys(group.row.label for group in groups)
    named = rows if whole else {*rows, *(group.row.name for group in groups)}
    if baseline is None or baseline in ("none", *named):
        return
    advice = suggest(baseline, rows)
    if baseline in registry.classes("augmentations"):
        advice = f"bench run --aug {baseline} adds one"
    raise ValueError(f"no run is called {baseline!r}: {advice}")


def _measured(records: Iterable[Record], metric: str) -> list[RunGroup]:
    """The runs in groups.

    Raises:
        ValueError: Runs have metrics, and none has this one.
    """
    groups = group_runs(records)
    every = dict.fromkeys(
        name for group in groups for record in group.records for name in record.metrics
    )
    if every and metric not in every:
        raise ValueError(f"no run has the metric {metric!r}: {suggest(metric, every)}")
    return groups


def _failed(group: RunGroup, metric: str) -> int:
    """How many seeds broke down, or ended with a metric that is no number."""
    return sum(
        record.status == "failed" or not math.isfinite(record.metrics.get(metric, 0.0))
        for record in group.records
    )


def grid(
    records: Iterable[Record], metric: str = "accuracy", baseline: str | None = "none"
) -> Table:
    """Methods against datasets and networks: the mean over seeds of one metric of runs.

    Where the recipes of a column differ in a setting, the row names it, and only rows with the same
    settings are compared.

    Args:
        records: Records of runs; others are left out.
        metric: The name of a metric, such as ``accuracy``.
        baseline: The method with which others are compared; None for no comparison.

    Returns:
        A table with an interval for each recipe, the baseline first.

    Raises:
        ValueError: No run has the metric.
    """
    groups, shown = _measured(records, metric), metric_of_runs(metric)
    rows = sorted(dict.fromkeys(g.row for g in groups), key=lambda row: row.label != baseline)
    columns = dict.fromkeys(group.column for group in groups)
    cells: dict[Key, Cell] = {(row.label, c.label): None for row in rows for c in columns}
    failed: dict[Key, int] = {}
    for group in groups:
        key, values = (group.row.label, group.column.label), group.values(metric)
        if lost := _failed(group, metric):
            failed[key] = lost
        if values:
            cells[key] = mean_interval(list(values.values()))
        elif lost < len(group.records):
            cells[key] = UNMEASURED
    return Table(
        title=shown.title,
        rows=rows,
        columns=[replace(each, percent=shown.percent, best=shown.best) for each in columns],
        cells=cells,
        baseline=baseline,
        comparisons=_comparisons(groups, metric, baseline),
        failed=failed,
        measure=shown.measure(),
        origin=_origin(groups),
        coverage={
            (group.row.label, group.column.label): mean_coverage(group.records) for group in groups
        },
    )


def differences(
    records: Iterable[Record], metric: str = "accuracy", baseline: str = "none"
) -> Table:
    """What each method gains over the baseline, paired by seed, and what was resolvable.

    Four columns for each of `grid`: the mean difference with its t-interval, its p-value after
    Holm's correction, the smallest difference that these seeds show with 80 % power, and the
    verdict of `bench.records.statistics.decision`, with half a point as the largest difference that
    counts as none. The verdict is only there for metrics that readers see in percent.

    Args:
        records: Records of runs; others are left out.
        metric: The name of a metric, such as ``accuracy``.
        baseline: The method with which others are compared.

    Raises:
        ValueError: No run has the metric, or no method shares a seed with the baseline.
    """
    groups, shown = _measured(records, metric), metric_of_runs(metric)
    found, verdicts = _comparisons(groups, metric, baseline), _verdicts(groups, metric, baseline)
    columns: dict[Column, None] = {}
    cells: dict[Key, Cell] = {}
    comparisons: dict[Key, Comparison] = {}
    covered: dict[Key, dict[str, float]] = {}
    for group in groups:
        each = found.get((group.row.label, group.column.label))
        if each is None or each.difference is None:
            continue
        where = ", ".join(part for part in (group.column.group, group.column.name) if part)
        gain = Column("difference", where, percent=shown.percent)
        corrected, least = Column("Holm p", where), Column("detectable", where)
        shows = Column("verdict", where)
        columns |= dict.fromkeys((gain, corrected, least, *([shows] if shown.percent else [])))
        half = None if each.high is None else each.high - each.difference
        scale = 100 if shown.percent else 1
        row = group.row.label
        cells[row, gain.label] = Interval(each.difference, None, half, each.n)
        cells[row, corrected.label] = "" if each.p_holm is None else p_value(each.p_holm)
        cells[row, least.label] = (
            "" if each.detectable is None else two_digits(scale * each.detectable)
        )
        if shown.percent:
            cells[row, shows.label] = verdicts[row, group.column.label]
        comparisons[row, gain.label] = each
        covered[row, gain.label] = mean_coverage(group.records)
    if not cells:
        raise ValueError(_without_baseline(baseline, groups, metric))
    labels = {row for row, _ in cells}
    rows = [row for row in dict.fromkeys(group.row for group in groups) if row.label in labels]
    return Table(
        title=f"{shown.title} gained over {baseline}",
        rows=rows,
        columns=list(columns),
        cells={
            (row.label, column.label): cells.get((row.label, column.label), "")
            for row in rows
            for column in columns
        },
        baseline=baseline,
        comparisons=comparisons,
        measure=f"{shown.measure('points')}, minus that of {baseline} with the same seed",
        note=EQUIVALENT if shown.percent else "",
        origin=_origin(groups),
        coverage=covered,
    )


def gains(
    records: Iterable[Record], metric: str = "accuracy", baseline: str = "none"
) -> dict[tuple[Row, Column], list[float]]:
    """What each method gains over the baseline in each seed that both have, as fractions.

    Args:
        records: Records of runs; others are left out.
        metric: The name of a metric, such as ``accuracy``.
        baseline: The method with which others are compared.

    Raises:
        ValueError: No run has the metric, or no method shares a seed with the baseline.
    """
    groups = _measured(records, metric)
    found = {
        (row, column): [values[seed] - family[own][seed] for seed in values if seed in family[own]]
        for column, own, family in _families(groups, metric, baseline)
        for row, values in family.items()
        if row != own
    }
    if not any(found.values()):
        raise ValueError(_without_baseline(baseline, groups, metric))
    return found


def _without_baseline(baseline: str, groups: Sequence[RunGroup], metric: str) -> str:
    """Why nothing can be compared with the baseline, and what to do."""
    rows = (group.row for group in groups)
    several = sorted({row.label for row in rows if row.name == baseline and row.settings})
    if len(several) > 1:
        return (
            f"the runs of {baseline} differ in their settings: name the baseline as tables do, "
            f"such as --baseline {several[0]!r}"
        )
    finished = [group.row for group in groups if group.values(metric)]
    if finished and all(baseline in (row.name, row.label) for row in finished):
        return f"only {baseline} has finished runs: run another method to compare with it"
    return (
        f"no method shares a seed with {baseline} in the same settings: run {baseline} too, with "
        "these settings and seeds, or name another --baseline"
    )


def intervals(
    records: Iterable[Record], baseline: str | None = "none", metric: str = "accuracy"
) -> list[dict[str, Any]]:
    """The cells of `grid` as JSON: one object for each, in fractions; what is unknown is None.

    Where the baseline was run with the same settings, an object has the paired difference too, and
    where records say what masks delete, the means of `bench.records.coverage.NAMES`.

    Raises:
        ValueError: No run has the metric.
    """
    groups = _measured(records, metric)
    comparisons = _comparisons(groups, metric, baseline)
    verdicts = _verdicts(groups, metric, baseline)
    found = []
    for group in groups:
        values, first = list(group.values(metric).values()), group.records[0]
        entry: dict[str, Any] = {
            "augmentation": group.row.label,
            "model": first.labels.get("model", ""),
            "data": first.labels.get("data", ""),
            "key": first.key,
            "metric": metric,
            "failed": _failed(group, metric),
        }
        entry |= interval_entry(mean_interval(values) if values else None)
        if comparison := comparisons.get((group.row.label, group.column.label)):
            entry |= comparison_entry(comparison)
        if decided := verdicts.get((group.row.label, group.column.label)):
            entry["decision"] = decided
        found.append(entry | mean_coverage(group.records))
    return found


def _comparisons(
    groups: Sequence[RunGroup], metric: str, baseline: str | None
) -> dict[Key, Comparison]:
    """Each row against the baseline of the same column and settings; one Holm family each."""
    return {
        (label, column.label): comparison
        for column, own, family in _families(groups, metric, baseline)
        for label, comparison in compare(
            {row.label: values for row, values in family.items()}, own.label
        ).items()
    }


def _verdicts(groups: Sequence[RunGroup], metric: str, baseline: str | None) -> dict[Key, Verdict]:
    """What the seeds show about each row and its baseline."""
    found: dict[Key, Verdict] = {}
    best = metric_of_runs(metric).best
    for column, own, family in _families(groups, metric, baseline):
        compared = compare({row.label: values for row, values in family.items()}, own.label)
        for row, values in family.items():
            if row != own:
                each = compared[row.label]
                equal = equivalence(values, family[own])
                found[row.label, column.label] = decision(each, equal, best)
    return found


def _families(
    groups: Sequence[RunGroup], metric: str, baseline: str | None
) -> Iterator[tuple[Column, Row, Mapping[Row, dict[int, float]]]]:
    """Column, row of the baseline, and the values of all rows that share its settings.

    A baseline without adversarial points shares those of methods with any points. One that rows
    tell apart by their points is named as its row is.
    """
    families: dict[tuple[str, Column], dict[Row, dict[int, float]]] = {}
    for group in groups:
        family = families.setdefault((group.shared, group.column), {})
        family[group.row] = group.values(metric)
    for (shared, column), family in families.items():
        if baseline is None:
            continue
        named = (row for row in family if row == Row(baseline, shared) or row.label == baseline)
        if own := next(named, None):
            yield column, own, family
            continue
        for own in [row for row in family if row.name == baseline and not row.key]:
            alike = {row: values for row, values in family.items() if row.settings == own.settings}
            yield column, own, alike


def _origin(groups: Iterable[RunGroup]) -> str:
    """The versions and commits that the records were made with."""
    machines = [record.machine for group in groups for record in group.records]
    made = {
        name: sorted({machine[name] for machine in machines if machine.get(name)})
        for name in ("bench", "commit")
    }
    parts = [f"{name} {', '.join(values)}" for name, values in made.items() if values]
    return "; ".join([*parts, f"{len(machines)} records"])
