"""What points cost and how far they agree with exact ones, method by method, on unseen images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks.advmask_published import PublishedAdvMask
from attacks.base import Goal, frozen
from attacks.norms import largest
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.execution.executors import Executor, Local
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files.checksums import key
from bench.points import blocks, estimator, fast, guides
from bench.points.agreement import shares
from bench.points.blocks import Block
from bench.points.coverage import sample
from bench.points.find import Search
from bench.points.predicting import Fast, Trained, is_fast
from bench.points.store import Points

BATCH = 32
"""Images that are attacked together."""

SHORT, REFINED = (100, 50, 20, 8), (20, 10)
"""Steps of shortened attacks, and of attacks from a prediction."""

EPS = (4 / 255, 8 / 255)
"""Bounds of the dense step that is confined to the points."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One way to make points, measured.

    Attributes:
        label: Its name.
        passes: Forward and backward passes per image through the victim model, training included.
        training_passes: The part of it that an estimator took to train.
        seconds: Seconds per image, training not included.
        points: Points per image, mean.
        found: Share of the exact points among the points.
        near: Share of the exact points within one pixel of one.
        right: Share of the points that are exact points.
        chance: What ``found`` would be for as many pixels at random.
        broken: Share of the images that a step of each bound breaks at the points alone.
        best: Whether no other finds more for as many passes, or as many for fewer.
    """

    label: str
    passes: float
    training_passes: float = 0.0
    seconds: float
    points: float
    found: float
    near: float
    right: float
    chance: float
    broken: dict[str, float]
    best: bool = False


@dataclass(frozen=True)
class Cost:
    """What points have cost, per image; see `Entry`."""

    passes: float
    seconds: float
    training_passes: float = 0.0


@dataclass(frozen=True)
class Front:
    """Ways to make points, compared on the same images.

    Attributes:
        about: Dataset, victim model, attack and number of images, as JSON values.
        entries: The ways, with the exact attack first.
        ids: Indices of the images, shape (b,).
        masks: The points that each way gives, by its label, shape (b, h, w).
    """

    about: dict[str, Any]
    entries: list[Entry]
    ids: Int[Tensor, " b"]
    masks: dict[str, Bool[Tensor, "b h w"]]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"about": self.about, "methods": [asdict(entry) for entry in self.entries]}


def measure(
    search: Search,
    data: Dataset,
    workspace: Workspace,
    progress: Progress,
    count: int,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Front:
    """Compare ways to make points on images that the estimator has not seen.

    Points are stored in blocks, so that an interrupted comparison continues.

    Args:
        search: The fast points that are compared with the exact ones that they predict.
        data: The dataset.
        workspace: Where points and the estimator are stored.
        progress: Shows the comparison.
        count: Number of images.
        executor: Where the images are attacked.
        stop: Whether to stop soon.

    Raises:
        ValueError: There are no images left that the estimator has not seen.
        Stopped: ``stop()`` returned True; finished blocks are stored.
    """
    how = search.fast
    assert how is not None, "a comparison is of fast points"
    ids = unseen(data, how, count)
    network = search.open(workspace, progress, stop)
    chosen = Local() if search.network is not None else executor or Local()
    victim, identity = search.blocks[0].victim, search.identity
    path = fast.obtain(
        data, workspace, progress, network,
        victim=victim, identity=identity, how=how, executor=chosen, stop=stop,
    )  # fmt: skip
    trained = Trained.load(path)
    folder = (workspace.cache / "compared").resolve()

    def points(text: str, seed: int = 0) -> Points:
        about = {"digest": data.digest, "victim": identity, "attack": text, "seed": seed}
        planned = []
        for number, part in enumerate(ids.split(BATCH)):
            own = about | {"images": key(part.tolist())}
            place = folder / key(own)
            block = Block(
                number, data.name, victim, key(identity), text, json.dumps(own), place,
                tuple(part.tolist()), path if is_fast(text) else None, seed,
            )  # fmt: skip
            planned.append(block)
        return blocks.run(planned, workspace, progress, chosen, stop, text)

    exact = points(how.attack)
    target = exact.guide()[:, 0]
    judged = Judge(network, data, ids, workspace.device)

    def entry(label: str, mask: Bool[Tensor, "b h w"], cost: Cost) -> Entry:
        masks[label] = mask
        agreement, count = shares(target, mask), float(mask.double().sum() / len(mask))
        return Entry(
            label=label, passes=cost.passes, training_passes=cost.training_passes,
            seconds=cost.seconds, points=count, found=agreement["found"], near=agreement["near"],
            right=agreement["right"], chance=agreement["chance"], broken=judged.broken(mask),
        )  # fmt: skip

    def of(text: str, seed: int = 0) -> tuple[Points, Cost]:
        found = exact if (text, seed) == (how.attack, 0) else points(text, seed)
        return found, Cost(found.about["passes"] / len(ids), found.about["seconds"] / len(ids))

    masks: dict[str, Bool[Tensor, "b h w"]] = {}
    own = trained.about["cost"]
    taught = own["passes"] / len(data.train.labels)
    entries = []
    for label, text, seed in ways(how):
        found, cost = of(text, seed)
        if is_fast(text):
            passes = cost.passes + own["share_of_pass"] + taught
            cost = Cost(passes, cost.seconds, taught)
        entries.append(entry(label, found.guide()[:, 0], cost))
    for label, scores, cost in judged.scores(how):
        entries.append(entry(label, largest(scores, exact.counts).reshape(target.shape), cost))
    about = {
        "data": data.name,
        "digest": data.digest,
        "victim": identity,
        "attack": how.attack,
        "fast": str(how),
        "estimator": trained.digest,
        "images": len(ids),
        "training_images": len(data.train.labels),
    }
    return Front(about, marked(entries), ids, masks)


def ways(how: Fast) -> list[tuple[str, str, int]]:
    """Return what is compared: labels, what finds the points, and the seed of its draws.

    None shares its draws with the exact attack, since a part of the points depends on them alone.
    """
    found = [("exact", how.attack, 0), ("exact, other draws", how.attack, 1)]
    attack, one = how.built, str(replace(how, refine=0))
    if not isinstance(attack, PublishedAdvMask):
        return [*found, ("predicted", one, 0)]
    short = [(f"exact in {n} steps", registry.express(attack.shortened(n)), 1) for n in SHORT]
    more = [(f"predicted and {n} steps", str(replace(how, refine=n)), 1) for n in REFINED]
    return [*found, *short, *more, ("predicted", one, 0)]


def unseen(data: Dataset, how: Fast, count: int) -> Int[Tensor, " b"]:
    """Return the indices of training images that the estimator was neither taught nor checked with.

    Raises:
        ValueError: There are none.
    """
    free = torch.ones(len(data.train.labels), dtype=torch.bool)
    for some in fast.examples(data, how):
        free[some] = False
    left = free.nonzero()[:, 0]
    if not len(left):
        raise ValueError(
            f"the estimator has seen all {len(free)} images of {data.name}: give fewer --examples"
        )
    return left[sample(len(left), min(count, len(left)))]


def marked(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries with ``best`` set; another draw of the exact attack stands for the attack.

    The exact attack finds all of its own points by definition, so it cannot be compared itself.
    """
    compared = [each for each in entries if each.label != "exact"]

    def beaten(one: Entry) -> bool:
        return any(
            other.passes <= one.passes
            and other.found >= one.found
            and (other.passes, other.found) != (one.passes, one.found)
            for other in compared
        )

    return [replace(each, best=each in compared and not beaten(each)) for each in entries]


