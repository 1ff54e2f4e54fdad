"""The networks that attacks are run against: trained once per data set, then kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from bench import checkpoints, models, training
from bench.models import Normalised
from bench.progress import Progress
from bench.recipes import Recipe, usual
from bench.workspace import Workspace

SEED = 0

EPOCHS = {"digits": 20, "photos": 30}
"""Enough to fit the embedded data sets; 30 epochs elsewhere."""


def usual_victim(data: str, digest: str, side: int, **changes: object) -> Recipe:
    """The plain network whose adversarial points a data set gets unless another is asked for.

    A small residual network without any deletion: ``resnet8`` for digits, ``resnet20`` elsewhere.
    It sees the whole training part, for no decision is taken on its accuracy. The paper does not
    say which network it attacks.
    """
    model = str(changes.pop("model", "resnet8" if data == "digits" else "resnet20"))
    settings = usual(data, model, side) | {"epochs": EPOCHS.get(data, 30), "validation": 0.0}
    return Recipe(data=data, digest=digest, model=model, **(settings | changes))


def obtain(
    recipe: Recipe,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Normalised:
    """The victim of a recipe, in eval mode on the workspace's device: loaded, or trained once.

    One whose file is damaged is trained again, which gives the same weights. Raises `Stopped` when
    ``stop()`` turns true; the training then continues the next time.
    """
    data = workspace.dataset()
    path = (
        workspace.cache / "victims" / f"{recipe.model}-{recipe.key}-{data.digest[:8]}.safetensors"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            try:
                return _read(recipe, path, workspace)
            except ValueError as error:
                progress.say(f"{error}; the victim is trained again")
        progress.say(f"training the victim: {recipe.model} on {recipe.data}")
        trained = training.train(
            recipe,
            SEED,
            data,
            device=workspace.device,
            progress=progress,
            checkpoint=path.with_suffix(""),
            stop=stop,
        )
        about = {"recipe": recipe.key, "data": data.digest}
        models.save_weights(trained.network, path, about)
        checkpoints.discard(path.with_suffix(""))
        # as the next time: in training the weights lie in another order in memory, which changes
        # the last bits of what the network says, and with them what attacks find
        return _read(recipe, path, workspace)


def _read(recipe: Recipe, path: Path, workspace: Workspace) -> Normalised:
    data = workspace.dataset()
    network = models.build(
        recipe.model,
        classes=len(data.classes),
        channels=data.train.images.shape[1],
        side=data.train.images.shape[-1],
        mean=data.mean,
        std=data.std,
        seed=SEED,
    )
    models.load_weights(network, path)
    return network.to(workspace.device).eval()
