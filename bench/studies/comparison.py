"""Compare augmentations on common seeds: the design, the run, and the results."""

from __future__ import annotations

import itertools
import math
import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from augmentations import Augmentation
from bench import registry
from bench.data import catalog
from bench.data.dataset import MEMORY, Dataset
from bench.execution import machine, signals
from bench.execution.executors import Local
from bench.execution.options import ExecutionOptions, options_of
from bench.execution.progress import Progress, Silent, open_progress
from bench.execution.workspace import Workspace
from bench.points import coverage
from bench.records.method import Method
from bench.records.record import Record
from bench.records.store import Store
from bench.registry import notation
from bench.reporting import formats, run_tables
from bench.reporting.grouping import plural
from bench.reporting.table import Table
from bench.studies import estimates, jobs
from bench.studies.designs import Design, TrainingOptions
from bench.studies.jobs import Job
from bench.studies.tracking import TrackingOptions, tracked_runs
from bench.training import fine_tuning, memory
from bench.training.recipes import described


@dataclass(frozen=True)
class Study:
    """The results of a comparison; a terminal shows a table, a notebook HTML.

    Attributes:
        records: One record per job, in the order of the jobs, with ``seed``, ``labels`` and
            ``metrics``; ``metrics["accuracy"]`` is the share of the test images that are classified
            correctly after the last epoch.

    >>> labels = {"augmentation": "none", "model": "resnet8", "data": "digits"}
    >>> record = Record(
    ...     kind="run", key="k", seed=0, labels=labels, metrics={"accuracy": 0.9}
    ... )
    >>> study = Study((record,))
    >>> study.failed, study.intervals()[0]["mean"]
    ([], 0.9)
    """

    records: tuple[Record, ...]

    @property
    def failed(self) -> list[Record]:
        """The records of failed jobs."""
        return [record for record in self.records if record.status == "failed"]

    def table(self, metric: str = "accuracy", baseline: str | None = "none") -> Table:
        """Return the mean and 95 % t-interval of each method, tested against the baseline.

        Args:
            metric: Name of a metric of the records.
            baseline: Label of the baseline; None: no tests.

        Raises:
            ValueError: No run has the metric, or none is called like the baseline.
        """
        run_tables.check_baseline(self.records, baseline)
        return run_tables.grid(self.records, metric, baseline)

    def differences(self, baseline: str = "none", metric: str = "accuracy") -> Table:
        """Return the gain of each method over the baseline, paired by seed, with Holm's correction.

        Args:
            baseline: Label of the baseline.
            metric: Name of a metric of the records.

        Raises:
            ValueError: No run has the metric, or no method has a seed in common with the baseline.
        """
        return run_tables.differences(self.records, metric, baseline)

    def intervals(
        self, metric: str = "accuracy", baseline: str | None = "none"
    ) -> list[dict[str, Any]]:
        """Return one object per method, dataset and network, in fractions.

        Args:
            metric: Name of a metric of the records.
            baseline: Label of the baseline; None: no tests.

        Raises:
            ValueError: No run has the metric, or none is called like the baseline.
        """
        run_tables.check_baseline(self.records, baseline)
        return run_tables.intervals(self.records, baseline, metric)

    def to_latex(self, metric: str = "accuracy", baseline: str | None = "none") -> str:
        """Return the table as LaTeX; it needs the packages adjustbox, booktabs and siunitx."""
        return formats.latex(self.table(metric, baseline))

    def __str__(self) -> str:
        return formats.text(self.table())

    def _repr_html_(self) -> str:
        return formats.html(self.table())


