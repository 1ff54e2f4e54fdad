"""Adversarial training: what it attacks, what it learns from, and that it makes networks resist."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from attacks.norms import l0_pixels
from bench import registry
from bench.cli import main, train_robust
from bench.data import seeds
from bench.data.dataset import Dataset, from_arrays
from bench.errors import Stopped
from bench.models import networks
from bench.records.store import Store
from bench.reporting import commands
from bench.studies.designs import TrainingOptions
from bench.training import loop, robust
from bench.training.recipes import Recipe, usual


class Sum(nn.Module):
    """Two classes by the sum of the pixels; a weight that learns, and a layer with modes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        score = self.scale * (images.flatten(1).sum(1) - 2)
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("text", ["sparse-at(k=3)", "sparse-trades(k=3)"])
def test_a_sparse_attack_changes_at_most_k_pixels(text: str) -> None:
    network, images = Sum().train(), torch.full((5, 1, 4, 4), 0.05)
    labels = torch.zeros(5, dtype=torch.long)
    moved = robust.build(text).attacked(network, images, labels, torch.Generator().manual_seed(0))
    assert ((moved >= 0) & (moved <= 1)).all()
    assert (l0_pixels(moved - images) <= 3).all()
    assert (network(moved).argmax(1) == 1).all()  # three white pixels exceed the sum of 2
    assert network.training
    assert network.scale.requires_grad


def test_a_dense_attack_keeps_to_eps() -> None:
    network, images = Sum(), torch.full((5, 1, 4, 4), 0.1)
    labels = torch.zeros(5, dtype=torch.long)
    method = robust.build("linf-at(eps=0.1)")
    moved = method.attacked(network, images, labels, torch.Generator().manual_seed(0))
    assert (moved - images).abs().max() <= 0.1 + 1e-6
    assert (network(moved).argmax(1) == 1).all()


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(1, keepdims=True)
    return found


def test_losses_are_those_of_their_papers() -> None:
    stream = torch.Generator().manual_seed(0)
    network = networks.build(
        "resnet8", classes=3, channels=1, side=8, seed=0, mean=[0.5], std=[1.0]
    )
    network.eval()
    images, moved = torch.rand(2, 6, 1, 8, 8, generator=stream)
    labels = torch.randint(3, (6,), generator=stream)
    with torch.no_grad():
        clean, attacked = (softmax(network(each).double().numpy()) for each in (images, moved))
        rows = np.arange(6)
        entropy = [-np.log(each[rows, labels.numpy()]).mean() for each in (clean, attacked)]
        divergence = (clean * (np.log(clean) - np.log(attacked))).sum(1).mean()
        for text, expected in {
            "sparse-at": entropy[1],
            "linf-at": entropy[1],
            "sparse-trades(beta=2.5)": entropy[0] + 2.5 * divergence,
        }.items():
            loss = robust.build(text).loss(network, images, moved, labels)
            assert float(loss) == pytest.approx(expected, rel=1e-4), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sparse", "there is no robust training 'sparse': did you mean 'sparse-at'?"),
        ("pgd", "there is no robust training 'pgd': there are: sparse-at, sparse-trades, linf-at"),
        ("sparse-at(beta=6)", "sparse-at has no option 'beta'; it has: k, steps"),
        ("sparse-at(k=0)", "sparse-at: k is 0: give at least 1"),
        ("sparse-at(k=0.5)", "sparse-at: option k is 0.5: it must be a whole number"),
        ("sparse-trades(beta=0.0)", "sparse-trades: beta is 0.0: it must be above 0"),
        ("linf-at(eps=8)", "linf-at: eps is 8.0: it must be above 0 and at most 1"),
        ("linf-at(steps=0)", "linf-at: steps is 0: give at least 1"),
        ("linf-at(eps=8/255", "cannot read"),
    ],
)
def test_a_wrong_method_is_one_clear_line(text: str, message: str) -> None:
    for result in (
        CliRunner().invoke(main, ["train-robust", "--method", text, "--data", "digits"]),
        CliRunner().invoke(main, ["train-robust", "--method", text, "--dry-run"]),
    ):
        assert result.exit_code == 2
        (line,) = result.output.strip().splitlines()
        assert message in line


