"""The scales of the paper's experiments, and what its names of methods and networks mean here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from bench import registry
from bench.data import policies
from bench.data.catalog import facts
from bench.data.dataset import Dataset
from bench.models import published
from bench.points import find, guides
from bench.reporting.cells import Column
from bench.training.recipes import Recipe, usual


class OtherData(NamedTuple):
    """A dataset that a user chooses for an experiment.

    Attributes:
        name: Its name.
        side: The side of its images in pixels.
        digest: The checksum of its content, where its name does not identify it.
    """

    name: str
    side: int
    digest: str = ""

    @classmethod
    def of(cls, data: Dataset) -> OtherData:
        """Describe a dataset."""
        return cls(data.name, data.train.images.shape[-1], data.pin)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large an experiment is run.

    Attributes:
        name: How the option ``--scale`` calls it.
        about: What it is for, in words.
        seeds: Seeds of each recipe.
        data: The paper's datasets and what replaces them; ``*`` is any other.
        models: The paper's networks and what replaces them; ``*`` is any other.
        columns: How many of a table's columns are run; None for all.
        crops: The padding of the random crop, in pixels of a side of 32, by the paper's dataset;
            that of `usual` for others.
        tuned: The paper's datasets on which networks start from torchvision's ImageNet weights.
        settings: Fields of all recipes that differ from those of `usual`.
        other: The dataset that a user has chosen in place of all of the paper's.
    """

    name: str
    about: str
    seeds: int
    data: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    columns: int | None = None
    crops: Mapping[str, int] = field(default_factory=dict)
    tuned: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    other: OtherData | None = None

    def on(self, data: OtherData) -> Scale:
        """The same scale with another dataset in place of all of the paper's."""
        return replace(self, data={"*": data.name}, other=data)

    def place(self, data: str) -> tuple[str, int]:
        """What stands here for a dataset of the paper, and the side of its images."""
        name = self.data.get(data, self.data.get("*", data))
        return name, self.other.side if self.other else facts(name).side

    def recipe(self, data: str, model: str, augmentation: str = "none", **fields: Any) -> Recipe:
        """The recipe of one cell: the paper's, or what replaces it at this scale."""
        crop, tuned = self.crops.get(data), data in self.tuned and self.other is None
        data, side = self.place(data)
        protocol = {} if crop is None else {"padding": max(1, crop * side // 32)}
        model = self.models.get(model, self.models.get("*", model))
        weights = published.usual(model) if tuned else None
        if "policy" in fields:
            fields["policy"] = policies.resolve(fields["policy"], data)
        recipe = Recipe(
            data=data,
            digest=self.other.digest if self.other else "",
            model=model,
            augmentation=registry.build("augmentations", augmentation, data=data, side=side),
            **(usual(data, model, side, weights) | protocol | fields | dict(self.settings)),
        )
        if guides.from_points(recipe):
            return replace(recipe, points=find.chosen_attack(data))
        return recipe


FLOWERS = "flowers102(side=224)"
SCALES = {
    "smoke": Scale(
        name="smoke",
        about="embedded digits and a small network, two epochs: shows that everything runs",
        seeds=2,
        data={"*": "digits"},
        models={"*": "resnet8"},
        columns=1,
        settings={"epochs": 2},
    ),
    "reduced": Scale(
        name="reduced",
        about="2,000 images and a ResNet-20 for 60 epochs: hours to days on two cores",
        seeds=5,
        data={
            "tiny-imagenet": "tiny-imagenet(train=2000, test=4000)",
            FLOWERS: "flowers102",
            "*": "cifar10(train=2000, test=4000)",
        },
        models={"*": "resnet20"},
        columns=1,
        settings={"epochs": 60},
    ),
    "paper": Scale(
        name="paper",
        about="the paper's own settings: for GPUs",
        seeds=5,
        crops={"cifar10": 2, "cifar100": 2},  # section 4.2: out of 36x36
        tuned=frozenset({"tiny-imagenet", FLOWERS}),  # section 4.3; for flowers it is an assumption
        settings={"validation": 0.0},
    ),
}

DELETION = {
    "Baseline": "none",
    "Cutout": "cutout",
    "HaS": "has",
    "GridMask": "gridmask",
    "Random Erasing": "random-erasing",
    "AdvMask": "advmask",
}
MODELS = {
    "ResNet-18": "resnet18",
    "ResNet-44": "resnet44",
    "ResNet-50": "resnet50",
    "WRN-28-10": "wrn-28-10",
    "Shake-26-32": "shake-shake-26-2x32d",
    "WRN-50-2": "wide-resnet50-2",
}
DATA = {
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "Tiny-ImageNet": "tiny-imagenet",
    "Flowers": FLOWERS,
}
Places = Mapping[Column, tuple[str, str]]
"""The dataset and the network of each column, as this project names them."""


def places(data: Sequence[str], models: Sequence[str]) -> Places:
    """A column for each of the paper's datasets and networks."""
    return {Column(m, group=d): (DATA[d], MODELS[m]) for d in data for m in models}


OTHERS: dict[str, dict[str, Any]] = {
    "Mixup": {"mix": "mixup"},
    "CutMix": {"mix": "cutmix"},
    "AutoAugment": {"policy": "autoaugment"},
    "Fast-AutoAugment": {"policy": "fast-autoaugment"},
    "TrivialAugment": {"policy": "trivialaugment"},
}
BEYOND: dict[str, dict[str, Any]] = {
    "AutoAugment + Cutout": {"policy": "autoaugment.published"},
    "TrivialAugment + Cutout": {"policy": "trivialaugment.published"},
    "RandAugment + Cutout": {"policy": "randaugment.published"},
    "AugMix": {"policy": "augmix"},
    "Manifold Mixup": {"mix": "manifold-mixup"},
    "SaliencyMix": {"mix": "saliencymix"},
    "GridDropout": {"augmentation": "grid-dropout"},
}
"""Augmentations that are not in the paper, as their own papers train with them."""
COVERED = "gridmask(ratio=0.41, share=Ramp(0.0, 0.8))"
"""A GridMask that deletes 32.8 % of an image of CIFAR-10 (over 4,096 masks), as AdvMask does on the
points of a ResNet-20 and 128 training images of cifar10-jpeg, on the same share of the images. On
the points that its authors released AdvMask deletes 31.7 %."""
