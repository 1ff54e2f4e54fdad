"""The recipe of a training. Its defaults are those of section 4.1 of the paper."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from augmentations import BUILTIN, Augmentation
from augmentations.checks import choice, number, whole
from bench import registry
from bench.data.catalog import facts
from bench.files.checksums import key
from bench.models import published
from bench.records.method import Method
from bench.registry import notation
from bench.training import robust

Schedule = Literal["cosine", "steps"]
Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained.

    Attributes:
        data: Name of a dataset or of a part of one, as ``"cifar10(train=2000)"``.
        digest: Checksum of the content of an image folder, whose name does not identify it.
        model: Name of the network.
        augmentation: The deletion augmentation.
        guide: Name of the guide; None: the one that the augmentation uses by default.
        points: The attack that finds the adversarial points, as `registry.express` writes it; None:
            the sparse attack of version 0.1, ``advmask(steps=100)``.
        policy: Image operations such as ``"autoaugment"``, or None.
        mix: Image mixing such as ``"cutmix"``, or None.
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: Initial learning rate.
        optimizer: ``"sgd"``, with Nesterov momentum, or ``"adamw"``, whose decay rates are torch's.
        momentum: Nesterov momentum; without effect on AdamW.
        weight_decay: Weight decay of all parameters.
        schedule: ``"cosine"`` to zero, or ``"steps"`` (Figure 7 of the paper: times 0.2 at 20, 40,
            53, 73 and 93 % of the epochs).
        warmup: Epochs in which the learning rate rises in equal steps to that of the schedule.
        padding: Pixels of padding of the random crop.
        flip: Whether an image is mirrored with probability 1/2, where it keeps its class then.
        validation: Share of the training images held out for validation, drawn by the seed.
        precision: ``"float32"`` or ``"bfloat16"`` (mixed precision).
        pretrained: The weights that the training starts from, as `fine_tuning.identify` names them;
            None: drawn from the seed.
        robust: Adversarial training such as ``"sparse-at(k=20)"``, as `robust.build` reads it;
            None: the images are not attacked.

    Raises:
        ValueError: A value outside its range.
    """

    data: str = "cifar10"
    digest: str = ""
    model: str = "resnet18"
    augmentation: Augmentation = dataclasses.field(default_factory=lambda: BUILTIN["none"]())
    guide: str | None = None
    points: str | None = None
    policy: str | None = None
    mix: str | None = None
    epochs: int = 300
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: int = 0
    padding: int = 4
    flip: bool = True
    validation: float = 0.1
    precision: Precision = "float32"
    pretrained: str | None = None
    robust: str | None = None

    def __post_init__(self) -> None:
        for name, words in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("precision", Precision),
        ):
            choice(name, getattr(self, name), words)
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup", 0), ("padding", 0)):
            whole(name, getattr(self, name), least=least)
        for name in ("learning_rate", "weight_decay", "momentum", "validation"):
            number(name, getattr(self, name))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate is {self.learning_rate}: it must be above 0 and finite"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"weight_decay is {self.weight_decay}: it must be at least 0 and finite"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: it must be at least 0 and below 1")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}: it must be at least 0 and below 1")
        if self.robust is not None:
            self._check_robust(self.robust)

    def _check_robust(self, method: str) -> None:
        robust.build(method)
        if self.mix is not None:
            raise ValueError(f"{method} attacks single images: remove the mix {self.mix}")
        if self.policy is not None:
            raise ValueError(f"{method} takes no policy: remove {self.policy}")
        if str(getattr(self.augmentation, "saliency", None)).startswith("early"):
            raise ValueError(
                f"{method} trains no early head: give keepaugment another saliency, such as 'low'"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults as JSON values; methods as texts."""
        return {
            field.name: registry.express(value) if field.name == "augmentation" else value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != getattr(DEFAULT, field.name)
        }

    @classmethod
    def from_json(cls, job: dict[str, Any]) -> Recipe:
        """Return the recipe that `to_json` wrote.

        Raises:
            ValueError: Unknown fields, or values of the wrong type or range.
        """
        unknown = set(job) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"this recipe has unknown fields: {', '.join(sorted(unknown))}")
        fields = dict(job)
        if "augmentation" in fields:
            text = str(fields["augmentation"])
            fields["augmentation"] = registry.build("augmentations", text)
        for name in fields.keys() - {"augmentation"}:
            fields[name] = notation.checked(cls, "recipe", name, fields[name])
        return cls(**fields)

    @property
    def key(self) -> str:
        """Hash of the JSON form, which identifies the job without its seed."""
        return key(self.to_json())

    def method(self, augmentation: str) -> Method:
        """What is compared, with this text of its augmentation: `registry.label` or `express`."""
        around = self.guide, self.policy, self.mix, self.robust
        return Method(augmentation, *(text or "" for text in around))


DEFAULT = Recipe()


def described(recipe: Recipe) -> str:
    """The settings of a recipe in words, without its methods and what they are applied to.

    >>> described(Recipe(validation=0.0))
    '300 epochs, batch size 128, learning rate 0.1 (cosine), weight decay 0.0005, crop padding 4, \
no validation part, float32'
    """
    held = f"{recipe.validation:.0%} held out for validation" if recipe.validation else ""
    return ", ".join(
        [
            *([f"fine-tuned from {recipe.pretrained}"] if recipe.pretrained else []),
            f"{recipe.epochs} epochs",
            f"batch size {recipe.batch_size}",
            *(["AdamW"] if recipe.optimizer == "adamw" else []),
            f"learning rate {recipe.learning_rate:g} ({recipe.schedule})",
            *([f"{recipe.warmup} epochs of warm-up"] if recipe.warmup else []),
            f"weight decay {recipe.weight_decay:g}",
            f"crop padding {recipe.padding}",
            held or "no validation part",
            recipe.precision,
        ]
    )


SHAKE_SHAKE = {"epochs": 1800, "batch_size": 256, "learning_rate": 0.01, "weight_decay": 1e-3}
TRANSFORMER = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "warmup": 5}
"""A transformer does not learn from SGD with the paper's learning rate. Optimizer, weight decay and
warm-up are those of DeiT (Touvron et al., ICML 2021, table 9). Deviation: the rate is fixed, where
DeiT has 5e-4 for 512 images and in proportion to the batch."""

FINE_TUNING = 10
"""By how much fine-tuning divides the epochs and the learning rate of a training from scratch."""


ROBUST = {"epochs": 20, "learning_rate": 0.05, "validation": 0.0}
"""Adversarial training costs several times as much per epoch, and nothing is selected by it."""


def usual(
    data: str, model: str, side: int, pretrained: str | None = None, robust: str | None = None
) -> dict[str, Any]:
    """Return the default training settings for a dataset and a network.

    Section 4.1 of the paper and its exception for Shake-Shake; a crop padding of 4 pixels for
    images of side 32, in proportion for others. Settings of the catalog take precedence, as for the
    embedded datasets, but for the optimizer, rate, weight decay and warm-up of a transformer.

    The paper fine-tunes "for some epochs" (section 4.3) and gives no recipe. The rule here, for
    every dataset, network and method: a tenth of the epochs and a tenth of the learning rate of the
    training from scratch, everything else as it is; 30 epochs from 0.01 for those of section 4.1.

    Args:
        data: Name of the dataset.
        model: Name of the network; ``timm:NAME.TAG`` names weights to start from as well.
        side: Side of the images in pixels.
        pretrained: The weights that the training starts from, by their name in recipes.
        robust: Adversarial training; the images of embedded datasets keep their epochs.

    Returns:
        Fields of a `Recipe`.
    """
    settings: dict[str, Any] = {"padding": max(1, side // 8)}
    if model.startswith("shake-shake"):
        settings |= SHAKE_SHAKE
    if robust is not None:
        settings |= ROBUST
    settings |= dict(facts(data).training)
    if model == "vit-96-6":  # after the settings of the dataset, whose rate is one of SGD
        settings |= TRANSFORMER
    weights = model if pretrained is None and published.tagged(model) else pretrained
    if weights is not None:
        for name in ("epochs", "learning_rate"):
            settings[name] = settings.get(name, getattr(DEFAULT, name)) / FINE_TUNING
        settings |= {"epochs": max(1, round(settings["epochs"])), "pretrained": weights}
    return settings
