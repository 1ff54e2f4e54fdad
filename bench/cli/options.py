"""Options that several commands share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from bench.cli import types
from bench.cli.sections import (
    Function,
    attacked,
    compared,
    execution,
    gathered,
    output,
    refuse,
    together,
    trained,
)
from bench.execution.options import ExecutorName

if TYPE_CHECKING:
    from bench.execution.options import ExecutionOptions
    from bench.execution.workspace import Workspace
    from bench.studies.designs import TrainingOptions
    from bench.studies.tracking import TrackingOptions
    from bench.studies.until_decided import StoppingOptions


def _execution_options() -> type[ExecutionOptions]:
    from bench.execution.options import ExecutionOptions

    return ExecutionOptions


def _tracking_options() -> type[TrackingOptions]:
    from bench.studies.tracking import TrackingOptions

    if click.get_current_context().params.get("no_tracking"):
        refuse("--no-tracking", "tracking_uri", "log_weights", "system_metrics")
    return TrackingOptions


def training_options() -> type[TrainingOptions]:
    """Return the class of the training settings."""
    from bench.studies.designs import TrainingOptions

    return TrainingOptions


def _stopping_options() -> type[StoppingOptions]:
    from bench.studies.until_decided import StoppingOptions

    return StoppingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """The seeds of a comparison: the first ones, or a list."""

    seeds: int
    seed_list: tuple[int, ...] | None

    def chosen(self) -> tuple[int, ...]:
        """Return the seeds.

        Raises:
            click.UsageError: Both were typed.
        """
        if self.seed_list is None:
            return tuple(range(self.seeds))
        refuse("--seed-list", "seeds")
        return self.seed_list


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The dataset, and the folders of datasets and results.

    Attributes:
        data: A dataset by name, or the path of an image folder or archive; None: the command's
            default.
        side: Height and width in pixels to which its images are scaled; None: its own.
        data_root: Folder searched first for named datasets.
        download: Whether a missing dataset may be downloaded from its publisher.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
    """

    data: str | None = None
    side: int | None = None
    data_root: Path | None = None
    download: bool = False
    results: str | None = None

    def dataset(self, default: str) -> str:
        """Return the name or path of the dataset, with its side if one was given.

        Args:
            default: What is used without ``--data``.

        Raises:
            ValueError: ``--data`` is empty, or the side is none or contradicts that of ``--data``.
        """
        from bench.data import catalog

        if self.data == "":  # as from a variable of the shell that is not set
            raise ValueError("--data is empty: give the name or the path of a dataset")
        return catalog.sized(self.data or default, self.side)

    def chosen(self) -> str | None:
        """Return the dataset like `dataset`, and None without ``--data``.

        Raises:
            ValueError: As `dataset`, and for a side without a dataset.
        """
        if self.data is None and self.side is not None:
            raise ValueError(f"--side {self.side} needs --data: it is the side of its images")
        return None if self.data is None else self.dataset(self.data)

    def open(self, execution: ExecutionOptions, *, create: bool = True) -> Workspace:
        """Return the workspace of these options; the dataset is not loaded yet.

        Until the command ends, a note in the results folder says that it runs.

        Args:
            execution: Device and executor.
            create: Whether the results folder is made if it does not exist.
        """
        workspace = execution.workspace(self.results, self.data_root, self.download, create=create)
        _note(workspace.results)
        return workspace


def _note(folder: Path) -> None:
    """Note the command that was typed in a results folder, unless it only shows a plan."""
    from bench.execution import unfinished
    from bench.files.text import command

    ctx = click.get_current_context(silent=True)
    if ctx is None or ctx.params.get("dry_run") or "bench.typed" not in ctx.meta:
        return
    names: list[str] = []
    each = ctx
    while each.parent is not None:
        names.insert(0, each.info_name or "")
        each = each.parent
    words = ["bench", *names, *ctx.meta["bench.typed"]]
    ctx.with_resource(unfinished.noted(folder, command(words)))


