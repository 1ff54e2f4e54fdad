"""The executor that runs jobs on a Ray cluster. Only this module imports ray."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import reason
from bench.execution import signals
from bench.execution.executors import Begin, Stop, Work, called, on_node, portable, silently
from bench.execution.pool import Pool, Relay, Worker
from bench.execution.progress import Progress
from bench.execution.workspace import open_datasets
from bench.files import code

if TYPE_CHECKING:
    from bench.execution.workspace import Workspace


class RayWorker:
    """An actor on a Ray cluster that runs one job at a time."""

    def __init__(self, ray: Any, workspace: Workspace, data: Any, cpus: float, gpus: float) -> None:
        self.ray, self.workspace, self.data = ray, workspace, data
        self.cpus, self.gpus = cpus, gpus
        actor = ray.remote(_Actor).options(num_cpus=cpus, num_gpus=gpus, max_concurrency=2)
        there = on_node(workspace, gpus)
        self.actor = actor.remote(there, data, max(1, int(cpus)), code.sources())
        self.answer: Any = None
        self.started = self.actor.wait_for_start.remote()

    def ready(self) -> bool:
        """Return whether the cluster has started the actor."""
        return bool(self.ray.wait([self.started], timeout=0)[0])

    def submit(self, work: Work, job: Any) -> None:
        """Send the job."""
        self.answer = self.actor.run.remote(self.ray.cloudpickle.dumps((work, job)))

    def stop(self) -> None:
        """Ask the job to stop soon."""
        self.actor.stop.remote()

    def close(self) -> None:
        """End the actor."""
        with suppress(Exception):
            self.ray.kill(self.actor)

    @staticmethod
    def receive(workers: list[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
        """Wait for at most so many seconds and yield the events of the workers."""
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
                yield worker, "message", line
            yield worker, kind, value


class _Actor:
    """The worker's side of `RayWorker`, in a process of the cluster."""

    def __init__(
        self, workspace: Workspace, data: Any, threads: int, sources: tuple[code.Source, ...]
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        import ray

        for each in ray.get(data):
            workspace.adopt(each)
        self.workspace, self.sources, self.stop_requested = workspace, sources, False

    def wait_for_start(self) -> None:
        """Return as soon as the actor has started."""

    def run(self, content: bytes) -> tuple[str, Any, list[str]]:
        """Run a job; return its result or exception, and its messages.

        Args:
            content: What the driver has pickled: the work and the job.
        """
        from ray import cloudpickle

        lines: list[str] = []
        try:
            code.adopt(self.sources)  # before the job is read, which may refer to it
            work, job = cloudpickle.loads(content)
            relay = Relay(lines.append)
            value = called(work, job, self.workspace, relay, lambda: self.stop_requested)
            return "result", value, lines
        except Exception as error:
            return "raised", portable(error), lines

    def stop(self) -> None:
        """Ask the job to stop soon."""
        self.stop_requested = True


@dataclass(frozen=True)
class Ray:
    """The executor that runs jobs on a Ray cluster: a local one, or an existing one by its address.

    A local cluster listens on the loopback address only and requires a token; an existing one
    requires what its owner has set (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``). All nodes must see the
    results folder under one path. The dataset is sent to each node once.

    Attributes:
        count: Number of workers.
        address: Address of an existing cluster; None starts a local one.
        gpus: GPUs per worker; may be a fraction.
        cpus: Processor cores per worker.
        deadline: Seconds after which a job is given to another worker.
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
        """Run every job, as many at a time as the cluster has room for; see `Executor.map`."""
        ray = self.connect()
        absolute = replace(workspace, results=workspace.results.resolve())
        data = [ray.put(each) for each in open_datasets()]
        yield from Pool(
            work,
            jobs,
            self.count,
            lambda slot: RayWorker(ray, absolute, data, self.cpus, self.gpus),
            RayWorker.receive,
            progress,
            stop,
            begin,
            self.deadline,
        ).run()

    def connect(self) -> Any:
        """Connect to the cluster and return the module ``ray``.

        Raises:
            ValueError: Ray is not installed, or no cluster answers at the address.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ValueError(
                "--executor ray needs Ray; install it with: pip install 'deletion-bench[ray]'"
            ) from None
        if ray.is_initialized():
            return ray
        port = (self.address or "").removeprefix("ray://").rpartition(":")[2]
        if self.address and not port.isdecimal():
            raise ValueError(
                f"--address {self.address} names no port: give it as HOST:PORT or ray://HOST:PORT, "
                "as ray start prints it"
            )
        try:
            with signals.kept(), _no_handlers_of_ray():
                self._start(ray)
        except (OSError, ValueError, RuntimeError) as error:
            if self.address is None:
                raise ValueError(
                    f"no local Ray cluster could be started: {reason(error)}"
                ) from None
            raise ValueError(
                f"no Ray cluster answers at {self.address}: {type(error).__name__}; "
                "start one with: ray start --head, or remove --address"
            ) from None
        return ray

    def _start(self, ray: Any) -> None:
        """Connect to the cluster at the address, or start a local one."""
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address:
            # without this check, ray.init waits for minutes
            host, _, port = self.address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address=self.address, **quiet)
        else:
            _lock_down()
            ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, **quiet)


@contextmanager
def _no_handlers_of_ray() -> Iterator[None]:
    """Keep Ray from taking SIGTERM over while it starts: its handlers end this process at once.

    One that it installs natively remains, which `bench.execution.signals.kept` replaces.
    """
    from ray._private import utils

    own = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = own


def _lock_down() -> None:
    """Restrict the local cluster that this process is about to start to this machine and user.

    Ray otherwise listens on every network interface, and whoever reaches a port can run code. Its
    processes are bound to the loopback address, and every call needs a token, a random one unless
    ``RAY_AUTH_TOKEN`` sets one. Must run before ``ray.init``.
    """
    # despite its name, this variable is read on Linux too
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # an earlier import of Ray has read the old values of the variables
    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
