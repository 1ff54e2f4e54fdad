"""A record that was written is read again, whatever happens to the file in between."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from bench.files.atomic import sweep, write
from bench.records.record import OWN, Record
from bench.records.store import Store
from bench.reporting.results_folder import pack


def record(seed: int = 0, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kind": "run",
        "key": "abcdef012345",
        "seed": seed,
        "labels": {"augmentation": "cutout", "data": "digits", "model": "resnet18"},
        "metrics": {"accuracy": 0.75, "epochs": 12},
        "job": {"data": "digits", "victim": {"epochs": 3}},
        "machine": {"device": "cpu"},
    }
    return Record(**fields | changes)


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name not in OWN and name.isprintable())


@given(
    st.dictionaries(NAMES.map("l{}".format), st.text(max_size=8), max_size=4),
    st.dictionaries(
        NAMES.map("m{}".format),
        st.floats(1e-99, 1e18) | st.integers(-(10**18), 10**18),
        max_size=4,
    ),
    st.sampled_from(["finished", "failed"]),
)
def test_a_record_survives_json(labels: Any, metrics: Any, status: Any) -> None:
    labels |= record().labels
    one = record(labels=labels, metrics=metrics, status=status, message="why\n")
    assert Record.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("label", "hyperparameters", "read"),
    [
        ("keepaugment", "keepaugment(length=4)", "keepaugment(squares='clipped')"),
        ("keepaugment", "keepaugment", "keepaugment(squares='clipped')"),
        ("keepaugment(share=0.5)", "keepaugment", "keepaugment(share=0.5, squares='clipped')"),
        ("keepaugment", "keepaugment(length=4, squares='inside')", "keepaugment"),
        ("keepaugment(squares='clipped')", "keepaugment", "keepaugment(squares='clipped')"),
        ("cutout", "cutout", "cutout"),
    ],
)
def test_a_keepaugment_of_version_0_1_says_that_its_squares_were_clipped(
    label: str, hyperparameters: str, read: str
) -> None:
    labels = {"augmentation": label, "hyperparameters": hyperparameters, "model": "resnet8"}
    labels |= {"data": "digits"}
    found = Record.from_json(record(labels=labels).to_json())
    assert found.labels == labels | {"augmentation": read}
    assert Record.from_json(found.to_json()) == found


def test_a_store_gives_back_what_was_added(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    assert store.all() == []
    added = [record(0), record(1, metrics={"l0": 0.0})]
    for one in added:
        store.add(one)
    assert store.all() == added
    assert Store(store.folder).all() == added


def test_the_newest_record_of_a_job_and_seed_counts_at_its_old_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for one in (record(0, status="failed"), record(1), record(0)):
        store.add(one)
    assert store.all() == [record(0), record(1)]


def test_only_finished_records_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(record(0))
    store.add(record(1, status="failed", message="diverged"))
    wanted = [("abcdef012345", 0), ("abcdef012345", 1), ("abcdef012345", 2), ("other", 0)]
    assert store.find(wanted) == {("abcdef012345", 0): record(0)}


def test_lines_of_other_jobs_are_not_read_to_find_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    for number in range(50):
        store.add(record(number, key=f"job-{number % 10}"))
    # written by somebody else, in another order
    other = dict(reversed(record(3, key="job-3").to_json().items()))
    with store.path.open("a") as file:
        file.write(json.dumps(other) + "\n")
    read: list[bytes] = []

    def parse(line: bytes) -> Any:
        read.append(line)
        return json.loads(line)

    monkeypatch.setattr("bench.records.store.parse", parse)
    found = store.find([("job-3", 3), ("job-3", 13), ("job-4", 3)])
    assert found == {("job-3", n): record(n, key="job-3") for n in (3, 13)}
    assert len(read) == 11


def test_curves_lie_beside_the_records(tmp_path: Path) -> None:
    store, curve = Store(tmp_path), [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    store.add(record(curve=curve))
    (found,) = store.all()
    assert found == record()
    assert store.curve(found) == curve
    assert "loss" not in store.path.read_text()
    assert store.curve(record(9)) == []
    assert store.curve(record(9, curve=curve)) == curve


@pytest.mark.parametrize(
    "damage",
    [
        b'{"version": 1, "ki',
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b'{"version": 2}\n',
        b'{"version": 1}\n',
        json.dumps({**record().to_json(), "seed": "zero"}).encode() + b"\n",
        json.dumps({**record().to_json(), "key": ["a"]}).encode() + b"\n",
    ],
)
def test_damage_costs_one_line_and_one_warning(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    store.add(record(0))
    with store.path.open("ab") as file:
        file.write(damage)
    store.add(record(1))
    with pytest.warns(UserWarning, match=r"records\.jsonl: 1 line is set aside") as caught:
        assert store.all() == [record(0), record(1)]
    assert len(caught) == 1


def test_empty_lines_are_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(record(0))
    with store.path.open("ab") as file:
        file.write(b"\n\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.all() == [record(0)]


class FullDisk:
    """A file on a disk that fills up in the middle of a line."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> int:
        written: int = self.file.write(content[:20])
        return written


