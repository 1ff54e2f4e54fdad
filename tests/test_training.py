"""Training: what a seed decides, what it leaves alone, and how it goes on after a stop."""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry
from bench.data import catalog, seeds
from bench.data.dataset import Dataset
from bench.errors import Stopped
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.models import networks
from bench.models.saliency import saliency
from bench.robustness import occlusion, quality
from bench.studies import jobs
from bench.studies.jobs import Job
from bench.training import checkpoints, loop, optimizers, robust, steps
from bench.training.recipes import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> Dataset:
    return catalog.load("digits(train=200)")


def recipe(augmentation: str = "cutout", **fields: object) -> Recipe:
    small = {"data": "digits(train=200)", "model": "resnet8", "epochs": 3, "padding": 1}
    method = registry.build("augmentations", augmentation, data="digits", side=8)
    return Recipe(augmentation=method, **(small | fields))  # type: ignore[arg-type]


def weights(trained: loop.Trained) -> list[torch.Tensor]:
    return list(trained.network.state_dict().values())


def same(a: loop.Trained, b: loop.Trained) -> bool:
    timeless = [
        [{k: v for k, v in entry.items() if "seconds" not in k} for entry in each.curve]
        for each in (a, b)
    ]
    return timeless[0] == timeless[1] and all(
        torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True)
    )


def test_trainings_and_their_metrics_compute_in_full_float32(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA PyTorch rounds convolutions to TF32 unless it is told otherwise."""
    seen = []
    build = networks.Normalised.forward

    def watched(self: networks.Normalised, images: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return build(self, images)

    monkeypatch.setattr(networks.Normalised, "forward", watched)
    before = torch.backends.cudnn.allow_tf32
    network = loop.train(recipe(), 0, data).network
    quality.measure(network, data)
    robust.accuracy(robust.build("linf-at(steps=1)"), network, data.test, "cpu")
    occlusion.curve(network, data.test, mean=data.mean)
    assert len(seen) > 3
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 is before


class Listening(Silent):
    """Remembers the tasks that were opened."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, int]] = []

    def task(self, label: str, total: int, done: int = 0) -> Any:
        self.tasks.append((label, total, done))
        return super().task(label, total, done)


def test_the_progress_of_a_training_names_its_guide(data: Dataset) -> None:
    guide = torch.ones(len(data.train.labels), 1, *data.train.images.shape[-2:], dtype=torch.bool)
    chosen = recipe("advmask", guide="random", epochs=1)
    progress = Listening()
    loop.train(chosen, 3, data, guide=guide, progress=progress)
    ((label, _, _),) = progress.tasks
    assert label.startswith("advmask")
    assert label.endswith(" + random, resnet8, seed 3")


@pytest.mark.parametrize("augmentation", ["cutout", "random-erasing", "keepaugment"])
def test_the_same_seed_gives_the_same_network_bit_for_bit(data: Dataset, augmentation: str) -> None:
    before = torch.get_rng_state()
    first = loop.train(recipe(augmentation), 0, data)
    assert same(first, loop.train(recipe(augmentation), 0, data))
    assert not same(first, loop.train(recipe(augmentation), 1, data))
    assert torch.equal(torch.get_rng_state(), before)


def test_methods_share_their_first_weights_and_validation_part(data: Dataset) -> None:
    parts = [loop.split(recipe(name), 3, data)[1].ids for name in ("none", "cutout")]
    assert torch.equal(*parts)
    assert not torch.equal(parts[0], loop.split(recipe("none"), 4, data)[1].ids)


def test_a_recipe_without_flip_trains_as_on_images_that_are_never_mirrored(data: Dataset) -> None:
    mirrored = dataclasses.replace(data, flip=True)
    assert same(loop.train(recipe(flip=False), 0, mirrored), loop.train(recipe(), 0, data))
    assert not same(loop.train(recipe(), 0, mirrored), loop.train(recipe(), 0, data))


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_a_stopped_training_continues_bit_for_bit(
    data: Dataset, tmp_path: Path, stop_after: int
) -> None:
    whole = loop.train(recipe(), 0, data)
    calls = itertools.count(1)
    with pytest.raises(Stopped, match="stopped"):
        loop.train(recipe(), 0, data, checkpoint=tmp_path, stop=lambda: next(calls) >= stop_after)
    progress = Listening()
    assert same(whole, loop.train(recipe(), 0, data, checkpoint=tmp_path, progress=progress))
    ((_, total, done),) = progress.tasks
    assert (total, done) == (3, stop_after // 3)  # two batches and a look at the end of an epoch


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, [1, 2, 3]), (1e9, [1, 3])])
def test_a_checkpoint_is_written_once_in_a_while_and_at_the_end(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, saved: list[int]
) -> None:
    """Writing one takes longer than an epoch on few images."""
    monkeypatch.setattr(loop, "SAVED_EVERY", seconds)
    written: list[int] = []
    save = checkpoints.save

    def counted(folder: Path, network: torch.nn.Module, optimiser: Any, curve: Any) -> None:
        written.append(len(curve))
        save(folder, network, optimiser, curve)

    monkeypatch.setattr(checkpoints, "save", counted)
    whole = loop.train(recipe(), 0, data, checkpoint=tmp_path / "whole")
    assert written == saved
    calls = itertools.count(1)
    with pytest.raises(Stopped, match="stopped in epoch 3"):
        loop.train(recipe(), 0, data, checkpoint=tmp_path, stop=lambda: next(calls) >= 8)
    assert same(whole, loop.train(recipe(), 0, data, checkpoint=tmp_path))


