"""Overhead and scaling with the number of jobs, records and cores, each with its target.

The trainings here are tiny, and their own time is subtracted: the rest is overhead, which is the
same for a training of hours.
"""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench import registry
from bench.execution.executors import Executor, Local
from bench.execution.processes import Processes
from bench.execution.progress import Progress, Silent
from bench.execution.workspace import Workspace
from bench.points import blocks
from bench.records.record import Record
from bench.records.store import Store
from bench.robustness.pass_counter import release_freed_memory
from bench.studies.jobs import Job
from bench.training import loop, victims
from bench.training.recipes import Recipe

Drive = Callable[[list[Job], Workspace], object]
"""Runs jobs as the command does, with records and tracking."""

TINY = "digits(train=10)"
JOB, EPOCH, LISTING = 0.6, 0.05, 2.0  # seconds; 0.6 is 1 % of a job of one minute
REPORT, RISE, FIVEFOLD = 20.0, 200.0, 6.0  # seconds; MiB beyond few records; times
CONSTANT = 1.5  # times; without growth it is 1
MEMORY, LINEAR = 20.0, 0.9  # MiB from 200 jobs to 1,000; share of a linear speed-up


@dataclass(frozen=True)
class Measure:
    """A measurement with its target.

    Attributes:
        name: What was measured.
        value: The measurement.
        unit: Its unit.
        target: Largest allowed value, or smallest if ``least``.
        least: Whether the value must be at least the target.
    """

    name: str
    value: float
    unit: str
    target: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.least else self.value <= self.target


def tiny(recipes: int, seeds: int, epochs: int = 1, first: int = 0) -> list[Job]:
    """Return jobs of ten images per epoch; seeds start at ``first``."""
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
    """Measure the overhead of a job and of an epoch beyond the training itself."""
    short, long = 1, 11  # epochs
    drive(tiny(1, 1, first=10**6), workspace)  # warm-up
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
    """Measure how far resident memory rises from a fifth of the jobs to all (Linux only)."""
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
    """Return the resident memory of this process in MiB; None if it is unknown."""
    gc.collect()
    release_freed_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * 4096 / 2**20


def listing(folder: Path, progress: Progress, count: int = 10_000) -> list[Measure]:
    """Measure the seconds of ``bench list runs`` with so many records, from its start."""
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


def reporting(
    folder: Path, progress: Progress, records: int = 20_000, few: int = 20
) -> list[Measure]:
    """Measure the processor seconds and the memory of ``bench report`` with many records.

    Two shapes: a tenth as many methods with ten seeds, and ten methods with the more seeds. What
    the same command takes with few records, as for its imports, is not counted in the memory and in
    the growth to five times as many records, but in the seconds.
    """
    shapes = [(2, few // 2), (records // 10, 10), (10, records // 10), (records // 2, 10)]
    taken: list[tuple[float, float]] = []
    with progress.task("reporting", len(shapes)) as advance:
        for number, (methods, seeds) in enumerate(shapes):
            place = folder / str(number)
            _write_runs(place, methods, seeds)
            command = [sys.executable, "-m", "bench", "report", "--results", str(place)]
            taken.append(used_by(command))
            advance()
    start, base = taken[0]
    found = []
    for (methods, seeds), (seconds, peak) in zip(shapes[1:3], taken[1:3], strict=True):
        name = f"report, {methods:,} methods x {seeds:,} seeds"
        found.append(Measure(name, seconds, "s", REPORT))
        found.append(Measure(f"{name}: memory", peak - base, "MiB", RISE))
    times = (taken[3][0] - start) / max(taken[1][0] - start, 1e-9)
    return [*found, Measure("report, 5 times as many records", times, "times", FIVEFOLD)]


def used_by(command: list[str]) -> tuple[float, float]:
    """The processor seconds and the peak memory in MiB of a command.

    It is started by a small process in between: on Linux the peak of a new process is at least
    that of the one that starts it.

    Raises:
        subprocess.CalledProcessError: It fails.
    """
    between = (
        "import os, subprocess, sys; "
        "process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "_, status, used = os.wait4(process.pid, 0); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss); "
        "sys.exit(os.waitstatus_to_exitcode(status))"
    )
    done = subprocess.run(
        [sys.executable, "-c", between, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak / (2**20 if sys.platform == "darwin" else 2**10)


def _write_runs(folder: Path, methods: int, seeds: int) -> None:
    """Write records of runs: the baseline, and Cutout with other shares."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store(folder).path.open("w") as file:
        for method in range(methods):
            share = "none" if method == 0 else f"cutout(share={method / methods!r})"
            augmentation = registry.build("augmentations", share)
            recipe = Recipe(data="digits", model="resnet8", augmentation=augmentation)
            labels = {"augmentation": share, "model": "resnet8", "data": "digits"}
            for seed in range(seeds):
                right = 0.9 + (seed * 7 + method * 13) % 100 / 2000
                one = Record(
                    kind="run", key=recipe.key, seed=seed, labels=labels, job=recipe.to_json(),
                    metrics={"accuracy": right, "seconds": 1.0 + right},
                )  # fmt: skip
                file.write(json.dumps(one.to_json()) + "\n")


def logging(
    log: Callable[[Record], object], progress: Progress, count: int = 200, block: int = 20
) -> list[Measure]:
    """Measure how much longer the last jobs take to be logged than the first ones.

    Args:
        log: Logs the start and the record of a job.
        progress: Shows the jobs.
        count: Number of jobs, all of one cell.
        block: Number of jobs that are timed together.
    """
    (job,) = tiny(1, 1)
    one = Record(
        kind="run", key=job.recipe.key, seed=0, job=job.recipe.to_json(),
        labels={"augmentation": "none", "model": "resnet8", "data": "digits"},
        metrics={"accuracy": 0.5},
    )  # fmt: skip
    marks = []
    log(replace(one, seed=count))  # warm-up
    with progress.task("logging", count) as advance:
        for seed in range(count):
            if seed % block == 0:
                marks.append(time.perf_counter())
            log(replace(one, seed=seed))
            advance()
    marks.append(time.perf_counter())
    spans = [after - before for before, after in itertools.pairwise(marks)]
    name = f"logging a job after {count - block}, of one after none"
    return [Measure(name, spans[-1] / spans[0], "times", CONSTANT)]


def scaling(workspace: Workspace, progress: Progress, cores: int, steps: int = 60) -> list[Measure]:
    """Measure the speed-up of the search for adversarial points with one process per core.

    The measure is blocks per second after the start of the processes, divided by the number of
    cores and by the rate of this process, which must be set to one thread.
    """
    data = workspace.dataset("digits")
    recipe = victims.usual_victim(data.name, data.digest, 8, model="resnet8", epochs=1)
    victim = victims.Victim(model=recipe.model, data=data.name, recipe=recipe)
    victims.obtain(recipe, workspace, Silent())
    jobs = [
        blocks.Block(
            number % 11,
            data.name,
            victim,
            recipe.key,
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
    jobs: list[blocks.Block],
    workers: int,
    workspace: Workspace,
    progress: Progress,
) -> float:
    """Return blocks per second while all workers are busy, without start and end."""
    ends = []
    with progress.task(f"points, {workers} at a time", len(jobs)) as advance:
        for _ in executor.map(blocks.attack, jobs, workspace, Silent(), lambda: False):
            ends.append(time.perf_counter())
            advance()
    first, last = 3 * workers - 1, len(ends) - workers - 1
    return (last - first) / (ends[last] - ends[first])
