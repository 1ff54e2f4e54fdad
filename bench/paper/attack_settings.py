"""An evaluation of attacks as an experiment: what is attacked, and which records belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from bench import registry
from bench.records.record import Record
from bench.reporting import attack_tables
from bench.reporting.grouping import plural
from bench.reporting.table import Table
from bench.reporting.worst_case import Reader, compared
from bench.robustness.judge import Aim
from bench.robustness.trials import Trial
from bench.studies.attack_designs import AttackDesign, PlannedTrial
from bench.training.recipes import Recipe, described
from bench.training.victims import Victim


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The attack evaluation of an experiment.

    Attributes:
        victim: How the attacked network is trained; its test images are attacked.
        eps: The bounds of a change.
        images: How many images are attacked, all of them classified correctly.
        aim: How targets are chosen.
        attacks: The attacks by name with options; empty: every attack that can reach the aim.
        published: What the paper prints, as `attack_tables.norm_tables` takes it.
    """

    victim: Recipe
    eps: tuple[Fraction, ...]
    images: int
    aim: Aim
    attacks: tuple[str, ...] = ()
    published: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)

    @property
    def described(self) -> str:
        """What is attacked and how, as sentences."""
        recipe = self.victim
        goal = "untargeted" if self.aim == "untargeted" else f"target: {self.aim}"
        bounds = ", ".join(map(str, self.eps))
        return (
            f"Victim model: {recipe.model} on {recipe.data}, {described(recipe)}. "
            f"{self.images} correctly classified test images, {goal}, eps {bounds}."
        )

    def design(self, fresh: bool = False) -> AttackDesign:
        """The evaluation; ``fresh`` to attack again what has results."""
        recipe = self.victim
        return AttackDesign(
            victim=Victim(model=recipe.model, data=recipe.data, recipe=recipe),
            attacks=self.attacks,
            eps=self.eps,
            images=self.images,
            aim=self.aim,
            fresh=fresh,
        )

    def names(self, eps: Fraction) -> list[str]:
        """What records call the attacks at an eps; empty where every attack is run."""
        return [self._trial(text, eps).name for text in self.attacks]

    def _trial(self, text: str, eps: Fraction) -> Trial:
        """One attack at an eps, without the checksum of the images."""
        return Trial(
            attack=registry.build("attacks", text, eps=float(eps)),
            victim=self.design().victim.name,
            data=self.victim.data,
            eps=str(eps),
            aim=self.aim,
            images=self.images,
        )

    def own(self, records: Iterable[Record]) -> list[Record]:
        """The records of this evaluation, in the order of its attacks; others are left out."""
        design = self.design()
        wanted = {str(eps): self.names(eps) for eps in self.eps}
        found = [
            record
            for record in records
            if record.kind == "attack"
            and record.labels["victim"] == design.victim.name
            and record.labels["data"] == self.victim.data
            and record.labels["goal"] == self.aim
            and record.labels["eps"] in wanted
            and record.job["images"] == self.images
            and not record.job.get("query_cap")
            and record.seed in design.seeds
        ]
        if not self.attacks:
            return found
        places = {
            (name, eps): place for eps, names in wanted.items() for place, name in enumerate(names)
        }
        own = [r for r in found if (r.labels["attack"], r.labels["eps"]) in places]
        return sorted(own, key=lambda r: places[r.labels["attack"], r.labels["eps"]])

    def plan(self, records: Iterable[Record]) -> list[PlannedTrial]:
        """The named attacks and whether they have a record; the dataset is not needed."""
        done = {(r.labels["attack"], r.labels["eps"]) for r in self.own(records)}
        trials = [self._trial(text, eps) for eps in self.eps for text in self.attacks]
        return [
            PlannedTrial(trial, seed, (trial.name, trial.eps) in done)
            for trial in trials
            for seed in self.design().seeds
        ]

    def missing(self, records: Iterable[Record]) -> list[str]:
        """Each attack without a finished record, with its eps."""
        done = {
            (record.labels["attack"], record.labels["eps"])
            for record in self.own(records)
            if record.status == "finished"
        }
        lacking = []
        for eps in self.eps:
            if not self.attacks and not any(each == str(eps) for _, each in done):
                lacking.append(f"all attacks at eps {eps}")
            lacking += [f"{n} at eps {eps}" for n in self.names(eps) if (n, str(eps)) not in done]
        return lacking

    def tables(
        self, records: Iterable[Record], images: Reader = lambda record: record.images
    ) -> list[Table]:
        """A table for each eps, with the published numbers beside ours.

        The attacks that the experiment names have a row each, and without any record those that
        have published numbers.

        Args:
            records: Records of any kind.
            images: Reads what an attack did to each image, for the worst case in the last row.
        """
        own = [record for record in self.own(records) if record.status == "finished"]
        shown = compared(own, images)
        wanted = {str(eps): self.names(eps) for eps in self.eps}
        if not self.attacks and not own:
            wanted = {
                eps: [name for name, at in self.published if at == eps]
                for eps in map(str, self.eps)
            }
        return attack_tables.norm_tables(shown, self.published, wanted, self._about)

    @property
    def _about(self) -> str:
        goal = "untargeted" if self.aim == "untargeted" else f"target: {self.aim}"
        victim = self.victim
        return f"{victim.model}, {victim.data}, {goal}, {plural(self.images, 'image')}"
