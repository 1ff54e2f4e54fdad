"""Augmentations compared on common seeds: what is asked for, how it is run, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from augmentations import Augmentation
from bench import registry
from bench.data import catalog, mixing, policies
from bench.data.dataset import MEMORY, Dataset
from bench.execution import signals
from bench.execution.executors import Local
from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress, open_progress
from bench.execution.workspace import Workspace
from bench.models import networks
from bench.points import guides
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import formats, run_tables
from bench.reporting.table import Table
from bench.studies import estimates, jobs
from bench.studies.jobs import Job
from bench.studies.tracking import TrackedRuns, TrackingOptions
from bench.training.recipes import Precision, Recipe, Schedule, usual


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a user sets of a training; None leaves the usual setting of dataset and network.

    Attributes:
        policy: Image operations such as ``"autoaugment"``; see `bench.data.policies`.
        mix: ``"mixup"`` or ``"cutmix"``.
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: Initial learning rate.
        weight_decay: Weight decay of all parameters.
        schedule: Learning-rate schedule, ``"cosine"`` or ``"steps"``.
        validation: Share of the training images held out for validation, drawn by the seed.
        precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``: mixed precision on a CUDA device
            that computes it natively.
    """

    policy: str | None = None
    mix: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: Schedule | None = None
    validation: float | None = None
    precision: Precision | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.policy is not None:
            policies.build(self.policy, side=32)
        if self.mix is not None:
            mixing.build(self.mix)
        Recipe(**self.given())

    def given(self) -> dict[str, Any]:
        """The fields of a recipe that are set here."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if value is not None and (name, value) != ("precision", "auto")
        }


@dataclass(frozen=True, kw_only=True)
class Design:
    """A grid of trainings: every network with every augmentation and guide on the same seeds.

    Attributes:
        augmentations: Augmentations by name with options, as ``"gridmask(ratio=0.5)"``, or objects.
        data: Name of a dataset of the workspace.
        models: Names of networks.
        seeds: Seeds, each at least 0 and once.
        guides: Fixed guides for the augmentations that want one; empty: their own.
        training: Settings that differ from the usual ones.
        fresh: Rerun jobs that already have results.
    """

    augmentations: tuple[str | Augmentation, ...]
    data: str
    models: tuple[str, ...] = ("resnet18",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    guides: tuple[str, ...] = ()
    training: TrainingOptions = TrainingOptions()
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.augmentations or not self.models:
            raise ValueError("there is nothing to compare: give an augmentation and a model")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds are {list(self.seeds)}: give whole numbers from 0 up, each once"
            )
        for text in self.augmentations:
            if isinstance(text, str):
                registry.build("augmentations", text)
        for model in self.models:
            networks.check(model)

    def recipes(self, workspace: Workspace) -> list[Recipe]:
        """One recipe per network, augmentation and guide."""
        data = workspace.dataset(self.data)
        side = data.train.images.shape[-1]
        methods = [
            registry.build("augmentations", each, data=data.name, side=side)
            if isinstance(each, str)
            else each
            for each in self.augmentations
        ]
        common = {"precision": native(workspace.device)}
        found: list[Recipe] = []
        for model in self.models:
            settings = common | usual(data.name, model, side) | self.training.given()
            for method in methods:
                own = Recipe(
                    data=data.name, digest=data.pin, model=model, augmentation=method, **settings
                )
                for guide in (self.guides if guides.takes(own) else ()) or (None,):
                    # its own guide by name is the same recipe as the default
                    default = guide is None or guide == guides.needed(own)
                    recipe = own if default else replace(own, guide=guide)
                    guides.check(recipe, data, workspace)
                    if recipe not in found:
                        found.append(recipe)
        if self.guides and not any(map(guides.takes, found)):
            raise ValueError(
                f"--guide {self.guides[0]} has no effect on what is compared; remove it, or add "
                "--aug advmask"
            )
        return found

    def jobs(self, workspace: Workspace) -> list[Job]:
        """Every training of the grid."""
        return [
            Job(recipe, seed, fresh=self.fresh)
            for recipe in self.recipes(workspace)
            for seed in self.seeds
        ]


def native(device: str) -> Precision:
    """bfloat16 where the device computes it natively, float32 elsewhere."""
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


@dataclass(frozen=True)
class Study:
    """What a comparison gave: the records of its jobs, and what they show.

    A terminal shows it as its table, a notebook as HTML.

    Attributes:
        records: One record per job, in the order of the jobs: ``seed``, ``labels`` and ``metrics``
            (``metrics["accuracy"]`` is a fraction of the test images after the last epoch).
    """

    records: tuple[Record, ...]

    @property
    def failed(self) -> list[Record]:
        """The records of the jobs that failed."""
        return [record for record in self.records if record.status == "failed"]

    def table(self, metric: str = "accuracy", baseline: str | None = "none") -> Table:
        """Mean and 95 % t-interval of each method, with paired comparisons to the baseline."""
        return run_tables.grid(self.records, metric, baseline)

    def differences(self, baseline: str = "none", metric: str = "accuracy") -> Table:
        """Gain of each method over the baseline, paired by seed, with Holm's correction.

        Raises:
            ValueError: No method shares a seed with the baseline.
        """
        return run_tables.differences(self.records, metric, baseline)

    def intervals(
        self, metric: str = "accuracy", baseline: str | None = "none"
    ) -> list[dict[str, Any]]:
        """One object for each method, dataset and network, in fractions."""
        return run_tables.intervals(self.records, baseline, metric)

    def to_latex(self, metric: str = "accuracy", baseline: str | None = "none") -> str:
        """The table as LaTeX, for a document that uses the package booktabs."""
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
    guides: Sequence[str] = (),
    training: TrainingOptions | None = None,
    execution: ExecutionOptions | None = None,
    tracking: TrackingOptions | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Study:
    """Train networks with different augmentations on common seeds and compare them.

    The same jobs, records and MLflow runs as the command ``bench run``; what is done is reused, and
    a call that was interrupted continues where it was.

    Args:
        augmentations: Augmentations by name with options, as ``"gridmask(ratio=0.5)"``, or objects.
        data: A dataset by name, with a part of it as in ``"cifar10(train=2000)"``; an image folder
            or archive; or a `bench.Dataset`.
        model: One or several networks by name.
        seeds: How many seeds (0, 1, …), or the seeds themselves.
        epochs: Passes over the training images; None: the usual number for the dataset.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        threads: Processor threads of each job.
        guides: Fixed guides for the augmentations that want one.
        training: Further settings of the training.
        execution: Device and executor.
        tracking: Where MLflow logs to, or whether it logs at all.
        data_root: Folder in which named datasets are looked for first.
        download: Whether a missing dataset may be fetched from its publisher.
        fresh: Rerun jobs that already have results.
        quiet: Hide progress output.

    Returns:
        The study: ``records``, ``table()``, ``differences()``, ``to_latex()``.

    Raises:
        ValueError: Something that was asked for does not exist or cannot be.
        Missing: The dataset is not there; the message says what to place where.

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
    from augmentations import Augmentation as Method

    settings = training or TrainingOptions()
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    options = execution or ExecutionOptions()
    if threads is not None:
        options = replace(options, threads=threads)
    root = None if data_root is None else Path(data_root)
    workspace = options.workspace(results, root, download)
    workspace, name = place(workspace, data)
    single = isinstance(augmentations, str | Method)
    design = Design(
        augmentations=(augmentations,) if single else tuple(augmentations),  # type: ignore[arg-type]
        data=name,
        models=(model,) if isinstance(model, str) else tuple(model),
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        guides=tuple(guides),
        training=settings,
        fresh=fresh,
    )
    return run(design.jobs(workspace), workspace, options, tracking, open_progress(quiet))


