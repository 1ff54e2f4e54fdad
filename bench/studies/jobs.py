"""Training jobs: a recipe and a seed give a record, and what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from filelock import FileLock

from bench import registry
from bench.errors import Stopped
from bench.execution.executors import Executor, Local, Lost
from bench.execution.machine import machine
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.models import weight_files
from bench.points import guides
from bench.records.record import Record
from bench.records.store import Store
from bench.training import checkpoints, loop, trained
from bench.training.recipes import Recipe


@dataclass(frozen=True)
class Job:
    """One training: a recipe and a seed. ``fresh`` runs it even if its record is there."""

    recipe: Recipe
    seed: int
    fresh: bool = False

    @property
    def name(self) -> tuple[str, int]:
        """What identifies the job among the records."""
        return self.recipe.key, self.seed


@runtime_checkable
class Observer(Protocol):
    """Follows a list of jobs from outside; nothing it does changes a result."""

    def started(self, job: Job) -> None:
        """A job begins."""
        ...

    def finished(self, record: Record, reused: bool) -> None:
        """A job gave its record, or had given it before."""
        ...


class Unobserved:
    """Follows nothing."""

    def started(self, job: Job) -> None:
        """Do nothing."""

    def finished(self, record: Record, reused: bool) -> None:
        """Do nothing."""


def labels(recipe: Recipe, side: int) -> dict[str, str]:
    """What tables group a recipe's records by."""
    found = {
        "augmentation": registry.label(recipe.augmentation, recipe.data, side),
        "hyperparameters": registry.express(recipe.augmentation),
        "model": recipe.model,
        "data": recipe.data,
    }
    for name in ("guide", "policy", "mix"):
        if value := getattr(recipe, name):
            found[name] = value
    return found


def describe(job: Job, workspace: Workspace) -> Record:
    """The record of a job before anything is known of its outcome."""
    side = workspace.dataset(job.recipe.data).train.images.shape[-1]
    return Record(
        kind="run",
        key=job.recipe.key,
        seed=job.seed,
        labels=labels(job.recipe, side),
        metrics={},
        job=job.recipe.to_json(),
        machine=machine(workspace.device),
    )


def weights(record: Record, workspace: Workspace) -> Path:
    """The weights file of a finished training."""
    return trained.path(record, workspace.results)


def execute(
    job: Job,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Train one network and return its record; the weights are kept beside it.

    A training that diverges gives a record with the status ``"failed"``.
    """
    recipe, data = job.recipe, workspace.dataset(job.recipe.data)
    if recipe.digest and recipe.digest != data.digest:
        raise ValueError(
            f"{recipe.data} has changed: its content is {data.digest}, not {recipe.digest}"
        )
    checkpoint = workspace.cache / "checkpoints" / f"{recipe.key}-{job.seed}"
    name = guides.needed(recipe)
    record = describe(job, workspace)
    try:
        result = loop.train(
            recipe,
            job.seed,
            data,
            guide=None if name is None else guides.fixed(name, data, workspace, progress),
            device=workspace.device,
            progress=progress,
            checkpoint=checkpoint,
            stop=stop,
        )
    except loop.Diverged as error:
        checkpoints.discard(checkpoint)
        return replace(record, status="failed", message=str(error))
    about = {"recipe": recipe.key, "data": data.digest}
    weight_files.save_weights(result.network, weights(record, workspace), about)
    checkpoints.discard(checkpoint)
    return replace(record, metrics=result.metrics, curve=result.curve)


def work(
    job: Job, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> tuple[Record, bool]:
    """Run a job unless its record is there; returns the record and whether it was there before.

    While another process runs the same job, this one waits and then takes that record.
    """
    lock = workspace.cache / "locks" / f"{job.recipe.key}-{job.seed}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    store = Store(workspace.results)
    with FileLock(lock):
        done = {} if job.fresh else store.find([job.name])
        if job.name in done:
            return done[job.name], True
        record = execute(job, workspace, progress, stop)
        store.add(record)
        return record, False


def prepare(
    jobs: Iterable[Job],
    workspace: Workspace,
    progress: Progress,
    executor: Executor,
    stop: Callable[[], bool],
) -> None:
    """Make what several jobs share, such as adversarial points, before any of them starts."""
    needed = dict.fromkeys((job.recipe.data, guides.needed(job.recipe)) for job in jobs)
    for data, name in needed:
        if name is not None:
            guides.fixed(name, workspace.dataset(data), workspace, progress, executor, stop)


def run(
    jobs: list[Job],
    workspace: Workspace,
    progress: Progress,
    *,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
    observer: Observer | None = None,
) -> Iterator[tuple[Record, bool]]:
    """Run the jobs that have no record yet.

    Args:
        jobs: What to run; with several workers the longest should come first.
        workspace: Where results go and on what device.
        progress: Shows how far the work has come.
        executor: Where jobs run; None: one after the other in this process.
        stop: Tells whether to stop soon.
        observer: Is told of each start and each record.

    Yields:
        Every record, and whether it was there before. A job whose worker died again and again gives
        a record with the status ``"failed"``.

    Raises:
        Stopped: ``stop()`` turned true.
    """
    store, executor, observer = (
        Store(workspace.results),
        executor or Local(),
        observer or Unobserved(),
    )
    done = store.find(job.name for job in jobs if not job.fresh)
    for job in jobs:
        if job.name in done:
            observer.finished(done[job.name], True)
            yield done[job.name], True
    rest = [job for job in jobs if job.name not in done]
    if not rest:
        return
    prepare(rest, workspace, progress, executor, stop)
    with progress.task("runs", len(rest)) as advance:
        for index, outcome in executor.map(
            work, rest, workspace, progress, stop, lambda index: observer.started(rest[index])
        ):
            if isinstance(outcome, Lost):
                record = describe(rest[index], workspace)
                record = replace(record, status="failed", message=outcome.message)
                store.add(record)
                outcome = record, False
            observer.finished(*outcome)
            yield outcome
            advance()
    if stop():
        raise Stopped("stopped before the last run")
