"""What grows with the number of jobs, records and cores, each beside the target it must keep.

The trainings here are as small as they come, and what they take by themselves is taken off: what
remains is the driver, which costs the same beside a training of hours.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.execution.executors import Executor, Local
from bench.execution.processes import Processes
from bench.execution.progress import Progress, Silent
from bench.execution.workspace import Workspace
from bench.points import find
from bench.records.record import Record
from bench.records.store import Store
from bench.robustness.pass_counter import give_back
from bench.studies.jobs import Job
from bench.training import loop, victims
from bench.training.recipes import Recipe

Drive = Callable[[list[Job], Workspace], object]
"""Runs jobs as a command does, with everything around them."""

TINY = "digits(train=10)"
JOB, EPOCH, LISTING = 0.6, 0.05, 2.0  # seconds; a job of a minute may cost 1 % more
MEMORY, LINEAR = 20.0, 0.9  # MiB more from 200 jobs to 1,000; of as many times as there are cores


@dataclass(frozen=True)
class Measure:
    """A number and what it may be at most, or, where ``least``, must be at least."""

    name: str
    value: float
    unit: str
    target: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is kept."""
        return self.value >= self.target if self.least else self.value <= self.target


def tiny(recipes: int, seeds: int, epochs: int = 1, first: int = 0) -> list[Job]:
    """Jobs of ten pictures an epoch; seeds count from ``first``."""
    return [
        Job(
            Recipe(
                data=TINY,
                model="resnet8",
                validation=0.0,
                padding=1,
                epochs=epochs,
                learning_rate=0.01 + number / 1e6,
            ),
            first + seed,
        )
        for number in range(recipes)
        for seed in range(seeds)
    ]


def driver(
    name: str, drive: Drive, workspace: Workspace, progress: Progress, count: int = 20
) -> list[Measure]:
    """What a job and an epoch cost beyond the training itself."""
    short, long = 1, 11  # epochs
    drive(tiny(1, 1, first=10**6), workspace)  # pays for what is made once
    beyond: dict[int, float] = {}
    with progress.task(f"driver, {name}", 2 * count) as advance:
        for epochs in (short, long):
            jobs = tiny(1, count, epochs)
            start = time.perf_counter()
            for job in jobs:
                loop.train(job.recipe, job.seed, workspace.dataset(TINY))
            middle = time.perf_counter()
            drive(jobs, workspace)
            beyond[epochs] = (time.perf_counter() - middle - (middle - start)) / count
            advance(count)
    each = (beyond[long] - beyond[short]) / (long - short)
    return [
        Measure(f"driver, {name}: a job", beyond[short] - each, "s", JOB),
        Measure(f"driver, {name}: an epoch", each, "s", EPOCH),
    ]


def memory(
    drive: Drive, workspace: Workspace, progress: Progress, count: int = 1000
) -> list[Measure]:
    """How far resident memory rises from a fifth of the jobs to all of them; Linux alone tells."""
    before = resident()
    if before is None:
        return []
    jobs = tiny(count // 5, 5, first=100)
    marks = []
    with progress.task("memory", len(jobs)) as advance:
        for part in (jobs[: count // 5], jobs[count // 5 :]):
            drive(part, workspace)
            marks.append(resident() or 0.0)
            advance(len(part))
    name = f"memory, from {count // 5} jobs to {count}"
    return [Measure(name, marks[1] - marks[0], "MiB", MEMORY)]


def resident() -> float | None:
    """MiB of memory that the process holds and uses."""
    gc.collect()
    give_back()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * 4096 / 2**20


def listing(folder: Path, progress: Progress, count: int = 10_000) -> list[Measure]:
    """Seconds of `bench list runs` with so many records, its start included."""
    folder.mkdir(parents=True, exist_ok=True)
    (job,) = tiny(1, 1)
    one = Record(
        kind="run",
        key=job.recipe.key,
        seed=0,
        labels={"augmentation": "none", "model": "resnet8", "data": "digits"},
        metrics={name: 0.5 for name in ("accuracy", "accuracy_best", "seconds", "epochs")},
        job=job.recipe.to_json(),
    )
    with Store(folder).path.open("w") as file:
        for seed in range(count):
            file.write(json.dumps(replace(one, seed=seed).to_json()) + "\n")
    command = [sys.executable, "-m", "bench", "list", "runs", "--results", str(folder)]
    with progress.task("listing", 1) as advance:
        start = time.perf_counter()
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken = time.perf_counter() - start
        advance()
    return [Measure(f"listing {len(shown.splitlines()):,} records", taken, "s", LISTING)]


def scaling(workspace: Workspace, progress: Progress, cores: int, steps: int = 60) -> list[Measure]:
    """How much faster as many processes as there are cores find adversarial points.

    Blocks of digits a second, after the processes have started, as a share of so many times those
    of this process, which must be set to one thread.
    """
    data = workspace.dataset("digits")
    victim = replace(find.points_victim(data), epochs=1)
    victims.obtain(victim, workspace, Silent())
    jobs = [
        find.Block(
            number % 11,
            data.name,
            victim,
            victim.key,
            f"sigma-zero(steps={steps}, eps=0.5)",
            "{}",
            place,
        )
        for number in range(12 * cores)
        for place in [workspace.cache / "growth" / str(number)]
    ]
    alone = pace(Local(), jobs[:12], 1, workspace, progress)
    together = pace(Processes(cores), jobs, cores, workspace, progress)
    name = f"points on {cores} processes, of linear"
    return [Measure(name, together / alone / cores, "times", LINEAR, least=True)]


def pace(
    executor: Executor,
    jobs: list[find.Block],
    workers: int,
    workspace: Workspace,
    progress: Progress,
) -> float:
    """Blocks a second while all workers work: neither while they start nor once jobs run out."""
    ends = []
    with progress.task(f"points, {workers} at a time", len(jobs)) as advance:
        for _ in executor.map(find.attack, jobs, workspace, Silent(), lambda: False):
            ends.append(time.perf_counter())
            advance()
    first, last = 3 * workers - 1, len(ends) - workers - 1
    return (last - first) / (ends[last] - ends[first])
