"""Records → tables, for a paper, a terminal and a program.

A `Table` holds numbers, and each of `latex`, `markdown`, `text`, `csv` and `json` writes the same
ones: the first three for readers, in percent and rounded, the last two as fractions in full.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bench.records import Record
from bench.statistics import Comparison, Interval, compare, mean_interval, verdict

Key = tuple[str, str]
METHOD = ("augmentation", "guide", "policy", "mix")


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one table shows; ``cells`` are keyed by (row, column).

    A cell is an interval, a text, or None where it is missing. A column's name may have two parts,
    ``"cifar10 / resnet18"``: equal first parts are set under one heading. ``percent`` are the
    columns whose fractions are shown in percent, ``best`` says of a column whether its highest or
    lowest mean is set in bold. ``published`` are numbers of others, in the unit of the column: they
    get columns of their own and are never bold and never tested. ``measure`` says in the caption
    what the numbers are, ``origin`` with what they were made.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[Key, Interval | str | None]
    corner: str = "method"
    percent: Collection[str] = ()
    best: Mapping[str, Literal["high", "low"]] = field(default_factory=dict)
    baseline: str | None = None
    comparisons: Mapping[Key, Comparison] = field(default_factory=dict)
    failed: Mapping[Key, int] = field(default_factory=dict)
    published: Mapping[Key, float] = field(default_factory=dict)
    measure: str = ""
    origin: str = ""


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
        if len(values) < len(group):
            failed[key] = len(group) - len(values)
    title = metric.replace("_", " ").capitalize()
    return Table(
        title=title,
        rows=rows,
        columns=columns,
        cells=cells,
        percent=columns,
        best=dict.fromkeys(columns, "high"),
        baseline=baseline,
        comparisons=_comparisons(groups, metric, baseline),
        failed=failed,
        published=published,
        measure=f"{title} in percent" + (" after the last epoch" * (metric == "accuracy")),
        origin=_origin(groups.values()),
    )


def attack_grid(
    records: Iterable[Record], metrics: Mapping[str, Literal["high", "low"] | None]
) -> Table:
    """Attacks against metrics such as success and l0, with the direction in which each is better.

    Metrics whose name begins with ``success``, ``accuracy`` or ``share`` are fractions.
    """
    records = [record for record in records if record.kind == "attack"]
    groups = _groups(records, ("attack",))
    several = len({column for _, column in groups}) > 1
    cells: dict[Key, Interval | str | None] = {}
    failed: dict[Key, int] = {}
    for (attack, victim), group in groups.items():
        row = f"{attack}, {victim}" if several else attack
        for metric in metrics:
            values = list(_values(group, metric).values())
            cells[row, metric] = mean_interval(values) if values else None
            if lost := sum(record.status == "failed" for record in group):
                failed[row, metric] = lost
    return Table(
        title="Attacks",
        rows=list(dict.fromkeys(row for row, _ in cells)),
        columns=list(metrics),
        cells=cells,
        corner="attack",
        percent=[name for name in metrics if name.startswith(("success", "accuracy", "share"))],
        best={name: best for name, best in metrics.items() if best},
        failed=failed,
        measure="Rates in percent",
        origin=_origin(groups.values()),
    )


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
            "model": group[0].labels.get("model", ""),
            "data": group[0].labels.get("data", ""),
            "key": group[0].key,
            "metric": metric,
            "failed": len(group) - len(values),
        }
        entry |= _interval(mean_interval(values) if values else None)
        if (row, column) in comparisons:
            entry |= _difference(comparisons[row, column])
        found.append(entry)
    return found


def missing(table: Table) -> list[Key]:
    """The (row, column) of each cell without a number of ours."""
    return [
        (row, column)
        for row in table.rows
        for column in table.columns
        if table.cells.get((row, column)) is None
    ]


def _groups(records: Sequence[Record], method: Sequence[str] = METHOD) -> dict[Key, list[Record]]:
    """The records of each (row, column); settings that vary in a column extend the row's label."""
    columns: dict[str, list[Record]] = {}
    for record in records:
        names = [record.labels[name] for name in ("data", "model") if name in record.labels]
        columns.setdefault(" / ".join(names), []).append(record)
    groups: dict[Key, list[Record]] = {}
    for column, members in columns.items():
        settings = {
            name
            for record in members
            for name, value in record.job.items()
            if name not in method and any(other.job.get(name) != value for other in members)
        }
        keys: dict[str, str] = {}
        for record in members:
            row = _label(record, method, settings)
            if keys.setdefault(row, record.key) != record.key:
                row += f" #{record.key[:6]}"  # two jobs that their labels do not tell apart
            groups.setdefault((row, column), []).append(record)
    return groups


