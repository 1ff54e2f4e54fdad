"""Find the adversarial points of a training set: every image is attacked once, in blocks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks import Attack, Goal
from attacks.base import frozen
from bench import registry
from bench.data import seeds
from bench.data.catalog import facts
from bench.data.dataset import Dataset
from bench.errors import Failed, Stopped
from bench.execution import signals
from bench.execution.executors import Executor, Local, Lost
from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress, Silent, open_progress
from bench.execution.workspace import Workspace
from bench.files import checksums, locks
from bench.files.checksums import key
from bench.models import networks
from bench.models.networks import check_logits
from bench.models.resnet import fold
from bench.points.cost import Cost, estimate
from bench.points.lookup import knowing, opened
from bench.points.store import Points, join
from bench.training import victims
from bench.training.victims import Victim

SPARSE = "advmask(steps=100)"
"""The attack of version 0.1: as few points as it can, a tenth of the authors'."""

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
    """

    number: int
    data: str
    victim: Victim | None
    network: str
    attack: str
    about: str
    folder: Path

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


def points_victim(
    data: Dataset,
    *,
    victim: str | None = None,
    model: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Victim:
    """Return the victim model whose points are found; nothing is loaded or trained yet.

    By default one is trained on the dataset: a ``resnet8`` for at most 10,000 training images,
    which it fits well enough and whose attack is three times cheaper than that of a ``resnet20``.

    Args:
        data: Dataset whose training images are attacked.
        victim: File of weights, ``FILE.py:FACTORY``, ``PACKAGE:FACTORY`` or ``timm:NAME``; None:
            one is trained.
        model: Architecture of the weights, or of the network to train.
        mean: Per-channel mean subtracted by a victim model that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.

    Raises:
        ValueError: The arguments contradict each other.
        Missing: The file of weights does not exist.
    """
    if victim is not None or mean or std:
        return victims.choose(data, victim=victim, model=model, mean=mean, std=std)
    if model is None:
        model = "resnet8" if len(data.train.labels) <= 10_000 else "resnet20"
    model = networks.admit(model)
    side = data.train.images.shape[-1]
    recipe = victims.usual_victim(data.name, data.digest, side, model=model)
    return Victim(model=model, data=data.name, recipe=recipe)


_networks: dict[str, nn.Module] = {}


def attack(
    block: Block, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> Points | None:
    """Attack a block and store its points; return None if asked to stop before it starts."""
    if stop():
        return None
    if block.network not in _networks:  # in the process of a worker
        assert block.victim is not None, "a network given by the caller is attacked in its process"
        _networks.clear()
        _networks[block.network] = block.victim.load(workspace, progress, stop)
    start = time.perf_counter()
    data = workspace.dataset(block.data)
    ids = torch.arange(len(data.train.labels)).split(BLOCK)[block.number]
    method = registry.build("attacks", block.attack)
    found = attack_images(_networks[block.network], data, ids, method, workspace.device)
    about = json.loads(block.about) | {"seconds": time.perf_counter() - start}
    found = replace(found, about=found.about | about)
    found.save(block.path)
    return found


def attack_images(
    network: nn.Module, data: Dataset, ids: Int[Tensor, " b"], method: Attack, device: str
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
    """
    images = data.train.images[ids].to(device).float() / 255
    with frozen(network), torch.no_grad():
        logits = network(images)
        check_logits(logits)
        goal = Goal(logits.argmax(1))
    generators = [seeds.generator(0, "points", int(i)) for i in ids]
    adversarial = method(network, images, goal, generators)
    with frozen(network), torch.no_grad():
        reached = goal.reached(network(adversarial))
    changed = (adversarial != images).any(1) & reached[:, None, None]
    correct = int((goal.labels.cpu() == data.train.labels[ids].cpu()).sum())
    return Points.of(changed.cpu(), reached.cpu(), {"correct": correct})


