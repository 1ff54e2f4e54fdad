"""``bench speed``: benchmarks of this project, each beside a reference in the same run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from bench.cli import SOME_FAILED, options, sections, types
from bench.cli.output import echo

if TYPE_CHECKING:
    from bench.cli.options import DataOptions
    from bench.data.dataset import Dataset
    from bench.execution.options import ExecutionOptions
    from bench.execution.progress import Progress
    from bench.execution.workspace import Workspace
    from bench.speed.throughput import Rate

    Rates = dict[str, list[Rate]]


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """What is timed: sizes, network, attacks and victim model; see the help of each option."""

    batch_size: tuple[int, ...]
    side: tuple[int, ...]
    model: str
    attack: tuple[str, ...]
    eps: Fraction
    images: int
    rounds: int
    victim: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


chosen = sections.gathered(
    "chosen",
    lambda: SpeedOptions,
    sections.compared(
        "--batch-size",
        type=types.Whole(1),
        multiple=True,
        default=[128, 512],
        show_default=True,
        help="Images per batch, for masks; repeat for several.",
    ),
    sections.compared(
        "--side",
        type=types.Whole(4),
        multiple=True,
        default=[32, 64],
        show_default=True,
        help="Side of the images in pixels, for masks; repeat for several.",
    ),
    sections.compared(
        "--model",
        type=types.Name(types.model_names),
        default="resnet8",
        show_default=True,
        help="Network, for epochs and attacks.",
    ),
    sections.attacked(
        "--attack",
        multiple=True,
        type=types.Name(types.attack_names),
        default=["sigma-zero", "advmask", "jsma", "greedyfool"],
        show_default=True,
        help="Attack to time; repeat for several. Ratios are to the first.",
    ),
    sections.attacked(
        "--eps",
        type=types.Eps(),
        default="8/255",
        show_default=True,
        help="Largest change of a value in [0, 1].",
    ),
    sections.attacked(
        "--images",
        type=types.Whole(1),
        default=64,
        show_default=True,
        help="Number of images to attack.",
    ),
    sections.attacked(
        "--rounds",
        type=types.Whole(1),
        default=3,
        show_default=True,
        help="Number of measurements of each attack.",
    ),
    sections.attacked(
        "--victim",
        metavar="FILE",
        help="Weights of the victim model.  [default: trained on the dataset]",
    ),
    sections.attacked(
        "--mean",
        type=types.Numbers(),
        metavar="0.485,…",
        help="Per-channel mean subtracted by the victim model.  [default: the dataset's]",
    ),
    sections.attacked(
        "--std",
        type=types.Numbers(),
        metavar="0.229,…",
        help="Per-channel standard deviation that it divides by.  [default: the dataset's]",
    ),
)


USED: dict[str, set[str]] = {
    "masks": {"batch_size", "side"},
    "input": set(),
    "epochs": {"model"},
    "attacks": {"model", "attack", "eps", "images", "rounds", "victim", "mean", "std"},
    "start": set(),
    "growth": set(),
}
"""The options that each benchmark takes besides those of the dataset and the device."""

OF_DATA = ("data", "data_root", "download")
OF_DEVICE = ("device", "threads", "workers")
"""Options without effect on the speed of masks, of the start and of growth, and of the last two."""


@click.command(cls=sections.Command, short_help="Measure the speed of masks, training and attacks.")
@click.argument(
    "what",
    metavar="[WHAT]",
    type=types.Word("benchmark", ["masks", "input", "epochs", "attacks", "start", "all", "growth"]),
    default="masks",
)
@chosen
@options.data("digits", scaled=False)
@options.compute
@options.as_json
@options.quiet
def speed(
    what: str,
    chosen: SpeedOptions,
    place: DataOptions,
    where: ExecutionOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the speed of masks, input, training epochs, attacks, start, or growth.

    masks: images per second of every augmentation, relative to `images * mask`. input: images per
    second, relative to torchvision over PIL with two workers. epochs: seconds of a training epoch,
    relative to a bare loop over ready batches, beside the convolutions alone, which no training can
    beat, in float32 and bfloat16. attacks: seconds of an attack, relative to its forward and
    backward passes, and of an iteration, relative to the first attack. start: bench --help,
    relative to an empty Python. growth (minutes, not part of all): overhead of jobs, epochs, 10,000
    records in a list, 20,000 in a report, logging and cores, with targets.

    \b
    Example: bench speed masks
    Example: bench speed epochs --data photos --model resnet8
    Example: bench speed attacks --data photos --threads 1
    Example: bench speed growth
    """
    from bench.execution.progress import open_progress

    if what in USED:
        sections.refuse(f"speed {what}", *(set().union(*USED.values()) - USED[what]))
    progress = open_progress(quiet)
    if what in ("masks", "growth", "start"):
        sections.refuse(f"speed {what}", *OF_DATA)
    if what in ("growth", "start"):
        sections.refuse(f"speed {what}", *OF_DEVICE)
    if what == "growth":
        growth(progress, as_json)
        return
    if what == "start":
        show(start(progress), as_json)
        return
    from bench.studies.comparison import place as locate

    workspace, name = locate(place.open(where), place.dataset("digits"))
    data = workspace.dataset(name)
    parts = {"masks": masks, "input": inputs, "epochs": training, "attacks": attacks}
    tables = start(progress) if what == "all" else {}
    for measure in parts.values() if what == "all" else [parts[what]]:
        tables |= measure(workspace, data, chosen, progress)
    show(tables, as_json)