def _label(record: Record, method: Sequence[str], settings: Collection[str]) -> str:
    parts = [record.labels[name] for name in method if name in record.labels]
    if len(parts) > 1 and parts[0] == "none":
        del parts[0]
    given = [f"{name}={record.job[name]}" for name in sorted(settings) if name in record.job]
    return " + ".join(parts) + (f" [{', '.join(given)}]" if given else "")


def _values(group: Iterable[Record], metric: str) -> dict[int, float]:
    """The metric of each seed that finished with a finite one."""
    return {
        record.seed: float(record.metrics[metric])
        for record in group
        if record.status == "finished" and math.isfinite(record.metrics.get(metric, math.nan))
    }


def _comparisons(
    groups: Mapping[Key, list[Record]], metric: str, baseline: str | None
) -> dict[Key, Comparison]:
    """Each row against the baseline of the same column and settings; one Holm family each."""
    families: dict[Key, dict[str, dict[int, float]]] = {}
    for (row, column), group in groups.items():
        settings = row[row.index(" [") :] if " [" in row else ""
        families.setdefault((settings, column), {})[row] = _values(group, metric)
    return {
        (row, column): comparison
        for (settings, column), family in families.items()
        if f"{baseline}{settings}" in family
        for row, comparison in compare(family, f"{baseline}{settings}").items()
    }


def _origin(groups: Iterable[Iterable[Record]]) -> str:
    """The versions and commits that the records were made with."""
    machines = [record.machine for group in groups for record in group]
    made = {
        name: sorted({machine[name] for machine in machines if machine.get(name)})
        for name in ("bench", "commit")
    }
    parts = [f"{name} {', '.join(values)}" for name, values in made.items() if values]
    return "; ".join([*parts, f"{len(machines)} records"])


def _interval(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {"n": 0, "mean": None, "std": None, "low": None, "high": None}
    return {
        "n": interval.n,
        "mean": interval.mean,
        "std": interval.std,
        "low": interval.low,
        "high": interval.high,
    }


def _difference(comparison: Comparison) -> dict[str, Any]:
    values = asdict(comparison)
    return {
        "difference": comparison.difference,
        "difference_low": comparison.low,
        "difference_high": comparison.high,
        **{name: values[name] for name in ("p", "p_holm", "improvement", "detectable")},
        "verdict": verdict(comparison),
    }


@dataclass(frozen=True)
class _Style:
    """How one output writes the parts of a cell."""

    escape: Callable[[str], str]
    bold: str
    interval: str
    marks: tuple[str, str]  # below 0.05, below 0.01


def _flat(text: str) -> str:
    return " ".join(text.split())


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
_SPECIAL |= {"†": r"$\dagger$", "−": "$-$"} | {each: f"\\{each}" for each in "{}$&#_%"}
_TEXT = _Style(_flat, "{}", "{} ± {}", ("*", "†"))
_MARKDOWN = _Style(
    lambda text: "".join("\\" * (each in "\\|*_`<") + each for each in _flat(text)),
    "**{}**", "{} ± {}", ("\\*", "†"),
)  # fmt: skip
_LATEX = _Style(
    lambda text: "".join(_SPECIAL.get(each, each) for each in _flat(text)),
    r"\textbf{{{}}}", r"{} $\pm$ {}", ("$^{*}$", r"$^{\dagger}$"),
)  # fmt: skip


def text(table: Table) -> str:
    """The table for a terminal, which has no bold."""
    headers = [name.replace(" / ", "\n") for name in _headers(table)]
    return f"{_tabulate(table, _TEXT, headers, 'simple')}\n\n{caption(table, bold=False)}\n"


def markdown(table: Table) -> str:
    """The table as a pipe table, with its caption below."""
    headers = [_MARKDOWN.escape(name) for name in _headers(table)]
    body = _tabulate(table, _MARKDOWN, headers, "pipe")
    return f"{body}\n\n{_MARKDOWN.escape(caption(table))}\n"


def latex(table: Table) -> str:
    """The table as a float for a document that uses the package booktabs."""
    from tabulate import DataRow, Line, TableFormat

    names = _headers(table)
    groups = [name.partition(" / ")[0] if " / " in name else "" for name in names]
    headers = [_LATEX.escape(name.rpartition(" / ")[2]) for name in names]

    def begin(_widths: list[int], _aligns: list[str]) -> str:
        top = f"\\begin{{tabular}}{{l{'c' * (len(names) - 1)}}}\n\\toprule"
        return top + _spans(groups) if any(groups) else top

    booktabs = TableFormat(
        lineabove=begin,
        linebelowheader=Line("\\midrule", "", "", ""),
        linebetweenrows=None,
        linebelow=Line("\\bottomrule\n\\end{tabular}", "", "", ""),
        headerrow=DataRow("", " & ", r" \\"),
        datarow=DataRow("", " & ", r" \\"),
        padding=0,
        with_header_hide=None,
    )
    label = "-".join("".join(c if c.isalnum() else " " for c in table.title.lower()).split())
    return "\n".join(
        [
            f"% {_flat(table.origin)}",
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_LATEX.escape(caption(table))}}}",
            f"\\label{{tab:{label}}}",
            _tabulate(table, _LATEX, headers, booktabs),
            "\\end{table}\n",
        ]
    )


