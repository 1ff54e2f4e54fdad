"""``bench report``: all results as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options, sections
from bench.cli.output import echo


@click.command(cls=sections.Command, short_help="Write a web page of all results.")
@sections.output(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.  [default: report in the results folder]",
)
@options.results
def report(output: Path | None, results: str | None) -> None:
    """Write one HTML page with verdict, tables, curves, seeds, failures and commands.

    The page needs no network and no scripts. Tables as LaTeX and CSV and figures as PDF are written
    beside it. It shows masks, activation maps and occlusion that bench figures and bench occlusion
    have made.

    \b
    Example: bench report --results results
    """
    from bench.execution.folders import existing_results
    from bench.paper.report_section import add_experiments
    from bench.records.store import Store
    from bench.reporting.report import write_report

    store = Store(existing_results(results))
    path, page = write_report(store, output or store.folder / "report", [add_experiments])
    for warning in page.warnings:
        echo(f"Warning: {warning}", err=True)
    echo(path)
