"""A pool of workers that jobs are assigned to, in other processes or on other machines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from bench.execution.executors import Begin, Lost, Stop, Work
from bench.execution.progress import Lines, Progress

TRIES = 3


@runtime_checkable
class Worker(Protocol):
    """Runs one job at a time."""

    def ready(self) -> bool:
        """Return whether it can take a job: a cluster may have no free machine for it yet."""
        ...

    def submit(self, work: Work, job: Any) -> None:
        """Start a job."""
        ...

    def stop(self) -> None:
        """Ask the job to stop soon."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


@dataclass
class _Assignment:
    """A job in the queue or at a worker: its attempts, and when the last one started."""

    index: int
    tries: int = 0
    since: float = 0.0


@dataclass
class Pool:
    """Assigns jobs to workers and yields their results.

    Attributes:
        work: Function that runs one job.
        jobs: The jobs.
        count: Number of workers.
        start_worker: Starts the worker of a slot, 0 to ``count - 1``.
        receive: ``receive(busy, seconds)`` waits for at most so many seconds and yields the events
            of the busy workers: (worker, ``"result"``, value), (worker, ``"raised"``, exception),
            (worker, ``"died"``, reason) or (worker, ``"message"``, line).
        progress: Shows the messages.
        stop: Whether the jobs should stop soon.
        begin: Called with the index of each job that starts.
        deadline: Seconds after which the worker of a job is treated as dead.
    """

    work: Work
    jobs: Sequence[Any]
    count: int
    start_worker: Callable[[int], Worker]
    receive: Callable[[list[Worker], float], Iterator[tuple[Worker, str, Any]]]
    progress: Progress
    stop: Stop
    begin: Begin
    deadline: float | None = None
    busy: dict[Worker, _Assignment] = field(default_factory=dict)
    error: BaseException | None = None
    stopping: bool = False

    def run(self) -> Iterator[tuple[int, Any]]:
        """Assign the jobs and yield (index, result or `Lost`); raise what a job has raised."""
        self.waiting = deque(_Assignment(index) for index in range(len(self.jobs)))
        count = min(self.count, len(self.jobs))
        self.slots = {self.start_worker(slot): slot for slot in range(count)}
        self.idle = list(self.slots)
        try:
            while self.waiting or self.busy:
                if self.stop() and not self.stopping:
                    self.cancel()
                self.assign()
                for worker, kind, value in self.events():
                    if kind == "message":
                        self.progress.say(value)
                    elif worker in self.busy:
                        yield from self.finish(worker, kind, value)
            if self.error is not None:
                raise self.error
        finally:
            for worker in self.slots:
                worker.close()

    def cancel(self) -> None:
        """Start no further job, and ask the running ones to stop."""
        self.stopping = True
        self.waiting.clear()
        for worker in self.busy:
            worker.stop()

    def assign(self) -> None:
        """Give a job to each idle worker that is ready."""
        for worker in [worker for worker in self.idle if worker.ready()]:
            if not self.waiting:
                return
            self.idle.remove(worker)
            assignment = self.waiting.popleft()
            assignment.tries += 1
            assignment.since = time.monotonic()
            self.busy[worker] = assignment
            self.begin(assignment.index)
            worker.submit(self.work, self.jobs[assignment.index])

    def events(self) -> Iterator[tuple[Worker, str, Any]]:
        """Yield the events of the workers, and the jobs that are past the deadline."""
        yield from self.receive(list(self.busy), 0.5)
        for worker, assignment in list(self.busy.items()):
            if self.deadline and time.monotonic() - assignment.since > self.deadline:
                yield worker, "died", f"exceeded the deadline of {self.deadline:g} s"

    def finish(self, worker: Worker, kind: str, value: Any) -> Iterator[tuple[int, Any]]:
        """Handle the end of a job: its result, its exception, or the death of its worker."""
        assignment = self.busy.pop(worker)
        if kind == "died":
            if self.stopping:  # no job is left for a new worker
                del self.slots[worker]
                worker.close()
                return
            worker = self.replace_worker(worker)
            yield from self.retry(assignment, value)
        elif kind == "raised":
            self.error = self.error or value
            self.cancel()
        else:
            yield assignment.index, value
        self.idle.append(worker)

    def replace_worker(self, worker: Worker) -> Worker:
        """Return a new worker in the slot of one that died."""
        slot = self.slots.pop(worker)
        worker.close()
        new = self.start_worker(slot)
        self.slots[new] = slot
        return new

    def retry(self, assignment: _Assignment, how: str) -> Iterator[tuple[int, Any]]:
        """Queue a job whose worker died once more, or report it as lost."""
        if assignment.tries < TRIES:
            self.progress.say(f"A worker died ({how}); its job is run again.")
            self.waiting.append(assignment)
        else:
            yield assignment.index, Lost(f"the worker died {assignment.tries} times, last: {how}")


class Relay(Lines):
    """Progress of a job that runs elsewhere: its lines are passed on.

    Args:
        say: Takes a line.
        every: Seconds between two lines.
    """

    def __init__(self, say: Callable[[str], None], every: float = 10.0) -> None:
        super().__init__(every)
        self._say = say

    def say(self, line: str) -> None:
        """Pass a line on."""
        self._say(line)
