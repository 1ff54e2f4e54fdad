"""``bench points``: the adversarial points of a training set, found once and kept."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from bench.cli import options


@click.group()
def points() -> None:
    """Find, look at and exchange the adversarial points of a training set."""


making = options.together(
    click.option("--victim", type=options.Name(options.model_names), help="The network to attack."),
    click.option(
        "--attack", type=options.Name(options.attack_names), help="What finds the points."
    ),
)


def found(given: dict[str, Any]) -> Any:
    """The workspace and the points that the options describe, built where they are missing."""
    from bench.execution import signals
    from bench.execution.progress import open_progress
    from bench.points import find

    workspace = options.workspace(**given)
    progress = open_progress(given.get("quiet", False))
    data = workspace.dataset()
    with signals.listen(progress.say) as stop:
        return workspace, find.adversarial(
            workspace,
            progress,
            victim=find.points_victim(data, given["victim"]),
            attack_text=given["attack"] or find.ATTACK,
            executor=options.executor(workspace, **given),
            stop=stop,
        )


@points.command()
@options.data
@making
@options.results
@options.compute
@options.spread
@options.as_json
@options.quiet
def build(as_json: bool, **given: Any) -> None:
    """Attack a whole training set once; what is finished is kept, whatever happens.

    \b
    Example: bench points build --data photos
    """
    _, built = found(given)
    tell(built, as_json)


@points.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The PNG to write.")
@click.option("--count", type=click.IntRange(1, 64), default=8, show_default=True)
@options.data
@making
@options.results
@options.compute
@options.as_json
@options.quiet
def show(output: Path | None, count: int, as_json: bool, **given: Any) -> None:
    """Write a picture of images, their points and what each augmentation leaves of them.

    It prints statistics of the points. KeepAugment is shown with the saliency of the network that
    was attacked.

    \b
    Example: bench points show --data photos --output points.png
    """
    from bench.execution import signals
    from bench.execution.progress import open_progress
    from bench.files import atomic
    from bench.points import find
    from bench.registry import parse
    from bench.reporting import image_grid
    from bench.training import victims

    workspace, built = found(given)
    data = workspace.dataset()
    victim = find.points_victim(data, given["victim"])
    progress = open_progress(given["quiet"])
    with signals.listen(progress.say) as stop:  # it is trained where the points alone are kept
        network = victims.obtain(victim, workspace, progress, stop)
    columns = image_grid.masked(data, built, count)
    columns["advmask"] = columns.pop("masked")
    columns |= image_grid.others(data, built, count, network)
    path = output or workspace.results / "figures" / f"points-{parse(data.name)[0]}.png"
    atomic.write(path, image_grid.png(image_grid.grid(columns)))
    tell(built, as_json)
    click.echo(f"wrote {path}", err=True)


@points.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@options.data
@making
@options.results
@options.compute
@options.quiet
def export(path: Path, **given: Any) -> None:
    """Write the points as a NumPy .npz file.

    \b
    Example: bench points export points.npz --data photos
    """
    from bench.files import atomic
    from bench.points.exchange import to_numpy

    _, built = found(given)
    atomic.write(path, to_numpy(built))
    click.echo(f"wrote {len(built.places)} points of {len(built.reached)} pictures to {path}")


@points.command("import")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--name", required=True, help="What --guide of bench run will call them.")
@options.data
@options.results
def import_(path: Path, name: str, **given: Any) -> None:
    """Take over points from a NumPy .npz file, for `bench run --aug advmask --guide NAME`.

    \b
    Example: bench points import points.npz --name mine --data photos
    """
    import re

    from bench.points.exchange import from_numpy
    from bench.points.guides import FIXED

    if name in FIXED or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise ValueError(f"--name {name!r} is taken or not a plain name: letters, digits, - _ .")
    workspace = options.workspace(**given)
    taken = from_numpy(path, workspace.dataset())
    taken.save(workspace.results / "points" / f"{name}.safetensors")
    tell(taken, as_json=False)
    data = shlex.quote(workspace.data)
    click.echo(f"use them with: bench run --aug advmask --guide {name} --data {data}")


def tell(built: Any, as_json: bool) -> None:
    """Print what a set of points is like."""
    summary = built.summary()
    if as_json:
        click.echo(json.dumps({"about": built.about, "summary": summary}))
        return
    click.echo(
        f"{summary['pictures']:.0f} pictures, {summary['points_mean']:.1f} points each "
        f"(median {summary['points_median']:.0f}), attack success {summary['success']:.1%}, "
        f"{summary['without_points']:.1%} without points"
    )
    click.echo(
        f"{summary['inside']:.0%} of the points lie in the central half of the area; "
        f"spread {summary['spread']:.2f} of that of points placed everywhere"
    )
