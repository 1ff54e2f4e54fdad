"""Records of an attack evaluation, and pairwise tests of its attacks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attacks import Unit, traits
from bench import registry
from bench.records.over_images import paired_images, relate_units
from bench.records.record import Record
from bench.records.statistics import holm
from bench.robustness.judge import Verdict
from bench.robustness.metrics import Outcome, curve, join, per_image, summarise, trace
from bench.robustness.trials import Trial


def attack_records(
    trials: Mapping[Trial, Sequence[Outcome]],
    seed: int,
    labels: Mapping[str, str],
    machine: Mapping[str, str],
    metrics: Mapping[str, float],
) -> list[Record]:
    """Return the records of the attacks of one table (one eps and seed).

    Attacks that are not sparse are compared to the others, but do not define the best or the common
    images; those that ignore eps are not compared.

    Args:
        trials: One outcome per goal for each trial.
        seed: The seed.
        labels: Labels of all records: victim model, architecture and dataset.
        machine: What the records say about the machine.
        metrics: Metrics of all records, such as the accuracy of the victim model.
    """
    wholes = {trial: join(outcomes) for trial, outcomes in trials.items()}
    units: tuple[Unit, ...] = ("pixels", "elements")
    related = relate_units(
        {
            unit: {
                trial.key: np.asarray(whole.verdict.distance(unit))
                for trial, whole in wholes.items()
                if trial.bounded
            }
            for unit in units
        },
        [trial.key for trial in trials if traits(trial.attack).role != "sparse"],
    )
    return [
        Record(
            kind="attack",
            key=trial.key,
            seed=seed,
            labels={
                "attack": trial.name,
                "hyperparameters": registry.express(trial.attack),
                "eps": trial.eps,
                "goal": trial.aim,
                "bounded": "yes" if trial.bounded else "no",
                "role": traits(trial.attack).role,
                **labels,
            },
            metrics={**metrics, **summarise(outcomes), **related.get(trial.key, {})},
            job=trial.to_json(),
            machine=machine,
            message=problems(wholes[trial]),
            curve=curve(wholes[trial].verdict),
            trace=trace(outcomes),
            images=per_image(outcomes),
        )
        for trial, outcomes in trials.items()
    ]


def matched_outcomes(trial: Trial, table: Mapping[Trial, list[Outcome]]) -> list[Outcome] | None:
    """The outcomes whose counts of changed pixels a trial uses; None for one that uses none."""
    return next((table[each] for each in table if each.key == trial.matched), None)


def problems(outcome: Outcome) -> str:
    """Describe what went wrong with some images; empty if nothing did."""
    verdict = outcome.verdict
    counts = {
        "not finite": int(verdict.not_finite.sum()),
        "outside [0, 1]": int(verdict.outside_box.sum()),
        "beyond eps": int(verdict.beyond_eps.sum()),
        "outside the region": int(verdict.outside_region.sum()),
        "raised": len(outcome.errors),
    }
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    if outcome.errors:
        parts.append(next(iter(outcome.errors.values())))
    return "; ".join(parts)


def pairwise_tests(trials: Mapping[Trial, Sequence[Outcome]]) -> list[dict[str, Any]]:
    """Compare every two bounded sparse attacks by Wilcoxon's signed-rank test on the same images.

    It is applied to the number of changed pixels, and to that of changed elements, each with Holm's
    correction over all pairs. With several goals per image (all other classes) an image has the
    mean over its goals, infinity where one of them fails, since goals that share an image are not
    independent.

    Args:
        trials: One outcome per goal for each trial.

    Returns:
        One object per unit and pair: ``unit``, ``attack``, ``other``, the fields of
        `bench.records.statistics.paired_images`, and ``p_holm``; ``p`` is None and ``p_holm``
        missing where no image differs.
    """
    rivals = {
        trial.name: [outcome.verdict for outcome in outcomes]
        for trial, outcomes in trials.items()
        if trial.bounded and traits(trial.attack).role == "sparse"
    }
    return _tests(rivals, "pixels") + _tests(rivals, "elements")


def _tests(rivals: Mapping[str, Sequence[Verdict]], unit: Unit) -> list[dict[str, Any]]:
    distances = {
        name: np.mean([verdict.distance(unit) for verdict in verdicts], axis=0)
        for name, verdicts in rivals.items()
    }
    found = [
        {"unit": unit, "attack": a, "other": b, **vars(paired_images(distances[a], distances[b]))}
        for a, b in itertools.combinations(distances, 2)
    ]
    tested = [entry for entry in found if entry["p"] is not None]
    if tested:
        for entry, p in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
            entry["p_holm"] = p
    return found


def comparison_line(tests: Sequence[Mapping[str, Any]], attack: str, unit: Unit = "pixels") -> str:
    """Return one line on which attacks need more or fewer changes than one attack.

    Args:
        tests: Results of `pairwise_tests`.
        attack: Name of the attack.
        unit: What counts as a change.

    Returns:
        The line; empty if no test involves the attack. It says how many images it takes where so
        many tests cannot show a difference on so few.
    """
    groups: dict[str, list[str]] = {"fewer": [], "more": [], "unclear": []}
    tested = [pair for pair in tests if pair["unit"] == unit and pair["p"] is not None]
    for pair in tested:  # without a difference on any image there is no evidence
        if attack not in (pair["attack"], pair["other"]):
            continue
        first = pair["attack"] == attack
        ranks = pair["ranks"] if first else -pair["ranks"]
        clear = pair.get("p_holm", 1.0) < 0.05
        verdict = "unclear" if not clear else "fewer" if ranks < 0 else "more"
        groups[verdict].append(pair["other"] if first else pair["attack"])
    unclear = groups.pop("unclear")
    parts = [f"{word} {unit} than {', '.join(others)}" for word, others in groups.items() if others]
    found = [f"{attack} needs {'; '.join(parts)}"] if parts else []
    if unclear:
        found.append(f"no difference in {unit} is shown between {attack} and {', '.join(unclear)}")
    if not found:
        return ""
    test = "Wilcoxon on the same images, Holm's correction, p < 0.05"
    return f"{'; '.join(found)} ({test}{_too_few(tested)})"


def _too_few(tested: Sequence[Mapping[str, Any]]) -> str:
    """That the images are too few for so many tests; empty where they suffice.

    The smallest p-value on n images, all of which differ in the same direction, is 2^(1 - n), and
    Holm's correction multiplies it by the number of tests.
    """
    images = max(pair["less"] + pair["more"] + pair["same"] for pair in tested)
    needed = math.floor(1 + math.log2(len(tested) / 0.05)) + 1
    if images >= needed or any(pair.get("p_holm", 1.0) < 0.05 for pair in tested):
        return ""
    return f"; {len(tested)} tests on {images} images can show none: it takes {needed}"
