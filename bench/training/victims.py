"""The networks that attacks are run against: trained here once and kept, or other people's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock
from torch import nn

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.models import networks, pretrained, weight_files
from bench.models.networks import Normalised
from bench.models.resnet import fold
from bench.training import checkpoints, loop
from bench.training.recipes import Recipe, usual

SEED = 0
PASSES = 100_000  # images that a victim sees at least, where it trains on a part


def usual_victim(data: str, digest: str, side: int, **changes: object) -> Recipe:
    """The plain network whose adversarial points a data set gets unless another is asked for.

    A small residual network without any deletion: ``resnet8`` for digits, ``resnet20`` elsewhere.
    It sees the whole training part, for no decision is taken on its accuracy. The paper does not
    say which network it attacks.
    """
    known = catalog.facts(data)
    model = str(changes.pop("model", known.victim))
    epochs = known.victim_epochs
    if "train" in catalog.divided(data)[1]:
        epochs = max(epochs, -(-PASSES // known.train))
    settings = usual(data, model, side) | {"epochs": epochs, "validation": 0.0}
    return Recipe(data=data, digest=digest, model=model, **(settings | changes))


def obtain(
    recipe: Recipe,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
    seed: int = SEED,
) -> Normalised:
    """The victim of a recipe and seed, in eval mode on the workspace's device.

    It is loaded, or trained once; one whose file is damaged is trained again, which gives the same
    weights. Raises `Stopped` when ``stop()`` turns true in training, which the same call continues.
    """
    data = workspace.dataset(recipe.data)
    name = f"{recipe.model}-{recipe.key}-{data.digest[:8]}" + f"-{seed}" * (seed != SEED)
    path = workspace.cache / "victims" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)

    def loaded() -> Normalised:
        network = networks.build_for(data, recipe.model, seed=SEED)
        weight_files.load_weights(network, path)
        fold(network.eval())
        return network.to(workspace.device)

    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            try:
                return loaded()
            except ValueError as error:
                progress.say(f"{error}; the victim is trained again")
        progress.say(f"training the victim: {recipe.model} on {recipe.data}, seed {seed}")
        trained = loop.train(
            recipe,
            seed,
            data,
            device=workspace.device,
            progress=progress,
            checkpoint=path.with_suffix(""),
            stop=stop,
        )
        weight_files.save_weights(
            trained.network, path, {"recipe": recipe.key, "data": data.digest}
        )
        checkpoints.discard(path.with_suffix(""))
        # not the trained one itself: how weights lie in memory moves the last bits of results
        return loaded()


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A victim model, described so that any process can load it.

    Attributes:
        model: Name of its architecture; ``timm:NAME`` alone is a network of timm with its published
            weights.
        data: Name of the dataset whose classes it tells apart.
        recipe: How it is trained here, or None for weights that were trained elsewhere.
        seed: Seed of that training.
        path: Safetensors file with its weights, or None.
        digest: Pins the content of that file.
        mean: Per-channel mean that the weights were trained with; None: the dataset's.
        std: Per-channel standard deviation that goes with it.
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
        """The victim of a seed: trained with it, where it is trained here."""
        return self if self.recipe is None else replace(self, seed=seed)

    @property
    def name(self) -> str:
        """What tells it from others in records: no path, but the content of the weights."""
        if self.recipe is not None:
            return f"{self.model} {self.recipe.key}"
        parts = [self.model] if self.path is None else [self.model, self.path.name, self.digest]
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
        """The network, in eval mode on the workspace's device; errors as in `pretrained`."""
        if self.recipe is not None:
            return obtain(self.recipe, workspace, progress, stop, self.seed)
        data = workspace.dataset(self.data)
        if self.path is None:
            network = pretrained.from_timm(self.model, data, self.mean, self.std)
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
    """The victim model that a user describes; nothing is loaded or trained yet.

    Args:
        data: Dataset whose test images are attacked.
        victim: Safetensors file with weights, or ``timm:NAME``; None trains one on ``data``.
        model: Architecture of the weights, or of the network to train.
        mean: Per-channel mean subtracted by a victim that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.

    Raises:
        ValueError: The arguments contradict each other.
        Missing: The weights file is not there.
    """
    if victim is None:
        if mean or std:
            raise ValueError("--mean and --std belong to a --victim that was trained elsewhere")
        side = data.train.images.shape[-1]
        changes = {"model": model} if model else {}
        recipe = usual_victim(data.name, data.pin, side, **changes)
        return Victim(model=recipe.model, data=data.name, recipe=recipe)
    if victim.startswith("timm:"):
        if model:
            raise ValueError(f"--model {model} has no effect on --victim {victim}; remove it")
        return Victim(model=victim, data=data.name, mean=mean, std=std)
    if not model:
        raise ValueError(f"--victim {victim} needs --model: weights do not name their network")
    path = Path(victim)
    digest = pretrained.check(path)
    return Victim(
        model=model, data=data.name, path=path.resolve(), digest=digest, mean=mean, std=std
    )
