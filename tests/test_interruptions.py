"""Work that ends early: nothing is repeated, nobody is left behind, and one line says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock
from jobs import leave

from bench.cli import main
from bench.errors import Failed, Stopped
from bench.execution import signals
from bench.execution.executors import Local, Lost
from bench.execution.processes import Processes
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.files import locks
from bench.points import find
from bench.points.blocks import run as run_blocks
from bench.records.store import Store
from bench.studies import jobs
from bench.studies.jobs import Job
from bench.training import checkpoints, loop
from bench.training.recipes import Recipe

JOB = Job(Recipe(data="digits(train=60, test=20)", model="resnet8", epochs=2, padding=1), 0)
COMMAND = ["run", "--aug", "none", "--model", "resnet8", "--seeds", "1", "--epochs", "2"]
COMMAND += ["--data", "digits(train=60, test=20)", "--threads", "1"]


def trained(folder: Path, job: Job = JOB) -> Any:
    return jobs.work(job, Workspace(results=folder), Silent(), lambda: False)


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that are trained."""
    found: list[int] = []
    train = loop.train_epoch

    def counted(*args: Any, **named: Any) -> float:
        found.append(args[6])
        return train(*args, **named)

    monkeypatch.setattr(loop, "train_epoch", counted)
    return found


def test_a_record_that_cannot_be_written_costs_no_training(
    tmp_path: Path, epochs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: Store, record: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full)
        with pytest.raises(OSError, match="No space left"):
            trained(tmp_path)
    assert epochs == [0, 1]
    record, before = trained(tmp_path)
    assert not before
    assert epochs == [0, 1]
    assert record.metrics["epochs"] == 2
    assert not list(tmp_path.glob("cache/checkpoints/*"))


def test_a_checkpoint_that_outlived_its_record_is_swept_and_not_taken_for_a_fresh_run(
    tmp_path: Path, epochs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fresh in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "discard", lambda folder: None)
            trained(tmp_path / str(fresh))
        assert list((tmp_path / str(fresh)).glob("cache/checkpoints/*/checkpoint.json"))
        epochs.clear()
        _, before = trained(tmp_path / str(fresh), replace(JOB, fresh=fresh))
        assert before is not fresh
        assert epochs == ([0, 1] if fresh else [])
        assert not list((tmp_path / str(fresh)).glob("cache/checkpoints/*"))


@pytest.mark.parametrize("name", ["records.lock", "curves", "weights", "cache/checkpoints"])
def test_results_that_cannot_be_written_are_noticed_before_the_training(
    name: str, tmp_path: Path, epochs: list[int]
) -> None:
    path = tmp_path / name
    if name == "records.lock":
        path.mkdir()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    said = CliRunner().invoke(main, [*COMMAND, "--no-tracking", "--results", str(tmp_path)])
    assert said.exit_code == 2
    assert f"cannot write to the results folder {tmp_path} ({path}: " in said.output
    assert "choose another with --results" in said.output
    assert epochs == []


def test_who_waits_for_a_lock_says_for_whom_and_hears_a_signal(tmp_path: Path) -> None:
    path, said = tmp_path / "locks" / "a.lock", list[str]()
    with (
        locks.held(path, "seed 0", said.append),
        pytest.raises(Stopped, match="stopped while waiting for seed 0"),
        locks.held(path, "seed 0", said.append, lambda: bool(said)),
    ):
        pass
    assert len(said) == 1
    assert said[0].startswith(f"Waiting for seed 0: process {os.getpid()} on ")
    with (
        FileLock(path),  # of a program that leaves no note
        pytest.raises(Stopped),
        locks.held(path, "it", said.append, lambda: len(said) > 1),
    ):
        pass
    assert said[1] == "Waiting for it: another process is at work on it."
    with locks.held(path, "seed 0", said.append):
        assert len(said) == 2
    assert [each.name for each in path.parent.iterdir()] == ["a.lock"]


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from jobs import patient
from bench.execution.processes import Processes
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace

if __name__ == "__main__":
    place = Workspace(results=Path(sys.argv[3]))
    begin = lambda index: print(index, flush=True)
    list(Processes(2).map(patient, [1, 2], place, Silent(), lambda: False, begin))
"""


def children(process: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    return list(map(int, listed.stdout.split()))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells who lives")
def test_a_main_process_that_is_killed_leaves_no_workers_behind(tmp_path: Path) -> None:
    here = Path(__file__).parent
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, str(script), str(here.parent), str(here), str(tmp_path)],
        stdout=subprocess.PIPE,
    ) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        workers = children(driver.pid)
        time.sleep(1)
        driver.kill()
    assert len(workers) >= 2
    deadline = time.monotonic() + 40  # the jobs alone would last for a minute
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


@pytest.mark.slow
@pytest.mark.parametrize("executor", [Local(), Processes(1)])
def test_a_plug_in_that_exits_does_not_end_the_command_with_it(
    executor: Any, tmp_path: Path
) -> None:
    place = Workspace(results=tmp_path)
    with pytest.raises(Failed, match=r"called sys.exit\(0\) during a job"):
        list(executor.map(leave, [0], place, Silent(), lambda: False))


def test_workers_that_die_in_the_search_for_points_are_one_line(tmp_path: Path) -> None:
    class Deadly:
        def map(self, work: Any, wanted: Any, *rest: Any) -> Any:
            yield 0, Lost("the worker died 3 times, last: killed, possibly out of memory")

    place, name = Workspace(results=tmp_path).locate("digits(train=200)")
    blocks = find.Search.of(place.dataset(name), place).blocks
    with pytest.raises(Failed, match="failed at block 0 of 2: the worker died 3 times") as error:
        run_blocks(blocks, place, Silent(), Deadly(), lambda: False)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Failed("a worker died"), "Error: a worker died"),
        (MemoryError(), "Error: memory ran out (MemoryError): take a smaller --batch-size"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate "
                         "memory: you tried to allocate 99 bytes"),
            "Error: memory ran out ([enforce fail at alloc_cpu.cpp:116]",
        ),
        (SystemExit(0), "Error: something called sys.exit(0) inside the command"),
    ],
)  # fmt: skip
def test_work_that_fails_is_one_line_with_exit_code_3(
    error: BaseException, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(find, "adversarial", fail)
    said = CliRunner().invoke(main, ["points", "build", "--quiet", "--results", str(tmp_path)])
    assert said.exit_code == 3
    assert said.output.startswith(message)
    assert said.output.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["--data", "images", "seed 0"])
def test_sigterm_is_an_interruption_from_the_first_line_on(wait: str, tmp_path: Path) -> None:
    """Before the tracker is opened, while it is, and afterwards."""
    arguments = [*COMMAND, "--seeds", "9", "--results", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "bench", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        # imports are listed on standard error as they happen
        mark = "bench.cli.options" if wait == "--data" else wait
        said = ""
        for line in process.stderr:
            said += line
            if mark in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
    assert process.returncode == 130, said[-2000:]
    assert "the same command continues" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_step_that_must_not_be_cut_is_heard_after_it(number: signal.Signals) -> None:
    done: list[str] = []

    def leave_at_once() -> Any:
        raise AssertionError("nothing is imported here")

    def steps() -> None:
        with signals.deferred():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            time.sleep(0.05)
            done.append("the step")
        done.append("what follows")

    with signals.interrupts(leave_at_once), pytest.raises(KeyboardInterrupt):
        steps()
    assert done == ["the step"]
