"""``bench report``: everything that was found, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.  [default: report in the results folder]",
)
@options.results
def report(output: Path | None, results: str | None) -> None:
    """Write one HTML page with verdict, tables, curves, seeds, failures and commands.

    It needs no network and no scripts. Tables as LaTeX and CSV and figures as PDF lie beside it.
    Masks, activation maps and occlusion are shown where bench figures and bench occlusion made
    them.

    \b
    Example: bench report --results results
    """
    import gc

    import scipy.stats  # noqa: F401
    import statsmodels.stats.multitest  # noqa: F401

    from bench.execution.workspace import results_folder
    from bench.records.store import Store
    from bench.reporting import report as pages

    # statsmodels collects garbage at each correction; what was imported need not be searched
    gc.freeze()
    store = Store(results_folder(results))
    path, page = pages.write(store, output or store.folder / "report")
    for warning in page.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(path)
