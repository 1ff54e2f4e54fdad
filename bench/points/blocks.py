"""Blocks of training images: attacked one by one, as the jobs of an executor, and stored."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks import Attack, Goal
from attacks.base import frozen
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.errors import Failed, Stopped
from bench.execution.executors import Executor, Lost
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.models.arithmetic import full_float32
from bench.models.networks import check_logits
from bench.points.cost import Counted
from bench.points.predicting import Fast, Trained, predict_images
from bench.points.store import Points, join
from bench.training.victims import Victim

BLOCK = 128
"""Number of images per block, attacked as one batch. Fixed, because the number of images in a batch
changes the last bits of a convolution, and with them the points: an image is always attacked with
the same neighbours, whatever the order and the number of workers."""


@dataclass(frozen=True)
class Block:
    """A block of training images to attack: one job of an executor.

    Attributes:
        number: Number of the block in the training set, from 0.
        data: Name of the dataset.
        victim: The victim model; None for a network given by the caller.
        network: Key of the victim model among the networks of this process.
        attack: Text of the attack, as `registry.build` takes it.
        about: JSON that identifies what the points belong to.
        folder: Folder of the blocks' files.
        ids: Indices of its images; None: those of the number, `BLOCK` of them.
        estimator: File of the estimator that predicts the points; None: the images are attacked.
        seed: Seed of the attack's draws.
    """

    number: int
    data: str
    victim: Victim | None
    network: str
    attack: str
    about: str
    folder: Path
    ids: tuple[int, ...] | None = None
    estimator: Path | None = None
    seed: int = 0

    def indices(self, count: int) -> Int[Tensor, " b"]:
        """Return the indices of its images among ``count`` training images."""
        if self.ids is not None:
            return torch.tensor(self.ids)
        start = self.number * BLOCK
        return torch.arange(start, min(start + BLOCK, count))

    @property
    def path(self) -> Path:
        """File of the block's points."""
        return self.folder / f"block-{self.number:05d}.safetensors"

    def finished(self) -> Points | None:
        """Return the points of a finished block; None if the file is missing or damaged."""
        try:
            part = Points.load(self.path)
        except (FileNotFoundError, ValueError):
            return None
        about = json.loads(self.about)
        return part if {name: part.about.get(name) for name in about} == about else None


_networks: dict[str, nn.Module] = {}


def keep(name: str, network: nn.Module) -> None:
    """Keep the one victim model of this process, by the name that blocks call it."""
    _networks.clear()
    _networks[name] = network


@full_float32()
def attack(
    block: Block, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> Points | None:
    """Find the points of a block and store them; return None if asked to stop before its end."""
    if stop():
        return None
    if block.network not in _networks:  # in the process of a worker
        assert block.victim is not None, "a network given by the caller is attacked in its process"
        _networks.clear()
        _networks[block.network] = block.victim.load(workspace, progress, stop)
    start = time.perf_counter()
    data = workspace.dataset(block.data)
    ids = block.indices(len(data.train.labels))
    network = Counted(_networks[block.network], stop)
    try:
        if block.estimator is None:
            method = registry.build("attacks", block.attack)
            found = attack_images(network, data, ids, method, workspace.device, block.seed)
        else:
            trained = Trained.load(block.estimator)
            how = Fast.read(block.attack)
            found = predict_images(network, data, ids, trained, how, workspace.device, block.seed)
    except Stopped:
        return None
    measured = {"seconds": time.perf_counter() - start, "passes": network.passes}
    found = replace(found, about=found.about | json.loads(block.about) | measured)
    found.save(block.path)
    return found


def attack_images(
    network: nn.Module,
    data: Dataset,
    ids: Int[Tensor, " b"],
    method: Attack,
    device: str,
    seed: int = 0,
) -> Points:
    """Find the points of some training images.

    An attack leaves the class that the victim model predicts, so misclassified images have points
    too. Random draws depend on the index of an image in the dataset alone.

    Args:
        network: The victim model.
        data: The dataset.
        ids: Indices of training images, shape (b,).
        method: The attack.
        device: Device of the network.
        seed: Seed of the draws.
    """
    images = as_floats(data.train.images[ids], device)
    with frozen(network), torch.no_grad():
        logits = network(images)
        check_logits(logits, len(images))
        goal = Goal(logits.argmax(1))
    generators = [seeds.generator(seed, "points", int(i)) for i in ids]
    adversarial = method(network, images, goal, generators)
    with frozen(network), torch.no_grad():
        reached = goal.reached(network(adversarial))
    changed = (adversarial != images).any(1) & reached[:, None, None]
    correct = int((goal.labels.cpu() == data.train.labels[ids].cpu()).sum())
    return Points.of(changed.cpu(), reached.cpu(), {"correct": correct})


def run(
    blocks: list[Block],
    workspace: Workspace,
    progress: Progress,
    executor: Executor,
    stop: Callable[[], bool],
    label: str = "attack on the training images",
) -> Points:
    """Find the points of the blocks that are not finished, and return those of all.

    Args:
        blocks: The blocks.
        workspace: Where they are stored.
        progress: Shows the search.
        executor: Where they are done.
        stop: Whether to stop soon.
        label: What the search is called while it is shown.

    Raises:
        Stopped: ``stop()`` returned True; finished blocks are stored.
        Failed: The worker of a block died at every attempt.
    """
    parts = {block.number: part for block in blocks if (part := block.finished()) is not None}
    rest = [block for block in blocks if block.number not in parts]
    with progress.task(label, len(blocks), len(parts)) as advance:
        for index, part in executor.map(attack, rest, workspace, progress, stop):
            if isinstance(part, Lost):
                raise Failed(
                    f"the search for adversarial points failed at block {rest[index].number} of "
                    f"{len(blocks)}: {part.message}; finished blocks are stored"
                )
            if part is not None:
                parts[rest[index].number] = part
                advance(note=f"{part.counts.float().mean():.0f} points")
    if len(parts) < len(blocks):
        raise Stopped(f"stopped after {len(parts)} of {len(blocks)} blocks, which are stored")
    found = [parts[block.number] for block in blocks]
    joined = join(found)
    seconds = sum(part.about.get("seconds", 0.0) for part in found)
    about = json.loads(blocks[0].about) | {"size": joined.about["size"], "seconds": seconds}
    if all("correct" in part.about for part in found):  # blocks of version 0.1 do not say it
        correct = sum(part.about["correct"] for part in found)
        about["victim_accuracy"] = correct / len(joined)
    if all("passes" in part.about for part in found):
        about["passes"] = sum(part.about["passes"] for part in found)
    return replace(joined, about=about)
