"""The design of a comparison: what is trained, with which settings, and what of it is done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from augmentations import Augmentation
from bench import registry
from bench.data import mixing, policies
from bench.data.dataset import Dataset
from bench.execution.workspace import Workspace
from bench.models import networks
from bench.points import find, guides
from bench.records.store import Store
from bench.records.validation import check_seeds
from bench.studies.jobs import Job
from bench.training import fine_tuning, robust
from bench.training.recipes import Optimizer, Precision, Recipe, Schedule, usual


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Training settings of a user; None keeps the default for the dataset and the network.

    Attributes:
        policy: Image operations such as ``"autoaugment"``; see `bench.data.policies`.
        mix: Image mixing such as ``"mixup"`` or ``"cutmix"``; see `bench.data.mixing`.
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: Initial learning rate.
        weight_decay: Weight decay of all parameters.
        optimizer: ``"sgd"`` or ``"adamw"``.
        schedule: Learning-rate schedule, ``"cosine"`` or ``"steps"``.
        warmup: Epochs of a rising learning rate before the schedule, fewer than all.
        padding: Pixels of padding of the random crop, from 0 to below the side of the images.
        flip: False: no image is mirrored, on a dataset whose images otherwise would be.
        validation: Share of the training images held out for validation, drawn by the seed.
        precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``: bfloat16 on a CUDA device that
            computes it natively.
        pretrained: Weights to start from: ``"timm"`` or ``"torchvision"``, each also with a tag as
            ``"timm:tv_in1k"``, or a safetensors file. The default epochs and learning rate are a
            tenth then; see `bench.training.recipes.usual`.
        robust: Adversarial training such as ``"sparse-at(k=20)"``; see `bench.training.robust`. It
            has fewer default epochs.

    Raises:
        ValueError: A value outside its range, or an unknown name.

    >>> TrainingOptions(epochs=0)
    Traceback (most recent call last):
    ValueError: epochs is 0: it must be at least 1
    """

    policy: str | None = None
    mix: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    warmup: int | None = None
    padding: int | None = None
    flip: bool | None = None
    validation: float | None = None
    precision: Precision | Literal["auto"] = "auto"
    pretrained: str | None = None
    robust: str | None = None

    def __post_init__(self) -> None:
        if self.policy is not None:
            policies.build(self.policy, side=32)
        if self.mix is not None:
            mixing.build(self.mix)
        Recipe(**self.given())
        if self.robust is not None:  # one text for one method, since keys depend on it
            canonical = robust.express(robust.build(self.robust))
            object.__setattr__(self, "robust", canonical)

    def check(self, data: Dataset) -> None:
        """Raise ``ValueError`` if a setting cannot have the effect that it names on a dataset.

        That is a crop that could leave nothing of an image, and ``flip=False`` where none is
        mirrored.
        """
        side = data.train.images.shape[-1]
        if self.flip is False and not data.flip:
            raise ValueError(f"the images of {data.name} are never mirrored: remove --no-flip")
        if self.padding is not None and self.padding >= side:
            raise ValueError(
                f"padding is {self.padding}: it must be below the side of the images, {side}"
            )

    def given(self) -> dict[str, Any]:
        """Return the fields of a recipe that are set here."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if value is not None and (name, value) != ("precision", "auto")
        }


@dataclass(frozen=True, kw_only=True)
class Design:
    """A grid of trainings: every network with every augmentation and guide, on the same seeds.

    Attributes:
        augmentations: Augmentations by name with options, as ``"gridmask(ratio=0.5)"``, or objects.
            A name may end in a fixed guide of its own, as ``"advmask + random"``.
        data: Name of a dataset of the workspace.
        models: Names of networks.
        seeds: Seeds, at least 0 and each once.
        guides: Fixed guides for the other augmentations that use one; empty: their defaults.
        points: Attack that finds the adversarial points; None: the dataset's own.
        training: Training settings.
        fresh: Rerun jobs that already have results.

    Raises:
        ValueError: Nothing to compare, an unknown name, or invalid seeds.
    """

    augmentations: tuple[str | Augmentation, ...]
    data: str
    models: tuple[str, ...] = ("resnet18",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    guides: tuple[str, ...] = ()
    points: str | None = None
    training: TrainingOptions = TrainingOptions()
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.augmentations or not self.models:
            raise ValueError("there is nothing to compare: give an augmentation and a model")
        check_seeds(self.seeds)
        admitted = tuple(
            admit(each) if isinstance(each, str) else each for each in self.augmentations
        )
        object.__setattr__(self, "augmentations", admitted)
        object.__setattr__(self, "models", tuple(map(networks.admit, self.models)))
        if self.points is not None:
            object.__setattr__(self, "points", registry.admit("attacks", self.points))

    def recipes(self, workspace: Workspace) -> list[Recipe]:
        """Return one recipe per network, augmentation and guide.

        Raises:
            ValueError: A guide that does not exist or has no effect.
        """
        data = workspace.dataset(self.data)
        side = data.train.images.shape[-1]
        self._try_networks(data)
        methods = self._methods(data.name, side)
        self.training.check(data)
        common = {"precision": native_precision(workspace.device)}
        points: str | None = find.chosen_attack(data.name, self.points)
        if points == find.chosen_attack(data.name, find.SPARSE):
            points = None  # as in the recipes of version 0.1
        found: list[Recipe] = []
        for model in self.models:
            given = self.training.given()
            if self.training.policy is not None:
                given["policy"] = policies.resolve(self.training.policy, data.name)
            if "pretrained" in given:
                given["pretrained"] = fine_tuning.identify(given["pretrained"], model)
            known = usual(data.name, model, side, given.get("pretrained"), given.get("robust"))
            settings = common | known | given
            _check_warmup(given.get("warmup"), settings.get("epochs", Recipe.epochs))
            for method, guide in methods:
                own = Recipe(
                    data=data.name, digest=data.pin, model=model, augmentation=method, **settings
                )
                for recipe in _guided(own, guide, self.guides):
                    if guides.from_points(recipe):
                        recipe = replace(recipe, points=points)
                    guides.check(recipe, data, workspace)
                    if recipe not in found:
                        found.append(recipe)
        self._refuse_unused(found)
        return found

    def _refuse_unused(self, found: Sequence[Recipe]) -> None:
        """Refuse a guide and an attack that no recipe uses."""
        if self.points is not None and not any(map(guides.from_points, found)):
            raise ValueError(
                f"--points-from {self.points} has no effect on what is compared; remove it, or add "
                "--aug advmask"
            )
        if self.guides and not any(map(guides.takes, found)):
            raise ValueError(
                f"--guide {self.guides[0]} has no effect on what is compared; remove it, or add "
                "--aug advmask"
            )

    def _methods(self, data: str, side: int) -> list[tuple[Augmentation, str | None]]:
        """Return each augmentation with the guide that its text ends in."""
        found: list[tuple[Augmentation, str | None]] = []
        for each in self.augmentations:
            if isinstance(each, str):
                text, guide = split_guide(each)
                found.append((registry.build("augmentations", text, data=data, side=side), guide))
            else:
                found.append((each, None))
        return found

    def _try_networks(self, data: Dataset) -> None:
        """Refuse networks of a user's own that do not fit the dataset before anything slow."""
        for model in self.models:
            if networks.factory(model) is not None:
                networks.build_for(data, model, seed=0)

    def jobs(self, workspace: Workspace) -> list[Job]:
        """Return every training of the grid."""
        return [
            Job(recipe, seed, fresh=self.fresh)
            for recipe in self.recipes(workspace)
            for seed in self.seeds
        ]