def test_a_full_disk_raises_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, opened = Store(tmp_path), Path.open
    store.add(record(0))
    before = store.path.read_bytes()

    def full(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = opened(path, mode, *rest, **named)
        return FullDisk(file) if mode == "ab" else file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"No space left.*records\.jsonl"):
        store.add(record(1))
    monkeypatch.undo()
    assert store.path.read_bytes() == before


WORKER = """
import sys
from pathlib import Path
from bench.records.record import Record
from bench.records.store import Store

for seed in range(25):
    worker = int(sys.argv[2])
    labels = {"augmentation": "x" * 5000, "data": "digits", "model": "resnet18"}
    record = Record(kind="run", key="a", seed=100 * worker + seed, labels=labels, metrics={})
    Store(Path(sys.argv[1])).add(record)
"""


def test_four_processes_write_at_once(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(worker)])
        for worker in range(4)
    ]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert {one.seed for one in Store(tmp_path).all()} == {
        100 * worker + seed for worker in range(4) for seed in range(25)
    }


def test_a_writer_waits_for_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = threading.Thread(target=store.add, args=(record(),))
    with FileLock(tmp_path / "records.lock"):
        writer.start()
        writer.join(0.2)
        assert store.all() == []
    writer.join()
    assert store.all() == [record()]


@pytest.mark.parametrize(
    ("labels", "metrics", "name"),
    [
        ({"seed": "zero"}, {}, "seed"),
        ({}, {"key": 1.0}, "key"),
        ({"accuracy": "high"}, {"accuracy": 1.0}, "accuracy"),
    ],
)
def test_a_name_that_would_overwrite_another_is_refused(
    labels: dict[str, str], metrics: dict[str, float], name: str
) -> None:
    with pytest.raises(ValueError, match=f"the label or metric '{name}' is taken in a record"):
        record(labels=labels, metrics=metrics)


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().seed = 1  # type: ignore[misc]


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file.txt"
    write(path, "first")
    write(path, b"second")
    assert path.read_text() == "second"

    def fail(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr("bench.files.atomic.os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write(path, "third")
    assert path.read_text() == "second"
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]


def test_a_packed_folder_is_compressed_and_the_same_each_time(tmp_path: Path) -> None:
    for seed in range(20):
        Store(tmp_path).add(record(seed))
    for name in ("a.zip", "b.zip"):
        pack(tmp_path, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        packed = archive.getinfo("records.jsonl")
        assert packed.compress_size < packed.file_size / 2
        assert archive.read("records.jsonl") == (tmp_path / "records.jsonl").read_bytes()


def test_no_curve_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loss is nan"):
        Store(tmp_path).add(record(curve=[{"epoch": 1, "loss": float("nan")}]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("job", {"images": 10**20}), ("images", 10**9), ("success_low", 0.5)],
)
def test_an_attack_that_no_page_could_show_is_set_aside(
    field: str, value: Any, tmp_path: Path
) -> None:
    labels = {"attack": "jsma", "victim": "v", "data": "d", "goal": "untargeted", "eps": "8/255",
              "bounded": "yes", "role": "sparse", "model": "resnet8"}  # fmt: skip
    whole = {"version": 1, "kind": "attack", "key": "a", "seed": 0, "status": "finished",
             "message": "", "job": {"images": 4}, "machine": {}, **labels}  # fmt: skip
    lines = [json.dumps(each) for each in (whole, {**whole, "key": "b", field: value})]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="line 2"):
        found = Store(tmp_path).all()
    assert [each.key for each in found] == ["a"]


def test_files_of_other_programs_are_not_swept_away(tmp_path: Path) -> None:
    """A results folder may be the folder of a project."""
    theirs = [tmp_path / ".coverage.host.4123456.123456", tmp_path / "sub" / ".backup.2023"]
    ours = tmp_path / f".records.jsonl.{2**22 + 1}.bench-part"
    for path in (*theirs, ours):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (0, 0))
    sweep(tmp_path)
    assert [path.exists() for path in (*theirs, ours)] == [True, True, False]
