"""Estimate the cost of jobs before they run."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence

import torch

from attacks import passes
from bench.data.catalog import facts
from bench.execution.progress import clock
from bench.models import networks, published
from bench.points import guides
from bench.records.record import Record
from bench.studies.attack_designs import PlannedTrial
from bench.studies.jobs import Job
from bench.training import robust
from bench.training.recipes import DEFAULT, Recipe

NOT_COUNTED = "the training of the victim model and the search for adversarial points"
"""What runs with adversarial points need before the first one, unless it is stored."""


@functools.cache
def operations_per_image(model: str, data: str, stem: int | None = None) -> float:
    """Return the floating-point operations of a forward and backward pass of one image.

    Args:
        model: Name of the network.
        data: Name of the dataset.
        stem: As in `networks.build`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    known = facts(data)
    channels, side = known.channels, known.side
    own = networks.factory(model) is not None  # may read weights, which needs a real device
    where = "cpu" if own else "meta"
    try:
        with torch.device(where):
            network = networks.build(
                model,
                classes=known.classes,
                channels=channels,
                side=side,
                mean=[0.5] * channels,
                std=[0.5] * channels,
                seed=0,
                stem=stem,
            ).to(where)
    except ValueError:
        if not own:
            raise
        # it fits the images of its own dataset only, of which not even the size is known here
        return operations_per_image("resnet20", data)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(1, channels, side, side, device=where))
    return 3.0 * counter.get_total_flops()


@functools.cache
def operations_per_second(device: str) -> float:
    """Measure the floating-point operations per second of a device in training."""
    network = networks.build("resnet20", classes=10, mean=[0.5] * 3, std=[0.5] * 3, seed=0)
    network = network.to(device).to(memory_format=torch.channels_last)
    images = torch.zeros(64, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    network(images).sum().backward()
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        network(images).sum().backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return operations_per_image("resnet20", "cifar10") * len(images) / min(taken)


def operations(job: Job) -> float:
    """Return the floating-point operations of a job, with the test after each epoch.

    In adversarial training each image is attacked with all steps: that is the most it can cost,
    since an attack ends at its first success.
    """
    recipe = job.recipe
    known = facts(recipe.data)
    passes = known.train + known.test / 3  # a test is a forward pass only
    if recipe.robust is not None:
        steps = robust.build(recipe.robust).steps
        passes += steps * known.train
        passes += robust.STRONGER * steps * min(robust.EVALUATED, known.test) / recipe.epochs
    # published weights are those of ImageNet, whose stem costs a fraction of that for small images
    stem = 7 if recipe.pretrained and published.is_name(recipe.pretrained) else None
    return passes * recipe.epochs * operations_per_image(recipe.model, recipe.data, stem)


def cost(jobs: Sequence[Job], records: Sequence[Record], device: str) -> str:
    """Return one line on how many jobs are done and how long the others will take.

    Args:
        jobs: The jobs.
        records: Records of runs; failed ones are run again.
        device: The device of the jobs.
    """
    done = {(record.key, record.seed) for record in records if record.status == "finished"}
    rest = [job for job in jobs if job.fresh or job.name not in done]
    line = f"{len(jobs)} runs, {len(jobs) - len(rest)} done, {len(rest)} to run"
    if not jobs:  # no training, but there may be other work
        return line
    time = seconds(rest, records, device) if rest else 0.0
    sought = any(guides.from_points(job.recipe) for job in rest)
    return (
        f"{line}: about {clock(time)} on {device}"
        + ", one after the other" * (len(rest) > 1)
        + f", {NOT_COUNTED} not counted" * sought
    )


def attack_cost(planned: Sequence[PlannedTrial], victim: Recipe, device: str) -> str:
    """Return one line on how many evaluations of attacks are done and how long the others take.

    The time is that of all passes that the attacks declare and of the training of the victim
    model. It is the most it can be: attacks may end earlier, and the victim model may be stored.

    Args:
        planned: The evaluations.
        victim: The recipe of their victim model.
        device: The device.
    """
    rest = [each.trial for each in planned if not each.done]
    line = f"{len(planned)} attack evaluations, {len(planned) - len(rest)} done, {len(rest)} to run"
    if not rest:
        return line
    known = facts(victim.data)
    shape = known.channels, known.side, known.side
    counts = [passes(trial.attack, shape) for trial in rest]
    if not all(counts):
        return f"{line}; some of these attacks do not declare their passes, so no time is estimated"
    images = sum(count * trial.images for count, trial in zip(counts, rest, strict=True))
    # half of the passes go backward, as in an epoch of training
    total = images / 2 * operations_per_image(victim.model, victim.data)
    total += operations(Job(victim, 0))
    return (
        f"{line}: at most {clock(total / operations_per_second(device))} on {device}, with the "
        "training of the victim model"
    )


def seconds(jobs: Iterable[Job], records: Sequence[Record], device: str) -> float:
    """Estimate the time of jobs that run one after the other.

    The time of the last finished run of the same network, dataset, precision and adversarial
    training on the same kind of device is used where there is one, otherwise the number of
    operations and a short measurement. Testing after each epoch is included,
    `NOT_COUNTED` is not.

    Args:
        jobs: The jobs.
        records: Records of finished runs.
        device: The device of the jobs.

    Returns:
        Seconds.
    """
    known = {
        (
            *map(record.labels.get, ("model", "data", "pretrained", "robust")),
            record.job.get("precision", DEFAULT.precision),
        ): record.metrics["seconds"] / record.metrics["epochs"]
        for record in records
        if record.kind == "run"
        and record.status == "finished"
        and record.metrics.get("epochs")
        # a GPU has its own name there
        and (record.machine.get("device", "cpu") == "cpu") == (device == "cpu")
    }
    total = 0.0
    for job in jobs:
        recipe = job.recipe
        alike = recipe.model, recipe.data, recipe.pretrained, recipe.robust, recipe.precision
        per_epoch = known.get(alike)
        if per_epoch is None:
            total += operations(job) / operations_per_second(device)
        else:
            total += per_epoch * recipe.epochs
    return total
