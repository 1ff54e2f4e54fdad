"""How attacks are evaluated: a trial is one attack on one victim."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    ``victim`` and ``data`` are JSON that pins the network and the pictures, ``eps`` is kept as it
    was typed, ``query_cap`` the most forwards and backwards together of a picture. ``matched`` is
    the key of another trial: for each picture the attack then makes as many changes (its ``count``)
    as that one made pixels change, or as its median where that one failed.
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
            raise ValueError(f"images is {self.images}: attack at least 1 picture")
        if self.query_cap is not None and self.query_cap < 1:
            raise ValueError(f"query_cap is {self.query_cap}: allow at least 1 pass")

    @property
    def bounded(self) -> bool:
        """Whether the attack promises to keep within eps."""
        return traits(self.attack).bounded

    @property
    def bound(self) -> float | None:
        """The largest change of a value that the judge allows; None for an unbounded attack."""
        return float(Fraction(self.eps)) if self.bounded else None

    @property
    def name(self) -> str:
        """How a user calls the attack: without the eps, which a whole table has in common."""
        method: Any = self.attack
        if getattr(method, "eps", None) is not None:
            method = replace(method, eps=type(method)().eps)
        text = registry.express(method)
        return text if self.matched is None else f"{text}, as many pixels"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON; those that are None are left out."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return fields | {"attack": registry.express(self.attack)}

    @property
    def key(self) -> str:
        """Names the trial without its seed."""
        return key(self.to_json())

    @property
    def attacked(self) -> dict[str, Any]:
        """What determines how a picture is attacked: blocks serve trials of more pictures, too."""
        fields = self.to_json()
        if self.matched is None:  # else the counts depend on all pictures
            del fields["images"]
        return fields


class _Reached(Exception):
    """An attack went as far as asking the network."""


class _Unasked(nn.Module):
    """A network that answers nothing."""

    def forward(self, images: Tensor) -> Tensor:
        raise _Reached


def applies(trial: Trial, image: Images, label: Int[Tensor, " 1"], classes: int) -> str:
    """Empty if the attack can do what is asked, else its own words why it cannot.

    It is tried on a picture up to its first forward, before which an attack refuses what it cannot.
    """
    targeted = trial.aim != "untargeted"
    goal = Goal((label + 1) % classes if targeted else label, targeted)
    try:
        trial.attack(_Unasked(), image.clone(), goal, [seeds.generator(0, "probe")])
    except ValueError as error:
        return str(error)
    except Exception:
        return ""  # what goes wrong in the trial is counted there
    return ""


def folder(trial: Trial, seed: int, workspace: Workspace) -> Path:
    """Where the blocks of a trial lie."""
    return workspace.results / "attacks" / f"{key(trial.attacked)}-{seed}"


def changes(outcome: Outcome) -> Int[Tensor, " n"]:
    """The pixels that each picture needed, the median of the others where the attack failed."""
    won, counts = outcome.verdict.success, outcome.verdict.l0_pixels
    usual = counts[won].median() if won.any() else counts.new_tensor(1)
    return torch.where(won, counts, usual).clamp(min=1)
