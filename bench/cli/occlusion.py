"""``bench occlusion``: how trained networks bear hidden parts of a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import click

from bench.cli import SOME_FAILED, options


@click.command()
@options.data
@click.option("--model", help="Only this network.")
@options.results
@options.compute
@options.as_json
@options.quiet
def occlusion(model: str | None, as_json: bool, quiet: bool, **given: Any) -> None:
    """Test every stored network with growing parts of each picture hidden.

    What was tested before is not tested again. The curves lie beside the weights, and bench report
    and bench figures occlusion show them.

    \b
    Example: bench occlusion --data digits
    """
    from bench.errors import Missing
    from bench.execution.progress import open_progress
    from bench.records.store import Store
    from bench.robustness import occlusion
    from bench.training import trained

    workspace = options.workspace(**given)
    progress = open_progress(quiet)
    found = [
        record
        for record in Store(workspace.results).all()
        if record.kind == "run"
        and record.status == "finished"
        and trained.path(record, workspace.results).exists()
        and (given["data"] is None or record.labels.get("data") == given["data"])
        and (model is None or record.labels.get("model") == model)
    ]
    if not found:
        raise ValueError("there are no trained networks to test yet: bench run makes them")
    lines, troubles = [], []
    with progress.task("occlusion", len(found)) as advance:
        for name in dict.fromkeys(record.labels.get("data", "") for record in found):
            members = [record for record in found if record.labels.get("data", "") == name]
            place = replace(workspace, data=given["data"] or name)
            for record in members:
                try:
                    curve, _ = occlusion.evaluate(
                        record, place.dataset(), workspace.results, workspace.device
                    )
                except (Missing, ValueError, OSError) as error:
                    troubles.append(f"{record.name} on {name}: {error}")
                else:
                    lines.append(
                        {
                            "name": record.name,
                            **{
                                label: record.labels.get(label, "")
                                for label in ("augmentation", "model", "data")
                            },
                            "seed": record.seed,
                            "random": occlusion.area(curve, "random"),
                            "important": occlusion.area(curve, "important"),
                            "curve": curve,
                        }
                    )
                advance()
    if as_json:
        click.echo(json.dumps(lines))
    else:
        for line in lines:
            click.echo(
                f"{line['augmentation']}, {line['model']}, {line['data']}, seed {line['seed']}: "
                f"mean accuracy {line['random']:.2%} under random occlusion, "
                f"{line['important']:.2%} of the most important pixels"
            )
    for trouble in troubles:
        click.echo(f"not tested: {trouble}", err=True)
    if troubles:
        raise SystemExit(SOME_FAILED)