def place(workspace: Workspace, data: str | Path | Dataset) -> tuple[Workspace, str]:
    """The workspace that knows a dataset as a user gives it, and the dataset's name there."""
    if isinstance(data, Dataset):
        if data.source == MEMORY and registry.parse(data.name)[0] in catalog.names():
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
) -> Study:
    """Run the jobs that have no record yet, tracked, stopped by the first Ctrl-C or SIGTERM.

    Raises:
        Stopped: A signal came; what is finished is kept.
    """
    progress = progress or open_progress()
    executor = execution.build(workspace.device)
    describe(wanted, workspace, progress)
    queue = list(wanted)
    if not isinstance(executor, Local):  # the longest first: no worker idles at the end
        queue.sort(key=estimates.operations, reverse=True)
    tracker = (tracking or TrackingOptions()).open(workspace, progress.say)
    observer = None if tracker is None else TrackedRuns(tracker, workspace)
    found: dict[tuple[str, int], Record] = {}
    reused = 0
    try:
        with signals.listen(progress.say) as stop:
            for record, before in jobs.run(
                queue, workspace, progress, executor=executor, stop=stop, observer=observer
            ):
                found[record.key, record.seed] = record
                reused += before
                if not before:
                    progress.say(outcome(record))
    finally:
        if observer is not None:
            observer.close()
    study = Study(tuple(found[job.name] for job in wanted if job.name in found))
    if observer is not None:
        observer.summarise(study.records)
    if reused:
        progress.say(
            f"{reused} of {len(wanted)} runs already have results, which are reused "
            "(--fresh reruns them)"
        )
    return study


