"""The executor that runs jobs in several processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.data.dataset import MEMORY
from bench.execution.executors import Begin, Stop, Work, silently
from bench.execution.pool import Pool, Relay, Worker
from bench.execution.progress import Progress
from bench.execution.workspace import open_datasets

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from bench.execution.workspace import Workspace


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
        # the others are read from their files
        in_memory = [data for data in open_datasets() if data.source == MEMORY]
        self.pipe, theirs = context.Pipe()
        self.asked = context.Event()
        self.process = context.Process(
            target=_serve,
            args=(theirs, self.asked, workspace, threads, in_memory),
            daemon=True,
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


def _serve(
    pipe: Any, asked: Any, workspace: Workspace, threads: int, in_memory: list[Dataset]
) -> None:
    """What a worker process does: run jobs until the pipe closes."""
    import signal

    import torch

    # the driver decides: it passes the wish to stop on, and ends the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    for data in in_memory:
        workspace.adopt(data)
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
    """Several processes on this machine, one per slot, each with so many ``threads``.

    The number of threads stays the same when few jobs are left: it changes the last bits of a
    result, which must not depend on where a study was interrupted.
    """

    count: int
    deadline: float | None = None
    threads: int = 1

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
        places = [replace(workspace, device=device) for device in devices(workspace.device, slots)]
        yield from Pool(
            work,
            jobs,
            slots,
            lambda slot: ProcessWorker(places[slot], self.threads),
            ProcessWorker.hear,
            progress,
            stop,
            begin,
            self.deadline,
        ).run()