results = output(
    "--results",
    metavar="DIR",
    help="Results folder.  [default: $BENCH_RESULTS, else ./results]",
)
quiet = output("--quiet", is_flag=True, help="Hide progress output.")
as_json = output("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
dry_run = output(
    "--dry-run", is_flag=True, help="Show which jobs would run and which are done, and stop."
)
_side = compared(
    "--side",
    type=int,
    metavar="PIXELS",
    help='Scale the images to this height and width, as --data "NAME(side=PIXELS)" does.  '
    "[default: their own]",
)
folders = together(
    compared(
        "--data-root",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder searched first for named datasets.  [then: $BENCH_DATA, the cache, the "
        "system]",
    ),
    compared(
        "--download",
        is_flag=True,
        help="Download a missing dataset, or missing published weights, from the publisher.",
    ),
    results,
)


def data(usual: str, *, scaled: bool = True) -> Function:
    """Return the options of the dataset, and of the folders of datasets and results.

    Args:
        usual: What is taken without ``--data``, for the help text.
        scaled: Whether ``--side`` scales the images; that of ``bench speed`` is of masks.
    """
    which = compared(
        "--data",
        type=types.Name(types.data_names),
        help="A dataset by name, an image folder or zip with train/CLASS/* and test/CLASS/*, "
        f"hf:NAME (Hugging Face datasets), or wds:PATTERN (WebDataset).  [default: {usual}]",
    )
    return gathered("place", lambda: DataOptions, which, *[_side] * scaled, folders)


device = together(
    execution(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
    ),
    execution(
        "--threads",
        type=types.Whole(1),
        help="Processor threads per job; the number changes the last bits of results.  "
        "[default: its share of the cores]",
    ),
    execution(
        "--workers",
        type=types.Whole(1),
        help="Threads that decode the images of datasets too large for memory; results do not "
        "depend on it.  [default: one per core]",
    ),
)
compute = gathered("where", _execution_options, device)
spread = gathered(
    "where",
    _execution_options,
    device,
    execution(
        "--executor",
        type=click.Choice(get_args(ExecutorName)),
        default="local",
        show_default=True,
        help="Run jobs in this process, in several processes, on a Ray cluster, or submit them to "
        "SLURM.",
    ),
    execution(
        "--jobs",
        type=types.Whole(1),
        help="Jobs at a time with another executor than local.  [default: one per core or GPU; 16 "
        "on SLURM]",
    ),
    execution(
        "--address", help="Address of an existing Ray cluster.  [default: start a local one]"
    ),
    execution(
        "--gpus",
        type=types.Real(min=0),
        help="GPUs per job on Ray, where it may be a fraction, or on SLURM.",
    ),
    execution(
        "--deadline",
        type=types.Real(min=0, min_open=True),
        metavar="SECONDS",
        help="Give a job that runs longer to another worker; after three attempts it fails.  "
        "[default: none; on SLURM a day]",
    ),
)
_tracker = together(
    output(
        "--tracking-uri",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow server or database.  [default: SQLite in the results folder]",
    ),
    output("--no-tracking", is_flag=True, help="Write records only; do not log to MLflow."),
)
tracking = gathered("tracking", _tracking_options, _tracker)
tracked_training = gathered(
    "tracking",
    _tracking_options,
    _tracker,
    output("--log-weights", is_flag=True, help="Copy the weights of each network to MLflow."),
    output(
        "--system-metrics",
        is_flag=True,
        help="Log the load of this machine to MLflow while a network is trained; needs psutil.",
    ),
)
schedule = together(
    trained(
        "--epochs",
        type=types.AtLeast("epochs", 1),
        help="Passes over the training images.  [default: as the dataset and network need]",
    ),
    trained(
        "--batch-size",
        type=types.AtLeast("batch_size", 1),
        help="Images per step.  [default: as the dataset and network need]",
    ),
    trained(
        "--learning-rate",
        type=float,
        help="Initial learning rate.  [default: as the dataset and network need]",
    ),
    trained(
        "--weight-decay",
        type=float,
        help="Weight decay of all parameters.  [default: as the network needs]",
    ),
    trained(
        "--optimizer",
        type=click.Choice(["sgd", "adamw"]),
        help="Optimizer.  [default: sgd; adamw for vit-96-6]",
    ),
    trained(
        "--schedule",
        type=click.Choice(["cosine", "steps"]),
        help="Learning-rate schedule.  [default: cosine]",
    ),
    trained(
        "--warmup",
        type=int,
        help="Epochs of a rising learning rate before the schedule.  [default: 0; 5 for vit-96-6]",
    ),
    trained(
        "--padding",
        type=int,
        help="Pixels of padding of the random crop.  [default: an eighth of the side]",
    ),
    trained(
        "--no-flip",
        "flip",
        is_flag=True,
        flag_value=False,
        default=None,
        help="Mirror no image, on a dataset whose images are mirrored at random.",
    ),
    trained(
        "--validation",
        type=float,
        help="Share of the training images held out for validation, drawn by the seed.  "
        "[default: 0.1; none with adversarial training]",
    ),
    trained(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Number format; auto uses bfloat16 on a CUDA device that computes it natively.",
    ),
)
training = gathered(
    "training",
    training_options,
    compared(
        "--policy",
        type=types.Name(types.policy_names),
        help="Image operations on every training image (bench list policies); NAME+cutout adds a "
        "Cutout.",
    ),
    compared(
        "--mix",
        type=types.Name(types.mix_names),
        help="Mixing of training images, such as cutmix (bench list mixes).",
    ),
    trained(
        "--pretrained",
        metavar="timm|torchvision|FILE",
        help="Start from published ImageNet weights (timm:TAG and torchvision:TAG choose others "
        "than the default ones) or from a safetensors file; epochs and learning rate are a tenth "
        "of the usual ones then.  [default: weights drawn from the seed]",
    ),
    schedule,
)


stopping = gathered(
    "stopping",
    _stopping_options,
    compared(
        "--until",
        type=click.Choice(["decided"]),
        help="Add seeds until each method is shown to be better or worse than no augmentation "
        "(else than the first --aug), or equivalent, or --max-seeds is reached; with at most 5 % "
        "false claims over all looks and methods.",
    ),
    compared(
        "--within",
        type=types.Points(),
        default=0.5,
        show_default=True,
        metavar="POINTS",
        help="With --until: largest difference that counts as none, in percentage points.",
    ),
    compared(
        "--max-seeds",
        type=types.SEEDS,
        default=30,
        show_default=True,
        help="With --until: largest number of seeds. Choose it beforehand; another limit is "
        "another design.",
    ),
)


def number_of_seeds(usual: int, about: str = "Number of seeds: 0, 1, …") -> Function:
    """Return the option of how many seeds there are.

    Args:
        usual: Its default.
        about: Its help text.
    """
    return compared("--seeds", type=types.SEEDS, default=usual, show_default=True, help=about)


def seeds(usual: int) -> Function:
    """Return the options of the seeds of trainings.

    Args:
        usual: How many there are by default.
    """
    return gathered(
        "seeds",
        lambda: SeedOptions,
        number_of_seeds(usual),
        compared(
            "--seed-list",
            type=types.Seeds(),
            metavar="0,3,7",
            help="Use these seeds instead of --seeds.",
        ),
    )


def victim(usual: str) -> Function:
    """Return the options of the victim model.

    Args:
        usual: The architecture that is trained unless another is asked for, for the help text.
    """
    return together(
        attacked(
            "--victim",
            metavar="FILE|FILE.py:FACTORY|PACKAGE:FACTORY|timm:NAME",
            help="Victim model: weights (safetensors, or a .pt state dict) with --model; a "
            "function that gives the network for classes=10; or a network of timm.  [default: "
            "trained once on the dataset]",
        ),
        attacked(
            "--model",
            type=types.Name(types.model_names),
            help="Architecture of the victim model; FILE.py:FACTORY for one of your own.  "
            f"[default: {usual}]",
        ),
        attacked(
            "--mean",
            type=types.Numbers(),
            metavar="0.485,…",
            help="Per-channel mean subtracted by the victim model.  [default: the dataset's]",
        ),
        attacked(
            "--std",
            type=types.Numbers(),
            metavar="0.229,…",
            help="Per-channel standard deviation that the victim model divides by.  [default: the "
            "dataset's]",
        ),
    )