def compare(
    augmentations: Sequence[str | Augmentation] | str | Augmentation,
    *,
    data: str | Path | Dataset = "digits",
    model: str | Sequence[str] = "resnet18",
    seeds: int | Sequence[int] = 5,
    epochs: int | None = None,
    results: str | Path | None = None,
    threads: int | None = None,
    guides: str | Sequence[str] = (),
    points: str | None = None,
    training: TrainingOptions | None = None,
    execution: ExecutionOptions | None = None,
    tracking: TrackingOptions | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Study:
    """Train networks with different augmentations on common seeds and compare them.

    The jobs, records and MLflow runs are those of the command ``bench run``; finished jobs are
    reused, and an interrupted call continues where it stopped.

    Args:
        augmentations: Augmentations by name with options, as ``"gridmask(ratio=0.5)"``, or objects.
            A name may end in a fixed guide of its own, as ``"advmask + random"``.
        data: A dataset by name, or a part of one as ``"cifar10(train=2000)"``; an image folder or
            archive; or a `bench.Dataset`.
        model: One or several networks by name.
        seeds: Number of seeds (0, 1, …), or a list of seeds.
        epochs: Passes over the training images; None: the default of the dataset.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        threads: Processor threads per job; the number changes the last bits of results.
        guides: One or several fixed guides for the other augmentations that use one; empty: their
            defaults.
        points: Attack that finds the adversarial points; None: the dataset's own.
        training: Further training settings.
        execution: Device and executor.
        tracking: MLflow server, or whether MLflow is used at all.
        data_root: Folder searched first for named datasets.
        download: Whether a missing dataset may be downloaded from its publisher.
        fresh: Rerun jobs that already have results.
        quiet: Hide progress output.

    Returns:
        The study: ``records``, ``table()``, ``differences()``, ``to_latex()``.

    Raises:
        ValueError: An argument is unknown, out of range, or contradicts another.
        Missing: The dataset was not found; the message says what to place where.
        Stopped: Ctrl-C or SIGTERM; finished jobs are stored.

    Example:
        >>> import bench
        >>> from tempfile import mkdtemp
        >>> study = compare(
        ...     ["none", "cutout"],
        ...     data="digits(train=40, test=20)",
        ...     model="resnet8",
        ...     seeds=1,
        ...     epochs=1,
        ...     results=mkdtemp(),
        ...     tracking=TrackingOptions(no_tracking=True),
        ...     quiet=True,
        ... )
        >>> [record.labels["augmentation"] for record in study.records]
        ['none', 'cutout']
    """
    methods, chosen = _methods(augmentations), seeds_of(seeds)
    models = _names("model", model, "a network, such as 'resnet18', or 'FILE.py:FACTORY'")
    fixed = _names("guides", guides, "a guide, such as 'random'")
    if points is not None:
        _names("points", points, "an attack, such as 'jsma'")
    settings = options_of("training", training, TrainingOptions)
    if epochs is not None:
        settings = replace(settings, epochs=_plain(epochs))
    options = options_of("execution", execution, ExecutionOptions)
    if threads is not None:
        options = replace(options, threads=_plain(threads))
    root = None if data_root is None else Path(data_root)
    workspace = options.workspace(results, root, download)
    workspace, name = place(workspace, data)
    workspace = fine_tuning.remember(workspace, settings.pretrained)
    design = Design(
        augmentations=methods,
        data=name,
        models=models,
        seeds=chosen,
        guides=fixed,
        points=points,
        training=settings,
        fresh=fresh,
    )
    return run(design.jobs(workspace), workspace, options, tracking, open_progress(quiet))


MOST_SEEDS = 10_000
"""Most seeds of a comparison; there is a job for each of them and each method."""


def _listed(given: Any) -> tuple[Any, ...]:
    """What a user gives as one or several."""
    several = isinstance(given, Iterable) and not isinstance(given, str | type)
    return tuple(given) if several else (given,)


def _methods(given: Any) -> tuple[str | Augmentation, ...]:
    """The augmentations of a user; raises ``ValueError`` for what is none."""
    found = _listed(given)
    for each in found:
        if isinstance(each, type):
            raise ValueError(
                f"{each.__name__} is a class: give an object, such as {each.__name__}(), or a name"
            )
        if not isinstance(each, str) and not callable(getattr(each, "mask", None)):
            raise ValueError(
                f"{each!r} is no augmentation: give a name, such as 'cutout', or an object"
            )
    return found


def _names(argument: str, value: Any, what: str) -> tuple[str, ...]:
    """One or several names of a user; raises ``ValueError`` for objects, and says what to give."""
    found = _listed(value)
    for each in found:
        if not isinstance(each, str):
            raise ValueError(
                f"{argument} is an object of {type(each).__name__}: give the name of {what}"
            )
    return found


def seeds_of(value: Any) -> tuple[int, ...]:
    """Return the seeds of a user.

    Args:
        value: Number of seeds (0, 1, …), at least 1, or the seeds.

    Raises:
        ValueError: It is neither, or there are more than `MOST_SEEDS`.
    """
    several = isinstance(value, Iterable) and not isinstance(value, str)
    try:
        numbers = map(operator.index, value if several else range(operator.index(value)))
        found = tuple(itertools.islice(numbers, MOST_SEEDS + 1))
    except TypeError:
        found = ()
    if not found:
        raise ValueError(
            f"seeds is {value!r}: give a number of seeds, such as 5, or a list, such as [0, 3, 7]"
        )
    if len(found) > MOST_SEEDS:
        raise ValueError(f"there are more than {MOST_SEEDS} seeds: give fewer")
    return found


def _plain(number: Any) -> Any:
    """An integer of any library as Python's own; anything else stays for its own check."""
    return int(number) if isinstance(number, Integral) else number


def place(workspace: Workspace, data: str | Path | Dataset) -> tuple[Workspace, str]:
    """Add a dataset to a workspace.

    Args:
        workspace: The workspace.
        data: Name or path of a dataset, or a dataset in memory.

    Returns:
        The workspace that knows the dataset, and the dataset's name.

    Raises:
        ValueError: A dataset in memory has the name of a published one, or an object is no such
            dataset.
        Missing: The dataset was not found.
    """
    if not isinstance(data, str | Path | Dataset):
        raise ValueError(
            f"data is an object of {type(data).__name__}: give its images and labels to "
            "bench.from_arrays, or the folder that it reads"
        )
    if isinstance(data, Dataset):
        if data.source == MEMORY and notation.whole(data.name) in catalog.names():
            raise ValueError(
                f"a dataset in memory is called {data.name}, like a published one: choose another "
                "name"
            )
        workspace.adopt(data)
        return workspace, data.name
    return workspace.locate(str(data))


def run(
    wanted: Sequence[Job],
    workspace: Workspace,
    execution: ExecutionOptions,
    tracking: TrackingOptions | None = None,
    progress: Progress | None = None,
    *,
    costed: bool = False,
    described: bool = False,
) -> Study:
    """Run the jobs that have no record yet, and log them to MLflow; say before what they cost.

    Args:
        wanted: The jobs.
        workspace: Where results are stored, and the device.
        execution: The executor.
        tracking: MLflow server, or whether MLflow is used at all.
        progress: Shows the progress; None: bars on a terminal, lines elsewhere.
        costed: The cost was said before, with that of other work.
        described: Dataset and training settings were printed before.

    Raises:
        Stopped: Ctrl-C or SIGTERM; finished jobs are stored.
    """
    progress = progress or open_progress()
    executor = execution.build(workspace.device)
    if not costed:
        say_cost(wanted, workspace, progress)
    if not described:
        describe(wanted, workspace, progress)
    queue = list(wanted)
    if not isinstance(executor, Local):  # the longest first, so that no worker idles at the end
        queue.sort(key=estimates.operations, reverse=True)
    found: dict[tuple[str, int], Record] = {}
    told: set[str] = set()
    reused = 0
    with (
        signals.listen(progress.say) as stop,
        tracked_runs(tracking or TrackingOptions(), workspace, progress) as observer,
    ):
        for record, before in jobs.run(
            queue, workspace, progress, executor=executor, stop=stop, observer=observer
        ):
            found[record.key, record.seed] = record
            reused += before
            if not before:
                progress.say(outcome(record))
            if record.key not in told and (line := missed(record)):
                told.add(record.key)
                progress.say(line)
    study = Study(tuple(found[job.name] for job in wanted if job.name in found))
    if reused:
        progress.say(
            f"{reused} of {len(wanted)} runs already had results, which were reused; "
            "--fresh reruns them."
        )
    return study


def say_cost(wanted: Sequence[Job], workspace: Workspace, progress: Progress) -> None:
    """Print how long the jobs will take that are not done; nothing if no progress is shown."""
    if not isinstance(progress, Silent):  # the estimate itself can take a second
        done = Store(workspace.results).all()
        progress.say(estimates.cost(wanted, done, workspace.device))


LONG = 10**8
"""Pixels of a training, over all epochs, from which on a faster number format is worth a line."""


def describe(wanted: Sequence[Job], workspace: Workspace, progress: Progress) -> None:
    """Print dataset and training settings, such that no default is hidden."""
    recipe = wanted[0].recipe
    data = workspace.dataset(recipe.data)
    progress.say(
        f"{data.name}: {len(data.train.labels)} training and {len(data.test.labels)} test "
        f"images, {len(data.classes)} classes ({data.source})"
    )
    flips = "yes" if data.flip and recipe.flip else "no"
    settings: dict[str, list[str]] = {}
    for job in wanted:
        models = settings.setdefault(described(job.recipe), [])
        models += [job.recipe.model] * (job.recipe.model not in models)
    for text, models in settings.items():
        names = f"{', '.join(models)}: " if len(settings) > 1 else ""
        progress.say(f"{names}{text} on {workspace.device}, flip {flips}")
    if os.environ.get("OMP_WAIT_POLICY") == "PASSIVE":
        progress.say("threads sleep while they wait (OMP_WAIT_POLICY=PASSIVE), for a busy machine")
    pixels = recipe.epochs * math.prod((len(data.train), *data.train.images.shape[-2:]))
    if workspace.device == "cpu" and pixels >= LONG:
        if recipe.precision == "float32" and machine.computes_bfloat16():
            progress.say(
                "this processor computes bfloat16: --precision bfloat16 trains 1.3 to 1.7 times as "
                "fast"
            )
        if recipe.precision == "bfloat16" and not machine.convolves_bfloat16():
            progress.say(
                "this processor has no convolutions in bfloat16: --precision float32 trains "
                "several times as fast"
            )
    if need := memory.said(recipe, data):
        progress.say(need)
    for method in dict.fromkeys(filter(None, (job.recipe.robust for job in wanted))):
        progress.say(f"adversarial training: {method}")
    for text in dict.fromkeys(
        job.recipe.method(registry.express(job.recipe.augmentation)).name for job in wanted
    ):
        progress.say(f"  {text}")


def outcome(record: Record) -> str:
    """Return one line on a new record."""
    about = f"{Method.of(record).name}, {record.labels['model']}, seed {record.seed}"
    if record.status == "failed":
        return f"{about}: failed, {record.message}"
    epochs = plural(round(record.metrics["epochs"]), "epoch")
    return (
        f"{about}: {record.metrics['accuracy']:.2%} after {epochs} of "
        f"{record.metrics['seconds_per_epoch']:.2f} s"
    )


def missed(record: Record) -> str | None:
    """Return one line if too many masks of a run delete less than their lower bound, else None."""
    if record.status == "failed" or "masks_below_minimum" not in record.metrics:
        return None
    method = registry.build("augmentations", record.labels["hyperparameters"])
    return coverage.warning(method, record.metrics)
