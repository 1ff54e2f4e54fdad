"""One page that says what was compared, what came out, and how to run it again.

The page holds everything it shows: it needs no network and no scripts. Records are read as what
they are, files that anyone may have written: whatever cannot stand in a table is skipped and
counted, and every text is escaped.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.files import atomic
from bench.paper import experiments, figures, tables
from bench.records import validation
from bench.records.record import Record
from bench.records.statistics import Interval, mean_interval, verdict
from bench.records.store import Store
from bench.reporting import attack_tables, commands, cost_table, plots, run_tables
from bench.reporting.page import Page, Part, add_figure, add_table, render
from bench.reporting.plots import Curve, Panel
from bench.reporting.table import Key, Table
from bench.robustness import occlusion
from bench.training.recipes import Recipe

LINES = 10
"""Most lines of one panel; more cannot be told apart."""


def write(store: Store, folder: Path) -> tuple[Path, Page]:
    """Write ``index.html`` with ``tables`` and ``figures`` beside it; returns where it lies.

    Raises ``ValueError`` when there is no record that can be shown.
    """
    page = build(store)
    for name, content in page.files.items():
        atomic.write(folder / name, content)
    atomic.write(folder / "index.html", render(page))
    return folder / "index.html", page


def build(store: Store) -> Page:
    """Everything that the page shows, from the records of a results folder."""
    page = Page()
    found, page.warnings = validation.read(store)
    if not found:
        raise ValueError(f"{store.path}: there is no record to report on yet: bench run makes them")
    runs = [record for record in found if record.kind == "run"]
    trials = [record for record in found if record.kind == "attack"]
    curves = validation.reader(store)
    page.numbers = {"records": [_flat(record) for record in found], "tables": {}}
    groups = columns(runs)
    if runs:
        result = run_tables.grid(runs)
        add_table(page, "results", "All runs", result)
        if any(each.n for each in result.comparisons.values()):
            note = "Minus none with the same seed. Bars: 95 % t-interval; grey dots: single seeds."
            gained = plots.differences(run_tables.gains(runs))
            add_figure(page, "results", "Accuracy gained over none", gained, note)
        judge(page, result, runs, found)
        for name, column in groups.items():
            learning(page, name, column, result, curves)
        hidden(page, groups, store.folder)
        if (cost := cost_table.table(groups, store.folder)) is not None:
            add_table(page, "cost", cost.title, cost)
    else:
        page.summary.append(f"{len(trials)} evaluations of attacks, and no training run yet.")
    of_paper(page, runs, curves)
    stored_pictures(page, store.folder)
    attacked(page, trials, curves)
    every_seed(page, groups)
    failed(page, found)
    environment(page, found)
    again(page, runs)
    return page


def columns(runs: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """Runs by column (data and network) and by row, named as in the table of results."""
    found: dict[str, dict[str, list[Record]]] = {}
    for (row, column), group in run_tables.groups(runs).items():
        found.setdefault(column, {})[row] = group
    return found


def judge(page: Page, table: Table, runs: Sequence[Record], found: Sequence[Record]) -> None:
    """The verdict in plain words: how much was compared, and what that has shown."""
    names = {label: {r.labels[label] for r in runs} for label in ("data", "model")}
    lost = sum(record.status == "failed" for record in found)
    page.summary.append(
        f"{plural(len(runs), 'training run')} of {plural(len(table.rows), 'method')} with "
        f"{plural(len(names['model']), 'network')} on {plural(len(names['data']), 'data set')}, "
        f"and {plural(len(found) - len(runs), 'evaluation')} of attacks; {lost} failed."
    )
    shown = {key: each for key, each in table.comparisons.items() if each.p_holm is not None}
    better = sum(e.p_holm < 0.05 and e.difference > 0 for e in shown.values())  # type: ignore[operator]
    worse = sum(e.p_holm < 0.05 and e.difference < 0 for e in shown.values())  # type: ignore[operator]
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
        means = {
            row: cell
            for row in table.rows
            if isinstance(cell := table.cells.get((row, column)), Interval)
        }
        if not means:
            page.verdicts.append((column, "every run failed"))
            continue
        first, *others = sorted(means, key=lambda row: -means[row].mean)
        cell = means[first]
        spread = "" if cell.half is None else f" ± {100 * cell.half:.2f}"
        text = (
            f"{first} is best of {len(means)} with {100 * cell.mean:.2f}{spread} % (n = {cell.n})"
        )
        if (first, column) in table.comparisons:
            text += f"; against none {verdict(table.comparisons[first, column])}"
        elif others and (others[0], column) in table.comparisons:
            text += (
                f"; {others[0]} comes next, against none "
                f"{verdict(table.comparisons[others[0], column])}"
            )
        page.verdicts.append((column, text + "."))


def plural(count: int, what: str) -> str:
    """A number of things.

    >>> plural(1, "seed"), plural(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def learning(
    page: Page,
    column: str,
    rows: Mapping[str, Sequence[Record]],
    table: Table,
    curves: Callable[[Record], Curve],
) -> None:
    """The test error over the epochs of one column."""
    means = {
        row: cell.mean
        for row in rows
        if isinstance(cell := table.cells.get((row, column)), Interval)
    }
    first = sorted(means, key=lambda row: (row != "none", -means[row]))[:LINES]
    members = {row: [curve for record in rows[row] if (curve := curves(record))] for row in first}
    lines = figures.error_lines(
        {row: [c for c in found if "test_accuracy" in c[0]] for row, found in members.items()}
    )
    if not lines:
        return
    note = "Lines: mean test error over the seeds; bands: 95 % t-interval at each epoch. "
    note += "n: " + ", ".join(f"{row} {len(members[row])}" for row in first) + "."
    if len(first) < len(rows):
        note += f" Shown are {len(first)} of {len(rows)} methods: the baseline and the best."
    add_figure(page, "curves", column, [Panel("", "epoch", "test error / %", lines)], note)


def hidden(page: Page, groups: Mapping[str, Mapping[str, Sequence[Record]]], folder: Path) -> None:
    """Occlusion: curves per column, and one table of mean accuracies."""
    cells: dict[Key, Interval | str | None] = {}
    for column, rows in groups.items():
        members = {
            row: kept
            for row, found in rows.items()
            if (kept := [c for record in found if (c := occlusion.kept(record, folder))])
        }
        for row, kept in members.items():
            for kind, name in figures.OCCLUDED.items():
                values = [occlusion.area(curve, kind) for curve in kept]
                cells[row, f"{column} / {name}"] = mean_interval(values)
        if members:
            shown = dict(list(members.items())[:LINES])
            note = (
                "Accuracy on test pictures of which growing parts are hidden by the mean colour; "
                "lines: mean over the seeds; bands: 95 % t-interval. n: "
                + ", ".join(f"{row} {len(found)}" for row, found in shown.items())
                + "."
            )
            panels = figures.occlusions(shown)
            add_figure(page, "occlusion", column, panels, note)
    if not cells:
        return
    names = list(dict.fromkeys(name for _, name in cells))
    table = Table(
        title="Accuracy under occlusion",
        rows=list(dict.fromkeys(row for row, _ in cells)),
        columns=names,
        cells={(row, name): cells.get((row, name)) for row, _ in cells for name in names},
        percent=names,
        best=dict.fromkeys(names, "high"),
        measure=f"Mean accuracy in percent over {len(occlusion.SHARES)} hidden shares from 0 to "
        f"{max(occlusion.SHARES):.0%}",
    )
    add_table(page, "occlusion", table.title, table)


def of_paper(page: Page, runs: Sequence[Record], curves: Callable[[Record], Curve]) -> None:
    """The paper's tables and figures of which there is anything, at any scale."""
    keys = {record.key for record in runs}
    for name in tables.EXPERIMENTS:
        for scale in tables.SCALES:
            experiment = tables.experiment(name, scale)
            known = {recipe.key for recipe in experiment.cells.values()}
            if not known & keys:
                continue
            mine = [record for record in runs if record.key in known]
            table = experiments.table(experiment, mine)
            gaps = experiments.gaps(experiment, mine)
            note = experiment.chosen
            if gaps:
                note += (
                    f" {len(gaps)} of {len(experiment.cells)} cells lack seeds; fill them with: "
                    f"bench run {name} --scale {scale}"
                )
            title = f"{name}, scale {scale}: {experiment.title}"
            add_table(page, "paper", title, table, note, shown=experiment.kind == "table")
            if name in figures.DRAWN:
                found = figures.picture(experiment, mine, curves)
                add_figure(page, "paper", title, found.panels, found.caption)


def stored_pictures(page: Page, folder: Path) -> None:
    """The masks and maps that bench figures has drawn."""
    for name in ("figure2", "figure5"):
        for path in sorted((folder / "figures").glob(f"{name}-*.png")):
            content = path.read_bytes()
            if not content.startswith(b"\x89PNG") or len(content) > 2**23:
                continue
            text, title = path.with_suffix(".txt"), validation.clean(path.stem)
            caption = text.read_text(errors="replace").strip() if text.is_file() else name
            caption = validation.clean(caption, 2000)
            part = Part(title, picture=base64.b64encode(content).decode(), note=caption)
            part.alt = caption
            page.sections.setdefault("pictures", []).append(part)


def attacked(page: Page, trials: Sequence[Record], curves: Callable[[Record], Curve]) -> None:
    """The attacks: a table and curves for each victim and goal."""
    for key, members in attack_tables.groups(trials).items():
        members = [record for record in members if record.status == "finished"]
        if not members:
            continue
        title = f"{key[1]}, {members[0].labels['model']}, {key[2]}, {key[3]} {key[4]}".strip()
        add_table(page, "attacks", title, attack_tables.paper(members))
        for eps in dict.fromkeys(record.labels["eps"] for record in members):
            same = [record for record in members if record.labels["eps"] == eps]
            table = attack_tables.overview(same)
            add_table(page, "attacks", f"{title}, eps {eps}", table)
        wanted = {"changes", "pixels", "elements"}
        found = [
            (record, curve)
            for record, curve in ((record, curves(record)) for record in members)
            if all(wanted <= set(entry) for entry in curve)
            and (curve or not record.metrics.get("success"))  # else its curve was lost
        ]
        if found:
            note = plots.attacks_caption(members, "pixels")
            add_figure(page, "attacks", title, plots.attacks(found), note)


def every_seed(page: Page, groups: Mapping[str, Mapping[str, Sequence[Record]]]) -> None:
    """The accuracy of every seed, one line per method."""
    for column, rows in groups.items():
        page.seeds[column] = [
            (
                row,
                len(members),
                ", ".join(
                    f"{record.seed}: {100 * record.metrics['accuracy']:.2f}"
                    if record.status == "finished" and "accuracy" in record.metrics
                    else f"{record.seed}: failed"
                    for record in sorted(members, key=lambda each: each.seed)
                ),
            )
            for row, members in rows.items()
        ]


def failed(page: Page, found: Sequence[Record]) -> None:
    """What failed and why; seeds with the same trouble share a line."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for record in found:
        if record.status == "failed" or (record.kind == "attack" and record.message):
            labels = record.labels
            name = labels.get("augmentation") or labels.get("attack", "")
            where = f"{labels['data']} / {labels['model']}"
            lines.setdefault((name, where, record.message), []).append(record.seed)
    page.failures = [
        (name, where, ", ".join(map(str, seeds)), message)
        for (name, where, message), seeds in lines.items()
    ]


def environment(page: Page, found: Sequence[Record]) -> None:
    """The machines that the records were made on, with how many."""
    counts = Counter(tuple(sorted(record.machine.items())) for record in found)
    page.machines = [(count, dict(machine)) for machine, count in counts.most_common()]


def again(page: Page, runs: Sequence[Record]) -> None:
    """The command for each recipe with its seeds."""
    jobs: dict[str, list[Record]] = {}
    for record in runs:
        jobs.setdefault(record.key, []).append(record)
    for members in jobs.values():
        try:
            recipe = Recipe.from_json(dict(members[0].job))
            page.commands.append(commands.run(recipe, [record.seed for record in members]))
        except (ValueError, TypeError, LookupError):
            page.commands.append(
                f"# {members[0].labels['augmentation']}: its recipe is of another version"
            )


def _flat(record: Record) -> dict[str, Any]:
    about = {"kind": record.kind, "key": record.key, "seed": record.seed, "status": record.status}
    return {**record.labels, **record.metrics, **about}
