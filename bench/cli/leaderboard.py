"""``bench leaderboard``: attacks measured here and submitted ones as one static page."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options, sections
from bench.cli.output import echo


@click.command(cls=sections.Command, short_help="Write a web page that ranks attacks.")
@click.argument("submissions", nargs=-1, type=click.Path(path_type=Path))
@sections.output(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="HTML file to write.  [default: leaderboard/index.html in the results folder]",
)
@options.results
def leaderboard(submissions: tuple[Path, ...], output: Path | None, results: str | None) -> None:
    """Write one HTML page that ranks the attacks of a results folder.

    SUBMISSIONS are folders with a submission.json, or such files. What they claim is shown beside
    the result of bench judge where their images were judged, and else as a row that is marked
    self-reported and not ranked.

    The page needs no network and no scripts; its numbers are written beside it as JSON.

    \b
    Example: bench leaderboard --results results/attacks
    Example: bench leaderboard my-attack other/submission.json --output page.html
    """
    from bench.execution.folders import existing_results
    from bench.records.store import Store
    from bench.reporting.grouping import plural
    from bench.reporting.leaderboard import write_leaderboard
    from bench.robustness.submissions import read_about

    found = []
    for path in submissions:
        about = read_about(path)
        if about is None:
            raise FileNotFoundError(f"{path} has no submission.json")
        if about.claims is None:
            echo(f"{path}: submission.json makes no claims, so it adds no row", err=True)
        found.append(about)
    store = Store(existing_results(results))
    page = output or store.folder / "leaderboard" / "index.html"
    boards, warnings = write_leaderboard(store, found, page)
    for warning in warnings:
        echo(f"Warning: {warning}", err=True)
    rows = sum(len(board.entries) for board in boards)
    echo(f"{page}: {plural(rows, 'row')} on {plural(len(boards), 'board')}")
