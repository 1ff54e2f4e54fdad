"""The victim models of attacks: trained here and stored, or trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import code, locks
from bench.models import networks, pretrained, weight_files
from bench.models.networks import Normalised
from bench.models.resnet import fold
from bench.training import checkpoints, fine_tuning, loop
from bench.training.recipes import Recipe, usual

SEED = 0
PASSES = 100_000  # least number of images that a victim model of a part of a dataset is trained on
EPOCHS = 500  # that suffice for the smallest parts, whatever the number of their images


def usual_victim(data: str, digest: str, side: int, **changes: object) -> Recipe:
    """Return the recipe of the default victim model of a dataset.

    A small residual network without deletion, the one that the catalog names for the dataset. It is
    trained on all training images, because nothing is selected by its accuracy, and on a part of a
    dataset for more epochs. Deviation: the paper does not say which network it attacks.

    Args:
        data: Name of the dataset.
        digest: Checksum of the dataset's content; empty for published datasets.
        side: Side of the images in pixels.
        **changes: Fields of the recipe that differ, such as ``model``.
    """
    known = catalog.facts(data)
    model = str(changes.pop("model", known.victim))
    epochs = known.victim_epochs
    if "train" in catalog.divided(data)[1]:
        epochs = max(epochs, min(-(-PASSES // known.train), EPOCHS))
    settings = usual(data, model, side)
    if "pretrained" not in settings:
        settings["epochs"] = epochs
    settings["validation"] = 0.0
    return Recipe(data=data, digest=digest, model=model, **(settings | changes))


def obtain(
    recipe: Recipe,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
    seed: int = SEED,
) -> Normalised:
    """Return the victim model of a recipe and seed; it is trained at the first call and stored.

    A stored network whose file is damaged is trained again, which gives the same weights.

    Args:
        recipe: How the victim model is trained.
        workspace: Where it is stored, and its device.
        progress: Shows the training.
        stop: Whether to stop soon.
        seed: Seed of the training.

    Returns:
        The network, in eval mode on the workspace's device.

    Raises:
        Stopped: ``stop()`` returned True during the training; the same call continues it.
    """
    data = workspace.dataset(recipe.data)
    path = place(recipe, data, workspace, seed)

    def loaded() -> Normalised:
        network = weight_files.load_network(data, recipe.model, path, SEED)
        fold(network.eval())
        return network.to(workspace.device)

    what = f"the victim model {recipe.model} on {recipe.data}, seed {seed}"
    with locks.held(path.with_suffix(".lock"), what, progress.say, stop):
        if path.exists():
            try:
                return loaded()
            except ValueError as error:
                progress.say(f"{error}; the victim model is trained again")
        progress.say(f"Training the victim model: {recipe.model} on {recipe.data}, seed {seed}.")
        trained = loop.train(
            recipe,
            seed,
            data,
            weights=fine_tuning.of(recipe, workspace),
            device=workspace.device,
            progress=progress,
            checkpoint=path.with_suffix(""),
            stop=stop,
            called="victim model",
        )
        weight_files.save_weights(
            trained.network, path, {"recipe": recipe.key, "data": data.digest}
        )
        checkpoints.discard(path.with_suffix(""))
        # not the trained one itself: the memory layout of weights changes the last bits of results
        return loaded()


def place(recipe: Recipe, data: Dataset, workspace: Workspace, seed: int = SEED) -> Path:
    """Return the file in which `obtain` stores a victim model."""
    name = f"{recipe.model}-{recipe.key}-{data.digest[:8]}" + f"-{seed}" * (seed != SEED)
    return workspace.cache / "victims" / f"{name}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A victim model, described such that any process can load it.

    Attributes:
        model: Name of the architecture; ``timm:NAME`` alone is a network of timm with its published
            weights, and a factory alone gives a network with weights of its own.
        data: Name of the dataset whose classes it distinguishes.
        recipe: How it is trained here; None for weights that were trained elsewhere.
        seed: Seed of the training.
        path: File of the weights, or None.
        digest: Checksum of that file, or of the weights that a factory gives.
        mean: Per-channel mean that the weights were trained with; None: the dataset's.
        std: Per-channel standard deviation that the weights were trained with; None: the dataset's.
    """

    model: str
    data: str
    recipe: Recipe | None = None
    seed: int = SEED
    path: Path | None = None
    digest: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def of(self, seed: int) -> Victim:
        """Return the victim model of a seed: trained with it, if it is trained here."""
        return self if self.recipe is None else replace(self, seed=seed)

    @property
    def name(self) -> str:
        """Name in records: the architecture and what identifies the weights, without paths."""
        if self.recipe is not None:
            return f"{self.model} {self.recipe.key}"
        file = [] if self.path is None else [self.path.name]
        parts = [self.model, *file, *filter(None, [self.digest])]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                parts.append(f"{name}={','.join(map(str, values))}")
        return " ".join(parts)

    def load(
        self,
        workspace: Workspace,
        progress: Progress,
        stop: Callable[[], bool] = lambda: False,
    ) -> nn.Module:
        """Load the network in eval mode on the workspace's device; train it first if necessary.

        Args:
            workspace: Where victim models are stored, and the device.
            progress: Shows the training.
            stop: Whether to stop soon.

        Raises:
            ValueError, Missing: As in `bench.models.pretrained`.
            Stopped: ``stop()`` returned True during the training.
        """
        if self.recipe is not None:
            return obtain(self.recipe, workspace, progress, stop, self.seed)
        data = workspace.dataset(self.data)
        if self.path is None and networks.factory(self.model) is not None:
            network = pretrained.from_factory(self.model, data, self.digest)
        elif self.path is None:
            network = pretrained.from_timm(
                self.model, data, self.mean, self.std, download=workspace.download
            )
        else:
            network = pretrained.from_file(self.path, self.model, data, self.mean, self.std)
        return network.to(workspace.device)


