"""Fine-tuning: where a training starts, by which weights, and what is refused."""

import hashlib
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

import bench
from bench.cli import main
from bench.data import catalog
from bench.errors import Missing
from bench.execution.workspace import Workspace
from bench.models import networks, published
from bench.paper import tables
from bench.studies import estimates
from bench.studies.designs import Design, TrainingOptions
from bench.studies.jobs import Job
from bench.training import fine_tuning, loop
from bench.training.recipes import Recipe, usual

COLOUR = {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches of the hub and of torch, and no network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be downloaded unasked")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


def run(results: Path, *words: str) -> Result:
    base = ["run", "--results", str(results), "--no-tracking", "--quiet", "--seeds", "1"]
    return CliRunner().invoke(main, [*base, *words])


def stored(folder: Path, model: str = "resnet8", classes: int = 10, side: int = 8, **fields: Any):
    """A file of weights of a network, and the network."""
    network = networks.build(model, classes=classes, side=side, seed=7, **(COLOUR | fields))
    path = folder / f"{model.partition(':')[2] or model}.safetensors"
    folder.mkdir(exist_ok=True)
    save_file(network.network.state_dict(), path)
    return path, network.network.state_dict()


def in_hub_cache(folder: Path, repository: str, state: dict[str, torch.Tensor]) -> None:
    """Put weights where huggingface_hub keeps what it downloaded."""
    place = folder / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    save_file(state, place / "snapshots" / "abc" / "model.safetensors")


def test_a_training_starts_from_the_weights_of_the_file(tmp_path: Path) -> None:
    data = catalog.load("photos(train=20, test=10)")
    path, state = stored(tmp_path)
    recipe = Recipe(data=data.name, model="resnet8", pretrained="w 0", epochs=1, validation=0.0)
    first = loop.first(recipe, data, path, seed=3).network.state_dict()
    assert all(torch.equal(first[name], state[name]) for name in state)


def test_a_classifier_of_other_classes_is_drawn_anew_from_the_seed(tmp_path: Path) -> None:
    data = catalog.load("photos(train=20, test=10)")
    path, state = stored(tmp_path, classes=7)
    one, same, other = (
        fine_tuning.start(data, "resnet8", "w 0", path, seed).network.state_dict()
        for seed in (1, 1, 2)
    )
    assert one["linear.weight"].shape == (10, 64)
    assert torch.equal(one["linear.weight"], same["linear.weight"])
    assert not torch.equal(one["linear.weight"], other["linear.weight"])
    kept = [name for name in state if not name.startswith("linear")]
    assert all(torch.equal(one[name], state[name]) for name in kept)


@pytest.mark.slow
@pytest.mark.parametrize("stem", [3, 7])
def test_the_stem_is_that_of_the_weights_before_and_after(tmp_path: Path, stem: int) -> None:
    path, state = stored(tmp_path, "resnet18", stem=stem, side=32)
    assert state["conv1.weight"].shape[-1] == stem
    study = bench.compare(
        "none",
        data="photos(train=8, test=4, side=8)",
        model="resnet18",
        seeds=1,
        epochs=1,
        results=tmp_path / "r",
        training=TrainingOptions(pretrained=str(path), validation=0.0),
        tracking=bench.TrackingOptions(no_tracking=True),
        quiet=True,
    )
    (record,) = study.records
    assert record.labels["pretrained"].startswith("resnet18.safetensors ")
    network = bench.training.trained.load(record, catalog.load(record.job["data"]), tmp_path / "r")
    assert network.network.conv1.kernel_size == (stem, stem)


def test_the_usual_recipe_is_a_tenth_of_that_from_scratch() -> None:
    scratch = Recipe(**usual("cifar10", "resnet18", 32))
    tuned = Recipe(**usual("cifar10", "resnet18", 32, "timm:resnet18.a1_in1k"))
    assert (tuned.epochs, tuned.learning_rate) == (30, 0.01)
    assert (scratch.epochs, scratch.learning_rate) == (300, 0.1)
    same = ("batch_size", "weight_decay", "momentum", "schedule", "padding", "validation")
    assert all(getattr(tuned, name) == getattr(scratch, name) for name in same)
    assert usual("digits", "resnet8", 8, "w 0")["epochs"] == 1


@pytest.mark.slow
def test_a_tag_in_the_name_of_a_network_is_fine_tuning_and_never_from_scratch(
    tmp_path: Path,
) -> None:
    place = Workspace(results=tmp_path)
    (recipe,) = Design(
        augmentations=("none",), data="photos", models=("timm:resnet18.a1_in1k",)
    ).recipes(place)
    assert recipe.pretrained == "timm:resnet18.a1_in1k"
    assert recipe.epochs == 3
    asked = ("--data", "photos", "--aug", "none", "--model", "timm:resnet18.a1_in1k")
    result = run(tmp_path, *asked)
    assert result.exit_code == 4
    assert "the weights timm:resnet18.a1_in1k are not on this machine" in result.output
    assert "timm/resnet18.a1_in1k in " in result.output
    assert "resnet18_a1_0-d63eafa0.pth" in result.output
    assert not (tmp_path / "records.jsonl").exists()


@pytest.mark.slow
def test_weights_in_the_hubs_cache_are_used_without_a_network(tmp_path: Path) -> None:
    theirs = networks.build("timm:resnet18", classes=1000, side=224, seed=5, **COLOUR)
    state = theirs.network.state_dict()
    in_hub_cache(tmp_path, "timm/resnet18.a1_in1k", state)
    data = catalog.load("photos(train=20, test=10)")
    name = fine_tuning.identify("timm", "resnet18")
    path = published.locate(name)
    first = fine_tuning.start(data, "resnet18", name, path, seed=0).network.state_dict()
    kept = [key for key in state if not key.startswith("fc")]
    assert all(torch.equal(first[key], state[key]) for key in kept)
    assert first["fc.weight"].shape == (10, 512)
    again = fine_tuning.start(data, "resnet18", name, path, seed=0).network.state_dict()
    assert torch.equal(first["fc.weight"], again["fc.weight"])
    # grey images: timm adds the three channels of the first convolution
    grey = catalog.load("digits(train=20, test=10, side=32)")
    summed = fine_tuning.start(grey, "resnet18", name, path, seed=0).network.conv1.weight
    torch.testing.assert_close(summed, state["conv1.weight"].sum(1, keepdim=True))


@pytest.mark.slow
def test_torchvisions_weights_are_read_from_its_cache_and_nothing_in_them_is_run(
    tmp_path: Path,
) -> None:
    from torchvision import models

    torch.manual_seed(0)
    state = models.resnet18(weights=None).state_dict()
    url = models.ResNet18_Weights.IMAGENET1K_V1.url
    place = tmp_path / "torch" / "hub" / "checkpoints" / Path(url).name
    place.parent.mkdir(parents=True)
    torch.save(state, place)
    data = catalog.load("photos(train=20, test=10)")
    name = fine_tuning.identify("torchvision", "resnet18")
    first = fine_tuning.start(data, "resnet18", name, published.locate(name), 0).network
    found = first.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state if not key.startswith("fc"))
    torch.save({"conv1.weight": print}, place)
    with pytest.raises(ValueError, match="is not a file of weights"):
        published.read(place)


