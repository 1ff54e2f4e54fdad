"""Growth is measured: what jobs, records, memory and workers cost, beside their targets."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.points import blocks
from bench.records.record import Record
from bench.records.store import Store
from bench.speed import growth
from bench.speed.growth import Measure
from bench.studies.jobs import Job
from bench.training import loop, victims


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(results=tmp_path)


def test_what_a_driver_costs_a_job_and_an_epoch_is_found(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def train(recipe: Any, seed: int, data: Any) -> None:
        now[0] += 5.0 * recipe.epochs

    def drive(jobs: list[Job], place: Workspace) -> None:
        for job in jobs:
            now[0] += 5.0 * job.recipe.epochs + 0.3 + 0.02 * job.recipe.epochs

    monkeypatch.setattr(loop, "train", train)
    job, epoch = growth.driver("x", drive, workspace, Silent(), count=2)
    assert job.value == pytest.approx(0.3)
    assert epoch.value == pytest.approx(0.02)
    assert job.met
    assert epoch.met


@pytest.mark.slow
def test_memory_that_is_kept_for_each_job_is_seen(workspace: Workspace) -> None:
    if growth.resident() is None:
        pytest.skip("only Linux tells the resident memory")
    kept: list[bytearray] = []
    freed = [b"x" * 4096 for _ in range(50_000)]  # pages that the allocator would give out again
    pins = freed[::100]
    del freed

    def leaking(jobs: list[Job], place: Workspace) -> None:
        kept.extend(bytearray(b"x" * 2**20) for _ in jobs)

    (leak,) = growth.memory(leaking, workspace, Silent(), count=100)
    (flat,) = growth.memory(lambda jobs, place: None, workspace, Silent(), count=100)
    assert pins
    assert leak.value == pytest.approx(80, abs=25)
    assert not leak.met
    assert flat.met


@pytest.mark.slow
def test_listing_is_timed_over_as_many_records_as_asked(tmp_path: Path) -> None:
    (listed,) = growth.listing(tmp_path, Silent(), count=30)
    assert listed.name == "listing 30 records"
    assert 0 < listed.value < 60


def test_a_log_that_reads_what_was_before_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now, logged = [0.0], [0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def growing(record: Record) -> None:
        now[0] += 0.1 + 0.001 * logged[0]
        logged[0] += 1

    def constant(record: Record) -> None:
        now[0] += 0.1

    (bad,) = growth.logging(growing, Silent())
    (good,) = growth.logging(constant, Silent())
    assert bad.value == pytest.approx(2.6, abs=0.1)
    assert not bad.met
    assert good.value == pytest.approx(1)
    assert good.met


@pytest.mark.parametrize("power", [1, 2])
def test_the_report_is_measured_with_both_shapes_and_five_times_as_many_records(
    power: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report whose seconds are 2 + a power of its share of 400 records, and 1 KiB a record."""
    counts: list[int] = []

    def used_by(command: list[str]) -> tuple[float, float]:
        counts.append(len(Store(Path(command[-1])).all()))
        return 2 + (counts[-1] / 400) ** power, counts[-1] / 1024

    monkeypatch.setattr(growth, "used_by", used_by)
    wide, room, deep, _, times = growth.reporting(tmp_path, Silent(), records=400)
    assert counts == [20, 400, 400, 2000]
    assert wide.name == "report, 40 methods x 10 seeds"
    assert deep.name == "report, 10 methods x 40 seeds"
    assert wide.value == deep.value == pytest.approx(3)
    assert room.value == pytest.approx(380 / 1024)
    assert times.met is (power == 1)


class Paced:
    """Gives a result every so many seconds, but the first and the last late."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def map(
        self, work: Any, jobs: list[Any], *_: Any, **__: Any
    ) -> Iterator[tuple[int, Callable[[], None] | None]]:
        for index in range(len(jobs)):
            self.clock[0] += 100.0 if index in (0, len(jobs) - 1) else self.seconds
            yield index, None


def test_the_pace_is_that_while_all_work(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    jobs = [blocks.Block(number, "digits", None, "", "", "", Path()) for number in range(24)]
    assert growth.pace(Paced(now, 0.5), jobs, 2, workspace, Silent()) == pytest.approx(2.0)


def test_the_command_shows_each_measure_and_fails_where_a_target_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = [Measure("an epoch", 0.2, "s", 0.05)]
    monkeypatch.setattr(growth, "driver", lambda *_: slow)
    monkeypatch.setattr(growth, "listing", lambda *_: [])
    monkeypatch.setattr(growth, "memory", lambda *_: [])
    monkeypatch.setattr(growth, "reporting", lambda *_: [])
    monkeypatch.setattr(growth, "logging", lambda *_: [])
    linear = [Measure("workers", 0.95, "times", 0.9, least=True)]
    monkeypatch.setattr(growth, "scaling", lambda *_: linear)
    shown = CliRunner().invoke(main, ["speed", "growth", "--quiet"])
    assert shown.exit_code == 3
    assert "an epoch" in shown.output
    assert shown.output.count("missed") == 2  # without and with a tracker
    slow[0] = Measure("an epoch", 0.01, "s", 0.05)
    assert CliRunner().invoke(main, ["speed", "growth", "--quiet"]).exit_code == 0


def test_scaling_is_a_share_of_as_many_times_as_there_are_workers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def pace(executor: Any, jobs: list[Any], workers: int, *_: Any) -> float:
        assert len({job.path for job in jobs}) == len(jobs)
        asked.append((type(executor).__name__, workers))
        return 3.0 if workers == 1 else 9.0

    monkeypatch.setattr(growth, "pace", pace)
    monkeypatch.setattr(victims, "obtain", lambda *_: None)
    (measure,) = growth.scaling(workspace, Silent(), 4)
    assert asked == [("Local", 1), ("Processes", 4)]
    assert measure.value == pytest.approx(9 / 3 / 4)
    assert not measure.met


def test_the_peak_of_a_command_is_its_own_and_not_that_of_who_starts_it() -> None:
    large = bytearray(200 * 2**20)
    large[:] = b"x" * len(large)  # resident
    seconds, peak = growth.used_by([sys.executable, "-c", "bytearray(40 * 2**20)"])
    assert 40 < peak < 150
    assert seconds > 0
    with pytest.raises(subprocess.CalledProcessError):
        growth.used_by([sys.executable, "-c", "raise SystemExit(3)"])