def test_an_early_head_that_nothing_would_train_is_refused() -> None:
    early = registry.build("augmentations", "keepaugment(saliency='early')")
    with pytest.raises(ValueError, match="linf-at trains no early head: give keepaugment another"):
        Recipe(augmentation=early, robust="linf-at")


def test_one_method_has_one_text_and_one_key() -> None:
    texts = ("sparse-at", "sparse-at(k=20)", "sparse-at(steps=10, k=20)")
    assert {TrainingOptions(robust=text).given()["robust"] for text in texts} == {"sparse-at"}
    assert robust.build(robust.express(robust.LinfAT(eps=0.1))) == robust.LinfAT(eps=0.1)


def test_recipes_without_it_keep_their_keys_and_others_have_their_own() -> None:
    assert Recipe(robust=None).key == Recipe().key == "44136fa355b3"
    found = Recipe(robust="sparse-at")
    assert found.key != Recipe().key
    assert Recipe.from_json(json.loads(json.dumps(found.to_json()))) == found
    for field, message in {"mix": "remove the mix cutmix", "policy": "takes no policy"}.items():
        with pytest.raises(ValueError, match=message):
            Recipe(robust="sparse-at", **{field: "cutmix" if field == "mix" else "autoaugment"})


def test_a_command_gives_the_recipe_back() -> None:
    settings = usual("digits", "resnet8", 8, robust="sparse-at(k=2)") | {"epochs": 3}
    recipe = Recipe(data="digits", model="resnet8", robust="sparse-at(k=2)", **settings)
    words = commands.run(recipe, [0, 2])
    assert words == (
        "bench train-robust --method 'sparse-at(k=2)' --model resnet8 --data digits --epochs 3 "
        "--seed-list 0,2"
    )