def _check_warmup(warmup: int | None, epochs: int) -> None:
    """Refuse a warm-up that a user asks for and that no epoch of the schedule would follow."""
    if warmup is not None and warmup >= epochs:
        raise ValueError(f"warmup is {warmup}: it must be below the number of epochs, {epochs}")


def split_guide(text: str) -> tuple[str, str | None]:
    """Split an augmentation, written as tables name it, from its fixed guide.

    Args:
        text: As ``"advmask(size=4) + random"``.

    Returns:
        The augmentation and its guide; None for an augmentation without one.
    """
    found = re.fullmatch(r"(.*?)\s+\+\s+([\w.-]+)", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, None)


def _guided(own: Recipe, guide: str | None, common: Sequence[str]) -> list[Recipe]:
    """Return a recipe with its own guide, or else with each of the common ones.

    Raises:
        ValueError: It uses no guide, but has one of its own.
    """
    if not guides.takes(own):
        if guide is not None:
            raise ValueError(
                f"{registry.express(own.augmentation)} uses no guide: leave out + {guide}"
            )
        return [own]
    wanted = common if guide is None else (guide,)
    # the default guide by its name gives the same recipe
    return [own if each == guides.needed(own) else replace(own, guide=each) for each in wanted] or [
        own
    ]


def admit(text: str) -> str:
    """Check an augmentation, with or without a guide, as `registry.admit` does.

    Raises:
        ValueError: There is no such augmentation, or it has no such option.
    """
    name, guide = split_guide(text)
    admitted = registry.admit("augmentations", name)
    registry.build("augmentations", admitted)
    return admitted if guide is None else f"{admitted} + {guide}"


def native_precision(device: str) -> Precision:
    """Return bfloat16 if the device computes it natively, else float32."""
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


@dataclass(frozen=True)
class PlannedJob:
    """A job of a design, as ``--dry-run`` shows it.

    Attributes:
        job: The job.
        done: Whether its record exists.
    """

    job: Job
    done: bool

    def to_json(self) -> dict[str, Any]:
        """Return the job as ``--dry-run --json`` prints it."""
        recipe = self.job.recipe
        return {
            "augmentation": registry.express(recipe.augmentation),
            "model": recipe.model,
            "data": recipe.data,
            "seed": self.job.seed,
            "epochs": recipe.epochs,
            "guide": recipe.guide,
            "policy": recipe.policy,
            "mix": recipe.mix,
            "robust": recipe.robust,
            "done": self.done,
        }

    def __str__(self) -> str:
        recipe = self.job.recipe
        method = recipe.method(registry.express(recipe.augmentation))
        return (
            f"{'done' if self.done else 'to run':7} {method.name}  "
            f"{recipe.model}  {recipe.data}  seed {self.job.seed}, {recipe.epochs} epochs"
        )


def plan(wanted: Sequence[Job], workspace: Workspace) -> list[PlannedJob]:
    """Return which jobs would run and which are done.

    Args:
        wanted: The jobs.
        workspace: The results folder.
    """
    done = Store(workspace.results).find(job.name for job in wanted if not job.fresh)
    return [PlannedJob(job, job.name in done) for job in wanted]
