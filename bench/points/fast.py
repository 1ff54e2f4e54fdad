"""Train the estimator of fast points, once for a dataset and a victim model, and say what it costs.

The estimator learns from `Fast.examples` images that are attacked for it. Its agreement with the
attack is measured on `Fast.check` other images, which also tell how many points images have.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks.base import Shape, frozen
from bench import registry
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.errors import Missing
from bench.execution.executors import Executor
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import locks
from bench.files.checksums import key
from bench.points import blocks, estimator
from bench.points.agreement import shares
from bench.points.blocks import Block
from bench.points.cost import Counted, forward_operations, usual_passes
from bench.points.coverage import sample
from bench.points.estimator import Estimator
from bench.points.predicting import Fast, Trained
from bench.points.store import Points
from bench.registry import notation
from bench.training.victims import Victim

BLOCK = 32
"""Images of a block of examples: small, so that little is lost when a search is interrupted."""

STEP = 3
"""Passes through the estimator of a training step: forward, and backward to inputs and weights."""


def place(workspace: Workspace, data: Dataset, victim: Any, how: Fast) -> Path:
    """Return the file of an estimator.

    Args:
        workspace: Where it is stored.
        data: The dataset.
        victim: What identifies the victim model, as JSON values.
        how: How fast points are made.
    """
    folder = workspace.cache / "estimators"
    if how.estimator:
        return folder / f"given-{how.estimator}.safetensors"
    about = {"digest": data.digest, "victim": victim, **how.training}
    return folder / f"{notation.whole(data.name)}-{key(about)}.safetensors"


def give(path: Path, workspace: Workspace, data: Dataset, victim: Any, how: Fast) -> Fast:
    """Take an estimator that was trained elsewhere.

    Args:
        path: Its file.
        workspace: Where it is kept.
        data: The dataset whose points it shall predict.
        victim: What identifies the victim model, as JSON values.
        how: How fast points are made.

    Returns:
        ``how`` with the attack and the gradients that the estimator was trained for, and its name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no estimator, or one of another dataset, victim model or image size.
    """
    trained = Trained.load(path)
    trained.fits(data, victim)
    own = {name: trained.about[name] for name in how.training}
    how = dataclasses.replace(how, **own, estimator=trained.digest)
    trained.save(place(workspace, data, victim, how))
    return how


def obtain(
    data: Dataset,
    workspace: Workspace,
    progress: Progress,
    network: nn.Module,
    *,
    victim: Victim | None,
    identity: Any,
    how: Fast,
    executor: Executor,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train and store the estimator of a dataset and a victim model, unless it is stored already.

    Args:
        data: The dataset.
        workspace: Where it is stored.
        progress: Shows the training.
        network: The victim model.
        victim: Its description for other processes; None for one that only this process has.
        identity: What identifies it, as JSON values.
        how: How fast points are made.
        executor: Where examples are attacked.
        stop: Whether to stop soon.

    Returns:
        The estimator's file.

    Raises:
        Missing: An estimator that was trained elsewhere is not stored here.
        ValueError: It belongs to another dataset, victim model or image size.
        Stopped: ``stop()`` returned True; examples that were attacked are stored.
    """
    path = place(workspace, data, identity, how)
    with locks.held(path.with_suffix(".lock"), f"the estimator of {data.name}", progress.say, stop):
        try:
            Trained.load(path).fits(data, identity)
            return path.resolve()
        except FileNotFoundError:
            if how.estimator:
                raise Missing(
                    f"the estimator {how.estimator} is not in {path.parent}: give its file with "
                    "bench points build --estimator FILE"
                ) from None
        except ValueError as error:
            if how.estimator:
                raise
            progress.say(f"{error}; it is trained again")
        common = {"data": data.name, "digest": data.digest, "victim": identity}
        folder = path.with_suffix("").resolve()
        plans = [
            _blocks(common | {"attack": attack}, folder, victim, ids)
            for attack, ids in zip((how.teacher, how.attack), examples(data, how), strict=True)
        ]
        labels = ("attack on images to learn from", "attack on images to check with")
        taught, held = (
            blocks.run(plan, workspace, progress, executor, stop, label)
            for plan, label in zip(plans, labels, strict=True)
        )
        for points, use in ((taught, "learn from"), (held, "check with")):
            if not len(points.places):
                raise ValueError(
                    f"the attack found no points in any of the {len(points)} images to {use}: give "
                    "a larger eps, or another victim model"
                )
        fitted, found = _train(taught, held, data, network, how, progress, stop)
        c, h, w = data.train.images.shape[1:]
        common |= {"size": [h, w], "channels": c, **how.training, **found}
        Trained.of(fitted.cpu(), common).save(path)
        for block in [*plans[0], *plans[1]]:
            block.path.unlink(missing_ok=True)
        return path.resolve()


