"""Find the adversarial points of a training set: attack every picture once, block by block."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from attacks import Goal
from attacks.base import frozen
from bench import registry
from bench.data import seeds
from bench.data.catalog import facts
from bench.data.dataset import Dataset
from bench.errors import Stopped
from bench.execution.executors import Executor, Local, Lost
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files.checksums import key
from bench.models.networks import Normalised
from bench.points.store import Points, join
from bench.training import victims
from bench.training.recipes import Recipe

ATTACK = "advmask(steps=100)"
"""What finds the points: half of the usual steps, for every training picture is attacked."""

BLOCK = 128
"""Pictures attacked together and written together. Fixed, because the number of pictures in a batch
changes the last bits of a convolution, and with them points: whatever the order and the number of
workers, a picture is always attacked among the same neighbours."""


@dataclass(frozen=True)
class Block:
    """Some training pictures to attack, and where their points go."""

    number: int
    victim: Recipe
    attack: str
    about: str
    folder: Path

    @property
    def path(self) -> Path:
        """Where the points of the block lie."""
        return self.folder / f"block-{self.number:05d}.safetensors"

    def finished(self) -> Points | None:
        """The points, if the block was attacked before and its file is whole and of this job."""
        try:
            part = Points.load(self.path)
        except (FileNotFoundError, ValueError):
            return None
        about = json.loads(self.about)
        return part if {name: part.about.get(name) for name in about} == about else None


def points_victim(data: Dataset, model: str | None = None) -> Recipe:
    """The victim whose points are used unless another is asked for.

    A ``resnet8`` for up to 10,000 training pictures, which it fits well enough and which it makes
    three times cheaper to attack than a ``resnet20``.
    """
    model = model or ("resnet8" if len(data.train.labels) <= 10_000 else "resnet20")
    side = data.train.images.shape[-1]
    return victims.usual_victim(data.name, data.digest, side, model=model)


_networks: dict[str, Normalised] = {}


def attack(
    block: Block, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> Points | None:
    """Attack the pictures of a block and keep their points; None when asked to stop before.

    The class to leave is the one that the victim predicts, so that a picture it gets wrong has
    points too. Draws depend on a picture's place in the data set alone.
    """
    if stop():
        return None
    if block.victim.key not in _networks:
        _networks.clear()
        _networks[block.victim.key] = victims.obtain(block.victim, workspace, progress, stop)
    network = _networks[block.victim.key]
    start = time.perf_counter()
    method = registry.build("attacks", block.attack)
    data = workspace.dataset()
    ids = torch.arange(len(data.train.labels)).split(BLOCK)[block.number]
    images = data.train.images[ids].to(workspace.device).float() / 255
    with frozen(network), torch.no_grad():
        goal = Goal(network(images).argmax(1))
    generators = [seeds.generator(0, "points", int(i)) for i in ids]
    adversarial = method(network, images, goal, generators)
    with frozen(network), torch.no_grad():
        reached = goal.reached(network(adversarial))
    changed = (adversarial != images).any(1) & reached[:, None, None]
    about = json.loads(block.about) | {"seconds": time.perf_counter() - start}
    found = Points.of(changed.cpu(), reached.cpu(), about)
    found.save(block.path)
    return found


def adversarial(
    workspace: Workspace,
    progress: Progress,
    *,
    victim: Recipe | None = None,
    attack_text: str = ATTACK,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Points:
    """The adversarial points of the workspace's data set: loaded, or found and kept.

    Finished blocks are kept whatever happens and not attacked again. Raises `Stopped`
    when ``stop()`` turns true, ``RuntimeError`` when a worker died again and again.
    """
    data = workspace.dataset()
    victim = victim or points_victim(data)
    method = registry.build("attacks", attack_text, eps=facts(data.name).eps)
    attack_text = registry.express(method)
    about: dict[str, Any] = {
        "data": data.name,
        "digest": data.digest,
        "victim": victim.to_json(),
        "attack": attack_text,
    }
    name = f"{registry.parse(data.name)[0]}-{key(about)}"
    path = workspace.results / "points" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            found = Points.load(path)
        else:
            victims.obtain(victim, workspace, progress, stop)
            folder = (workspace.cache / "points" / name).resolve()
            count = -(-len(data.train.labels) // BLOCK)
            blocks = [
                Block(number, victim, attack_text, json.dumps(about), folder)
                for number in range(count)
            ]
            found = run(blocks, workspace, progress, executor or Local(), stop)
            found.save(path)
            for block in blocks:
                block.path.unlink(missing_ok=True)
    found.fits(data)
    return found


def run(
    blocks: list[Block],
    workspace: Workspace,
    progress: Progress,
    executor: Executor,
    stop: Callable[[], bool],
) -> Points:
    """Attack the blocks that are not finished; all of them as one set."""
    parts = {block.number: part for block in blocks if (part := block.finished()) is not None}
    rest = [block for block in blocks if block.number not in parts]
    with progress.task("attacking the training pictures", len(blocks)) as advance:
        advance(len(parts))
        for index, part in executor.map(attack, rest, workspace, progress, stop):
            if isinstance(part, Lost):
                raise RuntimeError(f"block {rest[index].number}: {part.message}")
            if part is not None:
                parts[rest[index].number] = part
                advance(note=f"{part.counts.float().mean():.0f} points")
    if len(parts) < len(blocks):
        raise Stopped(f"stopped after {len(parts)} of {len(blocks)} blocks; they are kept")
    found = [parts[block.number] for block in blocks]
    joined = join(found)
    taken = sum(part.about.get("seconds", 0.0) for part in found)
    about = json.loads(blocks[0].about) | {"size": joined.about["size"], "seconds": taken}
    return replace(joined, about=about)