def test_adamw_continues_bit_for_bit_too(data: Dataset, tmp_path: Path) -> None:
    chosen = recipe(optimizer="adamw", learning_rate=1e-3, warmup=1)
    whole = loop.train(chosen, 0, data)
    calls = itertools.count(1)
    with pytest.raises(Stopped, match="stopped"):
        loop.train(chosen, 0, data, checkpoint=tmp_path, stop=lambda: next(calls) >= 5)
    assert same(whole, loop.train(chosen, 0, data, checkpoint=tmp_path))
    assert not same(whole, loop.train(recipe(), 0, data))
    with pytest.warns(UserWarning, match="it belongs to another optimizer"):
        assert same(
            loop.train(recipe(), 0, data, checkpoint=tmp_path), loop.train(recipe(), 0, data)
        )


def test_an_optimizer_is_torchs_with_the_settings_of_the_recipe(data: Dataset) -> None:
    network = loop.first(recipe(), data, None, 0)
    chosen = optimizers.build(recipe(optimizer="adamw", weight_decay=0.05), network)
    assert isinstance(chosen, torch.optim.AdamW)
    assert chosen.defaults["weight_decay"] == 0.05
    usual = optimizers.build(recipe(momentum=0.8), network)
    assert isinstance(usual, torch.optim.SGD)
    assert (usual.defaults["momentum"], usual.defaults["nesterov"]) == (0.8, True)


def test_a_warm_up_rises_to_the_schedule() -> None:
    plain, warm = recipe(epochs=10), recipe(epochs=10, warmup=3)
    shares = [optimizers.rate(warm, epoch) / optimizers.rate(plain, epoch) for epoch in range(10)]
    assert shares == pytest.approx([1 / 4, 2 / 4, 3 / 4, *[1] * 7])


