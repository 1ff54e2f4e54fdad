"""Find the adversarial points of a training set: every image is attacked once, in blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attacks.base import Attack, frozen
from attacks.victim import check_form
from bench import registry
from bench.data.catalog import facts
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.execution import signals
from bench.execution.executors import Executor, Local
from bench.execution.options import ExecutionOptions, options_of
from bench.execution.progress import Progress, Silent, open_progress
from bench.execution.workspace import Workspace
from bench.files import checksums, locks
from bench.files.checksums import key
from bench.models import networks
from bench.models.resnet import fold
from bench.points import blocks, fast
from bench.points.blocks import BLOCK, Block, run
from bench.points.cost import Cost, estimate, measured
from bench.points.lookup import knowing, opened
from bench.points.predicting import Fast, Trained, is_fast
from bench.points.store import Points
from bench.registry import notation
from bench.training import victims
from bench.training.victims import Victim

SPARSE = "advmask(steps=100)"
"""The attack of version 0.1: as few points as it can, a tenth of the authors'."""
LEAST_ACCURACY = 0.5
"""Share of the training images below which a victim model is worth a line."""


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


def find_points(
    model: nn.Module | str | None,
    dataset: Any,
    *,
    attack: str | Attack | None = None,
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
        model: Victim model: a network for images in [0, 1], which is moved to the device for the
            search and back after it; the name of an architecture, which is trained on the dataset
            unless ``victim`` has its weights; or None for the default.
        dataset: Any torch ``Dataset`` of (image, label), with images as PIL, uint8 or float in
            [0, 1], all of one size; the name or path of a dataset, whose training images are taken;
            or a `bench.Dataset`. A model name needs one of the last two.
        attack: The attack, by name with options, or an object, which has an eps of its own.
        eps: Largest change of a value in [0, 1]; None: the dataset's own; where the
            dataset is not a published one, 4/255, the authors' for CIFAR-10. Small networks and
            images, such as digits of 8x8 pixels, need a larger one, such as 0.3.
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
            other, the model does not have the classes of the labels, or no attack succeeded.
        Missing: The dataset or the weights were not found.
        Stopped: Ctrl-C or SIGTERM; finished blocks are stored.

    Example:
        >>> from tempfile import mkdtemp
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> _ = nn.init.eye_(network[1].weight)
        >>> images, labels = torch.eye(4).reshape(4, 1, 2, 2)[:2], torch.tensor([0, 1])
        >>> dataset = torch.utils.data.TensorDataset(images, labels)
        >>> points = find_points(
        ...     network, dataset, attack="jsma", eps=1.0, results=mkdtemp(), quiet=True
        ... )
        >>> points.guide().shape
        torch.Size([2, 1, 2, 2])
    """
    options = options_of("execution", execution, ExecutionOptions)
    root = None if data_root is None else Path(data_root)
    workspace = options.workspace(results, root, download)
    progress = open_progress(quiet)
    workspace, data = opened(dataset, workspace)
    if isinstance(model, nn.Module):
        if victim or mean or std:
            raise ValueError("victim, mean and std have no effect on a network; remove them")
        chosen: nn.Module | Victim = model
        place: AbstractContextManager[None] = _moved(model, workspace.device)
    else:
        place = nullcontext()
        chosen = points_victim(data, victim=victim, model=model, mean=mean, std=std)
    with place, signals.listen(progress.say) as stop:
        found = adversarial(
            data,
            workspace,
            progress,
            victim=chosen,
            attack_text=_text_of(attack),
            eps=eps,
            executor=options.build(workspace.device),
            stop=stop,
        )
    return knowing(found, data)


def _text_of(attack: str | Attack | None) -> str | None:
    """The text of an attack that a user gives by name or as an object."""
    if attack is None:
        return None
    if isinstance(attack, str):
        return registry.admit("attacks", attack)
    registry.check("attacks", attack)
    if not registry.writable(attack):
        raise ValueError(
            f"{registry.short(attack)} has a network as an option, which no stored points can name"
        )
    return registry.express(attack, always=("eps",))


@contextmanager
def _moved(network: nn.Module, device: str) -> Iterator[None]:
    """Have a network of the caller's on a device, and move it back in the end."""
    tensors = chain(network.parameters(), network.buffers())
    home = next((each.device for each in tensors), None)
    network.to(device)
    try:
        yield
    finally:
        network.to(home)


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
    if is_fast(text):
        how = Fast.read(text)
        own = None if how.attack == Fast.attack else how.attack
        return str(replace(how, attack=chosen_attack(data, own, eps)))
    name = notation.parse(text)[0]
    if "." in name and ":" not in name:  # a named reading has an eps of its own
        attack = registry.build("attacks", text)
    else:
        attack = registry.build("attacks", text, eps=facts(data).eps)
    if eps is not None:
        if not hasattr(attack, "eps"):
            raise ValueError(f"{text} has no option eps: leave eps out")
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
        name = f"{notation.whole(data.name)}-{key(about)}"
        folder = (workspace.cache / "points" / name).resolve()
        count = -(-len(data.train.labels) // BLOCK)
        model = key(about["victim"])
        planned = [
            Block(number, data.name, chosen, model, attack_text, json.dumps(about), folder)
            for number in range(count)
        ]
        return cls(workspace.results / "points" / f"{name}.safetensors", planned, network)

    def open(
        self, workspace: Workspace, progress: Progress, stop: Callable[[], bool] = lambda: False
    ) -> nn.Module:
        """Return the victim model, which is trained first if it is missing."""
        block = self.blocks[0]
        network = self.network
        if block.victim is not None:
            network = block.victim.load(workspace, progress, stop)
        assert network is not None
        blocks.keep(block.network, network)
        return network

    @property
    def attack(self) -> str:
        """How the points are found, as `chosen_attack` writes it."""
        return self.blocks[0].attack

    @property
    def fast(self) -> Fast | None:
        """How the points are predicted; None: the images are attacked."""
        return Fast.read(self.attack) if is_fast(self.attack) else None

    @property
    def identity(self) -> Any:
        """What identifies the victim model, as JSON values."""
        return json.loads(self.blocks[0].about)["victim"]

    def predict(
        self,
        data: Dataset,
        workspace: Workspace,
        progress: Progress,
        network: nn.Module,
        executor: Executor,
        stop: Callable[[], bool],
    ) -> Points:
        """Predict the points, after training the estimator if it is missing."""
        how = self.fast
        assert how is not None
        path = fast.obtain(
            data, workspace, progress, network, victim=self.blocks[0].victim,
            identity=self.identity, how=how, executor=executor, stop=stop,
        )  # fmt: skip
        trained = Trained.load(path)
        planned = [replace(block, estimator=path) for block in self.blocks]
        label = "prediction of points"
        found = run(planned, workspace, progress, executor, stop, label)
        c, h, w = data.train.images.shape[1:]
        about = found.about | {
            "estimator": trained.digest,
            "agreement": trained.about["agreement"],
            "cost": fast.cost(found, trained, how, (c, h, w)),
        }
        return replace(found, about=about)

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
        if (how := self.fast) is not None:
            c, h, w = images.shape[1:]
            each = fast.planned(how, len(images), (c, h, w))
            seconds = measured(network, as_floats(images[:BLOCK], workspace.device))
            return Cost(len(images), left, each, each, seconds)
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
        ValueError: No attack succeeded, a stored file is damaged, or the victim model does not have
            the classes of the dataset.
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
            _check_classes(network, data, workspace.device)
            chosen = Local() if search.network is not None else executor or Local()
            progress.say(f"Finding adversarial points: {search.cost(data, workspace, network)}")
            if search.fast is None:
                found = run(search.blocks, workspace, progress, chosen, stop)
            else:
                found = search.predict(data, workspace, progress, network, chosen, stop)
            _check_found(found, data, progress)
            found.save(search.path)
            for block in search.blocks:
                block.path.unlink(missing_ok=True)
    found.fits(data)
    return found


def _check_found(found: Points, data: Dataset, progress: Progress) -> None:
    """Refuse points that are worth nothing, and say so where they are worth little."""
    accuracy = found.about.get("victim_accuracy", 1.0)
    if accuracy == 0:
        raise ValueError(
            f"the victim model classifies none of the {len(found)} training images correctly: "
            "check its weights, the order of the classes, mean and std"
        )
    found.fits(data)
    if accuracy < LEAST_ACCURACY:
        progress.say(
            f"The victim model classifies only {accuracy:.1%} of the training images correctly: "
            "its points say little about the classes."
        )


def _check_classes(network: nn.Module, data: Dataset, device: str) -> None:
    """Refuse a victim model with fewer classes than the labels of the training images."""
    with frozen(network), torch.no_grad():
        logits = network(as_floats(data.train.images[:1], device))
        check_form(logits, 1)
        classes = logits.shape[1]
    low, high = (int(each) for each in data.train.labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels are in [{low}, {high}], but the network has {classes} classes, from 0"
        )


def describe(network: nn.Module) -> dict[str, str]:
    """Identify a network given by the caller: its class and a checksum of its weights."""

    return {
        "network": type(network).__name__,
        "weights": checksums.of_tensors(network.state_dict()),
    }
