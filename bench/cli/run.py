"""``bench run``: train networks with different augmentations and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import SOME_FAILED, options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cli.options import DataOptions, SeedOptions
    from bench.execution.options import ExecutionOptions
    from bench.execution.workspace import Workspace
    from bench.studies.comparison import Study
    from bench.studies.designs import TrainingOptions
    from bench.studies.jobs import Job
    from bench.studies.tracking import TrackingOptions
    from bench.studies.until_decided import Decided, StoppingOptions

OF_EXPERIMENTS = (
    *("augmentations", "models", "seeds", "seed_list", "guides", "points_from", "policy", "mix"),
    *("epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "schedule"),
    *("warmup", "padding", "flip", "validation", "precision", "pretrained"),
    *("until", "within", "max_seeds"),
)
"""Options of a comparison that an experiment sets itself."""


class Run(sections.Command):
    """The command, which says where an option of augmentations belongs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; ``--points`` is taken for an option of the command by many."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name != "--points":
                raise
            raise click.UsageError(
                "there is no option --points: what a method does with adversarial points is its "
                "own option, as in --aug \"cutout(points='seek')\"; --points-from names the attack "
                "that finds them",
                ctx,
            ) from None


@click.command(cls=Run, short_help="Compare augmentations on networks trained here.")
@click.argument("experiment", type=types.Name(types.experiment_names), required=False)
@sections.compared(
    "--scale",
    type=click.Choice(["smoke", "reduced", "paper"]),
    default="smoke",
    show_default=True,
    help="Scale of an experiment: datasets, epochs and seeds.",
)
@sections.compared(
    "--aug",
    "augmentations",
    type=types.Name(types.augmentation_names),
    multiple=True,
    default=["advmask"],
    show_default=True,
    help='Augmentation, with options as in "gridmask(ratio=0.5)", or FILE.py:CLASS for one of your '
    'own, or with a fixed guide as in "advmask + random"; repeat to compare several.',
)
@sections.compared(
    "--model",
    "models",
    type=types.Name(types.model_names),
    multiple=True,
    default=["resnet18"],
    show_default=True,
    help="Network, or FILE.py:FACTORY or PACKAGE:FACTORY for one of your own; repeat for several.",
)
@options.seeds(5)
@options.stopping
@sections.compared(
    "--guide",
    "guides",
    multiple=True,
    help="Fixed guide of advmask or keepaugment (bench list guides); repeat to compare several.  "
    "[default: attack; for keepaugment the saliency of the network in training]",
)
@sections.compared(
    "--points-from",
    type=types.Name(types.attack_names),
    help="Attack that finds the adversarial points, or advmask.fast, which predicts them.  "
    "[default: AdvMask's published one, with the dataset's settings]",
)
@options.data("digits; an experiment's own")
@options.training
@sections.execution("--fresh", is_flag=True, help="Rerun jobs that already have results.")
@options.spread
@options.dry_run
@options.tracked_training
@options.as_json
@options.quiet
def run(
    experiment: str | None,
    scale: str,
    augmentations: tuple[str, ...],
    models: tuple[str, ...],
    seeds: SeedOptions,
    stopping: StoppingOptions,
    guides: tuple[str, ...],
    points_from: str | None,
    place: DataOptions,
    training: TrainingOptions,
    fresh: bool,
    where: ExecutionOptions,
    tracking: TrackingOptions,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train networks with different augmentations, several seeds each, and compare them.

    EXPERIMENT is a table or figure of the paper, the question where to delete, or all, to run
    instead (see bench list experiments).

    \b
    Example: bench run --aug advmask --model resnet18 --seeds 5
    Example: bench run --aug none --aug "cutout(length=3)" --model resnet8 --seeds 3
    Example: bench run --policy autoaugment --mix cutmix --aug advmask
    Example: bench run --aug none --aug cutout --until decided --within 0.5 --max-seeds 30
    Example: bench run table1 --scale smoke
    Example: bench run where --scale reduced --dry-run
    """
    from bench.execution.progress import open_progress

    if experiment is not None:
        from bench.cli.experiment import run_experiments
        from bench.paper import tables

        if experiment != "all":
            tables.experiment(experiment, scale)  # rejects an unknown name
        sections.refuse(f"{experiment}, whose settings come from --scale", *OF_EXPERIMENTS)
        run_experiments(
            experiment, scale, place, where, tracking,
            fresh=fresh, dry_run=dry_run, as_json=as_json, quiet=quiet,
        )  # fmt: skip
        return
    sections.refuse("runs that are no experiment (see bench list experiments)", "scale")

    if stopping.until is None:
        sections.refuse("a fixed number of seeds (see --until)", "within", "max_seeds")
    else:
        sections.refuse("--until decided, which chooses the seeds", "seeds", "seed_list")

    chosen = seeds.chosen()

    from bench.studies import comparison, designs, until_decided
    from bench.training import fine_tuning

    for each in augmentations:  # rejected before anything slow
        designs.admit(each)
    workspace, data = comparison.place(place.open(where), place.dataset("digits"))
    workspace = fine_tuning.remember(workspace, training.pretrained)
    design = designs.Design(
        augmentations=augmentations,
        data=data,
        models=models,
        seeds=chosen,
        guides=guides,
        points=points_from,
        training=training,
        fresh=fresh,
    )
    folder, progress = workspace.results, open_progress(quiet)
    if dry_run:
        if stopping.until is None:
            jobs, later = design.jobs(workspace), ""
        else:
            jobs, more = until_decided.needed(design, workspace, stopping)
            later = looks_to_come(more)
        where.build(workspace.device)  # refuses what does not fit before the cost is said
        comparison.say_cost(jobs, workspace, progress)
        show_plan(jobs, workspace, as_json, later)
    elif stopping.until is None:
        jobs = design.jobs(workspace)
        study = comparison.run(jobs, workspace, where, tracking, progress)
        report(study, len(jobs), folder, as_json=as_json)
    else:
        decided = until_decided.run(design, workspace, where, tracking, progress, stopping)
        study = decided.study
        report(study, len(study.records), folder, as_json=as_json, decided=decided)


def looks_to_come(seeds: Sequence[int]) -> str:
    """What a dry run says about the looks after the one that it plans.

    >>> looks_to_come([10, 15]), looks_to_come([])
    ('Looks with more seeds, if needed: 10, 15', 'Looks with more seeds: none')
    """
    if not seeds:
        return "Looks with more seeds: none"
    return f"Looks with more seeds, if needed: {', '.join(map(str, seeds))}"


def show_plan(jobs: Sequence[Job], workspace: Workspace, as_json: bool, later: str = "") -> None:
    """Print which jobs would run and which are done.

    Args:
        jobs: The jobs.
        workspace: The results folder.
        as_json: Print JSON.
        later: What may follow them.
    """
    from bench.studies import designs

    planned = designs.plan(jobs, workspace)
    if as_json:
        echo(json.dumps({"jobs": [each.to_json() for each in planned]}))
        return
    for each in planned:
        echo(each)
    echo(f"{sum(each.done for each in planned)} of {len(planned)} runs are done")
    if later:
        echo(later)


def report(
    study: Study, asked: int, results: Path, *, as_json: bool, decided: Decided | None = None
) -> None:
    """Print the table, or everything as JSON; exit with 3 if seeds have failed."""
    from bench.execution.folders import option

    if as_json:
        found: dict[str, Any] = {"records": [record.to_json() for record in study.records]}
        found["intervals"] = study.intervals()
        if decided is not None:
            found["verdicts"] = decided.to_json()
        echo(json.dumps(found))
    else:
        echo(study)
        for line in decided.lines() if decided is not None else ():
            echo(line)
        echo(f"Next: bench tables{option(results)}", err=True)
    if study.failed:
        echo(f"{len(study.failed)} of {asked} runs failed: {study.failed[0].message}", err=True)
        raise click.exceptions.Exit(SOME_FAILED)