def examples(data: Dataset, how: Fast) -> tuple[Int[Tensor, " b"], Int[Tensor, " k"]]:
    """Return the indices of the images to learn from and to check with, spread over the dataset."""
    count = len(data.train.labels)
    check = min(how.check, max(1, count // 4))
    ids = sample(count, check + min(how.examples, count - check))
    held = sample(len(ids), check)
    rest = torch.ones(len(ids), dtype=torch.bool)
    rest[held] = False
    return ids[rest], ids[held]


def _blocks(
    about: dict[str, Any], folder: Path, victim: Victim | None, ids: Int[Tensor, " b"]
) -> list[Block]:
    """The blocks of images to attack; ``about`` names the dataset, victim model and attack."""
    attack = about["attack"]
    return [
        Block(
            number, about["data"], victim, key(about["victim"]), attack,
            json.dumps(about | {"images": key(part.tolist())}),
            folder / key(attack), tuple(part.tolist()),
        )
        for number, part in enumerate(ids.split(BLOCK))
    ]  # fmt: skip


def _train(
    taught: Points,
    held: Points,
    data: Dataset,
    network: nn.Module,
    how: Fast,
    progress: Progress,
    stop: Callable[[], bool],
) -> tuple[Estimator, dict[str, Any]]:
    """Train an estimator on some points and check it with others; say what it costs and gives."""
    start = time.perf_counter()
    counted = Counted(network)
    device = next(network.parameters(), torch.empty(0)).device
    images, gains, masks = [], [], []
    for points, some in zip((taught, held), examples(data, how), strict=True):
        images.append(as_floats(data.train.images[some], device))
        with frozen(network), torch.no_grad():
            walks = [
                estimator.walk(counted, batch, how.gradients, how.eps).gains
                for batch in images[-1].split(BLOCK)
            ]
        gains.append(torch.cat(walks))
        masks.append(points.guide()[:, 0].to(device))
    fitted = estimator.fit(images[0], gains[0], masks[0], data.flip, progress, stop)
    scores = torch.cat(
        [fitted(*each) for each in zip(images[1].split(BLOCK), gains[1].split(BLOCK), strict=True)]
    )
    predicted = estimator.chosen(scores, masks[1].flatten(1).sum(1))
    with frozen(network):
        operations = forward_operations(network, images[0][:1])
    share = (
        forward_operations(fitted, images[0][:1], gains[0][:1]) / operations if operations else 1
    )
    attacking = taught.about["passes"] + held.about["passes"] + counted.passes
    fitting = share * (STEP * estimator.EPOCHS * len(taught) + len(held))
    seconds = taught.about["seconds"] + held.about["seconds"] + time.perf_counter() - start
    return fitted, {
        "density": float(masks[1].sum() / scores.sigmoid().sum()),
        "agreement": {"images": len(held)} | shares(masks[1].cpu(), predicted.cpu()),
        "cost": {"passes": attacking + fitting, "seconds": seconds, "share_of_pass": share},
    }


def planned(how: Fast, count: int, shape: Shape) -> int:
    """Return the passes per image that fast points of ``count`` images of a shape will take.

    Those through the estimator are left out, as their cost depends on the victim model.
    """
    passes = 2 * how.gradients + 1
    if how.refine:
        passes += usual_passes(how.built.shortened(how.refine), shape) + 1
    check = min(how.check, max(1, count // 4))
    taught = min(how.examples, count - check)
    teacher = usual_passes(registry.build("attacks", how.teacher), shape)
    attacking = taught * teacher + check * usual_passes(how.built, shape)
    return passes + (0 if how.estimator else -(-attacking // count))


def cost(points: Points, trained: Trained, how: Fast, shape: Shape) -> dict[str, float]:
    """Return what fast points have cost, the training of their estimator included.

    Passes are forward and backward passes of one image through the victim model; those through the
    estimator count by their operations. An epoch makes two of each image.

    Args:
        points: The points, with the passes and seconds of the prediction.
        trained: The estimator.
        how: How they were made.
        shape: Channels, height and width of an image.

    Returns:
        ``passes`` per image; ``epochs`` with as many; ``training_passes``, the part of ``passes``
        that the estimator took; ``seconds``; ``exact_passes`` per image of the attack that is
        predicted; and by how much it is ``cheaper``.
    """
    own, count = trained.about["cost"], len(points)
    training = own["passes"] / count
    passes = points.about["passes"] / count + own["share_of_pass"] + training
    exact = usual_passes(how.built, shape)
    return {
        "passes": passes,
        "epochs": passes / 2,
        "training_passes": training,
        "seconds": points.about["seconds"] + own["seconds"],
        "exact_passes": exact,
        "cheaper": exact / passes,
    }
