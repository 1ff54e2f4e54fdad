"""Workers and the jobs they are given, wherever the workers live."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from bench.execution.executors import Begin, Lost, Stop, Work
from bench.execution.progress import Advance, Progress

TRIES = 3


@runtime_checkable
class Worker(Protocol):
    """One place where a job can run."""

    def ready(self) -> bool:
        """Whether it can take a job: a cluster may have no room for it yet, or never."""
        ...

    def give(self, work: Work, job: Any) -> None:
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
    """A job on its way: how often it was tried, and since when it runs."""

    index: int
    tries: int = 0
    since: float = 0.0


@dataclass
class Pool:
    """Workers and the jobs they are given.

    ``hear(busy, seconds)`` yields what busy workers have to say: ``("result", value)``,
    ``("raised", exception)``, ``("died", how)`` or ``("said", line)``. A job that runs for longer
    than ``deadline`` seconds counts as died.
    """

    work: Work
    jobs: Sequence[Any]
    count: int
    hire: Callable[[int], Worker]
    hear: Callable[[list[Worker], float], Iterator[tuple[Worker, str, Any]]]
    progress: Progress
    stop: Stop
    begin: Begin
    deadline: float | None = None
    busy: dict[Worker, _Assignment] = field(default_factory=dict)
    error: BaseException | None = None
    stopping: bool = False

    def run(self) -> Iterator[tuple[int, Any]]:
        """Hand out the jobs and yield what comes back; raises what a job has raised."""
        self.waiting = deque(_Assignment(index) for index in range(len(self.jobs)))
        self.slots = {self.hire(slot): slot for slot in range(min(self.count, len(self.jobs)))}
        self.idle = list(self.slots)
        try:
            while self.waiting or self.busy:
                if self.stop() and not self.stopping:
                    self.call_off()
                self.hand_out()
                for worker, kind, value in self.events():
                    if kind == "said":
                        self.progress.say(value)
                    elif worker in self.busy:
                        yield from self.settle(worker, kind, value)
            if self.error is not None:
                raise self.error
        finally:
            for worker in self.slots:
                worker.close()

    def call_off(self) -> None:
        """Start nothing more, and ask what runs to stop."""
        self.stopping = True
        self.waiting.clear()
        for worker in self.busy:
            worker.stop()

    def hand_out(self) -> None:
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
            worker.give(self.work, self.jobs[assignment.index])

    def events(self) -> Iterator[tuple[Worker, str, Any]]:
        """What the workers say, and which of them have run for too long."""
        yield from self.hear(list(self.busy), 0.5)
        for worker, assignment in list(self.busy.items()):
            if self.deadline and time.monotonic() - assignment.since > self.deadline:
                yield worker, "died", f"ran for more than {self.deadline:.0f} s"

    def settle(self, worker: Worker, kind: str, value: Any) -> Iterator[tuple[int, Any]]:
        """A job has ended, in one way or another."""
        assignment = self.busy.pop(worker)
        if kind == "died":
            worker = self.renew(worker)
            if not self.stopping:
                yield from self.again(assignment, value)
        elif kind == "raised":
            self.error = self.error or value
            self.call_off()
        else:
            yield assignment.index, value
        self.idle.append(worker)

    def renew(self, worker: Worker) -> Worker:
        """Another worker in the place of one that died."""
        slot = self.slots.pop(worker)
        worker.close()
        fresh = self.hire(slot)
        self.slots[fresh] = slot
        return fresh

    def again(self, assignment: _Assignment, how: str) -> Iterator[tuple[int, Any]]:
        """A job whose worker died is run again, but not for ever."""
        if assignment.tries < TRIES:
            self.progress.say(f"a worker died ({how}); its job is run again")
            self.waiting.append(assignment)
        else:
            yield assignment.index, Lost(f"its worker died {assignment.tries} times, last: {how}")


class Relay:
    """Progress of a job that runs elsewhere: a line now and then."""

    def __init__(self, say: Callable[[str], None], every: float = 10.0) -> None:
        self._say, self.every, self.last = say, every, time.monotonic()

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Count steps and say so now and then."""
        done = 0

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal done
            done += count
            if time.monotonic() - self.last >= self.every:
                self.last = time.monotonic()
                self._say(f"{label}: {done}/{total}{note and ', ' + note}")

        yield advance

    def say(self, line: str) -> None:
        """Pass a line on."""
        self._say(line)
