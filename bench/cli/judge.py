"""``bench judge``: judge adversarial images that others made."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.execution.options import ExecutionOptions


def print_schema(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the JSON schema of submission.json and exit."""
    if wanted and not ctx.resilient_parsing:
        from bench.robustness.submissions import schema

        echo(schema().rstrip("\n"))
        ctx.exit()


@click.command(cls=sections.Command, short_help="Judge adversarial images made elsewhere.")
@click.argument("folder", type=click.Path(path_type=Path))
@options.victim("resnet8 for digits and photos, else resnet20 or the dataset's")
@options.data("photos")
@sections.attacked(
    "--eps",
    type=types.Eps(),
    help="Largest change of a value in [0, 1].  [default: as in submission.json, else no bound]",
)
@sections.attacked(
    "--target",
    type=click.Choice(["untargeted", "random", "least-likely", "next"]),
    help="How the target class is chosen.  [default: as in submission.json, else untargeted]",
)
@sections.attacked(
    "--seed",
    type=types.Whole(0),
    help="Seed of random targets.  [default: as in submission.json, else 0]",
)
@sections.attacked(
    "--images",
    type=types.Whole(1),
    help="Judge on the same correctly classified test images as bench attack-eval --images; those "
    "that are not submitted are failures.  [default: as in submission.json, else those submitted, "
    "which gives no record]",
)
@options.compute
@sections.output(
    "--prepare",
    is_flag=True,
    help="Write the images to attack (task.safetensors) and a submission.json into FOLDER, and "
    "stop.",
)
@sections.output(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_schema,
    help="Print the JSON schema of submission.json, and stop.",
)
@options.as_json
@options.quiet
def judge(
    folder: Path,
    victim: str | None,
    model: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    place: DataOptions,
    eps: Fraction | None,
    target: str | None,
    seed: int | None,
    images: int | None,
    where: ExecutionOptions,
    prepare: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Judge adversarial images that were made elsewhere, by the rules of bench attack-eval.

    FOLDER holds adversarial.safetensors with the tensors indices (int64, places in the test set)
    and images (float32 in [0, 1], or uint8), or one PNG or BMP file per image, named by its index;
    beside it submission.json, which says what was attacked and how. Nothing in it is executed.

    Success, norms, range and eps are measured anew on the victim model. With a number of images
    the result becomes a record, which tables and bench leaderboard show.

    \b
    Example: bench judge my-attack --images 100 --data cifar10 --victim resnet20.safetensors
        --model resnet20 --prepare
    Example: bench judge my-attack --data cifar10 --victim resnet20.safetensors --model resnet20
    """
    from bench.execution.progress import open_progress
    from bench.records.store import Store
    from bench.robustness import rejudging, submissions
    from bench.studies import comparison
    from bench.training import victims

    workspace, name = comparison.place(place.open(where), place.dataset("photos"))
    data = workspace.dataset(name)
    if prepare:
        sections.refuse("--prepare", "as_json")
    submission = None if prepare else submissions.read(folder, data.test)
    about = submissions.read_about(folder) if submission is None else submission.about
    chosen = victims.choose(data, victim=victim, model=model, mean=mean, std=std)
    rules = rejudging.terms(about, name, eps=eps, aim=target, seed=seed, images=images)
    progress = open_progress(quiet)
    if submission is None:
        for path in rejudging.prepare(folder, rules, chosen, workspace, progress):
            echo(path)
        return
    found = rejudging.rejudge(submission, rules, chosen, workspace, progress)
    if rules.images is not None:
        store, record = Store(workspace.results), found.record
        known = store.find([(record.key, record.seed)]).get((record.key, record.seed))
        # the same images again are the same record
        if known is None or (known.labels, known.metrics) != (record.labels, record.metrics):
            store.add(record)
    if as_json:
        echo(json.dumps(found.to_json(), allow_nan=False))
        return
    from bench.reporting.submitted import report

    echo(report(found, about))
