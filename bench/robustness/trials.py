"""The trial: one attack on one victim model, and how it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks import Attack, Goal, traits
from attacks.base import Images
from bench import registry
from bench.data import seeds
from bench.execution.workspace import Workspace
from bench.files.checksums import key
from bench.robustness.judge import Aim
from bench.robustness.metrics import Outcome


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one attack is evaluated.

    Attributes:
        attack: The attack.
        victim: Text that identifies the victim model.
        data: Name and checksum of the dataset.
        eps: Largest change of a value, as the user typed it.
        aim: ``"untargeted"``, or how target classes are chosen.
        images: Number of images.
        query_cap: Most forward and backward passes of an image together; None: no limit.
        matched: Key of another trial, or None. The attack changes each image as often (its option
            ``count``) as the other trial changed its pixels, or as that trial's median where it
            failed.

    Raises:
        ValueError: No image, or no pass.
    """

    attack: Attack
    victim: str
    data: str
    eps: str
    aim: Aim = "random"
    images: int = 16
    query_cap: int | None = None
    matched: str | None = None

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images is {self.images}: it must be at least 1")
        if self.query_cap is not None and self.query_cap < 1:
            raise ValueError(f"query_cap is {self.query_cap}: it must be at least 1")

    @property
    def bounded(self) -> bool:
        """Whether the attack keeps within eps."""
        return traits(self.attack).bounded

    @property
    def bound(self) -> float | None:
        """Largest change of a value that the judge allows; None for an unbounded attack."""
        return float(Fraction(self.eps)) if self.bounded else None

    @property
    def name(self) -> str:
        """Name of the attack in tables: its options without eps, which a table has in common.

        An attack that ignores the eps of its table, since its own is None, has that in its name.
        """
        method: Any = self.attack
        free = getattr(method, "eps", 0) is None
        if not free and "eps" in {field.name for field in fields(method)}:
            method = replace(method, eps=type(method)().eps)
        text = registry.short(method, always=("eps",) if free else ())
        return text if self.matched is None else f"{text}, as many pixels"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without those that are None."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return given | {"attack": registry.express(self.attack)}

    @property
    def key(self) -> str:
        """Hash of the JSON form, which identifies the trial without its seed."""
        return key(self.to_json())

    @property
    def attacked(self) -> dict[str, Any]:
        """What determines how an image is attacked; blocks also serve trials of more images."""
        determining = self.to_json()
        if self.matched is None:  # the counts of a matched trial depend on all images
            del determining["images"]
        return determining


class _NetworkCalled(Exception):
    """An attack has called the network."""


class _SilentNetwork(nn.Module):
    """A network that raises an exception instead of returning logits."""

    def forward(self, images: Tensor) -> Tensor:
        raise _NetworkCalled


def refusal(trial: Trial, image: Images, label: Int[Tensor, " 1"], classes: int) -> str:
    """Return why an attack refuses a trial, in its own words; empty if it does not.

    The attack is tried on one image until its first forward pass; it checks its options before.

    Args:
        trial: The trial.
        image: One image in [0, 1], shape (1, c, h, w).
        label: Its class, shape (1,).
        classes: Number of classes.
    """
    targeted = trial.aim != "untargeted"
    goal = Goal((label + 1) % classes if targeted else label, targeted)
    try:
        trial.attack(_SilentNetwork(), image.clone(), goal, [seeds.generator(0, "probe")])
    except ValueError as error:
        return str(error)
    except Exception:
        return ""  # the trial counts other errors
    return ""


def folder(trial: Trial, seed: int, workspace: Workspace) -> Path:
    """Return the folder of a trial's blocks."""
    return workspace.results / "attacks" / f"{key(trial.attacked)}-{seed}"


def change_counts(outcome: Outcome) -> Int[Tensor, " n"]:
    """Return the changed pixels of each image; the median of the others where it failed."""
    won, counts = outcome.verdict.success, outcome.verdict.l0_pixels
    usual = counts[won].median() if won.any() else counts.new_tensor(1)
    return torch.where(won, counts, usual).clamp(min=1)