@pytest.mark.parametrize(
    ("text", "model", "message"),
    [
        ("timm", "resnet20", "timm has no weights of resnet20: it has those of resnet18"),
        ("timm:bogus", "resnet18", "timm has no weights bogus of resnet18: it has a1_in1k"),
        ("torchvision:IMAGENET1K_V2", "resnet18", "it has IMAGENET1K_V1"),
        ("timm:resnet50.tv_in1k", "resnet18", "are weights of resnet50, not of resnet18"),
        ("timm:tv_in1k", "timm:resnet18.a1_in1k", "names weights already: remove --pretrained"),
        ("w.safetensors", "timm:resnet18.a1_in1k", "names weights already: remove --pretrained"),
    ],
)
def test_weights_of_another_network_are_refused(text: str, model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fine_tuning.identify(text, model)


@pytest.mark.slow
def test_a_file_of_another_network_is_refused_before_anything_is_searched_or_trained(
    tmp_path: Path,
) -> None:
    path, _ = stored(tmp_path, "resnet20")
    asked = ("--data", "photos(train=20, test=10)", "--aug", "advmask", "--model", "resnet8")
    result = run(tmp_path / "r", *asked, "--pretrained", str(path))
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert f"{path} does not fit this network: unexpected: layer1.1." in line
    assert not list((tmp_path / "r").rglob("*.safetensors"))
    result = run(tmp_path / "r", *asked, "--pretrained", str(tmp_path / "no.safetensors"))
    assert result.exit_code == 4
    assert f"there is no file of weights {tmp_path / 'no.safetensors'}" in result.output


@pytest.mark.slow
def test_fine_tuned_runs_are_no_column_of_those_from_scratch(tmp_path: Path) -> None:
    path, _ = stored(tmp_path)
    asked = ("--data", "photos(train=20, test=10)", "--aug", "none", "--model", "resnet8")
    assert run(tmp_path / "r", *asked, "--epochs", "1").exit_code == 0
    result = run(tmp_path / "r", *asked, "--epochs", "1", "--pretrained", str(path))
    assert result.exit_code == 0, result.output
    shown = CliRunner().invoke(main, ["tables", "--results", str(tmp_path / "r")]).output
    name = fine_tuning.identify(str(path), "resnet8")
    assert f"resnet8 from {name}" in " ".join(shown.split())


def test_a_victim_of_timm_is_not_downloaded_unasked(tmp_path: Path) -> None:
    words = ["attack-eval", "--results", str(tmp_path), "--victim", "timm:resnet18.a1_in1k"]
    result = CliRunner().invoke(main, [*words, "--quiet", "--no-tracking"])
    assert result.exit_code == 2  # its thousand classes are looked at first
    assert "tells 1000 classes apart" in result.output


@pytest.mark.slow
def test_the_estimate_counts_the_stem_of_published_weights() -> None:
    fields: dict[str, Any] = {"data": "tiny-imagenet", "model": "resnet18", "epochs": 1}
    scratch = Job(Recipe(**fields), 0)
    tuned = Job(Recipe(**fields, pretrained="torchvision:resnet18.IMAGENET1K_V1"), 0)
    # by hand: the 7x7 stem of stride 2 and the pooling leave a sixteenth of the pixels
    assert 10 < estimates.operations(scratch) / estimates.operations(tuned) < 17


@pytest.mark.parametrize("name", ["table4", "table5", "figure3", "figure4", "figure5"])
def test_the_papers_fine_tuned_experiments_start_from_weights_at_its_scale(name: str) -> None:
    found = set(tables.experiment(name, "paper").cells.values())
    start = {recipe.pretrained for recipe in found}
    assert start <= {
        "torchvision:resnet18.IMAGENET1K_V1",
        "torchvision:resnet50.IMAGENET1K_V1",
        "torchvision:wide_resnet50_2.IMAGENET1K_V1",
    }
    assert {(recipe.epochs, recipe.learning_rate) for recipe in found} == {(30, 0.01)}
    flowers = name in ("table5", "figure5")
    data = "flowers102(side=224)" if flowers else "tiny-imagenet"
    assert {recipe.data for recipe in found} == {data}
    smaller = tables.experiment(name, "reduced").cells.values()
    assert {recipe.pretrained for recipe in smaller} == {None}
    assert f"fine-tuned from {min(start)}" in " ".join(tables.experiment(name, "paper").told)


def test_a_download_is_not_loaded_and_its_checksum_is_compared(tmp_path: Path) -> None:
    """Loading it would run what a pickle says."""
    path = tmp_path / "from" / "net.pth"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Executed()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    for name, right in ((f"net-{digest}.pth", True), ("net-00000000.pth", False)):
        source = path.rename(path.parent / name)
        path = source
        if right:
            place = published._download("torchvision:net", None, [], source.as_uri())
            assert place.read_bytes() == source.read_bytes()
        else:
            with pytest.raises(Missing, match=r"could not download the weights .* invalid hash"):
                published._download("torchvision:net", None, [], source.as_uri())


class Executed:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was executed",))


def test_a_network_without_a_linear_layer_is_fine_tuned(tmp_path: Path) -> None:
    factory = tmp_path / "conv.py"
    factory.write_text(
        "from torch import nn\n"
        "def make(classes=10, channels=3):\n"
        "    return nn.Sequential(nn.Conv2d(channels, classes, 1), nn.AdaptiveAvgPool2d(1),"
        " nn.Flatten())\n"
    )
    data = catalog.load("photos(train=20, test=10)")
    text = networks.admit(f"{factory}:make")
    network = networks.build_for(data, text, seed=1)
    save_file(network.network.state_dict(), tmp_path / "w.safetensors")
    taken = fine_tuning.start(data, text, "w 0", tmp_path / "w.safetensors", seed=2)
    for one, other in zip(network.parameters(), taken.parameters(), strict=True):
        assert torch.equal(one, other)
