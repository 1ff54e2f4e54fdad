"""``bench speed``: how fast it is, beside something else timed in the same run."""

from __future__ import annotations

import json
from typing import Any

import click

from bench.cli import options


@click.command()
@click.argument(
    "what",
    type=click.Choice(["masks", "input", "epochs", "attacks", "start", "all", "growth"]),
    default="masks",
)
@click.option("--batch-size", type=click.IntRange(min=1), multiple=True, default=[128, 512])
@click.option("--side", type=click.IntRange(min=4), multiple=True, default=[32, 64])
@click.option("--model", type=options.Name(options.model_names), default="resnet8")
@click.option(
    "--attack",
    "specs",
    multiple=True,
    type=options.Name(options.attack_names),
    default=["sigma-zero", "advmask", "jsma", "greedyfool"],
    show_default=True,
    help="Which attacks; ratios are to the first.",
)
@click.option("--eps", type=options.Eps(), default="8/255", show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=64, help="Pictures of an attack.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="How often to attack.")
@click.option("--victim", metavar="FILE", help="Weights of --model to attack.  [default: trained]")
@click.option("--mean", metavar="0.485,…", help="What the victim subtracts.  [default: the data's]")
@click.option("--std", metavar="0.229,…", help="What the victim divides by.  [default: the data's]")
@options.data
@options.results
@options.compute
@options.as_json
@options.quiet
def speed(what: str, as_json: bool, **given: Any) -> None:
    """Time masks, the input side, training epochs, attacks, the start, or growth.

    masks: pictures per second of every augmentation, as a share of `images * mask`. input: batches
    per second against torchvision over PIL with two workers. epochs: seconds of a training epoch
    against a bare loop over ready batches. attacks: seconds of an attack against the forwards and
    backwards it asks for, and of an iteration against sigma-zero's. start: bench --help against an
    empty Python. growth (minutes, not part of all): what jobs, epochs, 10,000 records and cores
    cost, beside targets.

    \b
    Example: bench speed masks
    Example: bench speed epochs --data photos --model resnet8
    Example: bench speed attacks --data photos --threads 1
    Example: bench speed growth
    """
    from bench.execution.progress import open_progress

    progress = open_progress(given["quiet"])
    if what == "growth":
        growth(progress, as_json)
        return
    workspace = options.workspace(**given)
    parts = {
        "start": start, "masks": masks, "input": inputs, "epochs": epochs, "attacks": attacks,
    }  # fmt: skip
    chosen = parts if what == "all" else {what: parts[what]}
    tables: dict[str, list[Any]] = {}
    for measure in chosen.values():
        tables |= measure(workspace, given, progress)
    if as_json:
        click.echo(json.dumps({title: [vars(r) for r in rows] for title, rows in tables.items()}))
        return
    for title, rows in tables.items():
        unit = "seconds" if title.startswith(("epochs", "attacks", "start")) else "per second"
        yardstick = "their own passes" if title.startswith("attacks:") else "the first line"
        click.echo(f"{title} ({unit}; ratio to {yardstick})")
        for row in rows:
            value = 1 / row.per_second if unit == "seconds" else row.per_second
            shown = f"{value:12.3f}" if unit == "seconds" else f"{value:12,.0f}"
            click.echo(f"  {row.name:44} {shown}  {row.ratio:6.3f}")


def growth(progress: Any, as_json: bool) -> None:
    """Every measure of growth in a results folder of its own; exits with 3 where one is missed."""
    import os
    import tempfile
    from pathlib import Path

    import torch

    from bench.cli import jobs
    from bench.execution.workspace import Workspace
    from bench.records.store import Store
    from bench.speed import growth as growing

    def drive(tracked: bool) -> Any:
        given: dict[str, Any] = {"no_tracking": not tracked, "tracking_uri": None, "quiet": True}
        given |= {"executor": "local", "jobs": None, "address": None, "gpus": None}
        return lambda some, place: jobs.train(some, place, Store(place.results), given)

    def place(name: str, data: str = growing.TINY) -> Workspace:
        return Workspace(results=Path(folder) / name, data=data)

    torch.set_num_threads(1)  # what is so small only waits for a second one
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            *growing.driver("no tracker", drive(False), place("plain"), progress),
            *growing.driver("sqlite", drive(True), place("tracked"), progress),
            *growing.listing(place("listing").results, progress),
            *growing.memory(drive(True), place("memory"), progress),
            *growing.scaling(place("scaling", "digits"), progress, cores or 1),
        ]
    if as_json:
        click.echo(json.dumps([{**vars(row), "met": row.met} for row in rows]))
    else:
        click.echo(f"growth ({cores} cores, {os.getloadavg()[0]:.1f} processes wanted them)")
        for row in rows:
            bound = f"at {'least' if row.least else 'most'} {row.target:g} {row.unit}"
            state = "" if row.met else "  missed"
            click.echo(f"  {row.name:38} {row.value:9.3f} {row.unit:5}  {bound}{state}")
    if not all(row.met for row in rows):
        raise SystemExit(3)


