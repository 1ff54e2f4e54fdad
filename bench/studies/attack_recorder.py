"""Reports, stores and logs the attacks of a study as they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.execution.machine import machine
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import atomic
from bench.records.over_images import RELATED
from bench.records.record import Number, Record
from bench.records.store import Store
from bench.reporting import image_grid
from bench.robustness import evaluation, results, trials
from bench.robustness.judge import CorrectImages
from bench.robustness.metrics import Outcome, join, summarise
from bench.robustness.trials import Trial
from bench.studies.tracking import Touched, TrackingOptions
from bench.training.victims import Victim


class AttackRecorder:
    """Reports each finished trial, and writes and logs the records of each complete table."""

    def __init__(
        self,
        victim: Victim,
        chosen: Mapping[int, CorrectImages],
        workspace: Workspace,
        tracking: TrackingOptions | None,
        progress: Progress,
    ) -> None:
        self.victim, self.chosen = victim, chosen
        self.workspace, self.progress = workspace, progress
        self.tracker = (tracking or TrackingOptions()).open(workspace, progress.say)
        self.touched = None if self.tracker is None else Touched(self.tracker, workspace)
        self.records: list[Record] = []

    def report(self, trial: Trial, seed: int, outcomes: list[Outcome], reused: bool) -> None:
        """Print one line on the result of a trial and draw a grid of its images."""
        metrics = summarise(outcomes)
        pixels = metrics.get("l0_pixels_mean")
        size = "" if pixels is None else f", {pixels:.1f} pixels"
        self.progress.say(
            f"{trial.name}, eps {trial.eps}, seed {seed}: {metrics['success']:.1%}{size}, "
            f"{metrics['seconds_per_image']:.2f} s per image{' (stored before)' if reused else ''}"
        )
        if trouble := results.problems(join(outcomes)):
            self.progress.say(f"  {trial.name}: {trouble}")
        if not reused:
            draw(trial, seed, self.chosen[seed], self.workspace)

    def record(self, table: dict[Trial, list[Outcome]], seed: int) -> None:
        """Write the records of a complete table (one eps and seed) and log them to MLflow."""
        store = Store(self.workspace.results)
        labels = {"victim": self.victim.name, "model": self.victim.model, "data": self.victim.data}
        correct = {"correct": self.chosen[seed].correct}
        made = results.attack_records(table, seed, labels, machine(self.workspace.device), correct)
        known = store.find((record.key, seed) for record in made)
        for trial, record in zip(table, made, strict=True):
            before = known.get((record.key, seed))
            if before is None or _own(before) != _own(record) or not store.images(before):
                store.add(record)
            if self.tracker and self.touched:
                self.touched.add(record)
                folder = trials.folder(trial, seed, self.workspace)
                files = [*sorted(folder.glob("*.png")), *sorted(folder.glob("*.safetensors"))]
                # without the curve, which is over changes and not over epochs
                self.tracker.log(replace(record, curve=()), files=files)
        self.records += made

    def close(self) -> None:
        """Log the intervals over seeds after the last table, or when the study is stopped."""
        if self.touched:
            self.touched.close()


def _own(record: Record) -> dict[str, Number]:
    """The metrics of an attack that do not depend on the others of its table."""
    return {name: value for name, value in record.metrics.items() if name not in RELATED}


def draw(trial: Trial, seed: int, chosen: CorrectImages, workspace: Workspace) -> None:
    """Write a grid of a trial's first images: clean, change, mask, adversarial."""
    attacked = evaluation.attacked(trial, seed, workspace, blocks=1)
    if attacked is None:
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
    path = trials.folder(trial, seed, workspace) / "images.png"
    atomic.write(path, image_grid.png(image_grid.grid(columns)))
