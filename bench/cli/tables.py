"""``bench tables``: what the records say, as a table for a paper."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import click

from bench.cli import SOME_FAILED, options

KINDS = {"runs": "run", "differences": "run", "attacks": "attack"}
HEEDED = {
    "runs": {"metric", "baseline", "data", "model"},
    "differences": {"metric", "baseline", "data", "model"},
    "attacks": {"metric", "data", "model", "eps"},
    "experiment": {"metric", "data"},
}
"""The options that each kind of table depends on; one of the paper's depends on the scale too."""
ACCURACIES = ("accuracy", "accuracy_median10", "accuracy_best_validation")


def experiment_names() -> list[str]:
    """Every table and figure of the paper."""
    from bench.paper import tables

    return list(tables.EXPERIMENTS)


def declared(name: str, scale: str, data: str | None, results: str | None) -> Any:
    """The experiment of that name at a scale, on another data set where one is asked for."""
    from bench.paper import tables

    found = tables.experiment(name, scale)
    if data is None:
        return found
    pictures = options.workspace(results, data, device="cpu").dataset()
    return tables.moved(found, pictures.name, pictures.train.images.shape[-1], pictures.pin)


@click.command()
@click.argument(
    "what",
    type=options.Name(lambda: [*KINDS, *experiment_names()]),
    default="runs",
)
@click.option(
    "--scale",
    type=click.Choice(["smoke", "reduced", "paper"]),
    default="smoke",
    show_default=True,
    help="Of an experiment.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["latex", "markdown", "csv", "json", "text"]),
    default="latex",
    show_default=True,
)
@click.option(
    "--metric",
    type=options.Name(lambda: [*ACCURACIES, "success", "l0_pixels_mean", "l0_elements_mean"]),
    help="Of runs: accuracy, accuracy_median10 or accuracy_best_validation.  [default: accuracy]  "
    "Of attacks: any of a record, over all victims at once.",
)
@click.option("--baseline", default="none", show_default=True, help="What others are held against.")
@click.option("--data", help="Only this data set; of an experiment: this one instead.")
@click.option("--model", help="Only this network.")
@click.option("--eps", type=options.Eps(), help="Only attacks at this eps.")
@options.results
def tables(
    what: str,
    scale: str,
    style: str,
    metric: str | None,
    baseline: str,
    results: str | None,
    eps: Fraction | None,
    **only: Any,
) -> None:
    """Print a table of all finished runs, of attacks or of the paper, with intervals.

    WHAT is runs, differences (of runs, paired by seed, from the baseline), attacks, or a table or
    figure of the paper (see bench list experiments). That is printed with the published numbers;
    missing cells are named, and the exit code is then 3.

    \b
    Example: bench tables --format markdown
    Example: bench tables differences --baseline cutout
    Example: bench tables attacks
    Example: bench tables attacks --metric l0_pixels_mean --eps 8/255 --format markdown
    Example: bench tables table1 --scale reduced
    """
    from bench.execution.workspace import results_folder
    from bench.records.store import Store
    from bench.reporting import formats as printer
    from bench.reporting import run_tables

    chosen = None if what in KINDS else declared(what, scale, only["data"], results)
    if chosen is None:
        heeded = HEEDED[what]
    else:
        heeded = {"scale"} | HEEDED["attacks" if chosen.attacks else "experiment"]
    every = {"scale"}.union(*HEEDED.values())
    options.refuse(f"without effect on {what}", *(every - heeded))
    store = Store(results_folder(results))
    if what != "attacks" and metric not in (None, *ACCURACIES):
        raise ValueError(f"runs have no metric {metric!r}: there are {', '.join(ACCURACIES)}")
    if chosen is not None and not chosen.attacks:
        one(chosen, store.all(), style, metric)
        return
    kind = KINDS.get(what, "attack")
    if kind == "attack" and eps is not None:
        only["eps"] = str(eps)
    records = [
        record
        for record in store.all()
        if record.kind == kind
        and all(value is None or record.labels.get(name) == value for name, value in only.items())
    ]
    if not records and what not in KINDS:
        click.echo(f"{what} is missing: bench run {what} --scale {scale}", err=True)
        raise SystemExit(SOME_FAILED)
    if not records:
        maker = "bench run" if kind == "run" else "bench attack-eval"
        raise ValueError(f"there are no {kind}s for such a table yet: {maker} makes them")
    if kind == "attack":
        attacks(records, style, metric)
        return
    if what == "differences":
        table = run_tables.differences(records, metric or "accuracy", baseline)
        click.echo(getattr(printer, style)(table))
        return
    runs(records, style, metric or "accuracy", baseline)


def runs(records: list[Any], style: str, metric: str, baseline: str) -> None:
    """Methods against data sets and networks; cells without runs are named with their command.

    JSON is as `bench run` prints it.
    """
    from bench.reporting import commands, run_tables
    from bench.reporting import formats as printer
    from bench.reporting.table import missing

    table = run_tables.grid(records, metric=metric, baseline=baseline)
    if style == "json":
        click.echo(json.dumps(run_tables.intervals(records, baseline, metric), indent=1))
    else:
        click.echo(getattr(printer, style)(table))
    groups = run_tables.groups(records)
    for row, column in missing(table):
        method = next(members[0] for (name, _), members in groups.items() if name == row)
        others = next(members for (_, place), members in groups.items() if place == column)
        try:
            remedy = commands.fill(method, others)
        except (ValueError, TypeError, LookupError):
            remedy = "its recipe is of another version"
        click.echo(f"missing: {row} on {column}: {remedy}", err=True)


def one(experiment: Any, records: list[Any], style: str, metric: str | None) -> None:
    """An experiment's table; exits with 3 when some of its seeds are missing or failed."""
    from dataclasses import replace

    from bench.paper import experiments
    from bench.reporting import formats as printer

    if metric is not None:
        experiment = replace(experiment, metric=metric)
    click.echo(getattr(printer, style)(experiments.table(experiment, records)))
    tell_missing(experiment, records)


def tell_missing(experiment: Any, records: list[Any]) -> None:
    """Name the cells without all their seeds, and the command that fills them; exits with 3."""
    from bench.paper import experiments

    gaps = experiments.gaps(experiment, records)
    for (row, column), seeds in gaps.items():
        listed = ", ".join(map(str, seeds))
        click.echo(f"missing: {row} on {column}: seed {listed}", err=True)
    if gaps:
        scale = experiment.scale
        moved = "" if not scale.side else f" --data {scale.data['*']}"
        click.echo(
            f"{len(gaps)} of {len(experiment.cells)} cells are missing or failed: "
            f"bench run {experiment.name} --scale {scale.name}{moved}",
            err=True,
        )
        raise SystemExit(SOME_FAILED)


def attacks(records: list[Any], style: str, metric: str | None) -> None:
    """Table 6 of the paper, one for each victim and goal, or one metric over all of them.

    JSON is as `bench attack-eval` prints it.
    """
    from bench.reporting import attack_tables
    from bench.reporting import formats as printer

    if style == "json":
        click.echo(json.dumps(attack_tables.summary(records), indent=1))
        return
    if metric is not None:
        click.echo(getattr(printer, style)(attack_tables.across(records, metric)))
        return
    shown = [attack_tables.paper(members) for members in attack_tables.groups(records).values()]
    if style == "csv":
        click.echo(printer.csv(*shown))
        return
    for table in shown:
        click.echo(getattr(printer, style)(table))
