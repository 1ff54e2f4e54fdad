"""``bench run``: train networks with different augmentations and compare them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bench.cli import SOME_FAILED, options
from bench.cli import jobs as training

if TYPE_CHECKING:
    from bench.records.record import Record
    from bench.records.store import Store
    from bench.studies.jobs import Job


def seed_list(text: str) -> list[int]:
    """Seeds as typed: ``0,3,7``; raises ``BadParameter`` for anything else."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of seeds; write it as 0,3,7") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"{text!r}: seeds are from 0 up, each once")
    return seeds


@click.command()
@click.argument("experiment", required=False)
@click.option(
    "--scale",
    type=click.Choice(["smoke", "reduced", "paper"]),
    default="smoke",
    show_default=True,
    help="Of an experiment.",
)
@click.option(
    "--aug",
    "augmentations",
    type=options.Name(options.augmentation_names),
    multiple=True,
    default=["advmask"],
    show_default=True,
    help='An augmentation, with options as in "gridmask(ratio=0.5)"; repeat to compare.',
)
@click.option(
    "--model",
    "models",
    type=options.Name(options.model_names),
    multiple=True,
    default=["resnet18"],
    show_default=True,
    help="A network; repeat for several.",
)
@options.data
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many seeds: 0, 1, …",
)
@click.option("--seed-list", metavar="0,3,7", help="These seeds instead.")
@click.option(
    "--policy",
    type=options.Name(options.policy_names),
    help="Operations on every picture: see bench list policies; NAME+cutout adds a Cutout.",
)
@click.option("--mix", type=options.Name(options.mix_names), help="mixup or cutmix.")
@click.option(
    "--guide",
    "guides",
    multiple=True,
    help="Fixed guide of advmask or keepaugment: see bench list guides; repeat to compare.  "
    "[default: attack; for keepaugment the saliency of the network in training]",
)
@click.option("--epochs", type=int, help="Passes over the training pictures.")
@click.option("--batch-size", type=int, help="Pictures per step.")
@click.option("--learning-rate", type=float, help="At the start.")
@click.option("--weight-decay", type=float, help="Of all weights.")
@click.option("--schedule", type=click.Choice(["cosine", "steps"]), help="Of the learning rate.")
@click.option("--validation", type=float, help="Share of the training part set aside by the seed.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: mixed precision on a CUDA device that gains by it.",
)
@click.option("--fresh", is_flag=True, help="Run again what is done.")
@options.results
@options.tracking
@options.compute
@options.spread
@options.dry_run
@options.as_json
@options.quiet
def run(
    experiment: str | None,
    scale: str,
    augmentations: tuple[str, ...],
    models: tuple[str, ...],
    **given: Any,
) -> None:
    """Train networks with different augmentations, several seeds each, and compare them.

    EXPERIMENT is a table or figure of the paper instead (see bench list experiments), or all.

    \b
    Example: bench run --aug advmask --model resnet18 --seeds 5
    Example: bench run --aug none --aug "cutout(length=3)" --model resnet8 --seeds 3
    Example: bench run --policy autoaugment --mix cutmix --aug advmask
    Example: bench run table1 --scale smoke
    """
    if experiment is not None:
        from bench.cli.experiment import run_experiments

        run_experiments(experiment, scale, given)
        return
    options.refuse("runs have no scale, an experiment has (see bench list experiments)", "scale")
    given["data"] = given["data"] or "digits"
    # rejected before anything slow is imported
    seeds = seed_list(given["seed_list"]) if given["seed_list"] else list(range(given["seeds"]))

    from bench import registry
    from bench.data import mixing, policies
    from bench.records.store import Store
    from bench.studies.jobs import Job

    if given["policy"] is not None:
        policies.build(given["policy"], side=32)
    if given["mix"] is not None:
        mixing.build(given["mix"])
    for text in augmentations:
        registry.build("augmentations", text)
    workspace = options.workspace(**given)
    jobs = [
        Job(recipe, seed, fresh=given["fresh"])
        for recipe in recipes(workspace, augmentations, models, given)
        for seed in seeds
    ]
    store = Store(workspace.results)
    if given["dry_run"]:
        plan(jobs, store, as_json=given["as_json"])
        return
    finished = training.train(jobs, workspace, store, given)
    report(jobs, finished, workspace, given)


def recipes(
    workspace: Any, augmentations: tuple[str, ...], models: tuple[str, ...], given: dict[str, Any]
) -> list[Any]:
    """One recipe per network, augmentation and guide: the usual settings, or what was asked for."""
    from bench import registry
    from bench.models import networks
    from bench.points import guides
    from bench.training.recipes import Recipe, usual

    data = workspace.dataset()
    side = data.train.images.shape[-1]
    asked = {
        name: given[name]
        for name in (
            "epochs",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "schedule",
            "validation",
            "policy",
            "mix",
        )
        if given[name] is not None
    }
    found = []
    for model in models:
        networks.check(model)
        for text in augmentations:
            augmentation = registry.build("augmentations", text, data=data.name, side=side)
            for guide in (given["guides"] if augmentation.wants else ()) or (None,):
                recipe = Recipe(
                    data=data.name,
                    digest=data.pin,
                    model=model,
                    augmentation=augmentation,
                    # its own guide by name is the same recipe as the default
                    guide=None if guide == augmentation.wants == "attack" else guide,
                    precision=precision(given["precision"], workspace.device),
                    **(usual(data.name, model, side) | asked),
                )
                guides.check(recipe, workspace)
                if recipe not in found:
                    found.append(recipe)
    return found


def precision(wanted: str, device: str) -> Any:
    """``auto`` is bfloat16 where the device computes it natively, float32 elsewhere."""
    if wanted != "auto":
        return wanted
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def plan(jobs: list[Job], store: Store, *, as_json: bool) -> None:
    """Show what would be run and what is done."""
    from bench import registry

    done = store.find(job.name for job in jobs)
    lines = [
        {
            "augmentation": registry.express(job.recipe.augmentation),
            "model": job.recipe.model,
            "data": job.recipe.data,
            "seed": job.seed,
            "epochs": job.recipe.epochs,
            "guide": job.recipe.guide,
            "policy": job.recipe.policy,
            "mix": job.recipe.mix,
            "done": job.name in done,
        }
        for job in jobs
    ]
    if as_json:
        click.echo(json.dumps({"jobs": lines}))
        return
    for line in lines:
        state = "done" if line["done"] else "to run"
        others = "".join(f" + {line[name]}" for name in ("guide", "policy", "mix") if line[name])
        click.echo(
            f"{state:7} {line['augmentation']}{others}  {line['model']}  {line['data']}  "
            f"seed {line['seed']}, {line['epochs']} epochs"
        )
    click.echo(f"{len(done)} of {len(jobs)} runs are done")


def report(jobs: list[Job], finished: list[Record], workspace: Any, given: dict[str, Any]) -> None:
    """The result table, or everything as JSON; exits with 3 when seeds have failed."""
    from bench.reporting import formats, run_tables

    failed = [record for record in finished if record.status == "failed"]
    if given["as_json"]:
        click.echo(
            json.dumps(
                {
                    "records": [record.to_json() for record in finished],
                    "intervals": run_tables.intervals(finished),
                }
            )
        )
    else:
        click.echo(formats.text(run_tables.grid(finished)))
        click.echo(f"next: bench tables --results {workspace.results}", err=True)
    if failed:
        click.echo(f"{len(failed)} of {len(jobs)} runs failed: {failed[0].message}", err=True)
        raise SystemExit(SOME_FAILED)
