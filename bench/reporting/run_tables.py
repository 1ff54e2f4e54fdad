"""Records → what a table shows: methods as rows, an interval in each cell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records.record import Record
from bench.records.statistics import Comparison, Interval, compare, mean_interval, p_value
from bench.reporting.table import Key, Table, difference_entry, interval_entry

METHOD = ("augmentation", "guide", "policy", "mix")


def grid(
    records: Iterable[Record],
    metric: str = "accuracy",
    baseline: str | None = "none",
    published: Mapping[Key, float] | None = None,
) -> Table:
    """Methods against data sets and models: the mean over seeds of one metric of trainings.

    Where the recipes of a column differ in a setting, the row's label names it, and only rows with
    the same settings are compared.
    """
    groups = _groups([record for record in records if record.kind == "run"])
    published = published or {}
    keys = dict.fromkeys([*groups, *published])
    rows = sorted(dict.fromkeys(row for row, _ in keys), key=lambda row: row != baseline)
    columns = list(dict.fromkeys(column for _, column in keys))
    cells: dict[Key, Interval | str | None] = dict.fromkeys(
        (row, column) for row in rows for column in columns
    )
    failed: dict[Key, int] = {}
    for key, group in groups.items():
        values = _values(group, metric)
        cells[key] = mean_interval(list(values.values())) if values else None
        if lost := len(group.records) - len(values):
            failed[key] = lost
    title = metric.replace("_", " ").capitalize()
    fraction = _fraction(metric)
    return Table(
        title=title,
        rows=rows,
        columns=columns,
        cells=cells,
        percent=columns if fraction else (),
        best=dict.fromkeys(columns, "high" if fraction else "low"),
        baseline=baseline,
        comparisons=_comparisons(groups, metric, baseline),
        failed=failed,
        published=published,
        measure=title + " in percent" * fraction + " after the last epoch" * (metric == "accuracy"),
        origin=_origin(groups.values()),
    )


def differences(
    records: Iterable[Record], metric: str = "accuracy", baseline: str = "none"
) -> Table:
    """What each method of `grid` gains over the baseline, paired by seed, and what was resolvable.

    Three columns for each of the grid's: the mean difference with its t-interval, its p-value after
    Holm's correction, and the smallest difference that the seeds could have shown. Raises
    ``ValueError`` where no method shares a seed with the baseline.
    """
    of = grid(records, metric, baseline)
    cells: dict[Key, Interval | str | None] = {}
    comparisons: dict[Key, Comparison] = {}
    for (row, column), each in of.comparisons.items():
        if each.difference is None:
            continue
        where = column.replace(" / ", ", ")
        gain, corrected, least = (
            (row, f"{where} / {head}") for head in ("difference", "Holm p", "detectable")
        )
        half = None if each.high is None else each.high - each.difference
        cells[gain] = Interval(each.difference, None, half, each.n)
        cells[corrected] = "" if each.p_holm is None else p_value(each.p_holm)
        cells[least] = "" if each.detectable is None else f"{100 * each.detectable:.2g}"
        comparisons[gain] = each
    if not cells:
        raise ValueError(alone(baseline))
    columns = list(dict.fromkeys(column for _, column in cells))
    return Table(
        title=f"{of.title} gained over {baseline}",
        rows=[row for row in of.rows if any(row == each for each, _ in cells)],
        columns=columns,
        cells={
            (row, column): cells.get((row, column), "") for row, _ in cells for column in columns
        },
        percent=[column for column in columns if column.endswith("difference")],
        baseline=baseline,
        comparisons=comparisons,
        measure=f"{of.measure.replace('in percent', 'in points')}, minus that of {baseline} with "
        "the same seed",
        origin=of.origin,
    )


def gains(
    records: Iterable[Record], metric: str = "accuracy", baseline: str = "none"
) -> dict[Key, list[float]]:
    """What each method gains over the baseline in each seed that both have, by (row, column).

    Raises ``ValueError`` where no method shares a seed with the baseline.
    """
    groups = _groups([record for record in records if record.kind == "run"])
    found = {
        (row, column): [values[seed] - family[own][seed] for seed in values if seed in family[own]]
        for column, own, family in _families(groups, metric, baseline)
        for row, values in family.items()
        if row != own
    }
    if not any(found.values()):
        raise ValueError(alone(baseline))
    return found


def alone(baseline: str) -> str:
    """What to do where there is nothing to compare."""
    return f"no method shares a seed with {baseline} in the same settings: add --aug {baseline}"


def intervals(
    records: Iterable[Record], baseline: str | None = "none", metric: str = "accuracy"
) -> list[dict[str, Any]]:
    """One object for each method, data set and model, in fractions; what cannot be known is None.

    Against a baseline that is among the methods it holds the paired difference as well.
    """
    groups = _groups([record for record in records if record.kind == "run"])
    comparisons = _comparisons(groups, metric, baseline)
    found = []
    for (row, column), group in groups.items():
        values = list(_values(group, metric).values())
        entry: dict[str, Any] = {
            "augmentation": row,
            "model": group.records[0].labels.get("model", ""),
            "data": group.records[0].labels.get("data", ""),
            "key": group.records[0].key,
            "metric": metric,
            "failed": len(group.records) - len(values),
        }
        entry |= interval_entry(mean_interval(values) if values else None)
        if (row, column) in comparisons:
            entry |= difference_entry(comparisons[row, column])
        found.append(entry)
    return found


def groups(records: Sequence[Record]) -> dict[Key, list[Record]]:
    """The trainings of each cell of `grid`, by (row, column)."""
    runs = [record for record in records if record.kind == "run"]
    return {key: group.records for key, group in _groups(runs).items()}


@dataclass(frozen=True)
class _Group:
    """The records of one cell, and the settings in which its column's recipes differ."""

    settings: str
    records: list[Record]


