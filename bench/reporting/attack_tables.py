"""Attacks side by side: all their metrics, their success and norms, one metric over all victims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.errors import suggest
from bench.records.record import Record
from bench.records.statistics import mean_interval
from bench.reporting.cells import Cell, Column, Key, Published, Row, interval_entry
from bench.reporting.grouping import (
    AttackSetting,
    bound_in_words,
    bounded,
    eps_values,
    group_attacks,
    rows_of_attacks,
)
from bench.reporting.table import Table

METRICS = {
    "success": Column("%", "success", percent=True, best="high"),
    "misclassified": Column("%", "wrong", percent=True),
    "l0_pixels_mean": Column("mean", "pixels", best="low"),
    "l0_pixels_median": Column("median", "pixels", best="low"),
    "l0_common": Column("common", "pixels", best="low"),
    "l0_elements_mean": Column("mean", "elements", best="low"),
    "l2": Column("mean", "l2", best="low"),
    "linf_max": Column("max", "linf"),
    "forwards": Column("F", "passes"),
    "backwards": Column("B", "passes"),
    "seconds_per_image": Column("s", "time"),
    "pass_ratio": Column("passes", "time"),
    "optimality": Column("0-1", "optimal", best="high"),
}
"""The metrics of an attack that `attack_metrics` shows, each with its column."""

FRACTIONS = {
    "success_8bit": Column("%", "success after rounding to 8 bits", percent=True, best="high"),
    "success_best": Column("%", "success at the easiest goal", percent=True, best="high"),
    "success_worst": Column("%", "success at the hardest goal", percent=True, best="high"),
    "success_low": Column("%", "success, lower end of the interval", percent=True),
    "success_high": Column("%", "success, upper end of the interval", percent=True),
}
"""Other metrics that are fractions of the images."""

OTHERS = {"l0_elements_median": Column("median", "elements", best="low")}
"""Metrics that only `across_victims` shows, where their name alone would not say what is better."""

OF_SUCCESSES = {
    *("l2", "linf", "linf_max"),
    *(
        f"l0_{unit}_{of}"
        for unit in ("pixels", "elements")
        for of in ("mean", "median", "q25", "q75", "8bit")
    ),
}
"""Metrics that a record lacks where its attack has no, or too few, successes."""

QUANTILES = {"_median": 0.5, "_q25": 0.25, "_q75": 0.75}
"""Endings of the metrics in which failures are infinite, and the share of the images below each."""

INTERVAL = Column("95 %", "success")

NORMS = {
    "success": Column("ASR", percent=True, best="high"),
    "l0_elements_mean": Column("l0", best="low"),
    "l2": Column("l2", best="low"),
    "linf": Column("linf"),
}
"""The success and the norms of an attack, as AdvMask's paper tabulates them."""


def attack_metrics(records: Sequence[Record]) -> Table:
    """All metrics of the attacks of one setting at one eps, over its seeds.

    Args:
        records: Records of attacks that may be compared, as `group_attacks` groups them.

    Returns:
        A row for each attack. With a single seed the success has Wilson's interval over the images.
    """
    rows = rows_of_attacks(records)
    cells: dict[Key, Cell] = {}
    for row, members in rows.items():
        for metric, column in METRICS.items():
            cells[row.label, column.label] = _cell(members, metric, column) or ""
        if len(members) == 1:
            low, high = (members[0].metrics.get(f"success_{end}") for end in ("low", "high"))
            if low is not None and high is not None:
                cells[row.label, INTERVAL.label] = f"{100 * low:.0f}-{100 * high:.0f}"
    columns = list(METRICS.values())
    if any(label == INTERVAL.label for _, label in cells):
        columns.insert(1, INTERVAL)
    return Table(
        title="Sparse attacks",
        rows=list(rows),
        columns=columns,
        cells=_filled(cells, rows, columns, ""),
        corner="attack",
        measure="Norms over the successes",
    )


