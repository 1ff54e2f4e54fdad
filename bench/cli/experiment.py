"""``bench run table1``: a whole table or figure of the paper, at a scale."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import click

from bench.cli import SOME_FAILED, options
from bench.cli import jobs as training

SETTINGS = (
    *("augmentations", "models", "seeds", "seed_list", "policy", "mix", "guides", "epochs"),
    *("batch_size", "learning_rate", "weight_decay", "schedule", "validation", "precision"),
)
"""Options of ``bench run`` that an experiment decides by itself."""


def run_experiments(name: str, scale: str, given: dict[str, Any]) -> None:
    """Run one experiment, or ``all``: state the cost, run what is missing, print what there is."""
    from bench.paper import tables

    chosen = list(tables.EXPERIMENTS) if name == "all" else [name]
    experiments = [tables.experiment(each, scale) for each in chosen]
    options.refuse(f"{name} has its settings from --scale", *SETTINGS)
    given = {option: value for option, value in given.items() if option not in SETTINGS}
    workspace = options.workspace(**given)
    if given["data"] is not None:
        data = workspace.dataset()
        side = data.train.images.shape[-1]
        experiments = [tables.moved(each, data.name, side, data.pin) for each in experiments]
    jobs = list({job.name: job for each in experiments for job in each.jobs()}.values())
    jobs = [replace(job, fresh=given["fresh"]) for job in jobs]
    cost(experiments, jobs, workspace)
    finished = [] if given["dry_run"] else train(jobs, workspace, given)
    for each in experiments:
        if each.attacks:
            attack(list(each.attacks), given)
    if given["dry_run"]:
        return
    output(experiments, finished, workspace, given)
    failed = [record for record in finished if record.status == "failed"]
    if failed:
        click.echo(f"{len(failed)} of {len(jobs)} runs failed: {failed[0].message}", err=True)
        raise SystemExit(SOME_FAILED)


def cost(experiments: list[Any], jobs: list[Any], workspace: Any) -> None:
    """Say what will be run, what is done, and how long it will take."""
    from bench.execution.progress import clock
    from bench.records.store import Store
    from bench.studies import estimates

    store = Store(workspace.results)
    records = store.all()
    done = store.find(job.name for job in jobs if not job.fresh)
    rest = [job for job in jobs if job.name not in done]
    scale = experiments[0].scale
    click.echo(f"scale {scale.name}: {scale.about}", err=True)
    for each in experiments:
        click.echo(f"{each.name}: {each.title} ({len(each.jobs())} runs)", err=True)
        if each.chosen:
            click.echo(f"  {each.chosen}", err=True)
    time = estimates.seconds(rest, records, workspace.device) if rest else 0.0
    click.echo(
        f"{len(jobs)} runs, {len(done)} done, {len(rest)} to run: about {clock(time)} on "
        f"{workspace.device}, the search for adversarial points not counted",
        err=True,
    )


def train(jobs: list[Any], workspace: Any, given: dict[str, Any]) -> list[Any]:
    """Run the jobs, one data set after the other."""
    from bench.records.store import Store

    finished = []
    for data in dict.fromkeys(job.recipe.data for job in jobs):
        place = workspace if given["data"] else replace(workspace, data=data)
        part = [job for job in jobs if job.recipe.data == data]
        finished += training.train(part, place, Store(place.results), given)
    return finished


def attack(arguments: list[str], given: dict[str, Any]) -> None:
    """Evaluate attacks as ``bench attack-eval`` does, with the options that both commands have."""
    from bench.cli.attack_eval import attack_eval

    with attack_eval.make_context("attack-eval", arguments) as context:
        context.params |= {name: value for name, value in given.items() if value is not None}
        attack_eval.invoke(context)


def output(
    experiments: list[Any], finished: list[Any], workspace: Any, given: dict[str, Any]
) -> None:
    """Print the tables, or everything as JSON; draw the figures."""
    from bench.paper import experiments as shapes
    from bench.records.store import Store
    from bench.reporting import formats

    records = Store(workspace.results).all()
    drawn: dict[str, Any] = {}
    for each in experiments:
        if not each.cells:
            continue
        table = shapes.table(each, records)
        drawn[each.name] = json.loads(formats.json(table))
        if not given["as_json"]:
            click.echo(f"\n{each.name}: {each.title}")
            click.echo(formats.text(table))
    if given["as_json"]:
        found = [record.to_json() for record in finished]
        click.echo(json.dumps({"records": found, "experiments": drawn}))
