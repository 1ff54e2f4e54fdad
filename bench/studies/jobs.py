"""Training jobs: a recipe and a seed give a record; finished jobs are not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from bench import registry
from bench.errors import Stopped
from bench.execution.executors import Executor, Local, Lost
from bench.execution.folders import check_writable
from bench.execution.machine import machine
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import atomic, locks
from bench.models import weight_files
from bench.points import find, guides
from bench.records.record import Record
from bench.records.store import Store
from bench.records.validation import LARGEST
from bench.robustness import quality
from bench.training import checkpoints, fine_tuning, loop, robust, steps, trained
from bench.training.recipes import Recipe


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        recipe: How the network is trained.
        seed: Seed of the run.
        fresh: Run it even if its record exists.
    """

    recipe: Recipe
    seed: int
    fresh: bool = False

    @property
    def name(self) -> tuple[str, int]:
        """Key of the recipe and seed, which identify the job among the records."""
        return self.recipe.key, self.seed


@runtime_checkable
class Observer(Protocol):
    """Is told of the start and the record of each job; it does not change results."""

    def started(self, job: Job) -> None:
        """Called when a job starts."""
        ...

    def finished(self, record: Record, reused: bool) -> None:
        """Called with the record of a job, and whether it existed before."""
        ...


class Unobserved:
    """An observer that does nothing."""

    def started(self, job: Job) -> None:
        """Do nothing."""

    def finished(self, record: Record, reused: bool) -> None:
        """Do nothing."""


def labels(recipe: Recipe, side: int) -> dict[str, str]:
    """Return the labels by which tables group the records of a recipe.

    Args:
        recipe: The recipe.
        side: Side of the images in pixels.
    """
    found = {
        "augmentation": registry.label(recipe.augmentation, recipe.data, side),
        "hyperparameters": registry.express(recipe.augmentation),
        "model": recipe.model,
        "data": recipe.data,
    }
    for name in ("guide", "policy", "mix", "pretrained", "robust"):
        if value := getattr(recipe, name):
            found[name] = value
    return found


def describe(job: Job, workspace: Workspace) -> Record:
    """Return the record of a job without its results."""
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
    """Return the file of weights of a finished training."""
    return trained.path(record, workspace.results)


def execute(
    job: Job,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Train one network, store its weights and return its record.

    Args:
        job: The training.
        workspace: Where results are stored, and the device.
        progress: Shows the training.
        stop: Whether to stop soon.

    Returns:
        The record; its status is ``"failed"`` if the training diverged.

    Raises:
        ValueError: The content of an image folder has changed.
        Stopped: ``stop()`` returned True; the same job continues the training.
    """
    recipe, data = job.recipe, workspace.dataset(job.recipe.data)
    if recipe.digest and recipe.digest != data.digest:
        raise ValueError(
            f"the content of {recipe.data} has changed from {recipe.digest} to {data.digest}; "
            "start the comparison again"
        )
    name = guides.needed(recipe)
    record = describe(job, workspace)
    guide = None
    if name is not None:
        attack = recipe.points or find.SPARSE
        guide = guides.fixed(name, data, workspace, progress, attack=attack)
    about_job = json.dumps({"recipe": recipe.to_json(), "seed": job.seed})
    atomic.write(checkpoint(job, workspace) / "job.json", about_job)  # for bench status
    try:
        result = loop.train(
            recipe,
            job.seed,
            data,
            guide=guide,
            weights=fine_tuning.of(recipe, workspace),
            device=workspace.device,
            progress=progress,
            checkpoint=checkpoint(job, workspace),
            stop=stop,
        )
    except steps.Diverged as error:
        return replace(record, status="failed", message=str(error))
    about = {"recipe": recipe.key, "data": data.digest}
    weight_files.save_weights(result.network, weights(record, workspace), about)
    known = {} if guide is None else guides.evidence(recipe, guide, data, workspace)
    more = quality.measure(result.network, data, workspace.device)
    if not more["nll"] <= LARGEST:
        return replace(
            record,
            status="failed",
            message=f"the cross-entropy of the test images is {more['nll']:.2g}; try a smaller "
            "--learning-rate",
        )
    if recipe.robust is not None:
        method = robust.build(recipe.robust)
        share = robust.accuracy(method, result.network, data.test, workspace.device)
        more = {**more, "robust_accuracy": share}
    return replace(record, metrics=result.metrics | known | more, curve=result.curve)


def work(
    job: Job, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> tuple[Record, bool]:
    """Run a job unless its record exists; the work of an executor.

    If another process is running the job, this one waits and takes its record.

    Returns:
        The record, and whether it existed before.
    """
    lock = workspace.cache / "locks" / f"{job.recipe.key}-{job.seed}.lock"
    store, saved = Store(workspace.results), checkpoint(job, workspace)
    method = job.recipe.method(registry.express(job.recipe.augmentation))
    what = f"{method.name}, {job.recipe.model}, seed {job.seed}"
    with locks.held(lock, what, progress.say, stop):
        done = store.find([job.name]).get(job.name)
        if done is not None and (not job.fresh or checkpoints.belongs(saved, store.curve(done))):
            checkpoints.discard(saved)  # a process has ended after it had written the record
        if done is not None and not job.fresh:
            return done, True
        record = execute(job, workspace, progress, stop)
        store.add(record)
        checkpoints.discard(saved)  # not before: the record could not be made again without it
        return record, False


def checkpoint(job: Job, workspace: Workspace) -> Path:
    """Return the folder in which a training is saved between epochs."""
    return workspace.cache / "checkpoints" / f"{job.recipe.key}-{job.seed}"


def prepare(
    jobs: Iterable[Job],
    workspace: Workspace,
    progress: Progress,
    executor: Executor,
    stop: Callable[[], bool],
) -> None:
    """Compute what several jobs share, such as adversarial points, before the first one starts.

    Raises:
        Missing: The weights that a job starts from are not on this machine.
        ValueError: They are those of another network.
    """
    recipes = [job.recipe for job in jobs]
    starts = {(each.data, each.model, each.pretrained): each for each in recipes}
    for recipe in starts.values():
        if recipe.pretrained is not None:
            weights = fine_tuning.of(recipe, workspace)
            loop.first(recipe, workspace.dataset(recipe.data), weights, seed=0)
    needed = dict.fromkeys((each.data, guides.needed(each), each.points) for each in recipes)
    for data, name, points in needed:
        if name is not None:
            guides.fixed(
                name, workspace.dataset(data), workspace, progress, executor, stop,
                attack=points or find.SPARSE,
            )  # fmt: skip


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
        jobs: The jobs; with several workers, the longest should come first.
        workspace: Where results are stored, and the device.
        progress: Shows the jobs.
        executor: Where jobs run; None: one after the other in this process.
        stop: Whether to stop soon.
        observer: Is told of each start and each record.

    Yields:
        Each record, and whether it existed before. If the worker of a job died at every attempt,
        the status of its record is ``"failed"``.

    Raises:
        OSError: The results cannot be written; nothing was run.
        Stopped: ``stop()`` returned True.
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
    check_writable(workspace.results)
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
