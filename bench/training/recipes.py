"""What can be run. The defaults of a `Recipe` are those of section 4.1 of the paper."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from augmentations import BUILTIN, Augmentation
from bench import registry
from bench.data.catalog import facts
from bench.files.checksums import key

Schedule = Literal["cosine", "steps"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained.

    ``data`` names a data set or a part of one (``"cifar10(train=2000)"``); ``digest`` pins the
    content of an image folder, whose name alone says little. ``guide`` None is the one the
    augmentation asks for. ``schedule`` is a cosine to zero or the paper's steps (Figure 7: times
    0.2 at 20, 40, 53, 73 and 93 % of the epochs). ``padding`` are the pixels of the random crop,
    ``validation`` the share of the training part set aside by the seed.
    """

    data: str = "cifar10"
    digest: str = ""
    model: str = "resnet18"
    augmentation: Augmentation = dataclasses.field(default_factory=lambda: BUILTIN["none"]())
    guide: str | None = None
    policy: str | None = None
    mix: str | None = None
    epochs: int = 300
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    padding: int = 4
    validation: float = 0.1
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}: it must not be negative")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: it must be from 0 up to but not 1")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}: it must be from 0 up to but not 1")

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as JSON values; methods as their text."""
        return {
            field.name: registry.express(value) if field.name == "augmentation" else value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != getattr(DEFAULT, field.name)
        }

    @classmethod
    def from_json(cls, job: dict[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote; raises ``ValueError`` for anything else."""
        unknown = set(job) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"this recipe has unknown fields: {', '.join(sorted(unknown))}")
        fields = dict(job)
        if "augmentation" in fields:
            text = str(fields["augmentation"])
            fields["augmentation"] = registry.build("augmentations", text)
        for name in fields.keys() - {"augmentation"}:
            fields[name] = registry.checked(cls, "recipe", name, fields[name])
        return cls(**fields)

    @property
    def key(self) -> str:
        """Names the job without its seed: a hash of its JSON, in which defaults are left out."""
        return key(self.to_json())


DEFAULT = Recipe()


SHAKE_SHAKE = {"epochs": 1800, "batch_size": 256, "learning_rate": 0.01, "weight_decay": 1e-3}


def usual(data: str, model: str, side: int) -> dict[str, Any]:
    """The training settings that are used for a data set and a model unless others are asked for.

    Section 4.1 of the paper and its exception for Shake-Shake; the crop padding of 4 pixels belongs
    to images of side 32 and grows with the side. Where the catalog has settings for the dataset,
    as for the embedded ones, those go first.
    """
    settings: dict[str, Any] = {"padding": max(1, side // 8)}
    if model.startswith("shake-shake"):
        settings |= SHAKE_SHAKE
    return settings | dict(facts(data).training)