def norm_tables(
    records: Sequence[Record],
    published: Mapping[tuple[str, str], Sequence[float]] = MappingProxyType({}),
    wanted: Mapping[str, Sequence[str]] = MappingProxyType({}),
    about: str = "",
) -> list[Table]:
    """Success and norms of the attacks on one victim model with one goal: a table for each eps.

    Args:
        records: Records of attacks that may be compared, as `group_attacks` groups them.
        published: The four numbers that a paper prints, by the name of the attack and by eps. They
            are of another network, so they get a heading that says so.
        wanted: Names of attacks that have a row at an eps even if they have no record.
        about: What is attacked, where there is no record that says it.
    """
    if records:
        setting, model = AttackSetting.of(records[0]), records[0].labels["model"]
        goal = setting.goal if setting.goal == "untargeted" else f"target: {setting.goal}"
        about = f"{model}, {setting.data}, {goal}, {setting.size}"
    made = []
    for eps in dict.fromkeys([*eps_values(records), *wanted]):
        columns = [replace(column, group=f"eps {eps}") for column in NORMS.values()]
        cells: dict[Key, Cell] = {}
        printed: dict[Key, Published] = {}
        rows = _with_missing(rows_of_attacks(_at(records, eps)), wanted.get(eps, ()))
        for row, members in rows.items():
            for (metric, shown), column in zip(NORMS.items(), columns, strict=True):
                # an attack without any success has no norms, one without a record was not run
                cell = _cell(members, metric, shown) or "" if members else None
                cells[row.label, column.label] = cell
            # what was submitted as images may have the name of an attack
            submitted = members and "source" in members[0].labels
            known = () if submitted else published.get((row.name, eps), ())
            for column, value in zip(columns, known, strict=False):
                printed[row.label, column.label] = Published(value)
        made.append(
            Table(
                title=f"Sparse attacks on {about}, eps {eps}",
                rows=list(rows),
                columns=columns,
                cells=cells,
                corner="attack",
                published=printed,
                settings={
                    column.label: NORMS[metric]
                    for metric, column in zip(NORMS, columns, strict=True)
                },
                measure=(
                    f"{about}, eps {eps}: ASR in percent of the images that the network classifies "
                    "correctly; l0 in elements, l2 and linf, over the successes; rows that say "
                    "(ignores eps) have no bound on linf and, like the dense ceiling and the "
                    "random floor, are not compared"
                ),
                origin=f"{len(records)} records of {records[0].labels['victim']}"
                if records
                else "no records yet",
            )
        )
    return made


def _with_missing(
    rows: Mapping[Row, Sequence[Record]], wanted: Sequence[str]
) -> dict[Row, Sequence[Record]]:
    """The rows, and one for each attack without a record; the worst case stays the last."""
    known = {row.name for row in rows}
    last = {row: each for row, each in rows.items() if each[0].labels["role"] == "worst"}
    first = {row: each for row, each in rows.items() if row not in last}
    return first | {Row(name): () for name in wanted if name not in known} | last


def across_victims(records: Sequence[Record], metric: str) -> Table:
    """One metric of the attacks on all victims: a column for each victim, goal and eps.

    A column names its goal, dataset, number of images, limit on passes or eps where the table has
    several; the caption says the goal and the eps that all columns share.

    Args:
        records: Records of attacks.
        metric: The name of a metric, such as ``l0_pixels_mean``.

    Raises:
        ValueError: No attack has this metric, and none would have it with more successes.
    """
    known = {name for record in records for name in record.metrics}
    if metric not in known | OF_SUCCESSES:
        raise ValueError(f"attacks have no metric {metric!r}: {suggest(metric, sorted(known))}")
    settings = group_attacks(records)
    shown = (METRICS | FRACTIONS | OTHERS).get(metric) or Column(metric.replace("_", " "))
    cells: dict[Key, Cell] = {}
    rows = list(rows_of_attacks(records))  # in one order, that of a table of one victim model
    columns: dict[Column, None] = {}
    several = len(eps_values(chain.from_iterable(settings.values()))) > 1
    for setting, members in settings.items():
        about = heading(setting, members[0].labels["model"], settings)
        for eps in eps_values(members):
            bound = bound_in_words(eps) if several else ""
            column = _headed(shown, about, bound)
            if column in columns:  # another victim of this model
                column = _headed(shown, f"{about}, {setting.victim}", bound)
            columns[column] = None
            for row, same in rows_of_attacks(_at(members, eps)).items():
                cells[row.label, column.label] = _cell(same, metric, shown) or ""
    sizes = {setting.size for setting in settings}
    images = "the images" if len(sizes) > 1 else sizes.pop()
    title = ", ".join(part for part in (shown.group, shown.name) if part)
    told = ", ".join([title[0].upper() + title[1:], *in_common(settings)])
    return Table(
        title=f"Sparse attacks: {title}",
        rows=rows,
        columns=list(columns),
        cells=_filled(cells, rows, columns, ""),
        corner="attack",
        measure=f"{told}, over {_over(metric, shown, images)}",
        note="" if metric in known else "No attack has enough successes for it.",
        origin=f"{len(records)} records",
    )


def _headed(shown: Column, about: str, bound: str) -> Column:
    return replace(shown, name=bound or about, group=about if bound else "")


def _over(metric: str, shown: Column, images: str) -> str:
    """Which images a metric is taken over, and what failures are in it."""
    if metric.endswith(tuple(QUANTILES)) or metric.startswith("optimality"):
        return f"{images}, failures counted as infinite"
    if metric.startswith("l0_common"):
        return f"those of {images} on which all sparse attacks succeed"
    of_all = ("forwards", "backwards", "seconds_per_image", "pass_ratio", "peak_memory_mb")
    if shown.percent or metric.startswith(of_all):
        return images
    return f"the successes among {images}"


