"""``bench status``, ``bench track`` and ``bench export``: looking after a results folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from bench.cli import options


@click.command(cls=options.Command)
@click.option("--reap", is_flag=True, help="Mark runs as killed whose process is gone.")
@options.results
@options.tracking
@options.as_json
def status(reap: bool, as_json: bool, **given: Any) -> None:
    """Show what is finished, failed, under way or left behind in a results folder.

    \b
    Example: bench status --reap
    """
    from bench.execution.workspace import results_folder
    from bench.records.store import Store
    from bench.studies.status import left_behind

    folder = results_folder(given["results"])
    records = Store(folder).all()
    found: dict[str, Any] = {
        "finished": sum(record.status == "finished" for record in records),
        "failed": sum(record.status == "failed" for record in records),
        **left_behind(folder),
    }
    if reap and not given["no_tracking"]:
        tracker(given, folder).reap()
    if as_json:
        click.echo(json.dumps(found))
        return
    kinds = Counter(record.kind for record in records)
    click.echo(
        f"{found['finished']} records finished, {found['failed']} failed "
        f"({kinds['run']} trainings, {kinds['attack']} attack evaluations)"
    )
    for name in found["running"]:
        click.echo(f"under way: {name}")
    for name in found["stopped"]:
        click.echo(f"stopped, its command continues it: {name}")


def tracker(given: dict[str, Any], folder: Path) -> Any:
    """The tracker that the options describe; its troubles go to stderr."""
    from bench.records.tracking import Tracker

    return Tracker(given["tracking_uri"], folder, warn=lambda line: click.echo(line, err=True))


@click.group()
def track() -> None:
    """Look after the tracker, which is an index made from the records."""


@track.command(cls=options.Command)
@options.results
@options.tracking
def rebuild(**given: Any) -> None:
    """Make the whole tracker anew from the records, as after moving a results folder.

    \b
    Example: bench track rebuild --results results
    """
    from bench.execution.workspace import results_folder
    from bench.records.record import Record
    from bench.records.store import Store
    from bench.reporting import attack_tables, run_tables

    folder = results_folder(given["results"])
    store = Store(folder)
    records = store.all()
    runs = [record for record in records if record.kind == "run"]
    attacks = [record for record in records if record.kind == "attack"]
    intervals = [*run_tables.intervals(runs), *attack_tables.intervals(attacks)]

    def curve(record: Record) -> Any:
        return store.curve(record) if record.kind == "run" else []

    tracker(given, folder).rebuild(records, curve=curve, intervals=intervals)
    click.echo(f"logged {len(records)} records")


@click.command(cls=options.Command)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@options.results
def export(path: Path, results: str | None) -> None:
    """Pack records, curves, tables and environment into a zip, for a paper's supplement.

    \b
    Example: bench export supplement.zip
    """
    from bench.execution.workspace import results_folder
    from bench.reporting.supplement import pack

    count = pack(results_folder(results), path)
    click.echo(f"packed {count} files into {path}")
