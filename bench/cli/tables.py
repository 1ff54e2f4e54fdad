"""``bench tables``: what the records say, as a table for a paper."""

from __future__ import annotations

import json
from typing import Any

import click

from bench.cli import options


@click.command()
@click.argument("what", type=click.Choice(["runs", "attacks"]), default="runs")
@click.option(
    "--format",
    "style",
    type=click.Choice(["latex", "markdown", "csv", "json", "text"]),
    default="latex",
    show_default=True,
)
@click.option(
    "--metric",
    type=click.Choice(["accuracy", "accuracy_median10", "accuracy_best_validation"]),
    default="accuracy",
    show_default=True,
    help="accuracy is that of the last epoch.",
)
@click.option("--baseline", default="none", show_default=True, help="What others are held against.")
@click.option("--data", help="Only this data set.")
@click.option("--model", help="Only this network.")
@options.results
def tables(
    what: str, style: str, metric: str, baseline: str, results: str | None, **only: Any
) -> None:
    """Print the table of all finished runs, with intervals and significance, or that of attacks.

    \b
    Example: bench tables --format markdown
    Example: bench tables attacks
    """
    from bench import grids
    from bench import tables as printer
    from bench.records import Store
    from bench.workspace import results_folder

    kind = "run" if what == "runs" else "attack"
    records = [
        record
        for record in Store(results_folder(results)).all()
        if record.kind == kind
        and all(value is None or record.labels.get(name) == value for name, value in only.items())
    ]
    if not records:
        maker = "bench run" if what == "runs" else "bench attack-eval"
        raise ValueError(f"there are no {what} for such a table yet: {maker} makes them")
    if what == "attacks":
        attacks(records, style)
        return
    table = grids.grid(records, metric=metric, baseline=baseline)
    if style == "json":
        click.echo(json.dumps(grids.intervals(records, baseline), indent=1))
    else:
        click.echo(getattr(printer, style)(table))
    for row, column in grids.missing(table):
        model, _, data = column.partition(" / ")
        click.echo(
            f"missing: {row} on {column}: bench run --aug {row!r} --model {model} --data {data}",
            err=True,
        )


def attacks(records: list[Any], style: str) -> None:
    """Table 6 of the paper, one for each victim and goal; JSON as `bench attack-eval` prints it."""
    from bench import attack_tables
    from bench import tables as printer

    if style == "json":
        click.echo(json.dumps(attack_tables.summary(records), indent=1))
        return
    for members in attack_tables.groups(records).values():
        click.echo(getattr(printer, style)(attack_tables.paper(members)))
