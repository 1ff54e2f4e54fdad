"""The design of an attack study: which attacks, on what, within which bounds, and what is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from numbers import Rational, Real
from typing import Any

import numpy as np

from attacks import Attack
from bench import registry
from bench.data.dataset import Dataset
from bench.execution.workspace import Workspace
from bench.records.store import Store
from bench.robustness import trials
from bench.robustness.judge import Aim
from bench.robustness.trials import Trial
from bench.training.victims import Victim

Number = float | Fraction | np.floating[Any] | np.integer[Any] | str
"""What an eps may be given as."""
IMAGES = 6
"""Default number of images: few enough for all attacks and the training of a victim model to end
within three minutes on two cores, though VFGA has up to 22 passes for each of 3,072 elements."""


@dataclass(frozen=True, kw_only=True)
class AttackDesign:
    """Attacks on one victim model, at one or several bounds.

    Attributes:
        victim: The victim model.
        attacks: Attacks by name with options, as ``"jsma(direction='both')"``, or objects; empty:
            every attack that can reach the goal and is not made of others.
        eps: Largest change of a value in [0, 1], each above 0 and at most 1.
        images: Number of correctly classified test images to attack.
        aim: ``"untargeted"``, or how target classes are chosen.
        query_cap: Most forward and backward passes of an image together; None: no limit.
        batch_size: Images attacked as one batch; None: `bench.robustness.evaluation.usual_batch`.
        seeds: Seeds of targets and draws, and of a victim model that is trained here.
        fresh: Rerun attacks that already have results.
    """

    victim: Victim
    attacks: tuple[str | Attack, ...] = ()
    eps: tuple[Fraction, ...] = (Fraction(8, 255),)
    images: int = IMAGES
    aim: Aim = "untargeted"
    query_cap: int | None = None
    batch_size: int | None = None
    seeds: tuple[int, ...] = (0,)
    fresh: bool = False

    def trials(self, eps: Fraction, data: Dataset) -> list[Trial]:
        """Return one trial per attack.

        ``noise`` comes last, and changes as many pixels as ``advmask`` if both are in the design.

        Args:
            eps: The bound.
            data: Dataset whose test images are attacked.

        Raises:
            ValueError: Unknown attack or option, or an attack with another eps.
        """
        single = (
            n for n, c in registry.classes("attacks").items() if not getattr(c, "combined", False)
        )
        wanted = self.attacks or tuple(single)
        built: dict[str, Attack] = {}
        for each in wanted:
            if isinstance(each, str):
                each = registry.admit("attacks", each)
            text = each if isinstance(each, str) else registry.express(each)
            if isinstance(each, str) or registry.writable(each):
                attack = registry.build("attacks", text, eps=float(eps))
            else:
                attack = _with_eps(each, float(eps))
            own = getattr(attack, "eps", None)
            if own is not None and own != float(eps):
                raise ValueError(
                    f"the eps of {text} differs from --eps {eps}; remove it from the attack"
                )
            built[text] = attack
        common: dict[str, Any] = {
            "victim": self.victim.name,
            "data": f"{data.name} {data.digest}",
            "eps": str(eps),
            "aim": self.aim,
            "images": self.images,
            "query_cap": self.query_cap,
        }
        found = {text: Trial(attack=attack, **common) for text, attack in built.items()}
        if {"advmask", "noise"} <= set(found):
            noise = found.pop("noise")  # runs last, when AdvMask's counts are known
            matched = found["advmask"].key
            found["noise"] = Trial(attack=noise.attack, **common, matched=matched)
        return list(dict.fromkeys(found.values()))

    def applicable(self, data: Dataset, say: Callable[[str], None]) -> dict[Fraction, list[Trial]]:
        """Return the trials of each eps whose attack can reach the aim.

        Args:
            data: Dataset whose test images are attacked.
            say: Called with one line for each attack that is left out.

        Raises:
            ValueError: An attack that was named cannot reach the aim.
        """
        image, label = data.test.images[:1].float() / 255, data.test.labels[:1]
        found: dict[Fraction, list[Trial]] = {}
        left_out: dict[str, str] = {}
        for eps in self.eps:
            found[eps] = []
            for trial in self.trials(eps, data):
                reason = trials.refusal(trial, image, label, len(data.classes))
                if reason and self.attacks:
                    raise ValueError(f"{trial.name}: {reason}")
                if reason:
                    left_out[trial.name] = reason
                else:
                    found[eps].append(trial)
        for name, reason in left_out.items():
            say(f"Not applicable: {name}: {reason}")
        return found


def _with_eps(attack: Any, eps: float) -> Any:
    """An attack that no text builds, with an eps where it has its default one."""
    if "eps" not in {field.name for field in fields(attack)}:
        return attack
    return replace(attack, eps=eps) if attack.eps == type(attack)().eps else attack


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of a design, as ``--dry-run`` shows it.

    Attributes:
        trial: The trial.
        seed: Its seed.
        done: Whether its record exists.
        images_stored: Whether its images are stored, so that a run does not attack them again;
            None where nobody looked.
    """

    trial: Trial
    seed: int
    done: bool
    images_stored: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the trial as ``--dry-run --json`` prints it."""
        return {
            "attack": self.trial.name,
            "eps": self.trial.eps,
            "goal": self.trial.aim,
            "victim": self.trial.victim,
            "data": self.trial.data,
            "images": self.trial.images,
            "seed": self.seed,
            "done": self.done,
            "images_stored": self.images_stored,
        }

    def __str__(self) -> str:
        trial = self.trial
        return (
            f"{'done' if self.done else 'to run':7} {trial.name}  eps {trial.eps}, {trial.aim}, "
            f"{trial.images} images of {trial.data}, {trial.victim}, seed {self.seed}"
        )


def plan(
    design: AttackDesign, workspace: Workspace, say: Callable[[str], None]
) -> list[PlannedTrial]:
    """Return which trials of a design would run and which are done.

    Args:
        design: What to attack and how.
        workspace: The results folder.
        say: Called with one line for each attack that cannot reach the aim.
    """
    applicable = design.applicable(workspace.dataset(design.victim.data), say)
    wanted = [
        (trial, seed) for group in applicable.values() for trial in group for seed in design.seeds
    ]
    done = Store(workspace.results).find((trial.key, seed) for trial, seed in wanted)
    return [
        PlannedTrial(
            trial,
            seed,
            done=(trial.key, seed) in done and not design.fresh,
            images_stored=trials.folder(trial, seed, workspace).is_dir(),
        )
        for trial, seed in wanted
    ]


def fraction(eps: Number) -> Fraction:
    """Return an eps as an exact fraction; a float that is n/255 becomes that fraction.

    Args:
        eps: Number, of NumPy too, or text, such as ``8 / 255``, ``"8/255"`` or ``"0.03"``.

    Raises:
        ValueError: Not a number, or not above 0 and at most 1.

    >>> fraction(8 / 255), fraction("0.03")
    (Fraction(8, 255), Fraction(3, 100))
    """
    number: Any = eps
    near = None
    if isinstance(number, Real) and not isinstance(number, Rational):
        if not math.isfinite(number):
            raise ValueError(f"eps is {eps}: it must be above 0 and at most 1, which is no bound")
        near = Fraction(round(float(number) * 255), 255)
    try:
        exact = near is not None and type(number)(float(near)) == number
        found = near if near is not None and exact else Fraction(str(number))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"eps is {eps!r}: write it as 8/255 or 0.03") from None
    if not 0 < found <= 1:
        raise ValueError(f"eps is {eps}: it must be above 0 and at most 1, such as 8/255")
    return found