def find_points(
    model: nn.Module | str | None,
    dataset: Any,
    *,
    attack: str | None = None,
    eps: float | None = None,
    victim: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    results: str | Path | None = None,
    execution: ExecutionOptions | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    quiet: bool = False,
) -> Points:
    """Find the adversarial points of a dataset: the pixels that an attack changes in each image.

    Points are stored in the results folder and identified by their content: the images, the weights
    of the model, and the attack. An interrupted search continues from its last finished block.

    Args:
        model: Victim model: a network for images in [0, 1]; the name of an architecture, which is
            trained on the dataset unless ``victim`` has its weights; or None for the default.
        dataset: Any torch ``Dataset`` of (image, label), with images as PIL, uint8 or float in
            [0, 1], all of one size; the name or path of a dataset, whose training images are taken;
            or a `bench.Dataset`. A model name needs one of the last two.
        attack: The attack, by name with options.
        eps: Largest change of a value in [0, 1]; None: the dataset's own, 8/255 unless it is named.
        victim: File of the victim model's weights (safetensors or .pt), ``FILE.py:FACTORY``,
            ``PACKAGE:FACTORY`` or ``timm:NAME``.
        mean: Per-channel mean subtracted by a victim model that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        execution: Device and executor; a network given as an object is attacked in this process.
        data_root: Folder searched first for named datasets.
        download: Whether a missing dataset may be downloaded from its publisher.
        quiet: Hide progress output.

    Returns:
        The points, one entry per index of the dataset: ``points[i]`` has the (row, column) pairs of
        image i, shape (k, 2), and ``points.guide()`` one map per image. `load_points` finds them
        again without the model, and `augmentations.WithMask` refuses an image that has changed.

    Raises:
        ValueError: The images have different sizes, a name is unknown, arguments contradict each
            other, or no attack succeeded.
        Missing: The dataset or the weights were not found.
        Stopped: Ctrl-C or SIGTERM; finished blocks are stored.
    """
    options = execution or ExecutionOptions()
    root = None if data_root is None else Path(data_root)
    workspace = options.workspace(results, root, download)
    progress = open_progress(quiet)
    workspace, data = opened(dataset, workspace)
    if isinstance(model, nn.Module):
        if victim or mean or std:
            raise ValueError("victim, mean and std have no effect on a network; remove them")
        model.to(workspace.device)
        chosen: nn.Module | Victim = model
    else:
        chosen = points_victim(data, victim=victim, model=model, mean=mean, std=std)
    with signals.listen(progress.say) as stop:
        found = adversarial(
            data,
            workspace,
            progress,
            victim=chosen,
            attack_text=None if attack is None else registry.admit("attacks", attack),
            eps=eps,
            executor=options.build(workspace.device),
            stop=stop,
        )
    return knowing(found, data)


def chosen_attack(data: str, text: str | None = None, eps: float | None = None) -> str:
    """The attack that finds the points of a dataset, as `registry.express` writes it.

    Args:
        data: Name of the dataset.
        text: The attack, as `registry.build` takes it; None: the dataset's own.
        eps: Largest change of a value in [0, 1]; None: what the attack or the dataset says.

    >>> chosen_attack("cifar10"), chosen_attack("digits", SPARSE)
    ('advmask.published', 'advmask(eps=0.5, steps=100)')
    """
    text = text or facts(data).points
    name = registry.parse(text)[0]
    if "." in name and ":" not in name:  # a named reading has an eps of its own
        attack = registry.build("attacks", text)
    else:
        attack = registry.build("attacks", text, eps=facts(data).eps)
    if eps is not None:
        attack = replace(attack, eps=eps)
    return registry.express(attack)


