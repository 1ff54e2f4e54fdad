"""Fast points: predicted by one network for all images, and optionally refined."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks.advmask_published import PublishedAdvMask
from attacks.base import Goal, frozen
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.errors import reason
from bench.files import checksums, json_text, tensor_files
from bench.points import estimator
from bench.points.estimator import Estimator
from bench.points.store import Points
from bench.registry import notation

NAME = "advmask.fast"
"""How fast points are named among the attacks that find points."""

CODE = 0.01
"""The code, as AdvMask's encoder gives it, of a pixel whose log-odds are 1."""


@dataclass(frozen=True, kw_only=True)
class Fast:
    """How fast points are made, written as ``advmask.fast(option=value, …)``.

    Attributes:
        attack: The attack whose points are predicted.
        examples: Training images that are attacked, with `PublishedAdvMask.shortened` where the
            attack has it, so that the estimator learns from them.
        check: Training images that are attacked in full and that the estimator never sees, on which
            its agreement is measured.
        gradients: Gradients of the victim model that the estimator sees of each image.
        refine: Steps of the attack from the prediction, or 0 for the prediction itself.
        estimator: The first digits of the checksum of an estimator that was trained elsewhere;
            empty for the one that is trained here.

    Raises:
        ValueError: For a value out of its range, naming it.
    """

    attack: str = "advmask.published"
    examples: int = 128
    check: int = 16
    gradients: int = 3
    refine: int = 0
    estimator: str = ""

    def __post_init__(self) -> None:
        for name, least in (("examples", 1), ("check", 1), ("gradients", 1), ("refine", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        if self.refine and not isinstance(self.built, PublishedAdvMask):
            raise ValueError(
                f"refine is {self.refine}, and {self.attack} cannot start from codes: remove refine"
            )

    @property
    def built(self) -> Any:
        """The attack."""
        return registry.build("attacks", self.attack)

    @property
    def teacher(self) -> str:
        """The attack on the examples."""
        attack = self.built
        short = attack.shortened() if isinstance(attack, PublishedAdvMask) else attack
        return registry.express(short)

    @property
    def eps(self) -> float:
        """Largest change of a value; 8/255 for an attack without a bound."""
        eps = getattr(self.built, "eps", None)
        return 8 / 255 if eps is None else float(eps)

    @property
    def training(self) -> dict[str, Any]:
        """What determines the estimator, as JSON values."""
        return {name: getattr(self, name) for name in ("attack", "examples", "check", "gradients")}

    @classmethod
    def read(cls, text: str) -> Fast:
        """Return what a text describes.

        Raises:
            ValueError: Unknown option, or a value of the wrong type or range.
        """
        found: Fast = notation.configured(cls, NAME, notation.parse(text)[1])
        return found

    def __str__(self) -> str:
        """Return the text, without what is as usual.

        >>> str(Fast()), str(Fast(refine=10))
        ('advmask.fast', 'advmask.fast(refine=10)')
        """
        return notation.write(NAME, self, Fast())


def is_fast(text: str) -> bool:
    """Whether a text names fast points.

    >>> is_fast("advmask.fast(refine=10)"), is_fast("advmask.published")
    (True, False)
    """
    return notation.parse(text)[0] == NAME


@dataclass(frozen=True)
class Trained:
    """An estimator and what it belongs to.

    Attributes:
        network: The estimator, in eval mode.
        about: Dataset, its checksum, victim model, size and channels of the images, and how it was
            trained, with its cost and its agreement, as JSON values.
        digest: Twelve digits of a checksum of both, without the cost.
    """

    network: Estimator
    about: dict[str, Any]
    digest: str

    @classmethod
    def of(cls, network: Estimator, about: dict[str, Any]) -> Trained:
        """Name an estimator by its weights and by what it belongs to, whatever it has cost."""
        named = {name: value for name, value in about.items() if name != "cost"}
        text = json.dumps(named, sort_keys=True)
        return cls(network, about, checksums.of_tensors(network.state_dict(), text)[:12])

    def save(self, path: Path) -> None:
        """Write a safetensors file with ``about`` as JSON and a checksum of everything."""
        texts = {"about": json.dumps(self.about)}
        tensor_files.write(path, self.network.state_dict(), texts, covered="about")

    @classmethod
    def load(cls, path: Path) -> Trained:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged, does not hold an estimator, or lacks something of
                ``about``.
        """
        tensors, metadata = tensor_files.read(path, covered="about")
        try:
            about = json_text.parse(metadata["about"])
            _check(about)
            network = Estimator(about["channels"], about["gradients"])
            network.load_state_dict(tensors)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not hold an estimator of points ({reason(error)})"
            ) from None
        network.eval().requires_grad_(False)
        return cls.of(network, about)

    def fits(self, data: Dataset, victim: Any) -> None:
        """Check that the estimator belongs to a dataset and a victim model.

        Args:
            data: The dataset.
            victim: What identifies the victim model, as JSON values.

        Raises:
            ValueError: It belongs to others, which are named.
        """
        c, h, w = data.train.images.shape[1:]
        own = self.about
        what, then = f"the estimator {self.digest}", "train one with: bench points build --fast"
        if own.get("size") != [h, w] or own.get("channels") != c:
            raise ValueError(
                f"{what} is for images of {own.get('channels')}x{shown(own.get('size'))}, not "
                f"{c}x{shown([h, w])} as in {data.name}; {then}"
            )
        if own.get("digest") != data.digest:
            raise ValueError(
                f"{what} belongs to the dataset {own.get('data')} ({own.get('digest')}), not to "
                f"{data.name} ({data.digest}); {then}"
            )
        if own.get("victim") != victim:
            raise ValueError(
                f"{what} belongs to the victim model {called(own.get('victim'))}, not to "
                f"{called(victim)}; {then}"
            )


def _check(about: Any) -> None:
    """Raises ``ValueError``, ``KeyError`` or ``TypeError`` unless all that is used is there."""
    if type(about["attack"]) is not str:
        raise ValueError("its attack is not a text")
    for name in ("channels", "gradients", "examples", "check"):
        if type(about[name]) is not int or about[name] < 1:
            raise ValueError(f"its {name} is not a number")
    if max(about["channels"], about["gradients"]) > 1000:
        raise ValueError("its network is too large")
    cost = [about["cost"][name] for name in ("passes", "seconds", "share_of_pass")]
    for value in (about["density"], *cost, *dict(about["agreement"]).values()):
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise ValueError("its density, cost or agreement is not a number")
    if not about["density"]:
        raise ValueError("its density is 0")


def shown(size: Any) -> str:
    """The size of images, as in an error."""
    return "x".join(map(str, size)) if isinstance(size, list) else str(size)


def called(victim: Any) -> str:
    """What an error calls a victim model: what identifies it, in few words.

    >>> called("resnet20 weights.safetensors ab12"), called({"model": "resnet8", "data": "digits"})
    ('resnet20 weights.safetensors ab12', 'resnet8 (b29e912d48a0)')
    """
    if not isinstance(victim, dict):
        return str(victim)
    name = victim.get("model") or victim.get("network") or "resnet18"
    return f"{name} ({checksums.key(victim)})"


def predict_images(
    network: nn.Module,
    data: Dataset,
    ids: Int[Tensor, " b"],
    trained: Trained,
    how: Fast,
    device: str,
    seed: int = 0,
) -> Points:
    """Predict the points of some training images.

    Each image has as many points as the estimator's probabilities add up to, times the density
    that makes that right for the images that the estimator was checked with. An image counts as
    broken if the dense perturbation behind its gains, kept at its points alone, breaks it; it has
    its points whether it does or not. With ``how.refine``, points are those of the attack where it
    succeeds.

    Args:
        network: The victim model.
        data: The dataset.
        ids: Indices of training images, shape (b,).
        trained: The estimator.
        how: How the points are made.
        device: Device of the network.
        seed: Seed of the draws of the attack that refines.
    """
    images = as_floats(data.train.images[ids], device)
    with frozen(network), torch.no_grad():
        walk = estimator.walk(network, images, how.gradients, how.eps)
        scores = trained.network.to(device)(images, walk.gains)
        found = estimator.chosen(scores, estimator.expected(scores, trained.about["density"]))
        goal = Goal(walk.labels)
        confined = (images + walk.delta * found[:, None]).clamp(0, 1)
        reached = goal.reached(network(confined))
    if how.refine:
        generators = [seeds.generator(seed, "points", int(i)) for i in ids]
        attack = how.built.shortened(how.refine)
        attacked = attack.refine(network, images, goal, generators, CODE * scores.flatten(1))
        with frozen(network), torch.no_grad():
            better = goal.reached(network(attacked))
        changed = (attacked != images).any(1)
        found = torch.where(better[:, None, None], changed, found)
        reached = reached | better
    correct = int((goal.labels.cpu() == data.train.labels[ids].cpu()).sum())
    return Points.of(found.cpu(), reached.cpu(), {"correct": correct})
