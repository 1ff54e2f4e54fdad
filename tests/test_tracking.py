"""The tracker shows what the records hold, and never costs a result."""

from __future__ import annotations

import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from example_runs import CURVE, both, record, runs, shown

from bench.execution.workspace import Workspace
from bench.records.record import Record
from bench.records.tracking.shown import Inputs
from bench.records.tracking.text import mask
from bench.records.tracking.tracker import Tracker
from bench.reporting import run_tables
from bench.reporting.tracked_cells import cells
from bench.studies.tracking import TrackingOptions

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go below the current folder where a server has no place for them."""
    monkeypatch.chdir(tmp_path)


def test_a_seed_holds_what_its_record_holds(tracker: Tracker) -> None:
    tracker.log(record(3), CURVE, Path("weights.safetensors"))
    (seed,), (cell,) = runs(tracker, "seed"), runs(tracker, "cell")
    assert seed.info.status == "FINISHED"
    assert seed.data.params == cell.data.params == {
        "epochs": "9", "victim.data": "digits",
        "augmentation": "cutout", "data": "digits", "model": "resnet18",
    }  # fmt: skip
    assert seed.data.metrics["accuracy"] == 0.78
    assert seed.data.tags["bench.weights"] == "weights.safetensors"
    assert seed.data.tags["mlflow.parentRunId"] == cell.info.run_id
    history = tracker.client.get_metric_history(seed.info.run_id, "epoch/loss")
    assert [(each.step, each.value) for each in history] == [
        (entry["epoch"], entry["loss"]) for entry in CURVE
    ]
    (last,) = tracker.client.get_metric_history(seed.info.run_id, "accuracy")
    assert last.step == len(CURVE)
    files = {each.path for each in tracker.client.list_artifacts(seed.info.run_id)}
    assert files == {"record.json", "environment.json"}
    artifacts = tracker.folder / "artifacts" / seed.info.run_id / "artifacts"
    assert (artifacts / "record.json").is_file()
    assert tracker.client.get_experiment(seed.info.experiment_id).name == "bench/digits"


def test_what_is_not_finite_is_never_logged(tracker: Tracker) -> None:
    tracker.log(record(), [{"epoch": 1, "loss": math.nan}, {"epoch": 2, "loss": math.inf}])
    (seed,) = runs(tracker, "seed")
    assert set(seed.data.metrics) == {"accuracy"}


def test_logging_twice_changes_nothing(tracker: Tracker) -> None:
    tracker.log(record(), CURVE)
    (first,) = runs(tracker, "seed")
    tracker.settle(shown([record()]))
    tracker.log(record(), CURVE)
    again = Tracker(tracker.uri, tracker.folder, warn=pytest.fail)
    again.log(record(), CURVE)
    again.settle(shown([record()]))
    (seed,), (cell,) = runs(tracker, "seed"), runs(tracker, "cell")
    assert seed.info.run_id == first.info.run_id
    assert len(tracker.client.get_metric_history(seed.info.run_id, "epoch/loss")) == len(CURVE)
    assert cell.data.tags["bench.n"] == "1"


def test_a_record_that_replaces_another_replaces_its_run(tracker: Tracker) -> None:
    failed = record(status="failed", metrics={}, message="loss is nan")
    tracker.log(failed, CURVE[:2])
    tracker.settle(shown([failed]))
    (seed,), (cell,) = runs(tracker, "seed"), runs(tracker, "cell")
    assert seed.info.status == "FAILED"
    assert seed.data.tags["bench.message"] == "loss is nan"
    assert cell.info.status == "FAILED"
    tracker.log(record(), CURVE)
    tracker.settle(shown([record()]))
    (seed,), (cell,) = runs(tracker, "seed"), runs(tracker, "cell")
    assert seed.info.status == cell.info.status == "FINISHED"
    assert len(tracker.client.get_metric_history(seed.info.run_id, "epoch/loss")) == len(CURVE)


def test_a_seed_runs_until_its_record_is_there(tracker: Tracker) -> None:
    tracker.start_seed(record())
    (started,) = runs(tracker, "seed")
    assert started.info.status == "RUNNING"
    assert started.data.tags["bench.pid"] == str(os.getpid())
    assert started.data.tags["bench.host"] == socket.gethostname()
    assert runs(tracker, "cell")[0].info.status == "RUNNING"
    tracker.log(record(), CURVE)
    tracker.settle(shown([record()]))
    (seed,) = runs(tracker, "seed")
    assert seed.info.run_id == started.info.run_id
    assert seed.info.status == runs(tracker, "cell")[0].info.status == "FINISHED"


def test_a_seed_that_was_stopped_is_killed_and_may_start_again(tracker: Tracker) -> None:
    tracker.start_seed(record())
    tracker.end_seed(record(), "KILLED")
    assert runs(tracker, "seed")[0].info.status == "KILLED"
    tracker.start_seed(record())
    tracker.log(record())
    assert [each.info.status for each in runs(tracker, "seed")] == ["FINISHED"]


def test_seeds_whose_process_died_are_reaped_and_no_others(tracker: Tracker) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = {"bench.pid": str(dead.pid)}
    for seed, tag in enumerate([{}, gone, {**gone, "bench.host": "elsewhere"}]):
        tracker.start_seed(record(seed))
        for name, value in tag.items():
            tracker.client.set_tag(runs(tracker, "seed")[-1].info.run_id, name, value)
    tracker.equalise([])
    states = {each.data.tags["bench.seed"]: each.info.status for each in runs(tracker, "seed")}
    assert states == {"0": "RUNNING", "1": "KILLED", "2": "RUNNING"}


@pytest.mark.slow
def test_a_parent_holds_the_intervals_over_its_seeds(tracker: Tracker) -> None:
    for one in both():
        tracker.log(one)
    intervals = run_tables.intervals(both())
    for _ in range(2):
        tracker.settle(shown(both()))
    none, cutout = runs(tracker, "cell")
    assert none.data.tags["bench.n"] == "3"
    assert none.data.metrics["accuracy_mean"] == pytest.approx(0.76)
    assert {"accuracy_std", "accuracy_low", "accuracy_high", "accuracy_n"} <= set(none.data.metrics)
    assert "difference" not in none.data.metrics
    assert cutout.data.metrics["difference"] == pytest.approx(intervals[1]["difference"])
    assert cutout.data.metrics["p_holm"] == pytest.approx(intervals[1]["p_holm"])
    files = {each.path for each in tracker.client.list_artifacts(cutout.info.run_id)}
    assert files == {"stats.json", "table.md", "table.tex", "learning-curve.png"}
    history = tracker.client.get_metric_history(none.info.run_id, "accuracy_mean")
    assert len(history) == 1


@pytest.mark.slow
def test_a_tracker_is_made_anew_from_the_records(tracker: Tracker) -> None:
    tracker.log(record(7))
    other = Tracker(tracker.uri, tracker.folder, study="other", warn=pytest.fail)
    other.log(record(8))
    curves = {one.name: CURVE for one in both()}
    tracker.equalise(both(), lambda one: curves[one.name], shown(both()), anew=True)
    names = {each.data.tags["bench.name"] for each in runs(tracker, "seed")}
    assert names == {one.name for one in both()} | {record(8).name}
    assert "accuracy_mean" in runs(tracker, "cell")[-1].data.metrics
    tracker.equalise(both(), cells=shown(both()), anew=True)
    assert len(runs(tracker, "seed")) == 7


def test_a_long_curve_is_logged_whole(tracker: Tracker) -> None:
    curve = [{"epoch": epoch, **{f"m{k}": 0.5 for k in range(6)}} for epoch in range(300)]
    tracker.log(record(), curve)
    (seed,) = runs(tracker, "seed")
    assert len(tracker.client.get_metric_history(seed.info.run_id, "epoch/m5")) == 300


def test_odd_names_and_long_values_are_taken(tracker: Tracker) -> None:
    odd = record(metrics={"l0 ≤ 8/255 (pixels)": 1.0}, job={"epochs": "x" * 10_000, "a(b)": [1, 2]})
    tracker.log(odd)
    (seed,) = runs(tracker, "seed")
    assert seed.info.status == "FINISHED"
    assert seed.data.params["a_b_"] == "[1, 2]"


SILENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bench.records.record import Record
from bench.records.tracking.tracker import Tracker

tracker = Tracker(None, Path(sys.argv[2]))
seed = int(sys.argv[3])
labels = {"augmentation": "none", "data": "digits", "model": "m"}
tracker.log(Record(kind="run", key="k", seed=seed, labels=labels, metrics={"accuracy": 0.5}))
"""


