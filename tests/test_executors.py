"""The same jobs through each executor give the same results, whatever dies on the way."""

import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import pytest
import torch
from jobs import OfTwo, fragile, patient, raise_bound, raise_of_two, refuse, square, threads

from bench.cli import options as shared
from bench.errors import Failed
from bench.execution import options, signals
from bench.execution.executors import Local, Lost, portable
from bench.execution.options import ExecutionOptions
from bench.execution.pool import Pool
from bench.execution.processes import Processes
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace


def executor(name: Any, **options: Any) -> Any:
    return ExecutionOptions(executor=name, **options).build("cpu")


def through(executor: Any, work: Any, jobs: list[int], folder: Path, stop: Any = None) -> Any:
    workspace = Workspace(results=folder)
    found = executor.map(work, jobs, workspace, Silent(), stop or (lambda: False))
    return dict(found)


@pytest.mark.slow
def test_each_executor_gives_the_same(tmp_path: Path) -> None:
    jobs = [3, 1, 4, 1, 5]
    expected = dict(enumerate(job * job for job in jobs))
    assert through(Local(), square, jobs, tmp_path) == expected
    assert through(Processes(2), square, jobs, tmp_path) == expected


@pytest.mark.slow
def test_a_job_whose_worker_dies_is_run_again_but_not_for_ever(tmp_path: Path) -> None:
    found = through(Processes(2), fragile, [1, 3, 5], tmp_path)
    assert (found[0], found[1]) == (1, 3)
    assert found[2] == Lost("the worker died 3 times, last: killed, possibly out of memory")


@pytest.mark.slow
@pytest.mark.parametrize("executor", [Local(), Processes(2)])
def test_what_a_job_raises_is_raised(executor: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="job 2 is bad: give another"):
        through(executor, refuse, [1, 2, 3], tmp_path)


UNSENT = [
    (raise_of_two, "^OfTwo: 3 parts are missing$"),
    (raise_bound, "^Bound: it is bound$"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("work", "said"), UNSENT)
def test_an_exception_that_cannot_be_sent_is_told_at_once(
    work: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match=said):
        through(Processes(1), work, [3], tmp_path)


def test_only_what_cannot_be_sent_is_changed() -> None:
    error = ValueError("eps is 2")
    assert portable(error) is error
    nested = RuntimeError(OfTwo(3, "parts"))
    assert str(portable(nested)) == "RuntimeError: 3 parts"


class Dying:
    """A worker of which each dies in its first job."""

    started = 0

    def __init__(self, slot: int) -> None:
        Dying.started += 1
        self.closed = 0

    def ready(self) -> bool:
        return True

    def submit(self, work: Any, job: Any) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None:
        self.closed += 1

    @staticmethod
    def receive(workers: list[Any], seconds: float) -> Iterator[tuple[Any, str, Any]]:
        for worker in workers:
            yield worker, "died", "killed"


@pytest.mark.parametrize(("stopping", "workers"), [(True, 2), (False, 8)])
def test_a_worker_that_dies_while_stopping_is_not_replaced(
    stopping: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dying, "started", 0)
    begun: list[int] = []
    pool = Pool(
        square, [1, 2], 2, Dying, Dying.receive, Silent(),
        lambda: stopping and len(begun) == 2, begun.append,
    )  # fmt: skip
    receive = pool.receive

    def later(busy: list[Any], seconds: float) -> Iterator[tuple[Any, str, Any]]:
        if stopping and not pool.stopping:
            return
        yield from receive(busy, seconds)

    pool.receive = later
    found = dict(pool.run())
    assert Dying.started == workers
    assert len(found) == (0 if stopping else 2)
    assert all(worker.closed == 1 for worker in pool.slots)


@pytest.mark.slow
def test_the_wish_to_stop_reaches_the_workers(tmp_path: Path) -> None:
    found = through(
        Processes(2), patient, [1, 2, 3, 4], tmp_path,
        lambda: len(list(tmp_path.glob("begun-*"))) == 2,
    )  # fmt: skip
    assert set(found.values()) == {"stopped"}
    assert len(found) == 2


@pytest.mark.slow
def test_a_job_beyond_its_deadline_counts_as_died(tmp_path: Path) -> None:
    found = through(Processes(1, deadline=0.2), patient, [1], tmp_path)
    assert found == {0: Lost("the worker died 3 times, last: exceeded the deadline of 0.2 s")}


@pytest.fixture
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("own_threads")
def test_a_deadline_is_passed_on() -> None:
    for name in ("processes", "ray"):
        assert executor(name, jobs=1, deadline=9.0).deadline == 9


@pytest.mark.slow
@pytest.mark.usefixtures("own_threads")
def test_threads_do_not_depend_on_how_many_jobs_are_left(tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    alone, shared = (executor("processes", jobs=jobs) for jobs in (1, cores))
    assert (alone.threads, shared.threads) == (cores, 1)
    assert torch.get_num_threads() == 1  # what this process computes has the same bits
    asked = executor("processes", jobs=1, threads=3)
    for jobs in ([1], [1, 2, 3]):
        assert set(through(asked, threads, jobs, tmp_path).values()) == {3}
    assert executor("ray", jobs=1, threads=3).cpus == 3


def test_impossible_options_are_refused() -> None:
    where = "needs --executor processes, ray or slurm"
    with pytest.raises(ValueError, match=f"--jobs 2 {where}"):
        executor("local", jobs=2)
    for deadline in (1.0, 9.0):
        with pytest.raises(ValueError, match=f"--deadline {deadline:g} {where}"):
            executor("local", deadline=deadline)
    assert isinstance(executor("local", jobs=1), Local)
    with pytest.raises(ValueError, match=r"--jobs 9999 is more than the \d+ processor cores"):
        executor("processes", jobs=9999)


def test_an_executor_is_named_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "ExecutorName", Literal["local", "moon"])
    made = runpy.run_path(shared.__file__, run_name="bench.cli.options")
    command = click.command()(made["spread"](lambda: None))
    (choices,) = (each.type.choices for each in command.params if each.name == "executor")
    assert tuple(choices) == ("local", "moon")


def test_one_named_gpu_takes_one_job_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    before = torch.get_num_threads()
    for device, count in (("cuda", 8), ("cuda:1", 1), ("mps", 1)):
        assert ExecutionOptions(executor="processes").build(device).count == count
    torch.set_num_threads(before)


def test_a_signal_that_was_held_back_arrives_when_the_step_fails() -> None:
    arrived: list[int] = []

    def fail() -> None:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert not arrived
            raise ValueError("the step failed")

    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    try:
        with pytest.raises(ValueError, match="the step failed"):
            fail()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert arrived == [signal.SIGTERM]
