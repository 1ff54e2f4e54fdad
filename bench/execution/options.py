"""The execution options of a user: device, threads, and where jobs run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from bench.errors import suggest
from bench.execution.executors import Executor, Local
from bench.execution.folders import existing_results, results_folder
from bench.execution.workspace import Workspace, pick_device

JOBS_ON_SLURM = 16
"""Jobs that are submitted at a time, unless a user says another number."""


Options = TypeVar("Options")
ExecutorName = Literal["local", "processes", "ray", "slurm"]


MOST_THREADS = 4096
"""Most threads of a job; PyTorch crashes with many more."""


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """Where and how jobs run; the same jobs give the same records through every executor.

    Attributes:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or
            ``"mps"``.
        threads: Processor threads per job; None divides the cores among the jobs. The number of
            threads changes the last bits of results.
        workers: Threads that decode images which are too large for memory; None: one per core.
            Results do not depend on it.
        executor: ``"local"`` (one job at a time in this process), ``"processes"``, ``"ray"`` or
            ``"slurm"``.
        jobs: Number of jobs that run at a time, at least 1; None uses every core, or every GPU.
        address: Address of an existing Ray cluster; None starts a local one.
        gpus: GPUs per job on Ray, where it may be a fraction, or on SLURM.
        deadline: Seconds after which a job is given to another worker; it fails the third time.

    Raises:
        ValueError: There is no such executor, an option has no effect on it, or a number is out of
            range.

    >>> ExecutionOptions(device="cpu", threads=1).executor
    'local'
    """

    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    executor: ExecutorName = "local"
    jobs: int | None = None
    address: str | None = None
    gpus: float | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.executor not in (known := get_args(ExecutorName)):
            hint = suggest(self.executor, known)
            raise ValueError(f"there is no executor {self.executor!r}: {hint}")
        for name, value, uses in (
            ("address", self.address, ("ray",)),
            ("gpus", self.gpus, ("ray", "slurm")),
        ):
            if value is not None and self.executor not in uses:
                raise ValueError(
                    f"--{name} {value} has no effect on --executor {self.executor}; remove it, or "
                    f"add --executor {' or '.join(uses)}"
                )
        self._check_numbers()
        if self.executor == "slurm" and self.gpus is not None and self.gpus % 1:
            raise ValueError(f"--gpus {self.gpus}: SLURM gives whole GPUs; take 1 or more, or 0")

    def _check_numbers(self) -> None:
        """Refuse numbers out of range; from the command line NaN gets here too."""
        counts, amounts = ("threads", "workers", "jobs"), ("gpus", "deadline")
        given = {name: getattr(self, name) for name in (*counts, *amounts)}
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return
        from augmentations.checks import number, whole  # imports torch, which runs jobs

        for name, value in given.items():
            if name in counts:
                whole(name, value, least=1)
                if name == "threads" and value > MOST_THREADS:
                    raise ValueError(f"{name} is {value}: it must be at most {MOST_THREADS}")
                continue
            number(name, value)
            if not 0 <= value < math.inf or (name == "deadline" and not value):
                least = "above 0" if name == "deadline" else "at least 0"
                raise ValueError(f"{name} is {value}: it must be {least} and finite")

    def workspace(
        self,
        results: str | Path | None = None,
        data_root: Path | None = None,
        download: bool = False,
        *,
        create: bool = True,
    ) -> Workspace:
        """Return the workspace of these options; also sets the threads of this process.

        Args:
            results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
            data_root: Folder searched first for named datasets.
            download: Whether a missing dataset may be downloaded from its publisher.
            create: Whether results are written, so that the folder is made if it does not exist.

        Raises:
            OSError: The results folder cannot be written; a folder that is only read is missing.
            ValueError: The device does not exist.
        """
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return Workspace(
            results=results_folder(results) if create else existing_results(results),
            data_root=data_root,
            download=download,
            device=pick_device(self.device),
            workers=self.workers,
        )

    def build(self, device: str) -> Executor:
        """Return the executor for jobs on a device.

        With ``"processes"``, this process is set to the threads of a worker as well: what it
        computes itself then has the same last bits, and leaves the other cores to the workers.

        Args:
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

        Raises:
            ValueError: More jobs than cores or GPUs, or an option without effect on the executor.
        """
        if self.executor == "local":
            elsewhere = "needs --executor processes, ray or slurm: the local executor"
            if self.jobs not in (None, 1):
                raise ValueError(f"--jobs {self.jobs} {elsewhere} runs one job at a time")
            if self.deadline is not None:
                raise ValueError(
                    f"--deadline {self.deadline:g} {elsewhere} has no other worker for a job"
                )
            return Local()
        if self.executor == "slurm":
            from bench.execution.slurm import Submitted

            return Submitted(
                self.jobs or JOBS_ON_SLURM,
                threads=self.threads or 1,
                gpus=int(self.gpus or 0),
                deadline=self.deadline,
            )
        import torch

        from bench.execution.processes import Processes
        from bench.execution.ray_cluster import Ray

        on_gpu = device != "cpu"
        cores = os.cpu_count() or 1
        slots = torch.cuda.device_count() if device == "cuda" else 1 if on_gpu else cores
        if self.executor == "processes":
            if self.jobs is not None and self.jobs > slots:
                kind = "GPUs" if on_gpu else "processor cores"
                raise ValueError(
                    f"--jobs {self.jobs} is more than the {slots} {kind} of this machine; lower it"
                )
            threads = self.threads or max(1, cores // (self.jobs or slots))
            torch.set_num_threads(threads)
            return Processes(self.jobs or slots, self.deadline, threads)
        share = (1.0 if on_gpu else 0.0) if self.gpus is None else self.gpus
        return Ray(
            self.jobs or slots,
            address=self.address,
            gpus=share,
            cpus=float(self.threads or 1),
            deadline=self.deadline,
        )


def options_of(argument: str, given: Any, cls: type[Options]) -> Options:
    """Return the options of a user, by default those of their class.

    Args:
        argument: What the error calls them.
        given: The options; None: the defaults.
        cls: Their class.

    Raises:
        ValueError: They are no object of the class.
    """
    if given is None:
        return cls()
    if not isinstance(given, cls):
        raise ValueError(f"{argument} is {given!r}: give an object of bench.{cls.__name__}")
    return given