def points(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of two classes: one pixel that is always right, and a grey level that mostly is.

    A change of one pixel turns the first around and leaves the second as it is.
    """
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    noise = 0.1 * torch.rand(n, 1, 6, 6, generator=stream)
    images = noise + 0.35 + 0.2 * labels[:, None, None, None]
    wrong = torch.rand(n, generator=stream) < 0.1
    images[wrong] = noise[wrong] + 0.35 + 0.2 * (1 - labels[wrong])[:, None, None, None]
    images[:, 0, 2, 2] = labels.float()
    return images, labels


@pytest.fixture(scope="module")
def data() -> Dataset:
    return from_arrays("dots", *points(192, 0), *points(100, 1), flip=False)


def recipe(**fields: Any) -> Recipe:
    small = {
        "data": "dots", "model": "resnet8", "epochs": 4, "padding": 0, "validation": 0.0,
        "batch_size": 32, "learning_rate": 0.05,
    }  # fmt: skip
    return Recipe(**(small | fields))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sparse-at", "sparse-trades"])
def test_a_network_learns_to_resist_what_it_was_attacked_with(data: Dataset, method: str) -> None:
    text = f"{method}(k=1)"
    share = {
        name: robust.accuracy(robust.build(text), trained.network, data.test, "cpu")
        for name, trained in {
            "plain": loop.train(recipe(), 0, data),
            "robust": loop.train(recipe(robust=text), 0, data),
        }.items()
    }
    assert share["robust"] > share["plain"] + 0.2


@pytest.mark.slow
def test_a_stopped_training_continues_bit_for_bit(data: Dataset, tmp_path: Path) -> None:
    short = recipe(robust="sparse-at(k=1, steps=2)", epochs=2)
    whole = loop.train(short, 0, data)
    calls = itertools.count(1)
    with pytest.raises(Stopped):
        loop.train(short, 0, data, checkpoint=tmp_path, stop=lambda: next(calls) >= 11)
    again = loop.train(short, 0, data, checkpoint=tmp_path)
    for one, other in zip(
        whole.network.state_dict().values(), again.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def bench(results: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--results", str(results)])


@pytest.mark.slow
def test_the_command_keeps_record_and_weights_that_can_be_attacked(tmp_path: Path) -> None:
    typed = (
        "train-robust", "--method", "linf-at(eps=0.02, steps=2)", "--epochs", "2",
        "--data", "digits(train=200, test=100)",
    )  # fmt: skip
    result = bench(tmp_path, *typed, "--no-tracking", "--quiet")
    assert result.exit_code == 0, result.output
    (record,) = Store(tmp_path).all()
    assert record.job["robust"] == "linf-at(eps=0.02, steps=2)"
    assert 0 <= record.metrics["robust_accuracy"] <= record.metrics["accuracy"] <= 1
    assert "under attack" in result.stdout
    told = result.stdout.strip().splitlines()[1].split()
    assert told[:2] == ["bench", "attack-eval"]
    weights = told[told.index("--victim") + 1]
    attacked = bench(
        tmp_path, "attack-eval", "--victim", weights, "--model", "resnet8", "--images", "2",
        "--data", typed[-1], "--attack", "jsma", "--no-tracking", "--quiet",
    )  # fmt: skip
    assert attacked.exit_code == 0, attacked.output
    assert "1 of 1 runs are done" in bench(tmp_path, *typed, "--dry-run").stdout
    assert "linf-at(eps=0.02, steps=2)" in bench(tmp_path, "tables", "--format", "text").stdout


@pytest.mark.slow
def test_a_training_that_diverges_is_a_failed_run_and_the_others_go_on(tmp_path: Path) -> None:
    typed = (
        "train-robust", "--method", "linf-at(steps=2)", "--epochs", "2", "--learning-rate", "1e30",
        "--data", "digits(train=200, test=100)", "--seeds", "2", "--no-tracking", "--quiet",
    )  # fmt: skip
    result = bench(tmp_path, *typed)
    assert result.exit_code == 3
    records = Store(tmp_path).all()
    assert [record.status for record in records] == ["failed", "failed"]
    assert all("try a smaller --learning-rate" in record.message for record in records)
    assert result.stderr.endswith("2 of 2 runs failed\n")
    assert "plug-in" not in result.output


def test_the_side_of_the_images_is_that_of_the_command(tmp_path: Path) -> None:
    typed = ("train-robust", "--data", "digits", "--side", "16", "--dry-run")
    assert "digits(side=16)" in bench(tmp_path, *typed).stdout


@pytest.mark.parametrize("name", ["vit-96-6", "convmixer-96-6", "convmixer-64-4"])
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3)])
def test_networks_of_other_families_take_small_images(name: str, side: int, channels: int) -> None:
    options: dict[str, Any] = {"classes": 10, "channels": channels, "side": side, "seed": 0}
    grey = {"mean": [0.5] * channels, "std": [0.25] * channels}
    network = networks.build(name, **options, **grey).eval()
    images = torch.rand(2, channels, side, side, generator=seeds.generator(0, "x"))
    assert network(images).shape == (2, 10)
    assert sum(each.numel() for each in network.parameters()) < 700_000
    again = networks.build(name, **options, **grey)
    assert all(
        torch.equal(one, other)
        for one, other in zip(network.parameters(), again.parameters(), strict=True)
    )


def test_a_failed_training_is_described_in_one_line() -> None:
    from bench.records.record import Record

    labels, job = {"model": "resnet8", "data": "digits"}, {"robust": "sparse-at"}
    lost = Record(
        kind="run", key="k", seed=0, labels=labels, metrics={}, job=job, status="failed",
        message="the loss is nan",
    )  # fmt: skip
    assert train_robust.describe(lost, "w") == (
        "resnet8, sparse-at, seed 0: failed, the loss is nan"
    )