def describe(wanted: Sequence[Job], workspace: Workspace, progress: Progress) -> None:
    """Say what is compared and how, so that no default is hidden."""
    recipe = wanted[0].recipe
    data = workspace.dataset(recipe.data)
    progress.say(
        f"{data.name}: {len(data.train.labels)} training and {len(data.test.labels)} test "
        f"images, {len(data.classes)} classes ({data.source})"
    )
    progress.say(
        f"{recipe.epochs} epochs, batch size {recipe.batch_size}, learning rate "
        f"{recipe.learning_rate:g} ({recipe.schedule}), weight decay {recipe.weight_decay:g}, "
        f"crop padding {recipe.padding}, flip {'yes' if data.flip else 'no'}, "
        f"validation {recipe.validation:.0%}, {recipe.precision} on {workspace.device}"
    )
    if recipe.policy or recipe.mix:
        progress.say(f"policy {recipe.policy or 'none'}, mix {recipe.mix or 'none'}")
    for text in dict.fromkeys(registry.express(job.recipe.augmentation) for job in wanted):
        progress.say(f"  {text}")


def outcome(record: Record) -> str:
    """One line for a record that has just come in."""
    about = f"{record.labels['augmentation']}, {record.labels['model']}, seed {record.seed}"
    if record.status == "failed":
        return f"{about}: failed, {record.message}"
    return (
        f"{about}: {record.metrics['accuracy']:.2%} after {record.metrics['epochs']:.0f} epochs "
        f"of {record.metrics['seconds_per_epoch']:.2f} s"
    )


@dataclass(frozen=True)
class Planned:
    """A job of a design and whether its record is there."""

    job: Job
    done: bool

    def to_json(self) -> dict[str, Any]:
        """The job as ``--dry-run --json`` prints it."""
        recipe = self.job.recipe
        return {
            "augmentation": registry.express(recipe.augmentation),
            "model": recipe.model,
            "data": recipe.data,
            "seed": self.job.seed,
            "epochs": recipe.epochs,
            "guide": recipe.guide,
            "policy": recipe.policy,
            "mix": recipe.mix,
            "done": self.done,
        }

    def __str__(self) -> str:
        recipe = self.job.recipe
        parts = [registry.express(recipe.augmentation), recipe.guide, recipe.policy, recipe.mix]
        return (
            f"{'done' if self.done else 'to run':7} {' + '.join(filter(None, parts))}  "
            f"{recipe.model}  {recipe.data}  seed {self.job.seed}, {recipe.epochs} epochs"
        )


def plan(wanted: Sequence[Job], workspace: Workspace) -> list[Planned]:
    """Which jobs would run and which are done."""
    done = Store(workspace.results).find(job.name for job in wanted)
    return [Planned(job, job.name in done) for job in wanted]