def csv(table: Table) -> str:
    """One line for each cell, in fractions."""
    import csv

    entries = _entries(table)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for each in entries for name in each)))
    writer.writeheader()
    writer.writerows(entries)
    return file.getvalue()


def json(table: Table) -> str:
    """The table as an object with a list of cells, in fractions."""
    from json import dumps

    whole = {
        "title": table.title,
        "caption": caption(table),
        "origin": table.origin,
        "baseline": table.baseline,
        "cells": _entries(table),
    }
    return dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def caption(table: Table, bold: bool = True) -> str:
    """What the numbers, the ± and the marks of this table mean."""
    measured = [cell for cell in table.cells.values() if isinstance(cell, Interval)]
    usual = _usual(table)
    parts = []
    if any(cell.half is not None for cell in measured):
        unless = " unless stated" if any(cell.n != usual for cell in measured) else ""
        spread = f"mean ± half-width of the 95 % t-interval over n = {usual} seeds{unless}"
        parts.append(f"{table.measure or table.title}: {spread}.")
    elif measured:
        parts.append(f"{table.measure or table.title}: a single seed, so there is no interval.")
    if bold and table.best and measured:
        parts.append("Bold: best mean of a column.")
    if any(_mark(each, ("*", "†")) for each in table.comparisons.values()):
        parts.append(
            f"* and †: differs from {table.baseline}, p < 0.05 and p < 0.01 "
            "(paired t-test over seeds, Holm's correction over the methods of a column)."
        )
    elif table.comparisons:
        parts.append(f"No method differs from {table.baseline} significantly.")
    if table.failed:
        parts.append("Failed: seeds whose training or attack broke down, not in the mean.")
    if table.published:
        parts.append("Published: printed by others, neither bold nor tested.")
    if missing(table):
        parts.append("--: not run.")
    return " ".join(parts)


def _tabulate(table: Table, style: _Style, headers: list[str], form: Any) -> str:
    from tabulate import tabulate

    best = _best(table)
    lines = [
        [
            style.escape(row),
            *(
                _published(table, row, column)
                if published
                else _cell(table, row, column, style, best)
                for column, published in _columns(table)
            ),
        ]
        for row in table.rows
    ]
    # numbers are formatted already, and tabulate would turn 96.10 into 96.1
    return tabulate(
        lines,
        headers,
        tablefmt=form,
        disable_numparse=True,
        colalign=["left", *["center"] * (len(headers) - 1)] if lines else None,
    )


