"""The executor that runs jobs in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.data.dataset import MEMORY
from bench.execution.executors import Begin, Stop, Work, called, portable, silently
from bench.execution.pool import Pool, Relay, Worker
from bench.execution.progress import Progress
from bench.execution.workspace import open_datasets
from bench.files import code

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from bench.execution.workspace import Workspace


GRACE = 10.0  # seconds that a worker has for an end of its own when the main process is gone


def devices(device: str, count: int) -> list[str]:
    """Return one device per worker; ``"cuda"`` alternates between the GPUs.

    Args:
        device: Device of the workspace.
        count: Number of workers.
    """
    if device != "cuda":
        return [device] * count
    import torch

    return [f"cuda:{i % torch.cuda.device_count()}" for i in range(count)]


class ProcessWorker:
    """A worker process that runs one job at a time."""

    def __init__(self, workspace: Workspace, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.workspace, self.threads = workspace, threads
        # all other datasets can be read from their files
        in_memory = [data for data in open_datasets() if data.source == MEMORY]
        self.pipe, worker_pipe = context.Pipe()
        self.stop_requested = context.Event()
        self.process = context.Process(
            target=_serve,
            args=(
                *(worker_pipe, self.stop_requested, workspace, threads, in_memory),
                code.sources(),
            ),
            daemon=True,
        )
        self.process.start()
        worker_pipe.close()

    def ready(self) -> bool:
        """Return True: a process can always take a job."""
        return True

    def submit(self, work: Work, job: Any) -> None:
        """Send the job; a process that has ended already is noticed by `receive`."""
        with suppress(OSError):
            self.pipe.send((work, job))

    def stop(self) -> None:
        """Ask the job to stop soon."""
        self.stop_requested.set()

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()

    @staticmethod
    def receive(workers: list[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """Wait for at most so many seconds and yield the events of the workers."""
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
    """Describe the exit code of a process."""
    if code == -9:
        return "killed, possibly out of memory"
    return f"exit code {code}"


def _serve(
    pipe: Any,
    stop_requested: Any,
    workspace: Workspace,
    threads: int,
    in_memory: list[Dataset],
    sources: tuple[code.Source, ...],
) -> None:
    """Run jobs in a worker process until the pipe closes."""
    import signal

    import torch

    # Ctrl-C reaches all processes; the main one passes the request on and ends the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        code.adopt(sources)
    except Exception as error:  # told with the first job
        pipe.send(("raised", portable(error)))
        return
    for data in in_memory:
        workspace.adopt(data)
    alone = _watch_main_process()

    def stopped() -> bool:
        return stop_requested.is_set() or alone.is_set()

    progress = Relay(lambda line: pipe.send(("message", line)))
    while True:
        try:
            work, job = pipe.recv()
            answer = ("result", called(work, job, workspace, progress, stopped))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:
            answer = ("raised", portable(error))
        with suppress(BrokenPipeError):  # the main process has ended
            pipe.send(answer)


def _watch_main_process() -> threading.Event:
    """Return what is set when the main process has ended; this one then ends soon as well."""
    main = multiprocessing.parent_process()
    alone = threading.Event()

    def wait() -> None:
        if main is not None:
            main.join()
            alone.set()  # a training saves its epoch
            time.sleep(GRACE)
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return alone


@dataclass(frozen=True)
class Processes:
    """The executor that runs jobs in several processes of this machine.

    The number of threads stays the same when few jobs are left: it changes the last bits of a
    result, which must not depend on where a study was interrupted.

    Attributes:
        count: Number of processes.
        deadline: Seconds after which a job is given to another process.
        threads: Processor threads of each process.
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
        """Run every job, at most ``count`` at a time; see `Executor.map`."""
        slots = min(self.count, len(jobs))
        places = [replace(workspace, device=device) for device in devices(workspace.device, slots)]
        yield from Pool(
            work,
            jobs,
            slots,
            lambda slot: ProcessWorker(places[slot], self.threads),
            ProcessWorker.receive,
            progress,
            stop,
            begin,
            self.deadline,
        ).run()
