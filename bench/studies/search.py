"""Search the hyperparameters of augmentations, each with the same budget.

The search sees a validation split of the training images. What it found is then compared with the
published values on other seeds and the test images, which no choice has touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from augmentations import Augmentation
from bench import registry
from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.records.record import Record
from bench.records.statistics import Comparison, Interval, compare
from bench.records.store import Store
from bench.registry import notation
from bench.reporting.cells import comparison_entry
from bench.studies import comparison, search_spaces
from bench.studies.designs import Design
from bench.studies.jobs import Job
from bench.studies.tracking import TrackingOptions

REDUCTION = 3
"""One of so many candidates goes on, with so many times the epochs."""
LEVELS = 3
SEED = 1000
"""Seed of the trainings of a search; those of the comparison start from 0."""


@dataclass(frozen=True)
class Level:
    """A level of successive halving.

    Attributes:
        candidates: Number of candidates that are trained.
        epochs: Passes over the training images of each.
    """

    candidates: int
    epochs: int


def levels(budget: int | float, epochs: int) -> list[Level]:
    """Return the levels of a search: many candidates for a short time, the best ones longer.

    A third of the candidates of a level are trained anew with three times the epochs, the last ones
    with all (successive halving, Jamieson & Talwalkar, AISTATS 2016). Each training has a schedule
    of its own, so that short ones are not long ones cut off.

    Args:
        budget: What the search may cost, in trainings with all epochs.
        epochs: Passes over the training images of a whole training.

    Raises:
        ValueError: The budget does not even suffice for two candidates.

    >>> levels(3, 90)
    [Level(candidates=9, epochs=10), Level(candidates=3, epochs=30), Level(candidates=1, epochs=90)]
    """
    if not math.isfinite(budget):
        raise ValueError(f"the budget is {budget}: give a finite number of trainings")
    # few epochs have fewer levels: none trains what another one has trained
    powers = reversed(range(LEVELS))
    lengths = list(dict.fromkeys(max(1, epochs // REDUCTION**power) for power in powers))

    def plan(first: int) -> list[Level]:
        return [
            Level(max(1, first // REDUCTION**number), length)
            for number, length in enumerate(lengths)
        ]

    first = 1
    while cost(plan(first + 1)) <= budget * epochs:
        first += 1
    if first < 2:
        least = cost(plan(2)) / epochs
        raise ValueError(
            f"the budget of {budget:g} trainings is too small for a search: give at least "
            f"{least:.1f}"
        )
    return plan(first)


def cost(plan: Sequence[Level]) -> int:
    """Return the epochs of all trainings of a search."""
    return sum(level.candidates * level.epochs for level in plan)


@dataclass(frozen=True)
class Tried:
    """One training of a search.

    Attributes:
        augmentation: The candidate, as `registry.express` writes it.
        epochs: Passes over the training images.
        validation: Accuracy on the validation images after the last epoch; None if it failed.
        seconds: Seconds of the training.
    """

    augmentation: str
    epochs: int
    validation: float | None
    seconds: float


@dataclass(frozen=True)
class Searched:
    """The search of one augmentation, and what it gained.

    Attributes:
        name: Name of the augmentation.
        published: The published values, as `registry.express` writes them.
        best: The values with the best validation accuracy at the last level.
        tried: Every training of the search.
        whole: Epochs of a whole training.
        gain: The best values minus the published ones on the test images, paired by seed; None if
            they are the same.
    """

    name: str
    published: str
    best: str
    tried: Sequence[Tried]
    whole: int
    gain: Comparison | None

    @property
    def trainings(self) -> float:
        """What the search has cost, in trainings with all epochs."""
        return sum(each.epochs for each in self.tried) / self.whole

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "augmentation": self.name,
            "published": self.published,
            "best": self.best,
            "cost": {
                "trainings": self.trainings,
                "epochs": sum(each.epochs for each in self.tried),
                "seconds": sum(each.seconds for each in self.tried),
            },
            "gain": None if self.gain is None else comparison_entry(self.gain),
            "tried": [vars(each) for each in self.tried],
        }

    def __str__(self) -> str:
        seconds = sum(each.seconds for each in self.tried)
        start = (
            f"{self.name}: {len(self.tried)} trainings, which cost as much as {self.trainings:.1f} "
            f"whole ones ({seconds:.0f} s)"
        )
        if self.gain is None:
            return f"{start}; nothing is better than the published {self.published}"
        if self.gain.difference is None:
            return (
                f"{start}; {self.best} was chosen, but has no finished run on a seed of the "
                f"published {self.published}, so they are not compared"
            )
        points = f"{100 * self.gain.difference:+.2f} points"
        if self.gain.high is not None:
            half = self.gain.high - self.gain.difference
            wide = Interval(self.gain.difference, None, half, self.gain.n).excludes_nothing
            points += " (wide interval)" if wide else f" ± {100 * half:.2f}"
        return f"{start}; {self.best} against {self.published}: {points}, n = {self.gain.n}"


def check(design: Design, budget: int | float) -> None:
    """Check a search before anything slow.

    Args:
        design: What is searched.
        budget: What the search of each augmentation may cost, in whole trainings.

    Raises:
        ValueError: There is no validation split, no budget, several networks, or an augmentation
            without a search space or with hyperparameters of its own.
    """
    if len(design.models) > 1:
        raise ValueError(f"one network is searched at a time, not {', '.join(design.models)}")
    if design.training.validation == 0:
        raise ValueError(
            "validation is 0: a search chooses by validation images, not by test images; give "
            "--validation 0.2"
        )
    for each in design.augmentations:
        text = each if isinstance(each, str) else registry.express(each)
        name, options = notation.parse(text)
        if options:
            raise ValueError(f"{text} has hyperparameters already: search {name}")
        search_spaces.candidates(name, 1, design.data, 32)
    levels(budget, 10**6)


def run(
    design: Design,
    budget: int | float,
    workspace: Workspace,
    execution: ExecutionOptions,
    tracking: TrackingOptions | None,
    progress: Progress,
) -> list[Searched]:
    """Search each augmentation, then compare what was found with the published values.

    Every training is a job with a record, so that the same call continues an interrupted search.

    Args:
        design: What is searched. Its seeds are those of the comparison at the end, and its
            training settings those of a whole training; without a validation share, 0.2 of the
            training images are held out in the search. The comparison uses all training images.
        budget: What the search of each augmentation may cost, in whole trainings.
        workspace: Where results are stored, and the device.
        execution: The executor.
        tracking: MLflow server, or whether MLflow is used at all.
        progress: Shows the progress.

    Raises:
        ValueError: As of `check`.
        Stopped: Ctrl-C or SIGTERM; finished trainings are stored.
    """
    check(design, budget)
    share = design.training.validation or 0.2
    searching = replace(design, training=replace(design.training, validation=share))
    found = []
    for each in design.augmentations:
        text = each if isinstance(each, str) else registry.express(each)
        found.append(_search(text, searching, budget, workspace, execution, tracking, progress))
    final = replace(
        design,
        augmentations=tuple(dict.fromkeys(a for one in found for a in (one.published, one.best))),
        training=replace(design.training, validation=0.0),
    )
    progress.say("Comparing the best values with the published ones on the test images.")
    study = comparison.run(final.jobs(workspace), workspace, execution, tracking, progress)
    values: dict[str, dict[int, float]] = {}
    for record in study.records:
        accuracies = values.setdefault(record.labels["hyperparameters"], {})
        if record.status == "finished":
            accuracies[record.seed] = record.metrics["accuracy"]
    return [
        one
        if one.best == one.published
        else replace(
            one,
            gain=compare({n: values[n] for n in (one.published, one.best)}, one.published)[
                one.best
            ],
        )
        for one in found
    ]


def _search(
    name: str,
    design: Design,
    budget: int | float,
    workspace: Workspace,
    execution: ExecutionOptions,
    tracking: TrackingOptions | None,
    progress: Progress,
) -> Searched:
    """Successive halving of one augmentation."""
    data = workspace.dataset(design.data)
    side = data.train.images.shape[-1]
    whole = replace(design, augmentations=(name,)).recipes(workspace)[0].epochs
    plan = levels(budget, whole)
    left: list[Augmentation] = search_spaces.candidates(name, plan[0].candidates, data.name, side)
    published = registry.express(left[0])
    tried: list[Tried] = []
    for number, level in enumerate(plan, 1):
        left = left[: level.candidates]
        progress.say(
            f"{name}, level {number} of {len(plan)}: {len(left)} candidates, {level.epochs} epochs"
        )
        settings = replace(design.training, epochs=level.epochs)
        part = replace(design, training=settings)
        recipes = [replace(part, augmentations=(each,)).recipes(workspace)[0] for each in left]
        jobs = [Job(recipe, SEED, design.fresh) for recipe in recipes]
        study = comparison.run(jobs, workspace, execution, tracking, progress)
        known = {record.key: record for record in study.records}
        results = [_tried(known[job.recipe.key], level.epochs, workspace) for job in jobs]
        tried += results
        scores = [result.validation or 0.0 for result in results]
        # of equally good candidates the earlier one goes on
        order = sorted(range(len(left)), key=lambda place: -scores[place])
        left = [left[place] for place in order]
    return Searched(name, published, registry.express(left[0]), tuple(tried), whole, None)


def _tried(record: Record, epochs: int, workspace: Workspace) -> Tried:
    """What a record says about a candidate."""
    text = record.labels["hyperparameters"]
    if record.status != "finished":
        return Tried(text, epochs, None, 0.0)
    curve = record.curve or Store(workspace.results).curve(record)
    if not curve or "validation_accuracy" not in curve[-1]:
        raise ValueError(
            f"the curve of {text}, seed {record.seed}, is lost, by which it was to be judged: run "
            "the search with --fresh"
        )
    return Tried(text, epochs, float(curve[-1]["validation_accuracy"]), record.metrics["seconds"])
