"""Jobs that other processes import by name."""

import os
import signal
import sys
import time
from collections.abc import Callable

import torch

from bench.execution.progress import Progress
from bench.execution.workspace import Workspace


def square(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> int:
    return job * job


def threads(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> int:
    return torch.get_num_threads()


def fragile(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> int:
    """Dies once for 3, always for 5."""
    mark = workspace.results / f"tried-{job}"
    if job == 5 or (job == 3 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def refuse(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> int:
    if job == 2:
        raise ValueError("job 2 is bad: give another")
    return job


def patient(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> str:
    """Waits to be stopped, and leaves a mark once it has begun."""
    workspace.results.mkdir(parents=True, exist_ok=True)
    (workspace.results / f"begun-{job}").touch()
    start = time.monotonic()
    while not stop() and time.monotonic() - start < 60:
        time.sleep(0.05)
    return "stopped"


def linger(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> int:
    time.sleep(1)
    return job * job


def leave(job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]) -> int:
    sys.exit(job)


class OfTwo(Exception):
    """Can be sent, but not built again from its message alone."""

    def __init__(self, count: int, what: str) -> None:
        super().__init__(f"{count} {what}")


class Bound(Exception):
    """Holds what cannot be sent."""

    def __init__(self) -> None:
        super().__init__("it is bound")
        self.held = lambda: self


def raise_of_two(
    job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> int:
    raise OfTwo(job, "parts are missing")


def raise_bound(
    job: int, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> int:
    raise Bound
