"""The worst case of several attacks: for each image the one that needs the fewest pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks import traits
from bench.records.record import Record
from bench.robustness.judge import Verdict
from bench.robustness.metrics import Outcome, join, summarise
from bench.robustness.trials import Trial

NAME = "worst case"


@dataclass(frozen=True)
class WorstCase:
    """What several attacks reach together.

    Attributes:
        record: The metrics, as those of an attack; shown and not stored.
        shares: Share of the broken images on which each attack needs the fewest pixels, by name,
            the largest first. Attacks that tie share an image.
    """

    record: Record
    shares: Mapping[str, float]

    def __str__(self) -> str:
        parts = [f"{name} {100 * share:.0f} %" for name, share in self.shares.items() if share]
        if not parts:
            return ""
        return f"Fewest pixels of the broken images, ties shared: {', '.join(parts)}"


def worst_case(
    trials: Mapping[Trial, Sequence[Outcome]], seed: int, labels: Mapping[str, str]
) -> WorstCase | None:
    """Combine the sparse attacks of one table that keep within eps.

    An image counts with the attack that succeeds with the fewest changed pixels, and its passes and
    seconds are those of all attacks together.

    Args:
        trials: One outcome per goal for each trial, at one eps.
        seed: The seed.
        labels: Labels of the record: victim model, architecture and dataset.

    Returns:
        None for fewer than two such attacks.
    """
    members = {
        trial: outcomes
        for trial, outcomes in trials.items()
        if trial.bounded and traits(trial.attack).role == "sparse"
    }
    if len(members) < 2:
        return None
    combined, distances = [], []
    for outcomes in zip(*members.values(), strict=True):
        pixels = np.stack([each.verdict.distance("pixels") for each in outcomes])
        combined.append(_pick(outcomes, torch.from_numpy(pixels.argmin(0))))
        distances.append(pixels)
    first = next(iter(members))
    record = Record(
        kind="attack",
        key=NAME,
        seed=seed,
        labels={
            "attack": NAME,
            "hyperparameters": "",
            "eps": first.eps,
            "goal": first.aim,
            "bounded": "yes",
            "role": "worst",
            **labels,
        },
        metrics=summarise(combined),
        job=first.to_json(),
    )
    whole = np.concatenate(distances, axis=1)
    return WorstCase(record, _shares([trial.name for trial in members], whole))


def _pick(outcomes: Sequence[Outcome], chosen: Tensor) -> Outcome:
    """The outcome of one goal whose verdict is that of the chosen attack, image by image."""
    verdicts = [outcome.verdict for outcome in outcomes]
    fields = {
        field.name: torch.stack([getattr(verdict, field.name) for verdict in verdicts])
        .gather(0, chosen[None])[0]
        for field in dataclasses.fields(Verdict)
    }  # fmt: skip
    whole = join(outcomes)
    return Outcome(
        verdict=Verdict(**fields),
        forwards=torch.stack([outcome.forwards for outcome in outcomes]).sum(0),
        backwards=torch.stack([outcome.backwards for outcome in outcomes]).sum(0),
        seconds=whole.seconds,
        passing=whole.passing,
        memory=whole.memory,
        errors={},
    )


def _shares(names: Sequence[str], pixels: np.ndarray) -> dict[str, float]:
    broken = np.isfinite(pixels).any(0)
    if not broken.any():
        return {}
    best = pixels[:, broken] == pixels[:, broken].min(0)
    shares = (best / best.sum(0)).mean(1)
    order = np.argsort(-shares, kind="stable")
    return {names[place]: float(shares[place]) for place in order}
