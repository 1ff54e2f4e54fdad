"""``bench attack-eval``: compare sparse attacks on one victim model."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import SOME_FAILED, options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions
    from bench.studies.attack_results import AttackStudy
    from bench.studies.tracking import TrackingOptions


@click.command(
    "attack-eval", cls=sections.Command, short_help="Compare sparse attacks on one network."
)
@sections.attacked(
    "--eps",
    type=types.Eps(),
    multiple=True,
    default=["8/255"],
    show_default=True,
    help="Largest change of a value in [0, 1]; repeat for several.",
)
@sections.compared(
    "--attack",
    "attacks",
    type=types.Name(types.attack_names),
    multiple=True,
    help="Attack, with options as in \"jsma(direction='both')\", or FILE.py:CLASS for one of your "
    "own; repeat for several.  [default: all but sparse-autoattack]",
)
@options.victim("resnet8 for digits and photos, else resnet20 or the dataset's")
@options.data("photos")
@sections.attacked(
    "--images",
    type=types.Whole(1),
    default=6,
    show_default=True,
    help="Number of correctly classified test images to attack.",
)
@sections.attacked(
    "--targeted/--untargeted",
    default=None,
    help="Reach a target class, or leave the true class.  [default: untargeted, which every "
    "attack can do]",
)
@sections.attacked(
    "--target",
    type=click.Choice(["random", "least-likely", "next", "all"]),
    help="How the target class is chosen; all takes every other class in turn.  [default: random]",
)
@sections.attacked(
    "--query-cap",
    type=types.Whole(1),
    help="Maximum number of forward and backward passes per image, added up.  [default: no limit]",
)
@sections.execution(
    "--batch-size",
    type=types.Whole(1),
    help="Images attacked as one batch; lower it if memory is short.  [default: 64; 256 on a "
    "CUDA device]",
)
@options.number_of_seeds(
    1, "Number of seeds of targets and draws, and of the victim model where it is trained here."
)
@sections.compared("--seed", type=types.Whole(0), help="Use this seed instead of --seeds.")
@sections.execution("--fresh", is_flag=True, help="Rerun attacks that already have results.")
@options.spread
@options.dry_run
@options.tracking
@options.as_json
@options.quiet
def attack_eval(
    eps: tuple[Fraction, ...],
    attacks: tuple[str, ...],
    victim: str | None,
    model: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    place: DataOptions,
    images: int,
    targeted: bool | None,
    target: Any,
    query_cap: int | None,
    batch_size: int | None,
    seeds: int,
    seed: int | None,
    fresh: bool,
    where: ExecutionOptions,
    dry_run: bool,
    tracking: TrackingOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Attack a network with sparse attacks and judge the results by the same rules.

    The table shows success, changed pixels and elements, norms, and forward and backward passes.
    Dense PGD is the upper bound for eps; noise at as many pixels as AdvMask is the lower bound.

    \b
    Example: bench attack-eval --eps 8/255
    Example: bench attack-eval --eps 8/255 --eps 16/255 --targeted --images 100
        --victim resnet20.safetensors --model resnet20 --data cifar10
    """
    if target and targeted is False:
        raise click.UsageError(f"--target {target} contradicts --untargeted; remove one of them")

    if seed is not None:
        sections.refuse("--seed", "seeds")
    from bench.execution.progress import open_progress
    from bench.studies import attack_designs, attack_study, comparison
    from bench.training import victims

    workspace, name = comparison.place(place.open(where), place.dataset("photos"))
    data = workspace.dataset(name)
    design = attack_designs.AttackDesign(
        victim=victims.choose(data, victim=victim, model=model, mean=mean, std=std),
        attacks=attacks,
        eps=eps,
        images=images,
        aim=target or ("random" if targeted else "untargeted"),
        query_cap=query_cap,
        batch_size=batch_size,
        seeds=tuple(range(seeds)) if seed is None else (seed,),
        fresh=fresh,
    )
    progress = open_progress(quiet)
    if dry_run:
        planned = attack_designs.plan(design, workspace, progress.say)
        if as_json:
            echo(json.dumps({"jobs": [each.to_json() for each in planned]}))
            return
        for each in planned:
            echo(each)
        echo(f"{sum(each.done for each in planned)} of {len(planned)} attacks are done")
        if gone := sum(each.done and each.images_stored is False for each in planned):
            echo(f"the images of {gone} of them are not in {workspace.results}: a run repeats them")
        return
    study = attack_study.run(design, workspace, where, tracking, progress)
    report(study, images, workspace.results, as_json=as_json)


def report(study: AttackStudy, images: int, results: Path, *, as_json: bool) -> None:
    """Print the tables, or everything as JSON."""
    from bench.execution.folders import option
    from bench.reporting import attack_tables, formats
    from bench.reporting.grouping import plural
    from bench.robustness.results import comparison_line

    if as_json:
        records = [record.to_json() for record in study.records]
        table = attack_tables.attack_entries(study.records)
        worst = [
            {
                "eps": each.record.labels["eps"],
                "seed": each.record.seed,
                "metrics": dict(each.record.metrics),
                "shares": dict(each.shares),
            }
            for each in study.worst
        ]
        everything = {"records": records, "table": table, "pairs": list(study.pairs)}
        echo(json.dumps(everything | {"worst_case": worst}))
        _tell_failures(study)
        return
    for eps in dict.fromkeys(record.labels["eps"] for record in study.records):
        members = [record for record in study.records if record.labels["eps"] == eps]
        labels = members[0].labels
        setting = [labels["model"], labels["data"], f"eps {eps}", labels["goal"]]
        echo(f"\n{', '.join([*setting, plural(images, 'image')])}\n")
        echo(formats.text(study.table(eps)))
        seed = members[0].seed
        same = [test for test in study.pairs if test["eps"] == eps and test["seed"] == seed]
        for record in members:
            # its own attack is what the project is about; every pair is in the JSON
            name = record.labels["attack"]
            elements = "unit='elements'" in record.labels["hyperparameters"]
            if name.partition("(")[0] != "advmask" or record.seed != seed:
                continue
            if line := comparison_line(same, name, "elements" if elements else "pixels"):
                echo(line)
        for each in study.worst:
            if (each.record.labels["eps"], each.record.seed) == (eps, seed) and str(each):
                echo(str(each))
    echo(f"Next: bench tables attacks{option(results)}", err=True)
    _tell_failures(study)


def _tell_failures(study: AttackStudy) -> None:
    """Say which attacks raised errors, or whose workers died, and exit with 3 if any did."""
    failed = [each for each in study.records if each.metrics.get("errors")]
    for record in failed:
        labels = record.labels
        echo(f"{labels['attack']}, eps {labels['eps']}: {record.message}", err=True)
    if failed:
        raise click.exceptions.Exit(SOME_FAILED)
