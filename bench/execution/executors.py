"""The executor protocol, and the executor that runs jobs in this process.

A job is plain data and ``work`` a function of a module, called as ``work(job, workspace, progress,
stop)``. The same jobs give the same results through every executor. An exception of a job ends the
whole list, wherever the job ran. When a worker dies (killed for memory, its machine gone), its job
is given to another worker; after `bench.execution.pool.TRIES` attempts it is reported as `Lost`.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.errors import Failed
from bench.execution.progress import Progress

if TYPE_CHECKING:
    from bench.execution.workspace import Workspace

Stop = Callable[[], bool]
Work = Callable[[Any, "Workspace", Progress, Stop], Any]
Begin = Callable[[int], None]


def called(work: Work, job: Any, workspace: Workspace, progress: Progress, stop: Stop) -> Any:
    """Run a job in this process; one that calls ``sys.exit`` does not end the process with it.

    Raises:
        Failed: It called ``sys.exit``.
    """
    try:
        return work(job, workspace, progress, stop)
    except SystemExit as error:
        raise Failed(
            f"an augmentation, attack or network called sys.exit({error.code!r}) during a job; "
            "it must raise an error instead"
        ) from None


def portable(error: Exception) -> Exception:
    """Return an exception of a job as another process can read it.

    One that cannot be sent, or that cannot be built again from what is sent (its ``__init__`` takes
    other arguments than its message), becomes a `Failed` with its type and its message.
    """
    try:
        pickle.dumps(error)
        copy.deepcopy(error)  # is built again as it would be elsewhere
    except Exception:  # whatever a class of the user's own raises when it is built
        return Failed(f"{type(error).__name__}: {error}")
    return error


def silently(index: int) -> None:
    """Ignore that a job starts."""


@dataclass(frozen=True)
class Lost:
    """A job whose worker died at every attempt.

    Attributes:
        message: How often the worker died, and how the last time.
    """

    message: str


def on_node(workspace: Workspace, gpus: int | float) -> Workspace:
    """Return the workspace of a node of a cluster: with a GPU, which the driver need not have.

    Args:
        workspace: That of the driver.
        gpus: GPUs of each job.
    """
    return replace(workspace, device="cuda") if gpus and workspace.device == "cpu" else workspace


@runtime_checkable
class Executor(Protocol):
    """Runs jobs and yields (index of the job, its result or `Lost`) as they finish."""

    def map(
        self,
        work: Work,
        jobs: Sequence[Any],
        workspace: Workspace,
        progress: Progress,
        stop: Stop,
        begin: Begin = silently,
    ) -> Iterator[tuple[int, Any]]:
        """Run every job.

        Args:
            work: Function that runs one job; defined in a module, so that other processes find it.
            jobs: The jobs; the longest should come first.
            workspace: Where the jobs work.
            progress: Shows messages and the progress of the jobs.
            stop: Whether the jobs should stop soon.
            begin: Called with the index of each job that starts.

        Yields:
            The index of a job and what ``work`` returned for it, or `Lost`.
        """
        ...


class Local:
    """The executor that runs one job after the other in this process."""

    def map(
        self,
        work: Work,
        jobs: Sequence[Any],
        workspace: Workspace,
        progress: Progress,
        stop: Stop,
        begin: Begin = silently,
    ) -> Iterator[tuple[int, Any]]:
        """Run every job in order; see `Executor.map`."""
        for index, job in enumerate(jobs):
            begin(index)
            yield index, called(work, job, workspace, progress, stop)