def choose(
    data: Dataset,
    *,
    victim: str | None = None,
    model: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Victim:
    """Return the victim model that a user describes; nothing is trained yet.

    Args:
        data: Dataset whose images are attacked.
        victim: File of weights (safetensors or .pt); ``FILE.py:FACTORY`` or ``PACKAGE:FACTORY``, a
            function that gives the network with its weights; or ``timm:NAME``. None: one is
            trained on ``data``.
        model: Architecture of the weights, or of the network to train, as `networks.admit` takes.
        mean: Per-channel mean subtracted by a victim model that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.

    Raises:
        ValueError: The arguments contradict each other, a file is none of weights, or a factory
            fails.
        Missing: The file of weights or code does not exist.
    """
    whole = victim is not None and (_is_factory(victim) or victim.startswith("timm:"))
    if model and whole:
        raise ValueError(f"--model {model} has no effect on --victim {victim}; remove it")
    named = victim if whole else model
    model = None if named is None else networks.admit(named)
    own = model is not None and networks.factory(model) is not None
    if own and (mean or std):
        raise ValueError(
            f"--mean and --std have no effect on {model}: it takes images in [0, 1] and normalises "
            "them itself; remove them"
        )
    if victim is None:
        return _trained_here(data, model, mean, std)
    if whole and model is not None:
        digest = pretrained.weights_digest(pretrained.from_factory(model, data)) if own else ""
        return Victim(model=model, data=data.name, digest=digest, mean=mean, std=std)
    if not model and victim in networks.names() and not Path(victim).exists():
        raise ValueError(
            f"--victim {victim} is the name of a network: train it on the dataset with "
            f"--model {victim}"
        )
    path = Path(victim)
    digest = pretrained.check(path)
    if not model:
        raise ValueError(
            f"--victim {victim} needs --model: the file does not name the architecture"
        )
    return Victim(
        model=model, data=data.name, path=path.resolve(), digest=digest, mean=mean, std=std
    )


def _trained_here(
    data: Dataset,
    model: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> Victim:
    """The default victim model of a dataset, or another network trained in the same way."""
    if mean or std:
        raise ValueError(
            "--mean and --std need --victim: a model trained here uses those of the dataset"
        )
    side = data.train.images.shape[-1]
    changes = {"model": model} if model else {}
    recipe = usual_victim(data.name, data.pin, side, **changes)
    return Victim(model=recipe.model, data=data.name, recipe=recipe)


def _is_factory(victim: str) -> bool:
    """Whether a victim model is given as a function that makes it, and not as a file of weights."""
    known = networks.factory(victim) is not None or code.is_reference(victim)
    return known and not Path(victim).exists()
