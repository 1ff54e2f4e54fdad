"""Running the trials of an attack evaluation: told, judged and kept as they come in."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from bench.cli import options

if TYPE_CHECKING:
    from bench.records.record import Record
    from bench.robustness.judge import Pictures
    from bench.robustness.metrics import Outcome
    from bench.robustness.trials import Trial
    from bench.training.victims import Victim


def evaluate(
    studies: dict[Fraction, list[Trial]],
    seeds: list[int],
    victim: Victim,
    workspace: Any,
    progress: Any,
    stop: Any,
    given: dict[str, Any],
) -> tuple[list[Record], list[dict[str, Any]]]:
    """Attack, judge, write the records and log them; also the paired tests of every table."""
    from bench.robustness.evaluation import BLOCK, opponent, parts, run
    from bench.robustness.results import pairwise_tests

    executor = options.executor(workspace, **given)
    data = workspace.dataset()
    victims = {seed: victim.of(seed) for seed in seeds}
    chosen = {
        seed: opponent(each, given["images"], workspace, progress, stop)[1]
        for seed, each in victims.items()
    }
    right = " %, ".join(f"{100 * each.correct:.1f}" for each in dict.fromkeys(chosen.values()))
    progress.say(
        f"{given['images']} test pictures of {data.name} ({data.source}) that the victim "
        f"classifies correctly, as it does {right} %"
    )
    common = {"fresh": given["fresh"], "batch_size": given["batch_size"] or BLOCK}
    jobs = [
        part
        for trials in studies.values()
        for seed in seeds
        for trial in trials
        if trial.matched is None
        for part in parts(trial, seed, victims[seed], chosen[seed], **common)
    ]
    keeper = Keeper(workspace, victim, chosen, given, progress)
    tables: dict[tuple[Fraction, int], dict[Trial, list[Outcome]]] = {}
    for trial, seed, outcomes, reused in run(
        jobs, workspace, progress, executor=executor, stop=stop
    ):
        keeper.tell(trial, seed, outcomes, reused)
        table = tables.setdefault((Fraction(trial.eps), seed), {})
        table[trial] = outcomes
        rest = [each for each in studies[Fraction(trial.eps)] if each not in table]
        if all(each.matched for each in rest):
            for floor in rest:
                likes = next(each for each in table if each.key == floor.matched)
                matched = parts(
                    floor, seed, victims[seed], chosen[seed], matched=table[likes], **common
                )
                for last in run(matched, workspace, progress, stop=stop):
                    keeper.tell(*last)
                    table[floor] = last[2]
            ordered = {each: table[each] for each in studies[Fraction(trial.eps)]}
            keeper.keep(ordered, seed)
            tables[Fraction(trial.eps), seed] = ordered
    keeper.summarise()
    tests = [
        {"eps": str(eps), "seed": seed, **pair}
        for (eps, seed), table in sorted(tables.items())
        for pair in pairwise_tests(table)
    ]
    return keeper.found, tests


class Keeper:
    """Tells of each trial that comes in, and keeps the records of each table that is complete."""

    def __init__(
        self,
        workspace: Any,
        victim: Victim,
        chosen: dict[int, Pictures],
        given: dict[str, Any],
        progress: Any,
    ) -> None:
        self.workspace, self.victim, self.chosen = workspace, victim, chosen
        self.progress = progress
        self.tracker = None
        self.found: list[Record] = []
        if not given["no_tracking"]:
            from bench.records.tracking import Tracker

            self.tracker = Tracker(given["tracking_uri"], workspace.results, warn=progress.say)

    def tell(self, trial: Trial, seed: int, outcomes: list[Outcome], reused: bool) -> None:
        """A line on what an attack reached, and a picture of what it did."""
        from bench.robustness.metrics import join, summarise
        from bench.robustness.results import complaint

        metrics = summarise(outcomes)
        pixels = metrics.get("l0_pixels_mean")
        size = "" if pixels is None else f", {pixels:.1f} pixels"
        self.progress.say(
            f"{trial.name}, eps {trial.eps}, seed {seed}: {metrics['success']:.1%}{size}, "
            f"{metrics['seconds_per_image']:.2f} s a picture{' (done before)' if reused else ''}"
        )
        if trouble := complaint(join(outcomes)):
            self.progress.say(f"  {trial.name}: {trouble}")
        if not reused:
            picture(trial, seed, self.chosen[seed], self.workspace)

    def keep(self, table: dict[Trial, list[Outcome]], seed: int) -> None:
        """Write the records of a table and log them."""
        from bench.execution.workspace import machine
        from bench.records.store import Store
        from bench.robustness.results import attack_records
        from bench.robustness.trials import folder

        store, data = Store(self.workspace.results), self.workspace.dataset()
        made = attack_records(
            table,
            seed,
            {"victim": self.victim.name, "model": self.victim.model, "data": data.name},
            machine(self.workspace.device),
            {"correct": self.chosen[seed].correct},
        )
        known = store.find((record.key, seed) for record in made)
        for trial, record in zip(table, made, strict=True):
            before = known.get((record.key, seed))
            if before is None or before.metrics != record.metrics:
                store.add(record)
            if self.tracker:
                place = folder(trial, seed, self.workspace)
                files = [*sorted(place.glob("*.png")), *sorted(place.glob("*.safetensors"))]
                self.tracker.log(replace(record, curve=()), files=files)  # its steps are no epochs
        self.found += made

    def summarise(self) -> None:
        """Every table is complete: the intervals go to the parents."""
        from bench.reporting import attack_tables

        if self.tracker:
            self.tracker.summarise(attack_tables.intervals(self.found))


def picture(trial: Trial, seed: int, chosen: Pictures, workspace: Any) -> None:
    """Write a grid of the first pictures beside the blocks: clean, change, mask, adversarial."""
    from bench.files import atomic
    from bench.reporting import image_grid
    from bench.robustness.evaluation import peek
    from bench.robustness.trials import folder

    place = folder(trial, seed, workspace)
    if (attacked := peek(place)) is None:
        return
    clean = chosen.images[:8].cpu()
    adversarial = attacked[:8].nan_to_num(0).clamp(0, 1)
    delta = adversarial - clean
    scale = 2 * delta.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    columns = {
        "clean": clean,
        "change": 0.5 + delta / scale,
        "mask": (delta != 0).any(1, keepdim=True).float(),
        "adversarial": adversarial,
    }
    atomic.write(place / "pictures.png", image_grid.png(image_grid.grid(columns)))
