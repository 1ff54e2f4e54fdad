"""Where jobs run: in this process, in several, or on a Ray cluster. The same jobs give the same
results.

A job is plain data and ``work`` a function of a module, called as ``work(job, workspace, progress,
stop)``. What it raises ends everything, wherever it ran; a worker that dies (killed for memory, a
node that is gone) has its job given to another, a few times, and then reported as `Lost`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.progress import Progress

if TYPE_CHECKING:
    from bench.workspace import Workspace

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


def build(
    name: str,
    count: int | None,
    *,
    device: str = "cpu",
    address: str | None = None,
    gpus: float | None = None,
) -> Executor:
    """The executor that the command line asks for; refuses more jobs than there are slots."""
    if name == "local":
        if count not in (None, 1):
            raise ValueError(
                f"--jobs {count} needs --executor processes or ray: local runs one at a time"
            )
        return Local()
    import torch

    from bench.cluster import Ray
    from bench.processes import Processes

    on_gpu = device.startswith("cuda")
    slots = torch.cuda.device_count() if on_gpu else (os.cpu_count() or 1)
    if name == "processes":
        if count is not None and count > slots:
            kind = "GPUs" if on_gpu else "processor cores"
            raise ValueError(f"--jobs {count} is more than the {slots} {kind} of this machine")
        return Processes(count or slots)
    share = (1.0 if on_gpu else 0.0) if gpus is None else gpus
    return Ray(count or slots, address=address, gpus=share)
