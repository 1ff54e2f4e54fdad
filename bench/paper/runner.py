"""Experiments of the paper as work: what they need, what they cost, and running what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench import registry
from bench.errors import Missing
from bench.execution import signals
from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.paper import asked, image_figures, tables
from bench.paper.attack_settings import AttackSettings
from bench.paper.experiments import Experiment
from bench.paper.figure_experiments import IMAGENET
from bench.paper.scales import OtherData
from bench.points import find
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting.table import Table
from bench.studies import attack_designs, attack_study, comparison, estimates
from bench.studies.attack_designs import PlannedTrial
from bench.studies.jobs import Job
from bench.studies.tracking import TrackingOptions


@dataclass(frozen=True)
class PlannedExperiments:
    """One or several experiments at a scale, in a workspace.

    Attributes:
        experiments: The experiments.
        workspace: Where their results are.
        jobs: Every training that they need, each once.
        fresh: Rerun jobs that already have results.
        left_out: A line for each experiment that cannot be run as it was asked for.
    """

    experiments: Sequence[Experiment]
    workspace: Workspace
    jobs: Sequence[Job]
    fresh: bool = False
    left_out: Sequence[str] = ()

    def cost(self) -> list[str]:
        """Lines that say what will be run, what is done, and how long the rest will take."""
        scale, device = self.experiments[0].scale, self.workspace.device
        lines, costs = [f"scale {scale.name}: {scale.about}"], []
        if any(each.attacks is None for each in self.experiments):
            records = Store(self.workspace.results).all()
            costs.append(estimates.cost(self.jobs, records, device))
        for each in self.experiments:
            size = f"{len(each.jobs())} runs"
            if each.attacks is not None:
                planned = self._planned(each.attacks, lambda line: None)
                size = f"{len(planned)} attack evaluations"
                costs.append(estimates.attack_cost(planned, each.attacks.victim, device))
            lines.append(f"{each.name}: {each.heading} ({size})")
            lines += [f"  {told}" for told in each.told]
            if each.points is not None:
                lines.append(
                    f"  no training: it shows the adversarial points of {each.points}, which are "
                    "found unless they are stored"
                )
        return [*lines, *costs, *self.left_out]

    def cells(self) -> list[str]:
        """One line for each cell of the experiments: what is trained, and what of it is done."""
        done = Store(self.workspace.results).find(job.name for job in self.jobs if not job.fresh)
        lines = []
        for each in self.experiments:
            seeds = range(each.scale.seeds)
            for (row, column), recipe in each.cells.items():
                found = sum((recipe.key, seed) in done for seed in seeds)
                method = recipe.method(registry.express(recipe.augmentation))
                lines.append(
                    f"{'done' if found == len(seeds) else 'to run':7} {each.name}: {row} on "
                    f"{column.label}: {method.name}, {recipe.model}, "
                    f"{recipe.data}, {found} of {len(seeds)} seeds done"
                )
        return lines

    def attacks(self, say: Callable[[str], None]) -> list[PlannedTrial]:
        """Which attacks would run and which are done."""
        wanted = [each.attacks for each in self.experiments if each.attacks is not None]
        return [trial for each in wanted for trial in self._planned(each, say)]

    def _planned(self, settings: AttackSettings, say: Callable[[str], None]) -> list[PlannedTrial]:
        """The trials of one evaluation; ``say`` is called with those that are left out."""
        if settings.attacks:
            return settings.plan([] if self.fresh else Store(self.workspace.results).all())
        # those that can reach the aim
        return attack_designs.plan(settings.design(self.fresh), self.workspace, say)

    def run(
        self, execution: ExecutionOptions, tracking: TrackingOptions, progress: Progress
    ) -> list[Record]:
        """Run what is missing, dataset by dataset; returns the records of the trainings."""
        asked.note(self.experiments, self.workspace.results)
        records: list[Record] = []
        for data in dict.fromkeys(job.recipe.data for job in self.jobs):
            part = [job for job in self.jobs if job.recipe.data == data]
            study = comparison.run(part, self.workspace, execution, tracking, progress, costed=True)
            records += study.records
        for each in self.experiments:
            if each.attacks is not None:
                design = each.attacks.design(self.fresh)
                attack_study.run(design, self.workspace, execution, tracking, progress)
            if each.points is not None:
                self._find_points(each.points, execution, progress)
        return records

    def _find_points(self, name: str, execution: ExecutionOptions, progress: Progress) -> None:
        """Find the adversarial points of a dataset, unless it has some."""
        data = self.workspace.dataset(name)
        try:
            image_figures.stored_points(data, self.workspace.results)
        except Missing:
            executor = execution.build(self.workspace.device)
            with signals.listen(progress.say) as stop:
                find.adversarial(data, self.workspace, progress, executor=executor, stop=stop)

    def tables(self) -> dict[str, list[Table]]:
        """The tables of each experiment that has any, by its name."""
        store = Store(self.workspace.results)
        records = store.all()
        made = {each.name: each.tables(records, store.images) for each in self.experiments}
        return {name: tables for name, tables in made.items() if tables}


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
    other = None
    if data is not None:
        workspace, place = comparison.place(workspace, data)
        other = OtherData.of(workspace.dataset(place))
    found = [tables.experiment(each, scale, other) for each in chosen]
    left_out = []
    for each in [each for each in found if each.points == IMAGENET and other is None]:
        reason = (
            f"{each.name} at scale {scale} shows images of ImageNet: choose some with --data, such "
            'as "imagenet(train=32, test=32)" or a folder, and find their points on a network that '
            "knows them (bench points build --data … --victim timm:resnet50)"
        )
        if name != "all":
            raise ValueError(reason)
        left_out.append(f"left out: {reason}")
        found.remove(each)
    jobs = list({job.name: job for each in found for job in each.jobs()}.values())
    jobs = [replace(job, fresh=fresh) for job in jobs]
    return PlannedExperiments(found, workspace, jobs, fresh, left_out)