def _columns(table: Table) -> list[tuple[str, bool]]:
    """The printed columns: ours, and after each the published one where there is any."""
    known = {column for _, column in table.published}
    return [
        (column, published)
        for column in table.columns
        for published in ([False, True] if column in known else [False])
    ]


def _headers(table: Table) -> list[str]:
    return [
        table.corner,
        *(f"{name} (published)" if published else name for name, published in _columns(table)),
    ]


def _spans(groups: Sequence[str]) -> str:
    """The heading row above the columns' names: equal neighbours under one rule."""
    cells, rules, start = [], [], 0
    for name, members in itertools.groupby(groups):
        end = start + len(list(members))
        cells.append(
            f"\\multicolumn{{{end - start}}}{{c}}{{{_LATEX.escape(name)}}}" if name else ""
        )
        if name:
            rules.append(f"\\cmidrule(lr){{{start + 1}-{end}}}")
        cells += [""] * (end - start - 1) if not name else []
        start = end
    return f"\n{' & '.join(cells)} \\\\\n{' '.join(rules)}"


def _cell(table: Table, row: str, column: str, style: _Style, best: Collection[Key]) -> str:
    cell, failed = table.cells.get((row, column)), table.failed.get((row, column), 0)
    if isinstance(cell, Interval):
        mean, half = _round(cell, column in table.percent)
        shown = style.bold.format(mean) if (row, column) in best else mean
        shown = style.interval.format(shown, half) if half else shown
        if (row, column) in table.comparisons:
            shown += _mark(table.comparisons[row, column], style.marks)
        if cell.n != _usual(table):
            shown += f" (n={cell.n})"
    else:
        shown = "--" if cell is None else style.escape(cell)
    return f"{shown} ({failed} failed)" if failed else shown


def _round(interval: Interval, percent: bool) -> tuple[str, str]:
    """The mean to the second significant digit of its half-width; percents to 0.01 at most."""
    scale = 100 if percent else 1
    mean, half = scale * interval.mean, scale * (interval.half or 0)
    decimals = 2
    if half:
        decimals = 1 - math.floor(math.log10(half))
    elif not percent and mean:
        decimals = 2 - math.floor(math.log10(abs(mean)))
    decimals = min(max(decimals, 0), 2 if percent else 6)
    shown = "" if interval.half is None else f"{half:.{decimals}f}"
    return f"{mean:.{decimals}f}", shown


def _published(table: Table, row: str, column: str) -> str:
    value = table.published.get((row, column))
    if value is None:
        return ""
    return f"{value:.2f}" if column in table.percent else f"{value:g}"


def _mark(comparison: Comparison, marks: tuple[str, str]) -> str:
    p = comparison.p_holm
    return "" if p is None or p >= 0.05 else marks[p < 0.01]


def _usual(table: Table) -> int:
    """The most frequent number of seeds of a cell."""
    counts = [cell.n for cell in table.cells.values() if isinstance(cell, Interval)]
    return max(counts, key=lambda n: (counts.count(n), n), default=0)


def _best(table: Table) -> set[Key]:
    """The cells with the best mean of their column, where there is a choice."""
    found: set[Key] = set()
    for column, direction in table.best.items():
        means = {
            (row, column): cell.mean
            for row in table.rows
            if isinstance(cell := table.cells.get((row, column)), Interval)
        }
        if len(means) > 1:
            best = max(means.values()) if direction == "high" else min(means.values())
            found |= {key for key, mean in means.items() if mean == best}
    return found


def _entries(table: Table) -> list[dict[str, Any]]:
    found = []
    for row in table.rows:
        for column in table.columns:
            key = row, column
            cell = table.cells.get(key)
            entry: dict[str, Any] = {"row": row, "column": column}
            entry |= {"text": cell} if isinstance(cell, str) else _interval(cell)
            entry["failed"] = table.failed.get(key, 0)
            if key in table.published:
                scale = 100 if column in table.percent else 1
                entry["published"] = round(table.published[key] / scale, 12)
            if key in table.comparisons:
                entry |= _difference(table.comparisons[key])
            found.append(entry)
    return found
