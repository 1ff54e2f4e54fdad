"""Compare augmentations on common seeds: the design, the run, and the results."""

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
from bench.points import find, guides
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import formats, run_tables
from bench.reporting.formats import Table
from bench.studies import estimates, jobs
from bench.studies.jobs import Job
from bench.studies.tracking import TrackedRuns, TrackingOptions
from bench.training.recipes import Precision, Recipe, Schedule, usual


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Training settings of a user; None keeps the default for the dataset and the network.

    Attributes:
        policy: Image operations such as ``"autoaugment"``; see `bench.data.policies`.
        mix: Image mixing such as ``"mixup"`` or ``"cutmix"``; see `bench.data.mixing`.
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: Initial learning rate.
        weight_decay: Weight decay of all parameters.
        schedule: Learning-rate schedule, ``"cosine"`` or ``"steps"``.
        validation: Share of the training images held out for validation, drawn by the seed.
        precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``: bfloat16 on a CUDA device that
            computes it natively.

    Raises:
        ValueError: A value outside its range, or an unknown name.
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
        """Return the fields of a recipe that are set here."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if value is not None and (name, value) != ("precision", "auto")
        }


@dataclass(frozen=True, kw_only=True)
class Design:
    """A grid of trainings: every network with every augmentation and guide, on the same seeds.

    Attributes:
        augmentations: Augmentations by name with options, as ``"gridmask(ratio=0.5)"``, or objects.
        data: Name of a dataset of the workspace.
        models: Names of networks.
        seeds: Seeds, at least 0 and each once.
        guides: Fixed guides for the augmentations that use one; empty: their defaults.
        points: Attack that finds the adversarial points; None: the dataset's own.
        training: Training settings.
        fresh: Rerun jobs that already have results.

    Raises:
        ValueError: Nothing to compare, an unknown name, or invalid seeds.
    """

    augmentations: tuple[str | Augmentation, ...]
    data: str
    models: tuple[str, ...] = ("resnet18",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    guides: tuple[str, ...] = ()
    points: str | None = None
    training: TrainingOptions = TrainingOptions()
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.augmentations or not self.models:
            raise ValueError("there is nothing to compare: give an augmentation and a model")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {list(self.seeds)}: give integers from 0, each once")
        for text in self.augmentations:
            if isinstance(text, str):
                registry.build("augmentations", text)
        for model in self.models:
            networks.check(model)

    def recipes(self, workspace: Workspace) -> list[Recipe]:
        """Return one recipe per network, augmentation and guide.

        Raises:
            ValueError: A guide that does not exist or has no effect.
        """
        data = workspace.dataset(self.data)
        side = data.train.images.shape[-1]
        methods = [
            registry.build("augmentations", each, data=data.name, side=side)
            if isinstance(each, str)
            else each
            for each in self.augmentations
        ]
        common = {"precision": native_precision(workspace.device)}
        points: str | None = find.chosen_attack(data.name, self.points)
        if points == find.chosen_attack(data.name, find.SPARSE):
            points = None  # as in the recipes of version 0.1
        found: list[Recipe] = []
        for model in self.models:
            settings = common | usual(data.name, model, side) | self.training.given()
            for method in methods:
                own = Recipe(
                    data=data.name, digest=data.pin, model=model, augmentation=method, **settings
                )
                for guide in (self.guides if guides.takes(own) else ()) or (None,):
                    # the default guide by its name gives the same recipe
                    default = guide is None or guide == guides.needed(own)
                    recipe = own if default else replace(own, guide=guide)
                    if guides.from_points(recipe):
                        recipe = replace(recipe, points=points)
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
        """Return every training of the grid."""
        return [
            Job(recipe, seed, fresh=self.fresh)
            for recipe in self.recipes(workspace)
            for seed in self.seeds
        ]


def native_precision(device: str) -> Precision:
    """Return bfloat16 if the device computes it natively, else float32."""
    if not device.startswith("cuda"):
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


@dataclass(frozen=True)
class Study:
    """The results of a comparison; a terminal shows a table, a notebook HTML.

    Attributes:
        records: One record per job, in the order of the jobs, with ``seed``, ``labels`` and
            ``metrics``; ``metrics["accuracy"]`` is the share of the test images that are classified
            correctly after the last epoch.
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
        """
        return run_tables.grid(self.records, metric, baseline)

    def differences(self, baseline: str = "none", metric: str = "accuracy") -> Table:
        """Return the gain of each method over the baseline, paired by seed, with Holm's correction.

        Args:
            baseline: Label of the baseline.
            metric: Name of a metric of the records.

        Raises:
            ValueError: No method has a seed in common with the baseline.
        """
        return run_tables.differences(self.records, metric, baseline)

    def intervals(
        self, metric: str = "accuracy", baseline: str | None = "none"
    ) -> list[dict[str, Any]]:
        """Return one object per method, dataset and network, in fractions.

        Args:
            metric: Name of a metric of the records.
            baseline: Label of the baseline; None: no tests.
        """
        return run_tables.intervals(self.records, baseline, metric)

    def to_latex(self, metric: str = "accuracy", baseline: str | None = "none") -> str:
        """Return the table as LaTeX; it needs the package booktabs."""
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
        data: A dataset by name, or a part of one as ``"cifar10(train=2000)"``; an image folder or
            archive; or a `bench.Dataset`.
        model: One or several networks by name.
        seeds: Number of seeds (0, 1, …), or a list of seeds.
        epochs: Passes over the training images; None: the default of the dataset.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        threads: Processor threads per job; the number changes the last bits of results.
        guides: Fixed guides for the augmentations that use one; empty: their defaults.
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
        points=points,
        training=settings,
        fresh=fresh,
    )
    return run(design.jobs(workspace), workspace, options, tracking, open_progress(quiet))


def place(workspace: Workspace, data: str | Path | Dataset) -> tuple[Workspace, str]:
    """Add a dataset to a workspace.

    Args:
        workspace: The workspace.
        data: Name or path of a dataset, or a dataset in memory.

    Returns:
        The workspace that knows the dataset, and the dataset's name.

    Raises:
        ValueError: A dataset in memory has the name of a published one.
        Missing: The dataset was not found.
    """
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
    """Run the jobs that have no record yet, and log them to MLflow.

    Args:
        wanted: The jobs.
        workspace: Where results are stored, and the device.
        execution: The executor.
        tracking: MLflow server, or whether MLflow is used at all.
        progress: Shows the progress; None: bars on a terminal, lines elsewhere.

    Raises:
        Stopped: Ctrl-C or SIGTERM; finished jobs are stored.
    """
    progress = progress or open_progress()
    executor = execution.build(workspace.device)
    describe(wanted, workspace, progress)
    queue = list(wanted)
    if not isinstance(executor, Local):  # the longest first, so that no worker idles at the end
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
            f"{reused} of {len(wanted)} runs already had results, which were reused; "
            "--fresh reruns them."
        )
    return study


def describe(wanted: Sequence[Job], workspace: Workspace, progress: Progress) -> None:
    """Print dataset and training settings, such that no default is hidden."""
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
    """Return one line on a new record."""
    about = f"{record.labels['augmentation']}, {record.labels['model']}, seed {record.seed}"
    if record.status == "failed":
        return f"{about}: failed, {record.message}"
    return (
        f"{about}: {record.metrics['accuracy']:.2%} after {record.metrics['epochs']:.0f} epochs "
        f"of {record.metrics['seconds_per_epoch']:.2f} s"
    )


@dataclass(frozen=True)
class PlannedJob:
    """A job of a design, as ``--dry-run`` shows it.

    Attributes:
        job: The job.
        done: Whether its record exists.
    """

    job: Job
    done: bool

    def to_json(self) -> dict[str, Any]:
        """Return the job as ``--dry-run --json`` prints it."""
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


def plan(wanted: Sequence[Job], workspace: Workspace) -> list[PlannedJob]:
    """Return which jobs would run and which are done.

    Args:
        wanted: The jobs.
        workspace: The results folder.
    """
    done = Store(workspace.results).find(job.name for job in wanted)
    return [PlannedJob(job, job.name in done) for job in wanted]