def show(tables: Rates, as_json: bool) -> None:
    """Print the rates of each table."""
    if as_json:
        echo(json.dumps({title: [vars(r) for r in rows] for title, rows in tables.items()}))
        return
    for title, rows in tables.items():
        unit = "seconds" if title.startswith(("epochs", "attacks", "start")) else "per second"
        yardstick = "their own passes" if title.startswith("attacks:") else "the first line"
        echo(f"{title} ({unit}; ratio to {yardstick})")
        width = max([44, *(len(row.name) for row in rows)])
        for row in rows:
            value = 1 / row.per_second if unit == "seconds" else row.per_second
            shown = f"{value:12.3f}" if unit == "seconds" else f"{value:12,.0f}"
            echo(f"  {row.name:{width}} {shown}  {row.ratio:6.3f}")


def growth(progress: Progress, as_json: bool) -> None:
    """Measure growth in temporary results folders; exit with 3 if a target is missed."""
    import os
    import tempfile
    from pathlib import Path

    import torch

    from bench.execution.options import ExecutionOptions
    from bench.execution.progress import Silent
    from bench.execution.workspace import Workspace
    from bench.speed import growth as growing
    from bench.studies import comparison
    from bench.studies.tracking import TrackingOptions

    def drive(tracked: bool) -> Any:
        tracking = TrackingOptions(no_tracking=not tracked)
        return lambda some, place: comparison.run(
            some, place, ExecutionOptions(), tracking, Silent()
        )

    def log(results: Path) -> Any:
        from bench.records.tracking.tracker import Tracker

        tracker = Tracker(None, results, strict=True)

        def both(record: Any) -> None:
            tracker.start_seed(record)
            tracker.log(record)

        return both

    def place(name: str) -> Workspace:
        return Workspace(results=Path(folder) / name)

    torch.set_num_threads(1)  # a second thread only slows such small work down
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            *growing.driver("no tracker", drive(False), place("plain"), progress),
            *growing.driver("sqlite", drive(True), place("tracked"), progress),
            *growing.listing(place("listing").results, progress),
            *growing.reporting(place("reporting").results, progress),
            *growing.logging(log(place("logging").results), progress),
            *growing.memory(drive(True), place("memory"), progress),
            *growing.scaling(place("scaling"), progress, cores or 1),
        ]
    if as_json:
        echo(json.dumps([{**vars(row), "met": row.met} for row in rows]))
    else:
        echo(f"growth ({cores} cores, load {os.getloadavg()[0]:.1f})")
        for row in rows:
            bound = f"at {'least' if row.least else 'most'} {row.target:g} {row.unit}"
            state = "" if row.met else "  missed"
            echo(f"  {row.name:38} {row.value:9.3f} {row.unit:5}  {bound}{state}")
    if not all(row.met for row in rows):
        raise click.exceptions.Exit(SOME_FAILED)


