"""``bench tables``: what the records say, as a table for a paper."""

from __future__ import annotations

import json
from typing import Any

import click

from bench.cli import options


@click.command()
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
def tables(style: str, metric: str, baseline: str, results: str | None, **only: Any) -> None:
    """Print the table of all finished runs, with intervals and significance.

    \b
    Example: bench tables --format markdown
    """
    from bench import grids
    from bench import tables as printer
    from bench.records import Store
    from bench.workspace import results_folder

    records = [
        record
        for record in Store(results_folder(results)).all()
        if record.kind == "run"
        and all(value is None or record.labels.get(name) == value for name, value in only.items())
    ]
    if not records:
        raise ValueError("there are no runs for such a table yet: bench run makes them")
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