def start(workspace: Any, given: dict[str, Any], progress: Any) -> dict[str, list[Any]]:
    """``bench --help`` beside a Python that does nothing."""
    import subprocess
    import sys

    from bench.speed.throughput import compare

    def run(*arguments: str) -> Any:
        return lambda: subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
        )

    works = {"python -c pass": run("-c", "pass"), "bench --help": run("-m", "bench", "--help")}
    rates = compare(works, 1, progress, "start")
    return {"start": [type(rate)(rate.name, rate.per_second, 1 / rate.ratio) for rate in rates]}


def masks(workspace: Any, given: dict[str, Any], progress: Any) -> dict[str, list[Any]]:
    """Every augmentation and the erasers of other libraries, for each size and device."""
    from bench.speed import throughput as timing

    return {
        f"masks: batch {batch}, {side}x{side} pixels, {device}": timing.masks(
            batch, side, device, progress
        )
        for device in dict.fromkeys(["cpu", workspace.device])
        for side in given["side"]
        for batch in given["batch_size"]
    }


def inputs(workspace: Any, given: dict[str, Any], progress: Any) -> dict[str, list[Any]]:
    """The loader over at least 20,000 pictures, so that starting workers does not count."""
    from bench.data.splits import Split
    from bench.speed import throughput as timing

    data = workspace.dataset()
    times = -(-20_000 // len(data.train.labels))
    split = Split(data.train.images.repeat(times, 1, 1, 1), data.train.labels.repeat(times))
    return {f"input: {data.name}": timing.inputs(split, data, workspace.device, progress)}


def epochs(workspace: Any, given: dict[str, Any], progress: Any) -> dict[str, list[Any]]:
    """One recipe per augmentation at the usual settings."""
    from bench import registry
    from bench.speed import throughput as timing
    from bench.training.recipes import Recipe, usual

    data = workspace.dataset()
    side = data.train.images.shape[-1]
    recipes = [
        Recipe(
            data=data.name,
            model=given["model"],
            augmentation=registry.build("augmentations", name, data=data.name, side=side),
            **(usual(data.name, given["model"], side) | {"validation": 0.0}),
        )
        for name in registry.classes("augmentations")
    ]
    guide = timing.points(len(data.train.labels), side) > 0
    title = f"epochs: {given['model']} on {data.name}"
    return {title: timing.epochs(recipes, data, guide, workspace.device, progress)}


def attacks(workspace: Any, given: dict[str, Any], progress: Any) -> dict[str, list[Any]]:
    """Attacks on the first test pictures; see `bench.speed.throughput.attacks`."""
    from bench import registry
    from bench.cli.attack_eval import numbers, opponent
    from bench.speed import throughput as timing

    given = given | {each: numbers(given[each]) for each in ("mean", "std")}
    network = opponent(workspace, given).load(workspace, progress)
    images = workspace.dataset().test.images[: given["images"]].to(workspace.device).float() / 255
    methods = {
        spec: registry.build("attacks", spec, eps=float(given["eps"])) for spec in given["specs"]
    }
    whole, steps = timing.attacks(methods, network, images, progress, given["rounds"])
    thousand = [timing.Rate(rate.name, rate.per_second / 1000, rate.ratio) for rate in steps]
    about = f"{given['model']}, {len(images)} pictures of {workspace.dataset().name}"
    return {f"attacks: a picture; {about}": whole,
            f"attacks, 1,000 backward passes of a picture; {about}": thousand}  # fmt: skip