def test_a_clock_that_is_set_back_changes_nothing(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, job = Workspace(results=tmp_path), Job(recipe(), 0)
    whole, _ = jobs.work(job, Workspace(results=tmp_path / "whole"), Silent(), never)
    now = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    calls = itertools.count(1)
    with pytest.raises(Stopped):
        jobs.work(job, workspace, Silent(), lambda: next(calls) >= 5)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    found, before = jobs.work(job, workspace, Silent(), never)
    assert not before
    for one in (whole, found):
        assert one.metrics["seconds"] >= 0
    timeless = [
        {name: value for name, value in one.metrics.items() if "seconds" not in name}
        for one in (whole, found)
    ]
    assert timeless[0] == timeless[1]
    assert jobs.work(job, workspace, Silent(), never) == (
        dataclasses.replace(found, curve=()),
        True,
    )


def never() -> bool:
    return False


@pytest.mark.parametrize("harm", ["truncate", "flip", "json", "outside"])
def test_a_damaged_checkpoint_costs_a_warning_and_not_the_result(
    data: Dataset, tmp_path: Path, harm: str
) -> None:
    calls = itertools.count(1)
    with pytest.raises(Stopped):
        loop.train(recipe(), 0, data, checkpoint=tmp_path, stop=lambda: next(calls) > 5)
    (state,) = tmp_path.glob("epoch-*.safetensors")
    about = tmp_path / "checkpoint.json"
    content = bytearray(state.read_bytes())
    if harm == "truncate":
        state.write_bytes(content[:-100])
    elif harm == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif harm == "json":
        about.write_text(about.read_text()[:-20])
    else:
        about.write_text(about.read_text().replace(state.name, f"../../{state.name}x"))
    whole = loop.train(recipe(), 0, data)
    if harm == "outside":
        again = loop.train(recipe(), 0, data, checkpoint=tmp_path)
    else:
        with pytest.warns(UserWarning, match="cannot continue from"):
            again = loop.train(recipe(), 0, data, checkpoint=tmp_path)
    assert same(whole, again)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    network = networks.build(
        "resnet8", classes=2, channels=1, side=8, mean=[0.5], std=[0.5], seed=0
    )
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    checkpoints.save(tmp_path, network, optimiser, [dict.fromkeys(checkpoints.ENTRY, 1)])

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('code ran')",)

    import hashlib
    import json

    (state,) = tmp_path.glob("epoch-*.safetensors")
    torch.save({"network": Trap(), "optimiser": {}}, state)
    about = json.loads((tmp_path / "checkpoint.json").read_text())
    about["sha256"] = hashlib.sha256(state.read_bytes()).hexdigest()
    (tmp_path / "checkpoint.json").write_text(json.dumps(about))
    with pytest.warns(UserWarning, match="cannot continue"):
        assert checkpoints.resume(tmp_path, network, optimiser) == []


def test_a_loss_that_is_no_number_is_a_failure(data: Dataset) -> None:
    with pytest.raises(steps.Diverged, match=r"the loss is nan .* smaller --learning-rate"):
        loop.train(recipe("none", learning_rate=1e30), 0, data)


@pytest.mark.parametrize("epochs", [1, 2])
def test_logits_that_are_no_numbers_are_a_failure(data: Dataset, epochs: int) -> None:
    # with one step an epoch, the loss is that of the network before it
    one_step = recipe("none", learning_rate=1e20, batch_size=200, validation=0.0, epochs=epochs)
    with pytest.raises(steps.Diverged, match=r"are not finite after epoch 1; .*--learning-rate"):
        loop.train(one_step, 0, data)


def test_a_seed_without_finite_logits_has_failed_and_says_so(tmp_path: Path) -> None:
    job = Job(recipe("none", learning_rate=1e20, batch_size=200, validation=0.0, epochs=1), 0)
    found = jobs.execute(job, Workspace(results=tmp_path), Silent())
    assert found.status == "failed"
    assert found.message.startswith("the logits of ")
    assert found.metrics == {}
    assert not list(tmp_path.glob("weights/*"))


def test_a_logit_of_minus_infinity_is_a_failure_though_the_loss_is_finite(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = networks.build_for

    def build_for(*args: Any, **named: Any) -> networks.Normalised:
        network = build(*args, **named)
        unused = torch.tensor([-torch.inf if k == 9 else 0.0 for k in range(10)])
        network.register_forward_hook(lambda *parts: parts[-1] + unused)
        return network

    monkeypatch.setattr(networks, "build_for", build_for)
    below = data.train.take((data.train.labels < 9).nonzero()[:, 0]).alone()
    with pytest.raises(steps.Diverged, match="the loss is nan in epoch 1"):
        loop.train(recipe("none", validation=0.0), 0, dataclasses.replace(data, train=below))


def test_the_learning_rate_follows_its_schedule() -> None:
    cosine = Recipe(epochs=300, learning_rate=0.1)
    assert optimizers.rate(cosine, 0) == 0.1
    assert optimizers.rate(cosine, 150) == pytest.approx(0.05)
    steps = dataclasses.replace(cosine, schedule="steps")
    rates = [optimizers.rate(steps, epoch) for epoch in range(300)]
    changes = [epoch for epoch in range(1, 300) if rates[epoch] != rates[epoch - 1]]
    assert changes == [60, 120, 160, 220, 280]
    assert rates[-1] == pytest.approx(0.1 * 0.2**5)


def test_metrics_take_the_last_epoch_and_the_best_validation(data: Dataset) -> None:
    network = networks.build(
        "resnet8", classes=2, channels=1, side=8, mean=[0.5], std=[0.5], seed=0
    )
    curve = [
        {"epoch": e, "test_accuracy": t, "validation_accuracy": v, "seconds": 1, "test_seconds": 0}
        for e, t, v in ((1, 0.5, 0.6), (2, 0.9, 0.7), (3, 0.8, 0.9), (4, 0.7, 0.8))
    ]
    metrics = loop.Trained(network, curve).metrics
    assert metrics["accuracy"] == 0.7
    assert metrics["accuracy_best_validation"] == 0.8
    assert metrics["accuracy_best"] == 0.9
    assert metrics["accuracy_median10"] == pytest.approx(0.75)


def test_saliency_is_the_gradient_of_the_label_and_leaves_the_network_alone() -> None:
    network = networks.build("resnet8", classes=3, mean=[0.5] * 3, std=[0.2] * 3, seed=0)
    network = network.double().train()
    images = torch.rand(2, 3, 9, 7, generator=seeds.generator(0, "test"), dtype=torch.float64)
    labels = torch.tensor([2, 0])
    before = [tensor.clone() for tensor in network.state_dict().values()]
    found = saliency(network, images, labels)
    assert network.training
    assert all(
        torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True)
    )
    network.eval()
    step = 1e-6
    y, x = 4, 3
    for i in range(2):
        slopes = []
        for channel in range(3):
            moved = images[i : i + 1].repeat(2, 1, 1, 1)
            moved[0, channel, y, x] += step
            moved[1, channel, y, x] -= step
            with torch.no_grad():
                up, down = network(moved)[:, labels[i]]
            slopes.append(abs(float(up - down)) / (2 * step))
        assert float(found[i, 0, y, x]) == pytest.approx(max(slopes), rel=1e-3)
