"""Whatever ends while the tracker is written, the next command makes it equal to the records."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tracked import differences, runs

from bench.cli import main
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.records.record import Record
from bench.records.store import Store
from bench.records.tracking import runs as runs_module
from bench.records.tracking import tracker as tracker_module
from bench.records.tracking.shown import Inputs
from bench.records.tracking.tracker import Tracker
from bench.reporting.tracked_cells import cells
from bench.studies import tracking
from bench.studies.jobs import Job
from bench.studies.tracking import TrackingOptions, equalise
from bench.training.recipes import Recipe

pytestmark = pytest.mark.slow

INPUTS = Inputs(digest="0123", images=(9, 5), shape=(1, 8, 8), classes=10)


def record(seed: int = 0, method: str = "none", accuracy: float = 0.5) -> Record:
    return Record(
        kind="run",
        key=f"key-of-{method}",
        seed=seed,
        labels={"augmentation": method, "data": "digits", "model": "resnet8"},
        metrics={"accuracy": accuracy},
        job={"epochs": 2},
        curve=[
            {"epoch": 1, "loss": 2.0, "test_accuracy": 0.2},
            {"epoch": 2, "loss": 1.0, "test_accuracy": accuracy},
        ],
    )


RECORDS = [record(0), record(1, accuracy=0.75), record(0, "cutout"), record(1, "cutout", 1.0)]


def stored(folder: Path, wanted: list[Record] = RECORDS) -> Store:
    store = Store(folder)
    for each in wanted:
        store.add(each)
    return store


def next_command(folder: Path, warn: Callable[[str], None] = pytest.fail) -> Tracker:
    """Open the tracker as a command does."""
    tracker = TrackingOptions().open(Workspace(results=folder), warn)
    assert tracker is not None
    return tracker


def without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE metrics (key TEXT)")


def without_experiments(path: Path) -> None:
    Tracker(None, path.parent, warn=pytest.fail)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM experiments")
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()


def of_no_kind(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("harm", [without_tables, without_experiments, of_no_kind, empty])
def test_a_database_that_is_half_made_is_set_aside_and_made_from_the_records(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    store = stored(tmp_path)
    harm(tmp_path / "mlflow.db")
    before = (tmp_path / "mlflow.db").read_bytes()
    said: list[str] = []
    assert next_command(tmp_path, said.append).on
    (line,) = said
    assert "it is kept as mlflow.db.set-aside-1, and a new one is made" in line
    assert (tmp_path / "mlflow.db.set-aside-1").read_bytes() == before
    assert differences(tmp_path) == []
    assert len(runs(tmp_path)) == len(store.all()) + 2


def test_an_interrupted_start_leaves_no_half_made_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def interrupted(path: Path) -> None:
        without_tables(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracker_module, "_make_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next_command(tmp_path / "results")
    assert not (tmp_path / "results/mlflow.db").exists()
    assert next_command(tmp_path / "results").on
    # a journal of another database must not be played into a new one
    (tmp_path / "results/mlflow.db").unlink()
    (tmp_path / "results/mlflow.db-journal").write_bytes(b"of another database")
    assert next_command(tmp_path / "results").on
    assert not (tmp_path / "results/mlflow.db-journal").exists()


def test_an_empty_database_in_the_cache_is_used_only_if_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[Path] = []
    make = tracker_module._make_tables
    monkeypatch.setattr(
        tracker_module, "_make_tables", lambda path: (made.append(path), make(path))
    )
    for name in "ab":
        assert next_command(tmp_path / name).on
    assert len(made) == 1
    (cached,) = (tmp_path / "cache/bench/tracker").iterdir()
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 4
    cached.write_bytes(content)
    assert next_command(tmp_path / "c").on
    assert len(made) == 2


class Died(BaseException):
    """What ends a process between two writes."""


class Dying:
    """A client that dies at one of its writes."""

    def __init__(self, client: Any, last: int) -> None:
        self.client, self.left = client, last

    def __getattr__(self, name: str) -> Any:
        reads = name.startswith(("search", "get", "_"))
        if not reads and not name.startswith("create_experiment"):
            self.left -= 1
            if self.left < 0:
                raise Died(name)
        return getattr(self.client, name)


def work(tracker: Tracker, folder: Path, wanted: list[Record]) -> None:
    """Log records as a command does."""
    store = Store(folder)
    weights = folder / "weights.safetensors"
    weights.touch()
    for each in wanted:
        tracker.start_seed(each)
        store.add(each)
        tracker.log(each, each.curve, weights, inputs=INPUTS)
    found = store.all()
    tracker.settle(cells(found, store.curve))


@pytest.mark.parametrize("again", [False, True])
def test_whatever_write_is_the_last_the_next_command_repairs_it(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = {"bench.pid": str(dead.pid), "bench.host": runs_module.socket.gethostname()}
    monkeypatch.setattr(runs_module, "_owner", lambda: owner)
    # records that replace others, or the first ones of a folder
    first = tmp_path / "first"
    work(next_command(first), first, RECORDS if again else [])
    wanted = [replace(each, metrics={"accuracy": 0.25}) for each in RECORDS] if again else RECORDS
    died = []
    for last in range(0, 200, 13):
        folder = tmp_path / f"dies-{last}"
        shutil.copytree(first, folder)
        tracker = next_command(folder)
        tracker.client = tracker.runs.client = Dying(tracker.client, last)
        try:
            work(tracker, folder, wanted[:3])
            break
        except Died as error:
            died.append(str(error))
        next_command(folder)
        assert differences(folder) == []
    assert len(died) >= 3


def test_a_copied_folder_has_its_own_artifacts(tmp_path: Path) -> None:
    original, copy = tmp_path / "a b%", tmp_path / "copy"
    work(next_command(original), original, RECORDS[:2])
    before = sorted(original.rglob("*"))
    shutil.copytree(original, copy)
    tracker = next_command(copy)
    assert differences(copy) == []
    work(tracker, copy, RECORDS[2:])
    assert differences(copy) == []
    assert sorted(original.rglob("*")) == before
    with closing(sqlite3.connect(copy / "mlflow.db")) as database:
        places = database.execute("SELECT artifact_location FROM logged_models").fetchall()
    assert len(places) == 4
    assert all(place.startswith(copy.as_uri()) for (place,) in places)


def reap(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(main, ["status", "--reap", "--results", str(folder), *words])


def rebuild(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(main, ["track", "rebuild", "--results", str(folder), *words])


def test_reap_makes_the_tracker_equal_to_the_records(tmp_path: Path) -> None:
    stored(tmp_path, RECORDS[:1])
    tracker = next_command(tmp_path)
    for each in RECORDS[1:]:
        Store(tmp_path).add(each)
    for run in runs(tmp_path):
        tracker.client.update_run(run["id"], status="RUNNING")
    tracker.log(record(9, "gridmask"), record(9).curve)  # without a record
    assert differences(tmp_path) != []
    assert reap(tmp_path).exit_code == 0
    assert differences(tmp_path) == []


def test_a_stopped_command_leaves_no_parent_open(tmp_path: Path) -> None:
    place = Workspace(results=tmp_path)
    job = Job(Recipe(data="digits(train=10)", model="resnet8", epochs=1), 0)
    with tracking.tracked_runs(TrackingOptions(), place, Silent()) as observer:
        assert observer is not None
        observer.started(job)
    states = {run["tags"]["bench.kind"]: run["status"] for run in runs(tmp_path)}
    assert states == {"seed": "KILLED", "cell": "KILLED"}


def test_rebuild_ends_with_a_whole_tracker_or_an_error(tmp_path: Path) -> None:
    stored(tmp_path)
    done = rebuild(tmp_path)
    assert done.exit_code == 0
    assert done.output == "logged 4 records, each of which the tracker holds\n"
    assert differences(tmp_path) == []
    refused = rebuild(tmp_path, "--tracking-uri", "nonsense://host?token=geheim")
    assert refused.exit_code == 2
    assert refused.output.startswith("Error: the tracker nonsense://host?token=*** failed: ")
    assert refused.output.count("\n") == 1
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("DROP TABLE latest_metrics")
    lost = rebuild(tmp_path)
    assert lost.exit_code == 2
    assert "latest_metrics" in lost.output


def test_rebuild_warns_once_of_invalid_lines_and_refuses_a_folder_at_once(tmp_path: Path) -> None:
    store = stored(tmp_path)
    with store.path.open("a") as file:
        file.write("{}\n")
    asked = ["track", "rebuild", "--results", str(tmp_path)]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        rebuilt = CliRunner().invoke(main, asked)
    assert rebuilt.exit_code == 0, rebuilt.output
    (line,) = rebuilt.stderr.splitlines()
    assert "1 line is set aside" in line
    (tmp_path / "mlflow.db").unlink()
    (tmp_path / "mlflow.db").mkdir()
    start = time.monotonic()
    refused = CliRunner().invoke(main, asked)
    assert time.monotonic() - start < 30
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert "mlflow.db is a folder and no database: move it away, or give --tracking-uri" in line


def test_rebuild_replaces_a_damaged_database(tmp_path: Path) -> None:
    store = stored(tmp_path)
    equalise(Tracker(None, tmp_path, warn=pytest.fail), store)
    content = bytearray((tmp_path / "mlflow.db").read_bytes())
    for place in range(20_000, len(content), 1000):
        content[place] ^= 255
    (tmp_path / "mlflow.db").write_bytes(content)
    done = rebuild(tmp_path)
    assert done.exit_code == 0, done.output
    assert "is kept as mlflow.db.set-aside-1" in done.output
    assert differences(tmp_path) == []


def test_rebuild_disturbs_no_run_that_goes_on(tmp_path: Path) -> None:
    store = stored(tmp_path, RECORDS[:2])
    tracker = next_command(tmp_path)
    tracker.start_seed(RECORDS[2])
    assert rebuild(tmp_path).exit_code == 0
    states = {run["tags"].get("bench.name"): run["status"] for run in runs(tmp_path)}
    assert states[RECORDS[2].name] == "RUNNING"
    store.add(RECORDS[2])
    assert rebuild(tmp_path).exit_code == 0  # between its record and its metrics
    tracker.log(RECORDS[2], RECORDS[2].curve)
    tracker.settle(cells(store.all(), store.curve))
    work(tracker, tmp_path, RECORDS[3:])
    assert differences(tmp_path) == []


def test_many_earlier_records_are_left_to_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path)
    monkeypatch.setattr(tracking, "MOST", 3)
    said: list[str] = []
    for _ in range(2):
        next_command(tmp_path, said.append)
    assert said == 2 * [
        "the tracker is new and lacks 4 earlier records; log them with: "
        f"bench track rebuild --results {tmp_path}"
    ]
    assert rebuild(tmp_path).exit_code == 0
    next_command(tmp_path)
    assert differences(tmp_path) == []
