"""Run a comparison with more and more seeds until each method is decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from augmentations.no_deletion import NoDeletion
from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.records.method import Method
from bench.records.record import Record
from bench.records.sequential import MOST, Decision, SequentialDesign
from bench.records.statistics import MARGIN
from bench.records.store import Store
from bench.studies import comparison
from bench.studies.comparison import Study
from bench.studies.designs import Design
from bench.studies.jobs import Job
from bench.studies.tracking import TrackingOptions
from bench.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class StoppingOptions:
    """When a comparison has enough seeds.

    Attributes:
        until: ``"decided"``: seeds are added until each method is decided; None: their number is
            fixed.
        within: Largest difference that counts as none, in percentage points.
        max_seeds: Largest number of seeds; another limit spends the error probability otherwise.
    """

    until: Literal["decided"] | None = "decided"
    within: float = 100 * MARGIN
    max_seeds: int = MOST


@dataclass(frozen=True)
class Decided:
    """A comparison whose number of seeds followed from its results.

    Attributes:
        study: The records.
        baseline: Name of the baseline.
        decisions: The decision about each other method.
        plan: The looks and error probabilities, which were fixed beforehand.
    """

    study: Study
    baseline: str
    decisions: dict[str, Decision]
    plan: SequentialDesign

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return the decisions as JSON values; differences are fractions."""
        return {
            name: {
                "verdict": each.verdict,
                "looks": each.looks,
                "of_looks": len(self.plan.looks),
                "alpha_spent": each.alpha_spent,
                "n": each.n,
                "difference": each.difference,
                "low": each.low,
                "high": each.high,
            }
            for name, each in self.decisions.items()
        }

    def lines(self) -> list[str]:
        """Return one line per method, and how they are meant."""
        margin = f"{100 * self.plan.margin:g} points"
        return [
            f"Against {self.baseline}, paired by seed, accuracy after the last epoch (the marks of "
            "a table are those of a fixed number of seeds):",
            *(f"  {name}: {each}" for name, each in self.decisions.items()),
            f"Looks at {', '.join(map(str, self.plan.looks))} seeds. Better, worse: shown with a "
            f"{self.plan.alpha:.0%} error probability over all looks and methods. Equivalent: "
            f"shown to differ by less than {margin}, with another {self.plan.alpha:.0%}. In "
            "brackets: the interval that holds at all looks and for all methods together.",
        ]


def check(design: Design) -> None:
    """Check that a design is one comparison with a baseline.

    Raises:
        ValueError: It has a single method, or several networks.
    """
    if len(design.models) > 1:
        raise ValueError(
            f"seeds are added for one network at a time, not for {', '.join(design.models)}: give "
            "one --model"
        )
    if len(design.augmentations) * max(len(design.guides), 1) < 2:
        raise ValueError(
            "one method alone cannot be decided: add --aug none, or another method to compare with"
        )


def split(recipes: Sequence[Recipe]) -> tuple[Recipe, list[Recipe]]:
    """Return the baseline, which is no deletion or else the first recipe, and the others.

    Raises:
        ValueError: There is no other recipe.
    """
    plain = [each for each in recipes if isinstance(each.augmentation, NoDeletion)]
    baseline = (plain or list(recipes))[0]
    others = [each for each in recipes if each is not baseline]
    if not others:
        raise ValueError("the methods are all the same: give another --aug to compare with")
    return baseline, others


