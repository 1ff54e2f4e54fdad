"""``bench occlusion``: the accuracy of trained networks on partly hidden images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bench.cli import SOME_FAILED, options, sections
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions


@click.command(cls=sections.Command, short_help="Test trained networks on partly hidden images.")
@options.data("every dataset with records")
@sections.compared("--model", help="Only this network.")
@options.compute
@options.as_json
@options.quiet
def occlusion(
    model: str | None,
    place: DataOptions,
    where: ExecutionOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Test every trained network with growing parts of each image hidden.

    Networks that were tested before are not tested again. The curves are stored beside the weights,
    and shown by bench report and bench figures occlusion.

    \b
    Example: bench occlusion --data digits
    """
    from bench.execution.progress import open_progress
    from bench.records.store import Store
    from bench.reporting.grouping import Selection
    from bench.reporting.run_tables import where as where_of
    from bench.robustness.occlusion import evaluate_runs, with_weights

    workspace, name = place.open(where, create=False), None
    if (chosen := place.chosen()) is not None:
        workspace, name = workspace.locate(chosen)
    records = Store(workspace.results).all()
    selected = Selection(data=name, model=model).runs(records)
    runs = with_weights(selected, workspace.results)
    if not runs and (others := with_weights(records, workspace.results)):
        asked = " / ".join(filter(None, (name, model)))
        raise ValueError(f"there is no trained network of {asked}: there are {where_of(others)}")
    if not runs:
        raise ValueError("there are no trained networks to test yet: bench run makes them")
    found, problems = evaluate_runs(runs, workspace, open_progress(quiet))
    if as_json:
        echo(json.dumps([each.to_json() for each in found]))
    else:
        for each in found:
            echo(each)
    for problem in problems:
        echo(f"not tested: {problem}", err=True)
    if problems:
        raise click.exceptions.Exit(SOME_FAILED)
