"""Where jobs run: in this process, in several, or on a Ray cluster. The same jobs give the same
results.

A job is plain data and ``work`` a function of a module, called as ``work(job, workspace, progress,
stop)``. What it raises ends everything, wherever it ran; a worker that dies (killed for memory, a
node that is gone) has its job given to another, a few times, and then reported as `Lost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.execution.progress import Progress

if TYPE_CHECKING:
    from bench.execution.workspace import Workspace

Stop = Callable[[], bool]
Work = Callable[[Any, "Workspace", Progress, Stop], Any]
Begin = Callable[[int], None]


def silently(index: int) -> None:
    """Tell nobody that a job begins."""


@dataclass(frozen=True)
class Lost:
    """A job whose worker died each time; ``message`` says how."""

    message: str


@runtime_checkable
class Executor(Protocol):
    """Runs jobs and yields (index of the job, result or `Lost`) as they come in."""

    def map(
        self,
        work: Work,
        jobs: Sequence[Any],
        workspace: Workspace,
        progress: Progress,
        stop: Stop,
        begin: Begin = silently,
    ) -> Iterator[tuple[int, Any]]:
        """Run every job; the longest should come first. ``begin(index)`` tells of each start."""
        ...


class Local:
    """One job after the other in this process."""

    def map(
        self,
        work: Work,
        jobs: Sequence[Any],
        workspace: Workspace,
        progress: Progress,
        stop: Stop,
        begin: Begin = silently,
    ) -> Iterator[tuple[int, Any]]:
        """Run every job in order."""
        for index, job in enumerate(jobs):
            begin(index)
            yield index, work(job, workspace, progress, stop)