def start(progress: Progress) -> Rates:
    """Time ``bench --help``, relative to a Python that does nothing."""
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


def masks(workspace: Workspace, data: Dataset, chosen: SpeedOptions, progress: Progress) -> Rates:
    """Time every augmentation and other libraries for each size and device."""
    from bench.speed import throughput

    return {
        f"masks: batch {batch}, {side}x{side} pixels, {device}": throughput.masks(
            batch, side, device, progress
        )
        for device in dict.fromkeys(["cpu", workspace.device])
        for side in chosen.side
        for batch in chosen.batch_size
    }


def inputs(workspace: Workspace, data: Dataset, chosen: SpeedOptions, progress: Progress) -> Rates:
    """Time the loader over at least 20,000 images, so that the start of workers is negligible."""
    from torch import Tensor

    from bench.data.splits import Split
    from bench.speed import throughput

    if not isinstance(images := data.train.images, Tensor):
        raise ValueError(f"{data.name} is too large for memory: take {data.name}(train=2000)")
    times = -(-20_000 // len(images))
    split = Split(images.repeat(times, 1, 1, 1), data.train.labels.repeat(times))
    return {f"input: {data.name}": throughput.inputs(split, data, workspace.device, progress)}


CHEAPER = [f"keepaugment(saliency='{kind}')" for kind in ("low", "early", "early-low")]
"""KeepAugment with the saliencies that its paper proposes to save time."""


def training(
    workspace: Workspace, data: Dataset, chosen: SpeedOptions, progress: Progress
) -> Rates:
    """Time one recipe per augmentation with the default settings, and the cheaper KeepAugments."""
    from bench import registry
    from bench.speed import epochs, throughput
    from bench.training.recipes import Recipe, usual

    side = data.train.images.shape[-1]
    recipes = [
        Recipe(
            data=data.name,
            model=chosen.model,
            augmentation=registry.build("augmentations", name, data=data.name, side=side),
            **(usual(data.name, chosen.model, side) | {"validation": 0.0}),
        )
        for name in [*registry.classes("augmentations"), *CHEAPER]
    ]
    guide = throughput.points(len(data.train.labels), side) > 0
    title = f"epochs: {chosen.model} on {data.name}"
    return {title: epochs.epochs(recipes, data, guide, workspace.device, progress)}


def attacks(workspace: Workspace, data: Dataset, chosen: SpeedOptions, progress: Progress) -> Rates:
    """Time attacks on the first test images; see `bench.speed.throughput.attacks`."""
    from bench import registry
    from bench.data.floats import as_floats
    from bench.speed import throughput
    from bench.training import victims

    victim = victims.choose(
        data, victim=chosen.victim, model=chosen.model, mean=chosen.mean, std=chosen.std
    )
    network = victim.load(workspace, progress)
    images = as_floats(data.test.images[: chosen.images], workspace.device)
    methods = {
        text: registry.build("attacks", registry.admit("attacks", text), eps=float(chosen.eps))
        for text in chosen.attack
    }
    whole, steps = throughput.attacks(methods, network, images, progress, chosen.rounds)
    thousand = [throughput.Rate(rate.name, rate.per_second / 1000, rate.ratio) for rate in steps]
    about = f"{chosen.model}, {len(images)} images of {data.name}"
    return {f"attacks: per image; {about}": whole,
            f"attacks, 1,000 backward passes of an image; {about}": thousand}  # fmt: skip
