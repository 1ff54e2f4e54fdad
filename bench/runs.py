"""Run jobs: a recipe and a seed give a record, and what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from filelock import FileLock

from bench import checkpoints, guides, models, registry, training
from bench.progress import Progress
from bench.recipes import Recipe
from bench.records import Record, Store
from bench.workspace import Workspace, machine


@dataclass(frozen=True)
class Job:
    """One training: a recipe, a seed, and the data set as it was typed."""

    recipe: Recipe
    seed: int

    @property
    def name(self) -> tuple[str, int]:
        """What identifies the job among the records."""
        return self.recipe.key, self.seed


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


def prepare(jobs: Iterable[Job], workspace: Workspace, progress: Progress) -> None:
    """Make what several jobs share, such as adversarial points, before any of them starts."""
    for name in dict.fromkeys(guides.needed(job.recipe) for job in jobs):
        if name is not None:
            guides.fixed(name, workspace, progress)


def execute(
    job: Job,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Train one network and return its record; the weights are kept beside it.

    A training that diverges gives a record with the status ``"failed"``.
    """
    recipe, data = job.recipe, workspace.dataset()
    if recipe.digest and recipe.digest != data.digest:
        raise ValueError(
            f"{recipe.data} has changed: its content is {data.digest}, not {recipe.digest}"
        )
    name = f"{recipe.key}-{job.seed}"
    checkpoint = workspace.cache / "checkpoints" / name
    wanted = guides.needed(recipe)
    guide = None if wanted is None else guides.fixed(wanted, workspace, progress)
    record = Record(
        kind="run",
        key=recipe.key,
        seed=job.seed,
        labels=labels(recipe, data.train.images.shape[-1]),
        metrics={},
        job=recipe.to_json(),
        machine=machine(workspace.device),
    )
    try:
        trained = training.train(
            recipe,
            job.seed,
            data,
            guide=guide,
            device=workspace.device,
            progress=progress,
            checkpoint=checkpoint,
            stop=stop,
        )
    except training.Diverged as error:
        checkpoints.discard(checkpoint)
        return replace(record, status="failed", message=str(error))
    weights = workspace.results / "weights" / f"{name}.safetensors"
    models.save_weights(trained.network, weights, {"recipe": recipe.key, "data": data.digest})
    checkpoints.discard(checkpoint)
    return replace(record, metrics=trained.metrics, curve=trained.curve)


def run(
    jobs: list[Job],
    workspace: Workspace,
    store: Store,
    progress: Progress,
    *,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Record, bool]]:
    """Run the jobs that have no record yet; yields every record and whether it was there before.

    A job that another process is running is waited for. ``fresh`` runs all of them anew.
    """
    done = {} if fresh else store.find(job.name for job in jobs)
    for job in jobs:
        if job.name in done:
            yield done[job.name], True
    rest = [job for job in jobs if job.name not in done]
    if not rest:
        return
    prepare(rest, workspace, progress)
    with progress.task("runs", len(rest)) as advance:
        for job in rest:
            lock = workspace.cache / "locks" / f"{job.recipe.key}-{job.seed}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                meanwhile = {} if fresh else store.find([job.name])
                if job.name in meanwhile:
                    yield meanwhile[job.name], True
                else:
                    record = execute(job, workspace, progress, stop)
                    store.add(record)
                    yield record, False
            advance()


def threads(count: int | None) -> None:
    """Fix the number of threads, which changes the last bits of sums."""
    if count is not None:
        torch.set_num_threads(count)
