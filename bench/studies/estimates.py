"""What a list of jobs will cost, before any of them is run."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence

import torch

from bench.data.catalog import facts
from bench.models import networks
from bench.records.record import Record
from bench.studies.jobs import Job


@functools.cache
def work(model: str, data: str) -> float:
    """Floating point operations of a forward and backward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    known = facts(data)
    channels, side = known.channels, known.side
    with torch.device("meta"):
        network = networks.build(
            model,
            classes=known.classes,
            channels=channels,
            side=side,
            mean=[0.5] * channels,
            std=[0.5] * channels,
            seed=0,
        ).to("meta")
        counter = FlopCounterMode(display=False)
        with counter:
            network.eval()(torch.empty(1, channels, side, side, device="meta"))
    return 3.0 * counter.get_total_flops()


@functools.cache
def speed(device: str) -> float:
    """Floating point operations per second that this device reaches in training, by a short try."""
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
    return work("resnet20", "cifar10") * len(images) / min(taken)


def operations(job: Job) -> float:
    """Floating point operations of all epochs of a job, with the tests after them."""
    recipe = job.recipe
    known = facts(recipe.data)
    passes = known.train + known.test / 3  # a test is a forward alone
    return passes * recipe.epochs * work(recipe.model, recipe.data)


def seconds(jobs: Iterable[Job], records: Sequence[Record], device: str) -> float:
    """How long the jobs will take, one after the other.

    From finished runs of the same network on the same data on this device where there are any,
    else from the number of operations and a short try. Testing after each epoch is included, the
    attack that finds adversarial points is not.
    """
    known = {
        (record.labels.get("model"), record.labels.get("data")): record.metrics["seconds"]
        / record.metrics["epochs"]
        for record in records
        if record.kind == "run" and record.status == "finished" and record.metrics.get("epochs")
    }
    total = 0.0
    for job in jobs:
        recipe = job.recipe
        per_epoch = known.get((recipe.model, recipe.data))
        if per_epoch is None:
            total += operations(job) / speed(device)
        else:
            total += per_epoch * recipe.epochs
    return total
