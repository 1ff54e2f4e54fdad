"""One HTML page that says what was compared, what came out, and how to run it again.

The page contains everything it shows: it needs no network and no scripts. Records may come from
anyone: whatever no table can show is skipped and counted, and every text is escaped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.files import atomic
from bench.records.method import Method
from bench.records.record import Curve, Record
from bench.records.statistics import Interval, mean_interval, verdict
from bench.records.store import Store
from bench.reporting import attack_tables, budgets, commands, run_tables
from bench.reporting.cells import Cell, Column, Key, Row
from bench.reporting.cost_table import cost_table
from bench.reporting.figures import occlusion_curves
from bench.reporting.grouping import (
    AttackSetting,
    RunGroup,
    eps_values,
    group_attacks,
    group_runs,
    plural,
    rows_by_column,
)
from bench.reporting.page import Page, add_figure, add_table, render
from bench.reporting.panels import (
    OCCLUSIONS,
    Panel,
    attack_caption,
    attack_panels,
    error_lines,
    gain_panels,
    occlusion_panels,
)
from bench.reporting.table import Table
from bench.reporting.worst_case import compared
from bench.robustness import occlusion
from bench.training.recipes import Recipe

CurveReader = Callable[[Record], Curve]
Section = Callable[[Page, Sequence[Record], CurveReader, Path], None]
"""Adds tables and figures to a page, from the records, their curves and the results folder."""

MOST_LINES = 10
"""Lines of one panel; more cannot be told apart."""

MOST_ROWS = 40
"""Rows of one panel; more do not fit on a page."""


def write_report(store: Store, folder: Path, sections: Sequence[Section] = ()) -> tuple[Path, Page]:
    """Write ``index.html`` with ``tables`` and ``figures`` beside it.

    Args:
        store: The records of a results folder.
        folder: Where the files are written.
        sections: What else is added, such as the experiments of a paper.

    Returns:
        The path of the page, and what it shows.

    Raises:
        ValueError: There is no record that can be shown.
    """
    page = build_page(store, sections)
    for name, content in page.files.items():
        atomic.write(folder / name, content)
    atomic.write(folder / "index.html", render(page))
    return folder / "index.html", page


def build_page(store: Store, sections: Sequence[Section] = ()) -> Page:
    """Everything that the page of `write_report` shows; arguments and errors are the same."""
    page = Page()
    found, page.warnings = store.read()
    if not found:
        raise ValueError(f"{store.path} has no records to report; bench run makes them")
    runs = [record for record in found if record.kind == "run"]
    attacks = [record for record in found if record.kind == "attack"]
    curves = store.curve
    page.numbers = {"records": [_flat(record) for record in found], "tables": {}}
    groups = group_runs(runs)
    columns = rows_by_column(groups)
    if runs:
        result = run_tables.grid(runs)
        add_table(page, "results", "All runs", result)
        if any(each.n for each in result.comparisons.values()):
            note = "Minus none with the same seed. Bars: 95 % t-interval; grey dots: single seeds."
            gained = run_tables.gains(runs)
            shown = foremost(gained)
            if len(shown) < len(gained):
                note += f" Shown are the {MOST_ROWS} methods that gained most; the table has all."
            add_figure(page, "results", "Accuracy gained over none", gain_panels(shown), note)
        add_verdict(page, result, runs, found)
        for column, rows in columns.items():
            add_learning_curves(page, column, rows, result, curves)
        add_occlusion(page, columns, store.folder)
        if (cost := cost_table(groups, store.folder)) is not None:
            add_table(page, "cost", cost.title, cost)
    else:
        page.summary.append(f"{len(attacks)} evaluations of attacks, and no training run yet.")
    for add_section in sections:
        add_section(page, found, curves, store.folder)
    add_attacks(page, attacks, store)
    add_seeds(page, groups)
    add_failures(page, found)
    add_machines(page, found)
    add_commands(page, groups)
    return page


def add_verdict(page: Page, table: Table, runs: Sequence[Record], found: Sequence[Record]) -> None:
    """The verdict in words: how much was compared, and what that has shown."""
    names = {label: {r.labels[label] for r in runs} for label in ("data", "model")}
    lost = sum(record.status == "failed" for record in found)
    page.summary.append(
        f"{plural(len(runs), 'training run')} of {plural(len(table.rows), 'method')} with "
        f"{plural(len(names['model']), 'network')} on {plural(len(names['data']), 'dataset')}, "
        f"and {plural(len(found) - len(runs), 'evaluation')} of attacks; {lost} failed."
    )
    shown = [
        each.difference
        for each in table.comparisons.values()
        if each.difference is not None and each.p_holm is not None and each.p_holm < 0.05
    ]
    better, worse = sum(each > 0 for each in shown), sum(each < 0 for each in shown)
    if table.comparisons:
        page.summary.append(
            f"Of {len(table.comparisons)} comparisons with no augmentation, {better} show a "
            f"significant gain, {worse} a significant loss, and "
            f"{len(table.comparisons) - better - worse} cannot be resolved with these seeds "
            "(paired t-test, Holm's correction, p < 0.05)."
        )
    else:
        page.summary.append(
            "Nothing was run without augmentation on the same seeds, so there is no comparison: "
            "add --aug none."
        )
    for column in table.columns:
        means = _intervals(table, table.rows, column)
        if not means:
            page.verdicts.append((column.label, "every run failed"))
            continue
        first, *others = sorted(means, key=lambda label: -means[label].mean)
        cell = means[first]
        silent = cell.half is None or cell.excludes_nothing
        spread = "" if silent else f" ± {100 * (cell.half or 0):.2f}"
        text = (
            f"{first} is best of {len(means)} with {100 * cell.mean:.2f}{spread} % (n = {cell.n})"
        )
        if (first, column.label) in table.comparisons:
            text += f"; against none {verdict(table.comparisons[first, column.label])}"
        elif others and (others[0], column.label) in table.comparisons:
            text += (
                f"; {others[0]} comes next, against none "
                f"{verdict(table.comparisons[others[0], column.label])}"
            )
        page.verdicts.append((column.label, text + "."))


def foremost(
    gained: Mapping[tuple[Row, Column], Sequence[float]], most: int = MOST_ROWS
) -> dict[tuple[Row, Column], Sequence[float]]:
    """The gains of the rows with the highest mean in any column, in their own order."""
    best: dict[Row, float] = {}
    for (row, _), values in gained.items():
        mean = sum(values) / len(values) if values else -math.inf
        best[row] = max(best.get(row, -math.inf), mean)
    kept = set(sorted(best, key=lambda row: -best[row])[:most])
    return {key: values for key, values in gained.items() if key[0] in kept}


def _intervals(table: Table, rows: Iterable[Row], column: Column) -> dict[str, Interval]:
    """The intervals of a column by the labels of its rows."""
    return {
        row.label: cell for row in rows if isinstance(cell := table.cell(row, column), Interval)
    }


def add_learning_curves(
    page: Page,
    column: Column,
    rows: Mapping[Row, Sequence[Record]],
    table: Table,
    curves: CurveReader,
) -> None:
    """The test error over the epochs of one column."""
    means = _intervals(table, rows, column)
    records = {row.label: members for row, members in rows.items() if row.label in means}
    first = sorted(means, key=lambda label: (label != "none", -means[label].mean))[:MOST_LINES]
    counts: Counter[str] = Counter()

    def found(label: str) -> Iterator[Curve]:
        """The curves of a method, one at a time: those of thousands of seeds need much memory."""
        for record in records[label]:
            if curve := curves(record):
                counts[label] += 1
                if "test_accuracy" in curve[0]:
                    yield curve

    lines = error_lines({label: found(label) for label in first})
    if not lines:
        return
    note = "Lines: mean test error over the seeds; bands: 95 % t-interval at each epoch. "
    note += "n: " + ", ".join(f"{label} {counts[label]}" for label in first) + "."
    if len(first) < len(rows):
        note += f" Shown are {len(first)} of {len(rows)} methods: the baseline and the best."
    add_figure(page, "curves", column.label, [Panel("", "epoch", "test error / %", lines)], note)


def add_occlusion(
    page: Page, columns: Mapping[Column, Mapping[Row, Sequence[Record]]], results: Path
) -> None:
    """The accuracy under occlusion: curves for each column, and one table of mean accuracies."""
    cells: dict[Key, Cell] = {}
    shown_rows: dict[Row, None] = {}
    shown_columns: list[Column] = []
    for column, rows in columns.items():
        members = occlusion_curves(rows, results)
        if not members:
            continue
        for kind, name in OCCLUSIONS.items():
            place = Column(name, group=column.label, percent=True, best="high")
            shown_columns.append(place)
            for row, curves in members.items():
                values = [occlusion.area(curve, kind) for curve in curves]
                shown_rows[row] = None
                cells[row.label, place.label] = mean_interval(values)
        first = {row.label: curves for row, curves in list(members.items())[:MOST_LINES]}
        note = (
            "Accuracy on test images of which growing parts are hidden by the mean colour; "
            "lines: mean over the seeds; bands: 95 % t-interval. n: "
            + ", ".join(f"{label} {len(curves)}" for label, curves in first.items())
            + "."
        )
        add_figure(page, "occlusion", column.label, occlusion_panels(first), note)
    if not cells:
        return
    table = Table(
        title="Accuracy under occlusion",
        rows=list(shown_rows),
        columns=shown_columns,
        cells=cells,
        measure=f"Mean accuracy in percent over {len(occlusion.SHARES)} hidden shares from 0 to "
        f"{max(occlusion.SHARES):.0%}",
    )
    add_table(page, "occlusion", table.title, table)


def add_attacks(page: Page, attacks: Sequence[Record], store: Store) -> None:
    """The attacks: tables and curves for each setting."""
    settings = group_attacks(attacks)
    for setting, every in settings.items():
        members = [record for record in every if record.status == "finished"]
        if not members:
            continue
        model = members[0].labels["model"]
        victims = {each.victim for each in settings if each.victim.partition(" ")[0] == model}
        victim = setting.victim_name if len(victims) > 1 else model
        parts = (setting.data, victim, setting.goal)
        title = f"{', '.join(parts)}, {setting.size} {setting.limit}".strip()
        shown = compared(members, store.images)
        for norms in attack_tables.norm_tables(shown):
            named = replace(norms, title=f"Norms on {title}, {norms.columns[0].group}")
            add_table(page, "attacks", named.title, named)
        for eps in eps_values(members):
            same = [record for record in shown if record.labels["eps"] == eps]
            named = replace(
                attack_tables.attack_metrics(same), title=f"Metrics on {title}, eps {eps}"
            )
            add_table(page, "attacks", named.title, named)
        wanted = {"changes", "pixels", "elements"}
        found = [
            (record, curve)
            for record, curve in ((record, store.curve(record)) for record in shown)
            if all(wanted <= set(entry) for entry in curve)
            and (curve or not record.metrics.get("success"))  # else its curve was lost
        ]
        if found:
            note = attack_caption(members, "pixels")
            add_figure(page, "attacks", title, attack_panels(found), note)
        if panels := budgets.trace_panels(members, store.trace):
            note = budgets.trace_caption(members, "pixels")
            add_figure(page, "attacks", f"{title}: fewest pixels against passes", panels, note)


def add_seeds(page: Page, groups: Iterable[RunGroup]) -> None:
    """The accuracy of every seed, one line per method."""
    for group in groups:
        text = ", ".join(
            f"{record.seed}: {100 * record.metrics['accuracy']:.2f}"
            if record.status == "finished" and "accuracy" in record.metrics
            else f"{record.seed}: failed"
            for record in sorted(group.records, key=lambda each: each.seed)
        )
        line = group.row.label, len(group.records), text
        page.seeds.setdefault(group.column.label, []).append(line)


def add_failures(page: Page, found: Sequence[Record]) -> None:
    """What failed and why; seeds with the same message share a line."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for record in found:
        if record.status == "failed" or (record.kind == "attack" and record.message):
            labels = record.labels
            where = f"{labels['data']} / {labels['model']}"
            if record.kind == "run":
                name = Method.of(record).name
            else:
                goal = AttackSetting.of(record).goal_in_words
                name = f"{labels['attack']}, eps {labels['eps']}, {goal}"
            lines.setdefault((name, where, record.message), []).append(record.seed)
    page.failures = [
        (name, where, ", ".join(map(str, seeds)), message)
        for (name, where, message), seeds in lines.items()
    ]


def add_machines(page: Page, found: Sequence[Record]) -> None:
    """The machines that the records were made on, with how many."""
    counts = Counter(tuple(sorted(record.machine.items())) for record in found)
    page.machines = [(count, dict(machine)) for machine, count in counts.most_common()]


def add_commands(page: Page, groups: Iterable[RunGroup]) -> None:
    """The command for each recipe with its seeds."""
    for group in groups:
        try:
            recipe = Recipe.from_json(dict(group.records[0].job))
            page.commands.append(commands.run(recipe, [each.seed for each in group.records]))
        except (ValueError, TypeError, LookupError):
            page.commands.append(f"# {group.row.label}: its recipe is of another version")


def _flat(record: Record) -> dict[str, Any]:
    about = {"kind": record.kind, "key": record.key, "seed": record.seed, "status": record.status}
    return {**record.labels, **record.metrics, **about}
