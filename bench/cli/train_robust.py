"""``bench train-robust``: train networks that resist sparse or dense attacks."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import click

from bench.cli import SOME_FAILED, options, sections, types
from bench.cli.output import echo
from bench.cli.run import show_plan

if TYPE_CHECKING:
    from bench.cli.options import DataOptions, SeedOptions
    from bench.execution.options import ExecutionOptions
    from bench.records.record import Record
    from bench.studies.designs import TrainingOptions
    from bench.studies.tracking import TrackingOptions


@click.command(
    "train-robust", cls=sections.Command, short_help="Train networks that resist attacks."
)
@sections.gathered(
    "training",
    options.training_options,
    sections.compared(
        "--method",
        "robust",
        default="sparse-at",
        show_default=True,
        help='sparse-at, sparse-trades or linf-at, with options as in "sparse-trades(k=20)".',
    ),
    options.schedule,
)
@sections.compared(
    "--model",
    "models",
    type=types.Name(types.model_names),
    multiple=True,
    default=["resnet8"],
    show_default=True,
    help="Network; repeat for several.",
)
@options.seeds(1)
@options.data("digits")
@sections.execution("--fresh", is_flag=True, help="Rerun jobs that already have results.")
@options.spread
@options.dry_run
@options.tracked_training
@options.as_json
@options.quiet
def train_robust(
    training: TrainingOptions,
    models: tuple[str, ...],
    seeds: SeedOptions,
    place: DataOptions,
    fresh: bool,
    where: ExecutionOptions,
    tracking: TrackingOptions,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train networks by adversarial training, as victim models that resist attacks.

    sparse-at attacks every training image in at most k pixels and learns from the result,
    sparse-trades keeps the prediction under such an attack, linf-at allows a change of eps in every
    value. The record has the accuracy and, as robust_accuracy, the share of 500 test images that
    stay right under a longer attack of the same kind. The weights are stored as safetensors; the
    command to attack them is printed.

    \b
    Example: bench train-robust --method "sparse-trades(k=20)" --model resnet20 --data cifar10
    Example: bench train-robust --method "linf-at(eps=8/255)" --data digits
    """
    from bench.execution.progress import open_progress
    from bench.studies import comparison, designs, jobs

    chosen = seeds.chosen()

    workspace, data = comparison.place(place.open(where), place.dataset("digits"))
    design = designs.Design(
        augmentations=("none",),
        data=data,
        models=models,
        seeds=chosen,
        training=training,
        fresh=fresh,
    )
    wanted, progress = design.jobs(workspace), open_progress(quiet)
    if dry_run:
        where.build(workspace.device)  # refuses what does not fit before the cost is said
        comparison.say_cost(wanted, workspace, progress)
        show_plan(wanted, workspace, as_json)
        return
    study = comparison.run(wanted, workspace, where, tracking, progress)
    if as_json:
        found = [
            {**record.to_json(), "weights": str(jobs.weights(record, workspace))}
            for record in study.records
        ]
        echo(json.dumps({"records": found}))
    else:
        for record in study.records:
            echo(describe(record, str(jobs.weights(record, workspace))))
    if study.failed:
        echo(f"{len(study.failed)} of {len(study.records)} runs failed", err=True)
        raise click.exceptions.Exit(SOME_FAILED)


def describe(record: Record, weights: str) -> str:
    """One trained network in two lines: what it reaches, and how to attack it."""
    about = f"{record.labels['model']}, {record.job['robust']}, seed {record.seed}"
    if record.status == "failed":
        return f"{about}: failed, {record.message}"
    data = shlex.quote(record.labels["data"])
    return (
        f"{about}: accuracy {record.metrics['accuracy']:.2%}, "
        f"{record.metrics['robust_accuracy']:.2%} under attack\n"
        f"  bench attack-eval --victim {shlex.quote(weights)} --model {record.labels['model']} "
        f"--data {data}"
    )
