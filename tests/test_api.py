"""The Python API: what a notebook types gives what the commands give."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from brightness import Brightness, draw_images
from click.testing import CliRunner
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import attacks
import augmentations
import bench
from bench.cli import main
from bench.data import catalog

DATA = "digits(train=60, test=40)"
UNTIMED = ("seconds", "pass_ratio", "memory")


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not any(u in name for u in UNTIMED)}


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return draw_images()


def mine(name: str) -> bench.Dataset:
    """A dataset that a program made: two classes of grey images."""
    images = torch.arange(8).view(8, 1, 1, 1).expand(8, 1, 8, 8).to(torch.uint8) * 30
    labels = torch.arange(8) % 2
    return bench.from_arrays(name, images, labels, images, labels)


def quiet(folder: Path) -> dict[str, Any]:
    return {
        "results": folder,
        "quiet": True,
        "tracking": bench.TrackingOptions(no_tracking=True),
        "execution": bench.ExecutionOptions(threads=1),
    }


def test_a_dataset_that_is_missing_is_a_file_that_was_not_found(tmp_path: Path) -> None:
    calls = (
        lambda: bench.compare(["none"], data="/nosuch", **quiet(tmp_path)),
        lambda: bench.find_points("resnet8", "/nosuch", results=tmp_path, quiet=True),
        lambda: bench.evaluate_attacks("jsma", victim="/nosuch.safetensors", **quiet(tmp_path)),
    )
    for call in calls:
        with pytest.raises(FileNotFoundError, match="nosuch"):
            call()


def test_every_public_name_is_there_and_documented() -> None:
    for package in (bench, attacks, augmentations):
        for name in package.__all__:
            found = getattr(package, name)
            if found.__class__ is not dict and found.__module__.startswith(package.__name__):
                assert (found.__doc__ or "").strip(), f"{package.__name__}.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = bench.nosuch
    assert set(bench.__all__) <= set(dir(bench))


def test_every_public_class_and_function_has_an_example() -> None:
    lacking = []
    for package in (bench, attacks, augmentations):
        for name in package.__all__:
            found = getattr(package, name)
            # names of types, such as Images, are those of other packages
            own = getattr(found, "__module__", "").startswith(package.__name__)
            if own and (inspect.isclass(found) or inspect.isfunction(found)):
                lacking += [name] if ">>>" not in (found.__doc__ or "") else []
    assert lacking == []


def test_importing_bench_touches_nothing_heavy() -> None:
    code = (
        "import sys, bench; dir(bench); "
        "heavy = {'torch', 'numpy', 'mlflow', 'timm', 'scipy', 'click'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_comparison_gives_the_records_and_keys_of_the_command(tmp_path: Path) -> None:
    study = bench.compare(
        ["none", "cutout(length=3)"], data=DATA, model="resnet8", seeds=2, epochs=1,
        **quiet(tmp_path / "api"),
    )  # fmt: skip
    asked = ["run", "--aug", "none", "--aug", "cutout(length=3)", "--data", DATA, "--json"]
    asked += ["--model", "resnet8", "--seeds", "2", "--epochs", "1", "--quiet", "--no-tracking"]
    shown = CliRunner().invoke(main, [*asked, "--results", str(tmp_path / "cli"), "--threads", "1"])
    assert shown.exit_code == 0, shown.output
    theirs = json.loads(shown.stdout)
    assert list(map(untimed, theirs["records"])) == [
        untimed(record.to_json()) for record in study.records
    ]
    assert theirs["intervals"] == study.intervals()
    assert [record.seed for record in study.records] == [0, 1, 0, 1]
    assert all(0 <= record.metrics["accuracy"] <= 1 for record in study.records)
    stored = bench.load_results(tmp_path / "cli")
    assert {record.name for record in stored.records} == {r.name for r in study.records}
    again = bench.compare(
        ["none", "cutout(length=3)"], data=DATA, model="resnet8", seeds=[0, 1], epochs=1,
        **quiet(tmp_path / "cli"),
    )  # fmt: skip
    assert [r.metrics for r in again.records] == [
        {r.name: r for r in stored.records}[each.name].metrics for each in study.records
    ]


def test_a_study_shows_itself_as_text_latex_and_html(tmp_path: Path) -> None:
    study = bench.compare(
        [augmentations.NoDeletion(), augmentations.Cutout(3)], data=DATA, model="resnet8", seeds=2,
        epochs=1, **quiet(tmp_path),
    )  # fmt: skip
    assert "cutout" in str(study)
    assert study.to_latex().count("\\begin{tabular}") == 1
    assert study._repr_html_().startswith("<table>")
    assert "cutout" in str(study.differences("none"))
    with pytest.raises(ValueError, match="no method shares a seed with gridmask"):
        study.differences("gridmask")


@pytest.mark.slow
def test_the_tracker_holds_the_same_runs_from_both(tmp_path: Path) -> None:
    from bench.records.tracking.tracker import Tracker

    asked = ["run", "--aug", "none", "--data", DATA, "--model", "resnet8", "--seeds", "1"]
    asked += ["--epochs", "1", "--quiet", "--threads", "1", "--results", str(tmp_path / "cli")]
    assert CliRunner().invoke(main, asked).exit_code == 0
    options = quiet(tmp_path / "api") | {"tracking": bench.TrackingOptions()}
    bench.compare("none", data=DATA, model="resnet8", seeds=1, epochs=1, **options)
    seen = []
    for name in ("cli", "api"):
        tracker = Tracker(None, tmp_path / name, warn=pytest.fail)
        (experiment,) = tracker.runs.experiments()
        runs = tracker.runs.find([experiment], "")
        seen.append(
            sorted(
                (run.data.tags["bench.kind"], run.info.status, run.info.run_name, *sorted(
                    (n, v) for n, v in run.data.metrics.items() if "seconds" not in n
                ))
                for run in runs
            )
        )  # fmt: skip
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2


@pytest.mark.slow
def test_attacks_on_a_dataset_give_the_records_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dataclasses.replace(catalog.ENTRIES["digits"], victim_epochs=1)
    monkeypatch.setitem(catalog.ENTRIES, "digits", quick)
    names = ["jsma", "sigma-zero(steps=5)"]
    study = bench.evaluate_attacks(
        names, data="digits", model="resnet8", images=4, eps="1/2", **quiet(tmp_path / "api")
    )
    asked = [
        "attack-eval",
        "--data",
        "digits",
        "--model",
        "resnet8",
        "--images",
        "4",
        "--eps",
        "1/2",
    ]
    asked += [word for name in names for word in ("--attack", name)]
    asked += ["--quiet", "--json", "--no-tracking", "--threads", "1"]
    shown = CliRunner().invoke(main, [*asked, "--results", str(tmp_path / "cli")])
    assert shown.exit_code == 0, shown.output
    theirs = json.loads(shown.stdout)
    assert list(map(untimed, theirs["records"])) == [
        untimed(record.to_json()) for record in study.records
    ]
    adversarial = study.rows["jsma"].adversarial
    assert adversarial is not None
    assert adversarial.shape == (4, 1, 8, 8)
    assert len(bench.load_results(tmp_path / "api").attacks.records) == 2


def test_points_have_one_entry_for_each_index_and_are_found_again(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images
    x = (x * 255).round() / 255
    dataset = TensorDataset(x, y)
    options = {"results": tmp_path, "quiet": True, "attack": "jsma", "eps": 0.5}
    points = bench.find_points(Brightness(), dataset, **options)
    assert len(points) == len(dataset)
    adversarial = attacks.JSMA(eps=0.5)(Brightness(), x, y)
    changed = (adversarial != x).any(1)
    for index in range(len(dataset)):
        rows, columns = points[index].unbind(1)
        assert torch.equal(changed[index].nonzero(), torch.stack([rows, columns], 1))
    (kept,) = tmp_path.glob("points/*.safetensors")
    before = kept.stat().st_mtime_ns
    again = bench.find_points(Brightness(), dataset, **options)
    assert kept.stat().st_mtime_ns == before
    assert torch.equal(again.places, points.places)
    bench.find_points(Brightness(), TensorDataset(x.flip(0), y.flip(0)), **options)
    assert len(list(tmp_path.glob("points/*.safetensors"))) == 2  # another dataset


class Movable(Brightness):
    """Lives on the device "meta", where nothing can be computed, until it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, device="meta"))

    def to(self, device: Any) -> Any:
        self.weight = nn.Parameter(torch.ones(1, device=device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.weight


@pytest.mark.parametrize("attack", ["jsma", "nosuch"])
def test_a_network_is_on_its_own_device_after_the_search(
    attack: str, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    dataset, network = TensorDataset((images[0] * 255).round() / 255, images[1]), Movable()
    options = {"results": tmp_path, "quiet": True, "eps": 0.5}
    refused = pytest.raises(ValueError, match="nosuch") if attack == "nosuch" else nullcontext()
    with refused:
        bench.find_points(network, dataset, attack=attack, **options)
    assert network.weight.device.type == "meta"


def test_found_points_guide_the_masks_of_a_dataset(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    dataset = TensorDataset((images[0] * 255).round() / 255, images[1])
    points = bench.find_points(
        Brightness(), dataset, results=tmp_path, quiet=True, attack="jsma", eps=0.5
    )
    only = augmentations.AdvMask(length=(1, 1), ratio=(1.0, 1.0), share=augmentations.Ramp(1.0))
    masked = augmentations.WithMask(dataset, only, points)
    for index in range(len(dataset)):
        image, label = masked[index]
        assert label == dataset[index][1]
        deleted = (image != dataset[index][0]).any(0)
        guide = points.guide()[index, 0]
        assert torch.equal(deleted & ~guide, torch.zeros_like(guide))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bench.compare("cutuot"), "did you mean 'cutout'"),
        (lambda: bench.compare("none", model="resnet81"), "no network is called 'resnet81'"),
        (lambda: bench.compare("none", seeds=[0, 0]), "each once"),
        (lambda: bench.compare([]), "nothing to compare"),
        (lambda: bench.compare("none", epochs=0), "epochs is 0"),
        (lambda: bench.compare("none", data="digitss"), "did you mean digits"),
        (lambda: bench.compare("none", data=mine("digits")), "choose another name"),
        (lambda: bench.evaluate_attacks("jsma", eps="9"), "eps is 9: it must be above 0"),
        (lambda: bench.evaluate_attacks("jsma", eps="x"), "write it as 8/255 or 0.03"),
        (
            lambda: bench.evaluate_attacks("jsma", eps=256 / 255),
            "eps is 1.00.*: it must be above 0",
        ),
        (
            lambda: bench.evaluate_attacks("jsma", data=DATA, eps=1e-9),
            "eps is 1/10{9}: .* round it",
        ),
        (lambda: bench.evaluate_attacks("jsma", batch_size=0), "batch_size is 0: .* at least 1"),
        (lambda: bench.evaluate_attacks("jsma", target="given"), "no targets are: give targets"),
        (
            lambda: bench.evaluate_attacks("jsma", target="untargeted", targeted=True),
            "target is 'untargeted', but targeted is True: remove one",
        ),
        (lambda: bench.evaluate_attacks("jsmaa"), "did you mean 'jsma'"),
        (
            lambda: bench.evaluate_attacks("jsma", model=Brightness()),
            "needs images and labels",
        ),
        (
            lambda: bench.evaluate_attacks(
                "jsma", model=Brightness(), images=torch.rand(2, 3, 4, 4), labels=torch.tensor([0])
            ),
            "give one class for each image",
        ),
        (
            lambda: bench.evaluate_attacks(
                "jsma",
                model=Brightness(),
                images=torch.rand(2, 3, 4, 4),
                labels=torch.tensor([0, 2]),
            ),
            "the network has 2 classes",
        ),
    ],
)
def test_bad_input_is_one_line(
    call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path))
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_dataset_in_memory_is_trained_on(tmp_path: Path) -> None:
    study = bench.compare(
        "none", data=mine("mine"), model="resnet8", seeds=1, epochs=1, **quiet(tmp_path)
    )
    assert study.records[0].labels["data"] == "mine"
    assert study.records[0].job["digest"] == mine("mine").digest


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no results folder .*nosuch"):
        bench.load_results(tmp_path / "nosuch")


