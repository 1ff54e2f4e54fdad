"""The networks that attacks are run against: trained once per data set, then kept."""

from __future__ import annotations

from filelock import FileLock

from bench import checkpoints, models, registry, training
from bench.models import Normalised
from bench.progress import Progress
from bench.recipes import Recipe, usual
from bench.workspace import Workspace

SEED = 0

EPOCHS = {"digits": 20, "photos": 30}
"""Enough to fit the embedded data sets; 30 epochs elsewhere, more for a small part."""
PASSES = 100_000  # pictures that a victim sees at least, where it trains on a part


def usual_victim(data: str, digest: str, side: int, **changes: object) -> Recipe:
    """The plain network whose adversarial points a data set gets unless another is asked for.

    A small residual network without any deletion: ``resnet8`` for digits, ``resnet20`` elsewhere.
    It sees the whole training part, for no decision is taken on its accuracy. The paper does not
    say which network it attacks.
    """
    name, part = registry.parse(data)
    model = str(changes.pop("model", "resnet8" if name == "digits" else "resnet20"))
    epochs = max(EPOCHS.get(name, 30), -(-PASSES // part["train"]) if "train" in part else 0)
    settings = usual(data, model, side) | {"epochs": epochs, "validation": 0.0}
    return Recipe(data=data, digest=digest, model=model, **(settings | changes))


def obtain(recipe: Recipe, workspace: Workspace, progress: Progress) -> Normalised:
    """The victim of a recipe, in eval mode on the workspace's device: loaded, or trained once."""
    data = workspace.dataset()
    path = (
        workspace.cache / "victims" / f"{recipe.model}-{recipe.key}-{data.digest[:8]}.safetensors"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
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
            network.to(workspace.device)
        else:
            progress.say(f"training the victim: {recipe.model} on {recipe.data}")
            trained = training.train(
                recipe,
                SEED,
                data,
                device=workspace.device,
                progress=progress,
                checkpoint=path.with_suffix(""),
            )
            network = trained.network
            models.save_weights(network, path, {"recipe": recipe.key, "data": data.digest})
            checkpoints.discard(path.with_suffix(""))
    network.eval()
    return network