@dataclass(frozen=True)
class Search:
    """A search for the points of a training set.

    Attributes:
        path: File of the points.
        blocks: The blocks of images to attack.
        network: The victim model, if it was given as a network.
    """

    path: Path
    blocks: list[Block]
    network: nn.Module | None

    @classmethod
    def of(
        cls,
        data: Dataset,
        workspace: Workspace,
        victim: Victim | nn.Module | None = None,
        attack_text: str | None = None,
        eps: float | None = None,
    ) -> Search:
        """Describe a search; the arguments are those of `adversarial`."""
        attack_text = chosen_attack(data.name, attack_text, eps)
        about: dict[str, Any] = {"data": data.name, "digest": data.digest}
        network = victim if isinstance(victim, nn.Module) else None
        chosen = None if isinstance(victim, nn.Module) else victim or points_victim(data)
        if network is not None:
            about["victim"] = describe(network)
        elif chosen is not None:
            recipe = chosen.recipe
            about["victim"] = chosen.name if recipe is None else recipe.to_json()
        about["attack"] = attack_text
        name = f"{registry.whole(data.name)}-{key(about)}"
        folder = (workspace.cache / "points" / name).resolve()
        count = -(-len(data.train.labels) // BLOCK)
        model = key(about["victim"])
        blocks = [
            Block(number, data.name, chosen, model, attack_text, json.dumps(about), folder)
            for number in range(count)
        ]
        return cls(workspace.results / "points" / f"{name}.safetensors", blocks, network)

    def open(
        self, workspace: Workspace, progress: Progress, stop: Callable[[], bool] = lambda: False
    ) -> nn.Module:
        """Return the victim model, which is trained first if it is missing."""
        block = self.blocks[0]
        _networks.clear()
        if block.victim is None:
            assert self.network is not None
            _networks[block.network] = self.network
        else:
            _networks[block.network] = block.victim.load(workspace, progress, stop)
        return _networks[block.network]

    def cost(self, data: Dataset, workspace: Workspace, network: nn.Module | None = None) -> Cost:
        """Estimate the cost of what is left of the search.

        Args:
            data: The dataset.
            workspace: Where finished blocks are stored.
            network: The victim model; None: a network of its architecture, without training it.
        """
        block, images = self.blocks[0], data.train.images
        sizes = [len(part) for part in torch.arange(len(images)).split(BLOCK)]
        done = self.path.exists()
        left = sum(
            size
            for size, each in zip(sizes, self.blocks, strict=True)
            if not done and each.finished() is None
        )
        network = network or self.network
        if network is None:
            assert block.victim is not None
            if block.victim.recipe is None:
                network = block.victim.load(workspace, Silent())
            else:
                network = networks.build_for(data, block.victim.model, seed=0)
                fold(network.eval())
                network.to(workspace.device)
        method = registry.build("attacks", block.attack)
        return estimate(network, images[:BLOCK], len(images), left, method, workspace.device)


def adversarial(
    data: Dataset,
    workspace: Workspace,
    progress: Progress,
    *,
    victim: Victim | nn.Module | None = None,
    attack_text: str | None = None,
    eps: float | None = None,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Points:
    """Load the adversarial points of a training set, or find and store them.

    What the search costs is said before it starts. Finished blocks are stored whatever happens and
    are not attacked again.

    Args:
        data: Dataset whose training images are attacked.
        workspace: Where the points are stored.
        progress: Shows the search.
        victim: The victim model, described or as a network for images in [0, 1]; None: the default.
        attack_text: The attack, as `registry.build` takes it; None: the dataset's own.
        eps: Largest change of a value in [0, 1]; None: the attack's or the dataset's own.
        executor: Where the blocks are attacked; a network is always attacked in this process.
        stop: Whether to stop soon.

    Raises:
        ValueError: No attack succeeded, or a stored file is damaged.
        Stopped: ``stop()`` returned True.
        Failed: The worker of a block died at every attempt.
    """
    search = Search.of(data, workspace, victim, attack_text, eps)
    what = f"the adversarial points of {data.name}"
    with locks.held(search.path.with_suffix(".lock"), what, progress.say, stop):
        if search.path.exists():
            found = Points.load(search.path)
        else:
            network = search.open(workspace, progress, stop)
            progress.say(f"Finding adversarial points: {search.cost(data, workspace, network)}")
            chosen = Local() if search.network is not None else executor or Local()
            found = run(search.blocks, workspace, progress, chosen, stop)
            found.fits(data)
            found.save(search.path)
            for block in search.blocks:
                block.path.unlink(missing_ok=True)
    found.fits(data)
    return found


def describe(network: nn.Module) -> dict[str, str]:
    """Identify a network given by the caller: its class and a checksum of its weights."""

    return {
        "network": type(network).__name__,
        "weights": checksums.of_tensors(network.state_dict()),
    }


def run(
    blocks: list[Block],
    workspace: Workspace,
    progress: Progress,
    executor: Executor,
    stop: Callable[[], bool],
) -> Points:
    """Attack the blocks that are not finished and return the points of all."""
    parts = {block.number: part for block in blocks if (part := block.finished()) is not None}
    rest = [block for block in blocks if block.number not in parts]
    with progress.task("attack on the training images", len(blocks)) as advance:
        advance(len(parts))
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
    return replace(joined, about=about)