def heading(setting: AttackSetting, model: str, others: Iterable[AttackSetting]) -> str:
    """The network, and what else tells the columns of a setting from others."""
    alike = {other.victim for other in others if other.victim.partition(" ")[0] == model}
    network = setting.weights if setting.weights and len(alike) > 1 else model
    told = {
        "goal": setting.goal_in_words,
        "data": setting.data,
        "images": setting.size,
        "query_cap": setting.limit,
    }
    varying = [
        text
        for name, text in told.items()
        if text and len({getattr(other, name) for other in others}) > 1
    ]
    return ", ".join([network, *varying])


def in_common(settings: Mapping[AttackSetting, Sequence[Record]]) -> list[str]:
    """The goal and the eps in words, each if all records of the settings have the same."""
    goals = {setting.goal_in_words for setting in settings}
    bounds = map(bound_in_words, eps_values(chain.from_iterable(settings.values())))
    return [text for (text, *others) in (sorted(goals), list(bounds)) if not others]


def attack_entries(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The attacks as JSON: one object per attack and eps, each metric with its interval over seeds.

    With a single seed the interval of the success is Wilson's, over the images. A median or
    quartile that is infinite for some seed is null, as tables show ∞.
    """
    entries = []
    for group in group_attacks(records).values():
        for eps in dict.fromkeys(record.labels["eps"] for record in group):
            for members in rows_of_attacks(_at(group, eps)).values():
                first = members[0]
                metrics = dict.fromkeys(metric for each in members for metric in each.metrics)
                entry: dict[str, Any] = {
                    **first.labels,
                    "key": first.key,
                    "seeds": [m.seed for m in members],
                }
                for metric in metrics:
                    if any(_infinite(each, metric) for each in members):
                        entry[metric] = interval_entry(None) | {"n": len(members)}
                        continue
                    values = [m.metrics[metric] for m in members if metric in m.metrics]
                    entry[metric] = interval_entry(mean_interval(values))
                if len(members) == 1 and "success_low" in first.metrics:
                    entry["success"] |= {
                        end: first.metrics[f"success_{end}"] for end in ("low", "high")
                    }
                entries.append(entry)
    return entries


def attack_intervals(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The success and the pixels of each attack over its seeds, for the tracker."""
    jobs: dict[str, list[Record]] = {}
    for record in records:
        jobs.setdefault(record.key, []).append(record)
    return [
        {
            "attack": members[0].labels["attack"],
            "model": members[0].labels["model"],
            "data": members[0].labels["data"],
            "key": members[0].cell,
            "metric": metric,
            **interval_entry(mean_interval(values)),
        }
        for members in jobs.values()
        for metric in ("success", "l0_pixels_mean")
        if (values := [m.metrics[metric] for m in members if metric in m.metrics])
    ]


def _at(records: Iterable[Record], eps: str) -> list[Record]:
    return [record for record in records if record.labels["eps"] == eps]


def _filled(
    cells: Mapping[Key, Cell], rows: Iterable[Row], columns: Iterable[Column], empty: Cell
) -> dict[Key, Cell]:
    """The cells, with ``empty`` where there is none."""
    columns = list(columns)
    return {
        (row.label, column.label): cells.get((row.label, column.label), empty)
        for row in rows
        for column in columns
    }


def _cell(members: Sequence[Record], metric: str, column: Column) -> Cell:
    """The mean over seeds, as a mere text where it does not compete."""
    values = [m.metrics[metric] for m in members if metric in m.metrics]
    if any(_infinite(m, metric) for m in members):
        return "∞"
    if not values:
        return None
    interval = mean_interval(values)
    competes = bounded(members[0]) and members[0].labels["role"] == "sparse"
    if competes and interval.mean:  # a success of 0 is never the best
        return interval
    value = interval.mean * (100 if column.percent else 1)
    return f"{value:.2f}" if column.percent or value == 0 else _significant(value)


def _infinite(record: Record, metric: str) -> bool:
    """Whether a quantile is missing because it is that of a failure."""
    share = next((share for end, share in QUANTILES.items() if metric.endswith(end)), None)
    if share is None or metric in record.metrics:
        return False
    success = record.metrics.get("success", 1.0)
    if record.labels["goal"] == "all":  # each image has several goals, whose number is not known
        return success <= share
    n = int(record.metrics.get("images", record.job["images"]))
    return round(success * n) <= math.ceil(share * (n - 1))  # as `over_images.quartiles` has it


def _significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    places = 2 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{max(places, 0)}f}"
