"""The executor that submits jobs to a SLURM cluster. Only this module imports submitit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.data.dataset import MEMORY
from bench.errors import Failed, reason
from bench.execution.executors import Begin, Lost, Stop, Work, called, on_node, portable, silently
from bench.execution.pool import TRIES, Relay
from bench.execution.progress import Progress
from bench.execution.workspace import open_datasets
from bench.files import code

if TYPE_CHECKING:
    from bench.execution.workspace import Workspace

POLL = 2.0
"""Seconds between two looks at the jobs."""

DAY = 24 * 3600.0
"""Seconds that SLURM gives a job without a deadline."""


@dataclass(frozen=True)
class Submitted:
    """The executor that submits each job to SLURM through submitit, or runs it here for trying.

    The results folder and the files of datasets must be visible to all nodes under one path, and
    the environment must be the same. Logs are in ``cache/submitted`` of the results folder.

    Attributes:
        count: Number of jobs that are submitted at a time.
        cluster: ``"slurm"``, or ``"local"`` for processes of this machine.
        threads: Processor threads of each job.
        gpus: GPUs of each job.
        deadline: Seconds that SLURM gives a job; None: a day.
    """

    count: int
    cluster: str = "slurm"
    threads: int = 1
    gpus: int = 0
    deadline: float | None = None

    def map(
        self,
        work: Work,
        jobs: Sequence[Any],
        workspace: Workspace,
        progress: Progress,
        stop: Stop,
        begin: Begin = silently,
    ) -> Iterator[tuple[int, Any]]:
        """Run every job, at most ``count`` at a time; see `Executor.map`."""
        absolute = replace(workspace, results=workspace.results.resolve())
        executor = self.open(absolute)
        import cloudpickle  # a dependency of submitit, as is what follows
        from submitit.core.utils import FailedJobError

        there = on_node(absolute, self.gpus)
        in_memory = [data for data in open_datasets() if data.source == MEMORY]
        waiting = [(index, 1) for index in range(len(jobs))]
        running: dict[Any, tuple[int, int]] = {}
        error: BaseException | None = None
        try:
            while running or (waiting and not stop() and error is None):
                while waiting and len(running) < self.count and not stop() and error is None:
                    index, attempt = waiting.pop(0)
                    begin(index)
                    try:
                        submitted = executor.submit(
                            serve,
                            code.sources(),
                            cloudpickle.dumps((work, jobs[index], there, in_memory)),
                            self.threads,
                        )
                    except FailedJobError as refused:
                        raise Failed(f"SLURM refuses the job: {reason(refused)}") from None
                    running[submitted] = index, attempt
                for submitted in [each for each in running if each.done()]:
                    index, attempt = running.pop(submitted)
                    kind, value = _outcome(submitted, attempt, progress)
                    if kind == "raised":
                        error = error or value
                    elif kind == "again":
                        waiting.append((index, attempt + 1))
                    else:
                        yield index, value
                if stop() or error is not None:
                    break
                time.sleep(POLL if self.cluster == "slurm" else 0.05)
        finally:
            for submitted in running:
                submitted.cancel()
        if error is not None:
            raise error

    def open(self, workspace: Workspace) -> Any:
        """Return submitit's executor.

        Raises:
            ValueError: submitit is not installed, or there is no SLURM.
        """
        try:
            import submitit
        except ImportError:
            raise ValueError(
                "--executor slurm needs submitit; install it with: "
                "pip install 'deletion-bench[slurm]'"
            ) from None
        try:
            executor = submitit.AutoExecutor(
                folder=workspace.cache / "submitted" / "%j", cluster=self.cluster
            )
        except RuntimeError:
            raise ValueError(
                "there is no SLURM here (no command srun): start it on a login node of the "
                "cluster, or use --executor processes"
            ) from None
        minutes = math.ceil((self.deadline or DAY) / 60)
        executor.update_parameters(
            name="bench", cpus_per_task=self.threads, gpus_per_node=self.gpus, timeout_min=minutes
        )
        return executor


def serve(
    sources: tuple[code.Source, ...], content: bytes, threads: int
) -> tuple[str, Any, list[str]]:
    """Run one job on its node; return its result or exception, and its messages.

    Args:
        sources: Where the code of a user's own is, which the job may refer to.
        content: What this program has pickled: the work, the job, the workspace, and datasets.
        threads: Processor threads.
    """
    import cloudpickle
    import torch

    torch.set_num_threads(threads)
    lines: list[str] = []
    try:
        code.adopt(sources)
        work, job, workspace, in_memory = cloudpickle.loads(content)
        for data in in_memory:
            workspace.adopt(data)
        relay = Relay(lines.append)
        return "result", called(work, job, workspace, relay, lambda: False), lines
    except Exception as error:
        return "raised", portable(error), lines


def _outcome(submitted: Any, attempt: int, progress: Progress) -> tuple[str, Any]:
    """What became of a job: ``"result"`` or ``"raised"`` with a value, or ``"again"``."""
    try:
        kind, value, lines = submitted.result()
    except Exception as error:  # submitit's own, whatever has happened to the job
        how = f"{type(error).__name__}, state {submitted.state}"
        if attempt >= TRIES:
            return "result", Lost(f"the job died {attempt} times, last: {how}")
        progress.say(f"A job died ({how}); it is submitted again.")
        return "again", None
    for line in lines:
        progress.say(line)
    return kind, value