class Looks:
    """The looks at a comparison: which jobs each one needs, and what was decided so far.

    A method that is decided gets no more seeds; the baseline gets as many as any method needs.

    Attributes:
        plan: The looks and error probabilities.
        open: The methods that are not decided yet.
        decisions: The decision about each method at the last look.
        records: The records of all looks, by key and seed.
        names: Name of each method by the key of its recipe.

    Raises:
        ValueError: As of `check`, `split` and `SequentialDesign`.
    """

    def __init__(self, design: Design, workspace: Workspace, stopping: StoppingOptions) -> None:
        check(design)
        self.baseline, self.open = split(design.recipes(workspace))
        self.plan = SequentialDesign(
            methods=len(self.open), most=stopping.max_seeds, margin=stopping.within / 100
        )
        self._fresh = design.fresh
        self.records: dict[tuple[str, int], Record] = {}
        self.names: dict[str, str] = {}
        self.decisions: dict[str, Decision] = {}

    def jobs(self, look: int) -> list[Job]:
        """Return the jobs that a look adds to those before it; none if all is decided."""
        seeds = range(self.plan.looks[look - 2] if look > 1 else 0, self.plan.looks[look - 1])
        methods = (self.baseline, *self.open) if self.open else ()
        return [Job(each, seed, self._fresh) for each in methods for seed in seeds]

    def decide(self, look: int, records: Iterable[Record]) -> None:
        """Decide about each method, given the records of the jobs of a look."""
        for record in records:
            self.records[record.key, record.seed] = record
            self.names[record.key] = Method.of(record).name
        found = accuracies(self.records.values(), self.names)
        self.decisions = self.plan.decide(found, self.names[self.baseline.key], look)
        self.open = [
            each
            for each in self.open
            if self.decisions[self.names[each.key]].verdict == "undecided"
        ]


def needed(
    design: Design, workspace: Workspace, stopping: StoppingOptions
) -> tuple[list[Job], tuple[int, ...]]:
    """Return the jobs that a comparison certainly needs, and the looks that may follow.

    The looks whose records exist are taken, since decisions follow from records alone; the jobs are
    those up to the first look without.

    Args:
        design: What is compared; its seeds have no effect.
        workspace: Where the dataset and the records are.
        stopping: When there are enough seeds.

    Raises:
        ValueError: As of `Looks`.
    """
    looks, jobs = Looks(design, workspace, stopping), list[Job]()
    store = Store(workspace.results)
    for number in range(1, len(looks.plan.looks) + 1):
        wanted = looks.jobs(number)
        jobs += wanted
        found = store.find(job.name for job in wanted if not job.fresh)
        if len(found) < len(wanted):
            return jobs, looks.plan.looks[number:]
        looks.decide(number, found.values())
        if not looks.open:
            break
    return jobs, ()


def run(
    design: Design,
    workspace: Workspace,
    execution: ExecutionOptions,
    tracking: TrackingOptions | None,
    progress: Progress,
    stopping: StoppingOptions,
) -> Decided:
    """Run seeds until every method is decided or has the largest number of seeds.

    The same call with the same limit continues where it was, since decisions follow from the
    records alone.

    Args:
        design: What is compared; its seeds have no effect.
        workspace: Where results are stored, and the device.
        execution: The executor.
        tracking: MLflow server, or whether MLflow is used at all.
        progress: Shows the progress.
        stopping: When there are enough seeds.

    Raises:
        ValueError: As of `Looks`.
        Stopped: Ctrl-C or SIGTERM; finished jobs are stored.
    """
    looks = Looks(design, workspace, stopping)
    for number, seeds in enumerate(looks.plan.looks, 1):
        jobs = looks.jobs(number)
        study = comparison.run(jobs, workspace, execution, tracking, progress, described=number > 1)
        looks.decide(number, study.records)
        progress.say(
            f"Look {number} of {len(looks.plan.looks)}, {seeds} seeds: {summary(looks.decisions)}"
        )
        if not looks.open:
            break
    places = list(looks.names)
    ordered = sorted(looks.records.values(), key=lambda each: places.index(each.key))
    return Decided(
        Study(tuple(ordered)), looks.names[looks.baseline.key], looks.decisions, looks.plan
    )


def accuracies(records: Iterable[Record], names: dict[str, str]) -> dict[str, dict[int, float]]:
    """Return the accuracy of each finished run by the name of its method and by seed."""
    found: dict[str, dict[int, float]] = {name: {} for name in names.values()}
    for record in records:
        if record.status == "finished":
            found[names[record.key]][record.seed] = record.metrics["accuracy"]
    return found


def summary(decisions: dict[str, Decision]) -> str:
    """Return how many methods are decided and how.

    >>> summary({})
    'nothing to decide'
    """
    counts: dict[str, int] = {}
    for each in decisions.values():
        counts[each.verdict] = counts.get(each.verdict, 0) + 1
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "nothing to decide"
