"""The same jobs through each executor give the same results, whatever dies on the way."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import fragile, patient, refuse, square, threads

from bench.execution.executors import Local, Lost
from bench.execution.options import ExecutionOptions
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


@pytest.mark.slow
def test_the_wish_to_stop_reaches_the_workers(tmp_path: Path) -> None:
    start = time.monotonic()
    found = through(
        Processes(2), patient, [1, 2, 3, 4], tmp_path, lambda: time.monotonic() - start > 6
    )
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
    with pytest.raises(ValueError, match="--jobs 2 needs --executor processes or ray"):
        executor("local", jobs=2)
    with pytest.raises(ValueError, match="--deadline 9 needs --executor processes or ray"):
        executor("local", deadline=9.0)
    with pytest.raises(ValueError, match=r"--jobs 9999 is more than the \d+ processor cores"):
        executor("processes", jobs=9999)