def test_reading_points_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no results folder .*nosuch"):
        bench.load_points(DATA, results=tmp_path / "nosuch")
    assert not (tmp_path / "nosuch").exists()


def test_a_results_folder_without_records_says_so(tmp_path: Path) -> None:
    found = bench.load_results(tmp_path)
    assert str(found) == "There are no records yet."
    with pytest.raises(ValueError, match="there are no attacks: bench attack-eval makes them"):
        str(found.attacks)


@pytest.mark.parametrize("epochs", [{"epochs": 3}, {}])  # digits have fewer than 500 too
def test_a_warm_up_is_shorter_than_the_training(epochs: dict[str, int], tmp_path: Path) -> None:
    training = bench.TrainingOptions(warmup=500, **epochs)
    with pytest.raises(ValueError, match="warmup is 500: it must be below the number of epochs"):
        bench.compare("none", data=DATA, model="resnet8", training=training, **quiet(tmp_path))


def test_a_job_is_recorded_under_the_dataset_that_it_was_trained_on(tmp_path: Path) -> None:
    from bench.execution.progress import Silent
    from bench.studies import jobs
    from bench.training.recipes import Recipe

    workspace, name = bench.ExecutionOptions(device="cpu").workspace(tmp_path).locate(DATA)
    job = jobs.Job(Recipe(data=name, model="resnet8", epochs=1, padding=1), 0)
    record, _ = jobs.work(job, workspace, Silent(), lambda: False)
    assert record.labels["data"] == DATA
    other = jobs.Job(Recipe(data="nosuch", model="resnet8", epochs=1), 0)
    with pytest.raises(ValueError, match="nosuch"):
        jobs.work(other, workspace, Silent(), lambda: False)
