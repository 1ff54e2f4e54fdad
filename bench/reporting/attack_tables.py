"""Attacks side by side, as a terminal and Table 6 of the paper show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from bench import registry
from bench.records.record import Record
from bench.records.statistics import Interval, mean_interval
from bench.reporting.table import Key, Table, interval_entry

PAPER: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("jsma", "8/255"): (78.9, 440.8, 0.611, 0.031),
    ("pgd-l0", "8/255"): (73.9, 1199.7, 1.078, 0.031),
    ("greedyfool", "8/255"): (100.0, 468.2, 0.547, 0.031),
    ("cw-l0", "8/255"): (100.0, 326.6, 0.542, 0.068),
    ("sapf", "8/255"): (100.0, 321.8, 0.523, 0.085),
    ("advmask", "8/255"): (100.0, 320.1, 0.532, 0.031),
    ("jsma", "16/255"): (97.3, 247.7, 0.896, 0.063),
    ("pgd-l0", "16/255"): (72.8, 498.0, 1.390, 0.063),
    ("greedyfool", "16/255"): (100.0, 238.3, 0.707, 0.063),
    ("cw-l0", "16/255"): (100.0, 136.7, 0.691, 0.118),
    ("sapf", "16/255"): (100.0, 133.7, 0.718, 0.159),
    ("advmask", "16/255"): (100.0, 131.3, 0.689, 0.063),
}
"""Table 6 of the paper: success in percent, l0 in elements, l2, linf; by attack and eps."""

UNBOUNDED = " (ignores eps)"

Direction = Literal["high", "low"]
SHOWN: dict[str, tuple[str, Direction | None]] = {
    "success": ("success / %", "high"),
    "misclassified": ("wrong / %", None),
    "l0_pixels_mean": ("pixels / mean", "low"),
    "l0_pixels_median": ("pixels / median", "low"),
    "l0_common": ("pixels / common", "low"),
    "l0_elements_mean": ("elements / mean", "low"),
    "l2": ("l2 / mean", "low"),
    "linf_max": ("linf / max", None),
    "forwards": ("passes / F", None),
    "backwards": ("passes / B", None),
    "seconds_per_image": ("time / s", None),
    "pass_ratio": ("time / passes", None),
    "optimality": ("optimal / 0-1", "high"),
}
"""Metric → its column in a terminal and the direction in which it is better."""

TABLE6 = {"success": "ASR", "l0_elements_mean": "l0", "l2": "l2", "linf": "linf"}


def groups(found: Iterable[Record]) -> dict[tuple[str, ...], list[Record]]:
    """Records that may stand in one table: same victim, data, goal, pictures and cap."""
    tables: dict[tuple[str, ...], list[Record]] = {}
    for record in found:
        labels, job = record.labels, record.job
        cap = f"at most {job['query_cap']} passes" if job.get("query_cap") else ""
        key = labels["victim"], labels["data"], labels["goal"], f"{job['images']} pictures", cap
        tables.setdefault(key, []).append(record)
    return tables


def overview(found: Sequence[Record]) -> Table:
    """All metrics of the attacks of one table at one eps, over its seeds."""
    lines = rows(found)
    cells: dict[Key, Interval | str | None] = {}
    for row, members in lines.items():
        for metric, (column, _) in SHOWN.items():
            cells[row, column] = _cell(members, metric)
        if len(members) == 1:
            low, high = (members[0].metrics.get(f"success_{end}") for end in ("low", "high"))
            if low is not None and high is not None:
                cells[row, "success / 95 %"] = f"{100 * low:.0f}-{100 * high:.0f}"
    columns = [column for column, _ in SHOWN.values()]
    if any(column == "success / 95 %" for _, column in cells):
        columns.insert(1, "success / 95 %")
    return Table(
        title="Sparse attacks",
        rows=list(lines),
        columns=columns,
        cells={key: "" if cell is None else cell for key, cell in cells.items()}
        | {(row, c): "" for row in lines for c in columns if (row, c) not in cells},
        corner="attack",
        percent=["success / %", "wrong / %"],
        best={column: best for column, best in SHOWN.values() if best},
        measure="Norms over the successes",
    )


def paper(found: Sequence[Record]) -> Table:
    """Table 6 of the paper for one victim and goal, with the published numbers beside ours."""
    by_eps = {
        eps: [record for record in found if record.labels["eps"] == eps] for eps in strengths(found)
    }
    cells: dict[Key, Interval | str | None] = {}
    published: dict[Key, float] = {}
    lines: dict[str, None] = {}
    for eps, members in by_eps.items():
        for row, same in rows(members).items():
            lines[row] = None
            for place, (metric, column) in enumerate(TABLE6.items()):
                key = row, f"{eps} / {column}"
                cells[key] = _cell(same, metric) or ""  # no success has no norms
                printed = PAPER.get((row.removesuffix(UNBOUNDED), eps))
                if printed is not None:
                    published[key] = printed[place]
    columns = [f"{eps} / {column}" for eps in by_eps for column in TABLE6.values()]
    labels = found[0].labels
    goal = labels["goal"] if labels["goal"] == "untargeted" else f"target: {labels['goal']}"
    setting = f"{labels['model']}, {labels['data']}, {goal}, {found[0].job['images']} pictures"
    return Table(
        title=f"Sparse attacks on {setting}",
        rows=list(lines),
        columns=columns,
        cells={(row, column): cells.get((row, column)) for row in lines for column in columns},
        corner="attack",
        percent=[column for column in columns if column.endswith("ASR")],
        best={c: "high" if c.endswith("ASR") else "low" for c in columns if "linf" not in c},
        published=published,
        measure=(
            f"{setting}: ASR in percent of the pictures that the network classifies correctly; l0 "
            f"in elements, l2 and linf, over the successes; rows that say{UNBOUNDED} have no bound "
            "on linf and, like the dense ceiling and the random floor, are not compared. The "
            "published network and pictures are unknown"
        ),
        origin=f"{len(found)} records of {labels['victim']}",
    )


def across(found: Sequence[Record], metric: str) -> Table:
    """One metric of the attacks on all victims: a column for each victim, goal and eps.

    A column names its data, pictures or cap where the table has several of them. Raises
    ``ValueError`` for a metric that no attack has.
    """
    known = sorted({name for record in found for name in record.metrics})
    if metric not in known:
        raise ValueError(f"attacks have no metric {metric!r}: {registry.suggest(metric, known)}")
    tables = groups(found)
    # data, pictures and cap: those of them that tell the columns apart
    varying = [place for place in (1, 3, 4) if len({key[place] for key in tables}) > 1]
    cells: dict[Key, Interval | str | None] = {}
    lines: dict[str, None] = {}
    for key, members in tables.items():
        labels = members[0].labels
        goal = labels["goal"] if labels["goal"] == "untargeted" else f"targeted ({labels['goal']})"
        head = [labels["model"], goal] + [key[place] for place in varying if key[place]]
        for eps in strengths(members):
            column = f"{', '.join(head)} / {eps}"
            if any(column == other for _, other in cells):
                column = f"{', '.join([*head, key[0]])} / {eps}"  # another victim of this model
            for row, same in rows([r for r in members if r.labels["eps"] == eps]).items():
                lines[row] = None
                cells[row, column] = _cell(same, metric) or ""
    columns = list(dict.fromkeys(column for _, column in cells))
    title, best = SHOWN.get(metric, (metric.replace("_", " "), None))
    fraction = metric.startswith(("success", "misclassified"))
    pictures = "the pictures" if 3 in varying else next(iter(tables))[3]
    over = pictures if fraction else f"the successes among {pictures}"
    return Table(
        title=f"Sparse attacks: {title.replace(' / ', ', ')}",
        rows=list(lines),
        columns=columns,
        cells={(row, column): cells.get((row, column), "") for row in lines for column in columns},
        corner="attack",
        percent=columns if fraction else (),
        best=dict.fromkeys(columns, best) if best else {},
        measure=f"{title.replace(' / ', ', ').capitalize()}, over {over}",
        origin=f"{len(found)} records",
    )


def summary(found: Sequence[Record]) -> list[dict[str, Any]]:
    """The table as JSON: one object per attack and eps, every metric with its interval over seeds.

    With a single seed the interval of the success is Wilson's, over the pictures.
    """
    entries = []
    for group in groups(found).values():
        for eps in dict.fromkeys(record.labels["eps"] for record in group):
            for members in rows([r for r in group if r.labels["eps"] == eps]).values():
                first = members[0]
                metrics = dict.fromkeys(metric for each in members for metric in each.metrics)
                entry: dict[str, Any] = {
                    **first.labels,
                    "key": first.key,
                    "seeds": [m.seed for m in members],
                }
                for metric in metrics:
                    values = [m.metrics[metric] for m in members if metric in m.metrics]
                    entry[metric] = interval_entry(mean_interval(values))
                if len(members) == 1 and "success_low" in first.metrics:
                    entry["success"] |= {
                        end: first.metrics[f"success_{end}"] for end in ("low", "high")
                    }
                entries.append(entry)
    return entries


def intervals(found: Sequence[Record]) -> list[dict[str, Any]]:
    """What the tracker keeps of each attack on its parent: success and pixels over the seeds."""
    jobs: dict[str, list[Record]] = {}
    for record in found:
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


def strengths(found: Iterable[Record]) -> list[str]:
    """The eps of the records, the smallest first."""
    return sorted({record.labels["eps"] for record in found}, key=Fraction)


def rows(found: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by attack: sparse ones first, then those without a bound, the ceiling, the floor."""
    order = ["sparse", "ceiling", "floor"]
    lines: dict[str, list[Record]] = {}
    for record in sorted(
        found, key=lambda r: (order.index(r.labels["role"]), r.labels["bounded"] == "no")
    ):
        mark = UNBOUNDED if record.labels["bounded"] == "no" else ""
        lines.setdefault(record.labels["attack"] + mark, []).append(record)
    return lines


def _cell(members: Sequence[Record], metric: str) -> Interval | str | None:
    """The mean over seeds, as a mere text where it does not compete."""
    values = [m.metrics[metric] for m in members if metric in m.metrics]
    if not values:
        return None
    interval = mean_interval(values)
    labels = members[0].labels
    if labels["bounded"] == "yes" and labels["role"] == "sparse":
        return interval
    value = interval.mean * (100 if metric in ("success", "misclassified") else 1)
    digits = 2 if metric in ("success", "misclassified") or value == 0 else None
    return f"{value:.{digits}f}" if digits else _significant(value)


def _significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    places = 2 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{max(places, 0)}f}"