def _groups(records: Sequence[Record]) -> dict[Key, _Group]:
    """The records of each (row, column); settings that vary in a column extend the row's label."""
    columns: dict[str, list[Record]] = {}
    for record in records:
        names = [record.labels[name] for name in ("data", "model") if name in record.labels]
        columns.setdefault(" / ".join(names), []).append(record)
    groups: dict[Key, _Group] = {}
    for column, members in columns.items():
        named = {name for record in members for name in record.job} - set(METHOD)
        varying = sorted(
            name for name in named if len({repr(record.job.get(name)) for record in members}) > 1
        )
        keys: dict[str, str] = {}
        for record in members:
            given = [f"{name}={record.job[name]}" for name in varying if name in record.job]
            settings = f" [{', '.join(given)}]" if given else ""
            row = _method(record) + settings
            if keys.setdefault(row, record.key) != record.key:
                row += f" #{record.key[:6]}"  # two jobs that their labels do not tell apart
            groups.setdefault((row, column), _Group(settings, [])).records.append(record)
    return groups


def _method(record: Record) -> str:
    parts = [record.labels[name] for name in METHOD if name in record.labels]
    return " + ".join(parts[1:] if len(parts) > 1 and parts[0] == "none" else parts)


def _fraction(metric: str) -> bool:
    return metric.startswith("accuracy")


def _values(group: _Group, metric: str) -> dict[int, float]:
    """The metric of each seed that finished with a finite one."""
    return {
        record.seed: float(record.metrics[metric])
        for record in group.records
        if record.status == "finished" and math.isfinite(record.metrics.get(metric, math.nan))
    }


def _comparisons(
    groups: Mapping[Key, _Group], metric: str, baseline: str | None
) -> dict[Key, Comparison]:
    """Each row against the baseline of the same column and settings; one Holm family each."""
    return {
        (row, column): comparison
        for column, own, family in _families(groups, metric, baseline)
        for row, comparison in compare(family, own).items()
    }


def _families(
    groups: Mapping[Key, _Group], metric: str, baseline: str | None
) -> Iterator[tuple[str, str, dict[str, dict[int, float]]]]:
    """Column, row of the baseline, and the values of all rows that share its settings."""
    families: dict[Key, dict[str, dict[int, float]]] = {}
    for (row, column), group in groups.items():
        families.setdefault((group.settings, column), {})[row] = _values(group, metric)
    for (settings, column), family in families.items():
        if (own := f"{baseline}{settings}") in family:
            yield column, own, family


def _origin(groups: Iterable[_Group]) -> str:
    """The versions and commits that the records were made with."""
    machines = [record.machine for group in groups for record in group.records]
    made = {
        name: sorted({machine[name] for machine in machines if machine.get(name)})
        for name in ("bench", "commit")
    }
    parts = [f"{name} {', '.join(values)}" for name, values in made.items() if values]
    return "; ".join([*parts, f"{len(machines)} records"])
