"""``bench run table1``: all runs of a table or figure of the paper, at a scale."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bench.cli import SOME_FAILED
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions
    from bench.studies.tracking import TrackingOptions


def run_experiments(
    name: str,
    scale: str,
    place: DataOptions,
    where: ExecutionOptions,
    tracking: TrackingOptions,
    *,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run one experiment or all: print the cost, run what is missing, print results.

    Args:
        name: Name of the experiment, or ``"all"``.
        scale: ``"smoke"``, ``"reduced"`` or ``"paper"``.
        place: Dataset and results folder.
        where: Device and executor.
        tracking: MLflow options.
        fresh: Rerun jobs that already have results.
        dry_run: Show the jobs only.
        as_json: Print JSON.
        quiet: Hide progress output.
    """
    from bench.execution.progress import open_progress
    from bench.paper import runner
    from bench.reporting import formats
    from bench.studies import designs

    progress = open_progress(quiet)
    workspace = place.open(where)
    planned = runner.plan(name, scale, workspace, data=place.chosen(), fresh=fresh)
    for line in planned.cost():
        echo(line, err=True)
    if dry_run:
        attacks = planned.attacks(progress.say)
        if as_json:
            jobs = [each.to_json() for each in designs.plan(planned.jobs, workspace)]
            jobs += [each.to_json() for each in attacks]
            echo(json.dumps({"jobs": jobs}))
            return
        for line in [*planned.cells(), *map(str, attacks)]:
            echo(line)
        return
    records = planned.run(where, tracking, progress)
    tables = planned.tables()
    if as_json:
        drawn = {each: json.loads(formats.json(*found)) for each, found in tables.items()}
        written = [record.to_json() for record in records]
        echo(json.dumps({"records": written, "experiments": drawn}))
    else:
        for each, found in tables.items():
            for table in found:
                echo(f"\n{each}: {table.title}")
                echo(formats.text(table))
    failed = [record for record in records if record.status == "failed"]
    if failed:
        echo(f"{len(failed)} of {len(planned.jobs)} runs failed: {failed[0].message}", err=True)
        raise click.exceptions.Exit(SOME_FAILED)
