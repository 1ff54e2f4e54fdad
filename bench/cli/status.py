"""``bench status``, ``bench track`` and ``bench export``: the state of a results folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options, sections
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.records.tracking.tracker import Tracker
    from bench.studies.tracking import TrackingOptions


@click.command(cls=sections.Command, short_help="Show what is finished, failed or running.")
@sections.execution(
    "--reap",
    is_flag=True,
    help="Close MLflow runs that a process left open when it ended, and make all of them "
    "equal to the records.",
)
@options.results
@options.tracking
@options.as_json
def status(reap: bool, results: str | None, tracking: TrackingOptions, as_json: bool) -> None:
    """Show what is finished, failed, running or interrupted in a results folder.

    \b
    Example: bench status --reap
    """
    from bench.execution.folders import existing_results
    from bench.studies.status import status_of

    if reap:
        sections.refuse("status --reap", "no_tracking")
    else:
        sections.refuse("status without --reap", "no_tracking", "tracking_uri")
    folder = existing_results(results)
    found = status_of(folder)
    if reap:
        from bench.records.store import Store
        from bench.studies.tracking import equalise

        equalise(open_tracker(tracking.tracking_uri, folder), Store(folder))
    echo(json.dumps(found.to_json()) if as_json else found)


def open_tracker(uri: str | None, folder: Path) -> Tracker:
    """The tracker at an address, or of a results folder; its first failure is an error."""
    from bench.records.tracking.tracker import Tracker

    return Tracker(uri, folder, warn=lambda line: echo(line, err=True), strict=True)


@click.group(short_help="Look after the MLflow tracker.")
def track() -> None:
    """Look after the tracker, which is an index made from the records."""


@track.command(cls=sections.Command, short_help="Make the tracker again from the records.")
@options.results
@options.tracking
def rebuild(results: str | None, tracking: TrackingOptions) -> None:
    """Make the tracker again from the records, as after moving a results folder.

    \b
    Example: bench track rebuild --results results
    """
    from bench.execution.folders import existing_results
    from bench.records.store import Store
    from bench.studies.tracking import rebuild as rebuild_tracker

    sections.refuse("track rebuild", "no_tracking")
    folder = existing_results(results)
    count = rebuild_tracker(open_tracker(tracking.tracking_uri, folder), Store(folder))
    echo(f"logged {count} records, each of which the tracker holds")


@click.command(cls=sections.Command, short_help="Pack the records into a zip for a supplement.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@options.results
def export(path: Path, results: str | None) -> None:
    """Pack records, curves, tables and environment into a zip, for a paper's supplement.

    \b
    Example: bench export supplement.zip
    """
    from bench.execution.folders import existing_results
    from bench.reporting.results_folder import pack

    count = pack(existing_results(results), path)
    echo(f"packed {count} files into {path}")
