"""Where jobs run: in this process, in several, or on a Ray cluster. The same jobs give the same
results.

A job is plain data and ``work`` a function of a module, called as ``work(job, workspace, progress,
stop)``. What it raises ends everything, wherever it ran; a worker that dies (killed for memory, a
node that is gone) has its job given to another, a few times, and then reported as `Lost`.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.progress import Advance, Progress

if TYPE_CHECKING:
    from bench.workspace import Workspace

Stop = Callable[[], bool]
Work = Callable[[Any, "Workspace", Progress, Stop], Any]
Begin = Callable[[int], None]
TRIES = 3


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
class _Pool:
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


def devices(device: str, count: int) -> list[str]:
    """One device per worker, in turn over the accelerators when ``device`` is ``cuda``."""
    if device != "cuda":
        return [device] * count
    import torch

    return [f"cuda:{i % torch.cuda.device_count()}" for i in range(count)]


class ProcessWorker:
    """A process of its own that runs one job at a time."""

    def __init__(self, workspace: Workspace, threads: int) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        self.workspace, self.threads = workspace, threads
        self.pipe, theirs = context.Pipe()
        self.asked = context.Event()
        self.process = context.Process(
            target=_serve, args=(theirs, self.asked, workspace, threads), daemon=True
        )
        self.process.start()
        theirs.close()

    def ready(self) -> bool:
        """Always."""
        return True

    def give(self, work: Work, job: Any) -> None:
        """Send the job; a process that is gone already is noticed by `hear`."""
        with suppress(OSError):
            self.pipe.send((work, job))

    def stop(self) -> None:
        """Ask the job to stop soon."""
        self.asked.set()

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()

    @staticmethod
    def hear(workers: list[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """What the workers have to say within so many seconds."""
        from multiprocessing.connection import wait

        pipes = {worker.pipe: worker for worker in workers if isinstance(worker, ProcessWorker)}
        for pipe in wait(list(pipes), seconds):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                yield worker, *worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join(10)
                yield worker, "died", _how(worker.process.exitcode)


def _how(code: int | None) -> str:
    if code == -9:
        return "killed, perhaps for memory"
    return f"exit code {code}"


def _serve(pipe: Any, asked: Any, workspace: Workspace, threads: int) -> None:
    """What a worker process does: run jobs until the pipe closes."""
    import signal

    import torch

    # the driver decides: it passes the wish to stop on, and ends the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    progress = Relay(lambda line: pipe.send(("said", line)))
    while True:
        try:
            work, job = pipe.recv()
            answer = ("result", work(job, workspace, progress, asked.is_set))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:
            answer = ("raised", error)
        pipe.send(answer)


@dataclass(frozen=True)
class Processes:
    """Several processes on this machine, one per slot, with the threads shared out among them."""

    count: int
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
        """Run every job, as many at a time as there are slots."""
        slots = min(self.count, len(jobs))
        threads = max(1, (os.cpu_count() or 1) // max(slots, 1))
        places = [replace(workspace, device=device) for device in devices(workspace.device, slots)]
        yield from _Pool(
            work,
            jobs,
            slots,
            lambda slot: ProcessWorker(places[slot], threads),
            ProcessWorker.hear,
            progress,
            stop,
            begin,
            self.deadline,
        ).run()


class RayWorker:
    """An actor on a Ray cluster that runs one job at a time."""

    def __init__(self, ray: Any, workspace: Workspace, data: Any, cpus: float, gpus: float) -> None:
        self.ray, self.workspace, self.data = ray, workspace, data
        self.cpus, self.gpus = cpus, gpus
        actor = ray.remote(_Actor).options(num_cpus=cpus, num_gpus=gpus, max_concurrency=2)
        self.actor = actor.remote(workspace, data, max(1, int(cpus)))
        self.answer: Any = None
        self.awake = self.actor.wake.remote()

    def ready(self) -> bool:
        """Whether the cluster has found room for the actor."""
        return bool(self.ray.wait([self.awake], timeout=0)[0])

    def give(self, work: Work, job: Any) -> None:
        """Send the job."""
        self.answer = self.actor.run.remote(work, job)

    def stop(self) -> None:
        """Ask the job to stop soon."""
        self.actor.stop.remote()

    def close(self) -> None:
        """End the actor."""
        with suppress(Exception):
            self.ray.kill(self.actor)

    @staticmethod
    def hear(workers: list[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """What the workers have to say within so many seconds."""
        import ray

        by_answer = {worker.answer: worker for worker in workers if isinstance(worker, RayWorker)}
        if not by_answer:
            time.sleep(seconds)
            return
        ready, _ = ray.wait(list(by_answer), timeout=seconds, num_returns=len(by_answer))
        for answer in ready:
            worker = by_answer[answer]
            try:
                kind, value, lines = ray.get(answer)
            except ray.exceptions.RayError as error:
                yield worker, "died", type(error).__name__
                continue
            for line in lines:
                yield worker, "said", line
            yield worker, kind, value


class _Actor:
    """What lives in a Ray worker process."""

    def __init__(self, workspace: Workspace, data: Any, threads: int) -> None:
        import torch

        from bench.workspace import adopt

        torch.set_num_threads(threads)
        adopt(workspace, data)
        self.workspace, self.asked = workspace, False

    def wake(self) -> None:
        """Answer once the actor is there."""

    def run(self, work: Work, job: Any) -> tuple[str, Any, list[str]]:
        """Run a job; returns what it gave or raised, and what it said."""
        lines: list[str] = []
        try:
            value = work(job, self.workspace, Relay(lines.append), lambda: self.asked)
            return "result", value, lines
        except Exception as error:
            return "raised", error, lines

    def stop(self) -> None:
        """Ask the job to stop soon."""
        self.asked = True


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: a local one, or an existing one by its address.

    The results folder must be one that all nodes see. The data set is put once per node. ``gpus``
    may be a fraction: how much of a GPU a job takes.
    """

    count: int
    address: str | None = None
    gpus: float = 0.0
    cpus: float = 1.0
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
        """Run every job, as many at a time as there are slots and room on the cluster."""
        ray = self.connect()
        absolute = replace(workspace, results=workspace.results.resolve())
        data = ray.put(workspace.dataset())
        yield from _Pool(
            work,
            jobs,
            self.count,
            lambda slot: RayWorker(ray, absolute, data, self.cpus, self.gpus),
            RayWorker.hear,
            progress,
            stop,
            begin,
            self.deadline,
        ).run()

    def connect(self) -> Any:
        """The ray module, connected; raises ``ValueError`` where there is none to connect to."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ValueError(
                "--executor ray needs Ray: install it with pip install 'deletion-bench[ray]'"
            ) from None
        if ray.is_initialized():
            return ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if self.address:
                # Ray itself would wait for minutes
                host, _, port = self.address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=5).close()
                ray.init(address=self.address, **quiet)
            else:
                os.environ.setdefault("RAY_AUTH_MODE", "disabled")
                ray.init(num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"no Ray cluster answers at {self.address}: {type(error).__name__}; "
                "start one with ray start --head, or leave --address out"
            ) from None
        return ray


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

    on_gpu = device.startswith("cuda")
    slots = torch.cuda.device_count() if on_gpu else (os.cpu_count() or 1)
    if name == "processes":
        if count is not None and count > slots:
            kind = "GPUs" if on_gpu else "processor cores"
            raise ValueError(f"--jobs {count} is more than the {slots} {kind} of this machine")
        return Processes(count or slots)
    share = (1.0 if on_gpu else 0.0) if gpus is None else gpus
    return Ray(count or slots, address=address, gpus=share)