class Judge:
    """Looks at given points of some images with the victim model.

    Args:
        network: The victim model.
        data: The dataset.
        ids: Indices of the images.
        device: Device of the network.
    """

    def __init__(
        self, network: nn.Module, data: Dataset, ids: Int[Tensor, " b"], device: str
    ) -> None:
        self.network, self.data, self.ids, self.device = network, data, ids, device
        self.images = as_floats(data.train.images[ids], device)
        first = self._walk(1, EPS[0])
        self.direction, self.labels = first.delta.sign(), first.labels

    def _walk(self, steps: int, eps: float) -> estimator.Walk:
        with frozen(self.network), torch.no_grad():
            parts = [
                estimator.walk(self.network, batch, steps, eps)
                for batch in self.images.split(BATCH)
            ]
        return estimator.Walk(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def broken(self, mask: Bool[Tensor, "b h w"]) -> dict[str, float]:
        """Return the share of the images that one dense step breaks at these points alone.

        The step goes along the sign of the margin's gradient at the image; images that the victim
        model gets wrong count as others do, for the class that it predicts.
        """
        found = {}
        for eps in EPS:
            moved = self.images + eps * self.direction * mask[:, None].to(self.device)
            with frozen(self.network), torch.no_grad():
                logits = [self.network(part) for part in moved.clamp(0, 1).split(BATCH)]
            reached = Goal(self.labels).reached(torch.cat(logits))
            found[f"{round(eps * 255)}/255"] = float(reached.double().mean())
        return found

    def scores(self, how: Fast) -> list[tuple[str, Float[Tensor, "b n"], Cost]]:
        """Return what ranks pixels without an attack: label, a score for each, and the cost."""
        draws, (h, w) = seeds.generator(0, "guides", "random"), self.images.shape[-2:]
        steps, eps, count = how.gradients, how.eps, len(self.ids)
        ways: list[tuple[str, int, Callable[[], Tensor]]] = [
            (f"{steps} gradients", 2 * steps, lambda: self._walk(steps, eps).gains.sum(1)),
            ("one gradient", 2, lambda: self._walk(1, eps).gains.sum(1)),
            (
                "saliency", 2,
                lambda: guides.gradients(self.data, self.network, self.device, BATCH, self.ids),
            ),
            ("corners", 0, lambda: guides.harris(self.data.train.images[self.ids])),
            ("random", 0, lambda: torch.rand(count, h, w, generator=draws)),
        ]  # fmt: skip
        found = []
        for label, passes, score in ways:
            start = time.perf_counter()
            scores = score().cpu().flatten(1)
            cost = Cost(float(passes), (time.perf_counter() - start) / count)
            found.append((label, scores, cost))
        return found