@pytest.mark.slow
def test_four_processes_start_on_an_empty_folder_in_silence(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    folder = tmp_path / "new results"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SILENT, str(root), str(folder), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in range(4)
    ]
    assert [worker.communicate()[0] for worker in workers] == [""] * 4
    tracker = Tracker(None, folder, warn=pytest.fail)
    assert len(runs(tracker, "seed")) == 4
    assert len(runs(tracker, "cell")) == 1


def test_a_clock_that_is_set_back_changes_nothing(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for _ in range(2):
        tracker.start_seed(record())
        tracker.log(record(), CURVE)
        tracker.log(record(), CURVE)
        tracker.settle(shown([record()]))
    (seed,), (cell,) = runs(tracker, "seed"), runs(tracker, "cell")
    assert seed.info.status == cell.info.status == "FINISHED"
    assert seed.data.metrics["accuracy"] == 0.75
    history = tracker.client.get_metric_history(seed.info.run_id, "epoch/loss")
    assert sorted((each.step, each.value) for each in history) == [
        (entry["epoch"], entry["loss"]) for entry in CURVE
    ]
    tracker.equalise([record()])
    assert runs(tracker, "seed")[0].info.status == "FINISHED"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:secret@host/a", "https://***@host/a"),
        ("https://secret@host", "https://***@host"),
        ("http://host/?token=secret&a=1", "http://host/?token=***&a=1"),
        ("http://host/?a=1&api_key=secret", "http://host/?a=1&api_key=***"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("401 for hunter2", "401 for ***"),
    ],
)
def test_what_gives_access_is_never_shown(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    assert mask(text) == expected


def attacked(attack: str, seed: int, eps: str = "8/255") -> Record:
    job = {"attack": attack, "victim": "v", "data": "d", "eps": eps, "aim": "random", "images": 9}
    labels = {"attack": attack, "data": "photos", "model": "resnet20", "eps": eps, "goal": "random"}
    return record(
        seed, kind="attack", key=f"{attack}-{eps}"[:12], labels=labels, job=job,
        metrics={"success": 0.5 + seed / 10, "l0_pixels_mean": 20.0 + seed},
    )  # fmt: skip


@pytest.mark.slow
def test_attacks_on_one_victim_at_one_eps_share_a_parent(tracker: Tracker) -> None:
    found = [attacked(name, seed) for name in ("jsma", "pgd(steps=5)") for seed in (0, 1)]
    found.append(attacked("jsma", 0, eps="16/255"))
    for each in found:
        tracker.log(each)
    tracker.settle(shown(found))
    parents = runs(tracker, "cell")
    assert [cell.info.run_name for cell in parents] == [
        f"attacks on resnet20, eps 8/255, random [{found[0].cell[:6]}]",
        f"attacks on resnet20, eps 16/255, random [{found[-1].cell[:6]}]",
    ]
    assert parents[0].data.params["eps"] == "8/255"
    children = [run.data.tags["mlflow.parentRunId"] for run in runs(tracker, "seed")]
    assert children == [parents[0].info.run_id] * 4 + [parents[1].info.run_id]
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.tags["bench.n"] == "4"
    metrics = parents[0].data.metrics
    assert metrics["jsma/success_mean"] == pytest.approx(0.55)
    assert metrics["pgd_steps_5_/l0_pixels_mean_n"] == 2
    assert "jsma/success_low" not in parents[1].data.metrics  # one seed has no interval


@pytest.mark.parametrize("name", ["q?x=1", "p%41cent", "a#b c", "p%2541cent"])
def test_the_tracker_stays_in_its_folder_whatever_that_is_called(
    name: str, tmp_path: Path, empty_store: Path, warned: list[str]
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    tracker = Tracker(None, folder, warn=warned.append)
    tracker.log(record(), CURVE)
    assert warned == []
    (seed,) = runs(tracker, "seed")
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (folder / "artifacts" / seed.info.run_id / "artifacts/record.json").is_file()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (2,)


def test_a_seed_that_starts_again_is_counted_no_more(tracker: Tracker) -> None:
    found = [record(seed) for seed in range(3)]
    for each in found:
        tracker.log(each, CURVE)
    tracker.settle(shown(found))
    tracker.start_seed(record(1))
    tracker.settle(shown([found[0], found[2]]))  # as another command does meanwhile
    (cell,) = runs(tracker, "cell")
    assert (cell.data.tags["bench.n"], cell.data.tags["bench.status"]) == ("2", "running")
    assert cell.info.status == "RUNNING"
    tracker.log(record(1), CURVE)
    tracker.settle(shown(found))
    (cell,) = runs(tracker, "cell")
    assert (cell.data.tags["bench.n"], cell.data.tags["bench.status"]) == ("3", "finished")
    assert cell.info.status == "FINISHED"


def test_a_job_is_logged_without_reading_those_before_it(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(6):
        tracker.log(record(seed))
    found: list[int] = []
    search = tracker.client.search_runs

    def counted(*args: Any, **named: Any) -> Any:
        pages = search(*args, **named)
        found.append(len(pages))
        return pages

    monkeypatch.setattr(tracker.client, "search_runs", counted)
    tracker.start_seed(record(6))
    tracker.log(record(6))
    assert max(found) == 1


INPUTS = Inputs(digest="0123456789", images=(300, 359), shape=(3, 32, 24), classes=7)


def test_parents_show_mean_and_interval_of_each_epoch(tracker: Tracker) -> None:
    accuracies = {0: [0.1, 0.6], 1: [0.3, 0.8]}
    found = [record(seed) for seed in accuracies]
    curves = {
        each.name: [
            {"epoch": epoch, "test_accuracy": value}
            for epoch, value in enumerate(accuracies[each.seed], start=1)
        ]
        for each in found
    }
    for each in found:
        tracker.log(each, curves[each.name])
    tracker.settle(cells(found, lambda each: curves[each.name]))
    (parent,) = runs(tracker, "cell")
    shown_values = {
        end: [
            (each.step, pytest.approx(each.value))
            for each in tracker.client.get_metric_history(
                parent.info.run_id, f"epoch/test_accuracy{end}"
            )
        ]
        for end in ("", "_low", "_high")
    }
    # of two values the standard error is half of their distance; t of one degree of freedom
    half = 0.1 * 12.7062047364
    assert shown_values == {
        "": [(1, 0.2), (2, 0.7)],
        "_low": [(1, 0.2 - half), (2, 0.7 - half)],
        "_high": [(1, 0.2 + half), (2, 0.7 + half)],
    }
    assert parent.data.params["epochs"] == "9"
    assert parent.data.tags["augmentation"] == "cutout"
    assert parent.info.run_name == "cutout, resnet18, 9 epochs [key-of]"


def test_dataset_network_source_and_commit_are_those_of_mlflow(
    tracker: Tracker, tmp_path: Path
) -> None:
    weights = tmp_path / "weights" / "a.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    machine = {"commit": "0123abc+"}
    tracker.log(record(0, machine=machine), CURVE, weights, inputs=INPUTS)
    tracker.log(record(1, machine=machine), CURVE, weights, inputs=INPUTS, copy_weights=True)
    tracker.settle(shown([record(seed, machine=machine) for seed in (0, 1)]))
    (parent,) = runs(tracker, "cell")
    (dataset,) = tracker.client.get_run(parent.info.run_id).inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", INPUTS.digest)
    assert parent.data.tags["mlflow.source.git.commit"] == "0123abc"
    for seed, run in enumerate(runs(tracker, "seed")):
        whole = tracker.client.get_run(run.info.run_id)
        assert run.data.tags["mlflow.source.name"] == "bench run"
        assert run.data.tags["mlflow.source.git.commit"] == "0123abc"
        (dataset,) = whole.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", INPUTS.digest)
        (output,) = whole.outputs.model_outputs
        model = tracker.client.get_logged_model(output.model_id)
        assert model.status == "READY"
        folder = Path(model.artifact_location.removeprefix("file://"))
        described = (folder / "MLmodel").read_text()
        assert "[-1, 3, 32, 24]" in " ".join(described.split())
        assert "[-1, 7]" in " ".join(described.split())
        assert model.tags["bench.weights"] == "weights/a.safetensors"
        assert (folder / "a.safetensors").exists() is bool(seed)


def test_the_load_of_the_machine_needs_a_package_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = TrackingOptions(system_metrics=True)
    with pytest.raises(ValueError, match="needs psutil; install it with: pip install psutil"):
        options.open(Workspace(results=tmp_path), pytest.fail)
