"""Experiments of the paper as work: what they need, what they cost, and running what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress, clock
from bench.execution.workspace import Workspace
from bench.paper import tables
from bench.paper.experiments import Experiment
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting.formats import Table
from bench.studies import attack_designs, attack_study, comparison, estimates
from bench.studies.attack_designs import AttackDesign, PlannedTrial
from bench.studies.jobs import Job
from bench.studies.tracking import TrackingOptions
from bench.training import victims


@dataclass(frozen=True)
class PlannedExperiments:
    """One or several experiments at a scale, in a workspace.

    Attributes:
        experiments: The experiments.
        workspace: Where their results are.
        jobs: Every training that they need, each once.
        fresh: Rerun jobs that already have results.
    """

    experiments: Sequence[Experiment]
    workspace: Workspace
    jobs: Sequence[Job]
    fresh: bool = False

    def cost(self) -> list[str]:
        """Lines that say what will be run, what is done, and how long the rest will take."""
        store = Store(self.workspace.results)
        done = store.find(job.name for job in self.jobs if not job.fresh)
        rest = [job for job in self.jobs if job.name not in done]
        scale = self.experiments[0].scale
        lines = [f"scale {scale.name}: {scale.about}"]
        for each in self.experiments:
            lines.append(f"{each.name}: {each.title} ({len(each.jobs())} runs)")
            if each.chosen:
                lines.append(f"  {each.chosen}")
        device = self.workspace.device
        time = estimates.seconds(rest, store.all(), device) if rest else 0.0
        lines.append(
            f"{len(self.jobs)} runs, {len(done)} done, {len(rest)} to run: about {clock(time)} on "
            f"{device}, the search for adversarial points not counted"
        )
        return lines

    def designs(self) -> list[tuple[AttackDesign, Workspace]]:
        """The evaluations of attacks among the experiments."""
        found = []
        for each in self.experiments:
            if each.attacks is None:
                continue
            data = self.workspace.dataset(each.attacks.data)
            design = AttackDesign(
                victim=victims.choose(data),
                eps=each.attacks.eps,
                images=each.attacks.images,
                aim=each.attacks.aim,
                fresh=self.fresh,
            )
            found.append((design, self.workspace))
        return found

    def attacks(self, say: Callable[[str], None]) -> list[PlannedTrial]:
        """Which attacks would run and which are done."""
        return [
            planned
            for design, workspace in self.designs()
            for planned in attack_designs.plan(design, workspace, say)
        ]

    def run(
        self, execution: ExecutionOptions, tracking: TrackingOptions, progress: Progress
    ) -> list[Record]:
        """Run what is missing, dataset by dataset; returns the records of the trainings."""
        records: list[Record] = []
        for data in dict.fromkeys(job.recipe.data for job in self.jobs):
            part = [job for job in self.jobs if job.recipe.data == data]
            study = comparison.run(part, self.workspace, execution, tracking, progress)
            records += study.records
        for design, workspace in self.designs():
            attack_study.run(design, workspace, execution, tracking, progress)
        return records

    def tables(self) -> dict[str, list[Table]]:
        """The tables of each experiment that trains networks, by its name."""
        records = Store(self.workspace.results).all()
        return {each.name: each.tables(records) for each in self.experiments if each.cells}


def plan(
    name: str, scale: str, workspace: Workspace, *, data: str | None = None, fresh: bool = False
) -> PlannedExperiments:
    """The experiment of that name, or ``"all"``, at a scale.

    Args:
        name: Name of an experiment, or ``"all"``.
        scale: ``"smoke"``, ``"reduced"`` or ``"paper"``.
        workspace: Where results go.
        data: Another dataset for all of its cells, by name or path.
        fresh: Rerun jobs that already have results.

    Raises:
        ValueError: There is no such experiment or scale.
    """
    chosen = list(tables.EXPERIMENTS) if name == "all" else [name]
    dataset = None
    if data is not None:
        workspace, other = comparison.place(workspace, data)
        dataset = workspace.dataset(other)
    found = [tables.experiment(each, scale, dataset) for each in chosen]
    jobs = list({job.name: job for each in found for job in each.jobs()}.values())
    return PlannedExperiments(found, workspace, [replace(job, fresh=fresh) for job in jobs], fresh)
