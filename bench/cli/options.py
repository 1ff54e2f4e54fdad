"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

Command = Callable[..., Any]


class Name(click.ParamType[str, str]):
    """A name from a registry, optionally with options in brackets; completed by the shell."""

    name = "name"

    def __init__(self, names: Callable[[], list[str]]) -> None:
        self.names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin as typed."""
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


def augmentation_names() -> list[str]:
    """Every augmentation there is."""
    from bench import registry

    return list(registry.classes("augmentations"))


def attack_names() -> list[str]:
    """Every attack there is."""
    from bench import registry

    return list(registry.classes("attacks"))


def policy_names() -> list[str]:
    """Every policy there is."""
    from bench.data import policies

    return list(policies.NAMES)


def mix_names() -> list[str]:
    """Every way to mix pictures."""
    from bench.data import mixing

    return list(mixing.NAMES)


def data_names() -> list[str]:
    """Every data set that has a name."""
    from bench.data import catalog

    return list(catalog.names())


def model_names() -> list[str]:
    """Every network that has a name."""
    from bench.models import networks

    return list(networks.names())


class Eps(click.ParamType[Fraction, str]):
    """A largest change of a value, as a fraction or decimal above 0 and at most 1.

    >>> Eps().convert("8/255", None, None)
    Fraction(8, 255)
    """

    name = "eps"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        """Read the fraction; a number above 1 was probably meant in 255ths."""
        try:
            eps = Fraction(str(value).replace(" ", ""))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a number; write it as 8/255 or 0.03", param, ctx)
        if eps > 1:
            self.fail(f"{value} is above 1; did you mean {value}/255?", param, ctx)
        if eps <= 0:
            self.fail(f"{value} is not above 0", param, ctx)
        return eps


def together(*options: Command) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        return functools.reduce(lambda inner, option: option(inner), reversed(options), command)

    return decorate


results = click.option(
    "--results",
    metavar="DIR",
    help="Results folder.  [default: $BENCH_RESULTS, else ./results]",
)
quiet = click.option("--quiet", is_flag=True, help="No progress.")
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
data = together(
    click.option(
        "--data",
        type=Name(data_names),
        help="A data set by name, or an image folder or zip: train/CLASS/*, test/CLASS/*.  "
        "[default: digits; photos for attack-eval]",
    ),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Where data sets are looked for first.  [then: $BENCH_DATA, the cache, the system]",
    ),
    click.option("--download", is_flag=True, help="Fetch a data set that is not there."),
)
compute = together(
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads of the processor, of each job.  [default: its share of the cores]",
    ),
)
spread = together(
    click.option(
        "--executor",
        type=click.Choice(["local", "processes", "ray"]),
        default="local",
        show_default=True,
        help="Where jobs run: here, in processes, or on a Ray cluster.",
    ),
    click.option("--jobs", type=click.IntRange(min=1), help="How many at a time."),
    click.option("--address", help="Of an existing Ray cluster.  [default: a local one]"),
    click.option("--gpus", type=click.FloatRange(min=0), help="GPUs a job takes on Ray, as 0.5."),
    click.option(
        "--deadline",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="A job that runs for longer is given to another worker, and lost the third time.",
    ),
)
tracking = together(
    click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow server.  [default: sqlite in the results folder]",
    ),
    click.option("--no-tracking", is_flag=True, help="Write records only, no MLflow."),
)


def refuse(why: str, *names: str) -> None:
    """Refuse those of these options that stand on the command line, where they are not heeded."""
    context = click.get_current_context()
    typed = [
        param.opts[0]
        for param in context.command.params
        if param.name in names
        and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
    if typed:
        raise click.UsageError(f"{why}: leave {', '.join(typed)} out")


def workspace(
    results: str | None,
    data: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    device: str = "auto",
    threads: int | None = None,
    **_: Any,
) -> Any:
    """The workspace that the shared options describe."""
    from bench.execution.workspace import Workspace, pick_device, results_folder

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return Workspace(
        results=results_folder(results),
        data=data or "digits",
        data_root=data_root,
        download=download,
        device=pick_device(device),
    )


def executor(
    workspace: Any,
    executor: str = "local",
    jobs: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    deadline: float | None = None,
    threads: int | None = None,
    **_: Any,
) -> Any:
    """The executor that the options describe; refuses more jobs than there are slots.

    With processes this one keeps to the threads of a worker as well: what it computes itself has
    the same last bits then, and leaves the others their cores.
    """
    from bench.execution.executors import Local

    if executor == "local":
        if jobs not in (None, 1):
            raise ValueError(
                f"--jobs {jobs} needs --executor processes or ray: local runs one at a time"
            )
        if deadline is not None:
            raise ValueError(
                f"--deadline {deadline:g} needs --executor processes or ray: local has no worker "
                "to replace"
            )
        return Local()
    import os

    import torch

    from bench.execution.processes import Processes
    from bench.execution.ray_cluster import Ray

    on_gpu = workspace.device.startswith("cuda")
    cores = os.cpu_count() or 1
    slots = torch.cuda.device_count() if on_gpu else cores
    if executor == "processes":
        if jobs is not None and jobs > slots:
            kind = "GPUs" if on_gpu else "processor cores"
            raise ValueError(f"--jobs {jobs} is more than the {slots} {kind} of this machine")
        threads = threads or max(1, cores // (jobs or slots))
        torch.set_num_threads(threads)
        return Processes(jobs or slots, deadline, threads)
    share = (1.0 if on_gpu else 0.0) if gpus is None else gpus
    each = float(threads or 1)
    return Ray(jobs or slots, address=address, gpus=share, cpus=each, deadline=deadline)
