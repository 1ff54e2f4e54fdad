"""A tracker that does not answer, breaks or is slow costs one warning and no result."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_runs import CURVE, both, record, shown

from bench.records.tracking.tracker import Tracker

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go below the current folder where a server has no place for them."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://me:geheim@127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_does_not_answer_costs_one_warning(
    mute: str, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    for address in (mute, "http://127.0.0.1:9"):
        start = time.monotonic()
        tracker = Tracker(address, tmp_path, warn=warned.append)
        tracker.log(record())
        tracker.settle(shown([record()]))
        assert not tracker.on
        assert time.monotonic() - start < 10
    assert len(warned) == 2
    assert all("the server does not answer" in text for text in warned)
    assert all("results are kept all the same" in text for text in warned)
    assert "geheim" not in "".join(warned)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///somewhere", "MLflow keeps no folders any more: use sqlite"),
        ("nonsense://host?token=geheim", "token=\\*\\*\\*"),
    ],
)
def test_an_address_that_cannot_be_costs_one_warning(
    uri: str, message: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        Tracker(uri, tmp_path).log(record())
    assert len(caught) == 1
    assert "geheim" not in str(caught[0].message)


def test_a_database_of_another_version_says_how_to_upgrade(
    empty_store: Path, tmp_path: Path, warned: list[str]
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    database.close()
    assert not Tracker(None, tmp_path, warn=warned.append).on
    assert f"mlflow db upgrade sqlite:///{tmp_path}/mlflow.db" in warned[0]


def test_a_store_that_breaks_in_the_middle_costs_one_warning(
    empty_store: Path, tmp_path: Path, warned: list[str]
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tracker = Tracker(None, tmp_path, warn=warned.append)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("DROP TABLE metrics")
    database.close()
    for seed in range(3):
        tracker.log(record(seed), CURVE)
    assert len(warned) == 1


@pytest.mark.slow
def test_a_store_that_breaks_at_the_end_costs_one_warning(
    empty_store: Path, tmp_path: Path, warned: list[str]
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tracker = Tracker(None, tmp_path, warn=warned.append)
    for one in both():
        tracker.log(one)
    assert warned == []
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("DROP TABLE latest_metrics")
    database.close()
    tracker.settle(shown(both()))
    tracker.end_seed(record(), "KILLED")
    assert len(warned) == 1


class Slow:
    """A client whose server takes its time for every answer."""

    def __init__(self, client: Any, seconds: float) -> None:
        self.client, self.seconds, self.asked = client, seconds, 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        time.sleep(self.seconds)
        return getattr(self.client, name)


def slow(tracker: Tracker, seconds: float) -> Slow:
    """Make a tracker one of a slow server."""
    tracker.far = True
    tracker.client = Slow(tracker.client, seconds)
    return tracker.client


def test_a_server_that_is_slow_costs_a_minute_and_one_warning(
    empty_store: Path, tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    tracker = Tracker(None, tmp_path, warn=warned.append)
    monkeypatch.setattr("bench.records.tracking.tracker.PATIENCE", tracker._spent + 0.5)
    server = slow(tracker, 0.25)
    tracker.log(record(0))  # more than ten questions
    assert not tracker.on
    asked = server.asked
    tracker.log(record(1))
    assert server.asked == asked
    assert len(warned) == 1
    assert "its server is slow" in warned[0]


@pytest.mark.slow
def test_a_slow_server_is_borne_where_it_is_little_beside_the_run(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.records.tracking.tracker.PATIENCE", 0.1)
    slow(tracker, 0.02)
    tracker._began -= 10_000  # the run has lasted for hours
    tracker.log(record(0))
    assert tracker.on
    # and so is it by who makes everything anew
    tracker._began += 10_000
    tracker.strict = True
    tracker.equalise([record(0), record(1)], anew=True)
    assert tracker.on
