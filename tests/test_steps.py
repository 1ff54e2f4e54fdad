"""Steps of a training: on a CUDA device they are recorded and repeated, with the same results."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench import registry
from bench.data import catalog
from bench.data.dataset import Dataset
from bench.errors import Stopped
from bench.models import networks
from bench.training import loop, optimizers, steps
from bench.training.recipes import Recipe


@pytest.fixture
def data() -> Dataset:
    return catalog.load("digits(train=150, test=50)")


def recipe(**fields: Any) -> Recipe:
    usual: dict[str, Any] = {"data": "digits", "model": "resnet8", "epochs": 4, "batch_size": 64}
    return Recipe(**(usual | {"learning_rate": 0.05, "validation": 0.0, "padding": 1} | fields))


def trained(job: Recipe, data: Dataset, **others: Any) -> tuple[list[torch.Tensor], list[float]]:
    """Weights and losses of a training on a CUDA device, whose kernels are deterministic here."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        found = loop.train(job, 0, data, device="cuda", **others)
    finally:
        torch.backends.cudnn.deterministic = before
    return [*found.network.state_dict().values()], [entry["loss"] for entry in found.curve]


def launched(job: Recipe, data: Dataset) -> tuple[list[torch.Tensor], list[float]]:
    """The same, with each kernel launched anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "LARGE", 0)
        return trained(job, data)


def same(one: tuple[list[torch.Tensor], Any], other: tuple[list[torch.Tensor], Any]) -> bool:
    return one[1] == other[1] and all(map(torch.equal, one[0], other[0]))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"precision": "bfloat16"},
        {"optimizer": "adamw", "learning_rate": 1e-3},
        {"mix": "mixup"},
        {"model": "vit-96-6", "optimizer": "adamw", "learning_rate": 1e-3},
    ],
    ids=str,
)
def test_a_repeated_step_computes_what_launched_kernels_do(
    fields: dict[str, Any], data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = []
    repeat = steps.Recorded.repeat

    def counted(self: Any, *given: Any) -> torch.Tensor:
        repeated.append(given[0].shape)
        return repeat(self, *given)

    monkeypatch.setattr(steps.Recorded, "repeat", counted)
    job = recipe(**fields)
    once = trained(job, data)
    # each of four epochs has two batches of 64 and one of 22; the first of either is launched
    sizes = [shape[0] for shape in repeated]
    assert (sizes.count(64), sizes.count(22)) == (7, 3)
    assert same(once, launched(job, data))
    assert not same(once, trained(recipe(**fields, weight_decay=0.01), data))


@pytest.mark.gpu
def test_a_training_on_cuda_continues_bit_for_bit(data: Dataset, tmp_path: Path) -> None:
    for job in (recipe(), recipe(optimizer="adamw", learning_rate=1e-3)):
        whole, folder = trained(job, data), tmp_path / job.key
        calls = map((6).__le__, itertools.count(1))
        with pytest.raises(Stopped, match="stopped"):
            trained(job, data, checkpoint=folder, stop=calls.__next__)
        assert same(whole, trained(job, data, checkpoint=folder))


@pytest.mark.gpu
@pytest.mark.parametrize("saliency", ["full", "low", "early"])
def test_a_repeated_saliency_is_the_one_that_is_launched(saliency: str, data: Dataset) -> None:
    method = registry.build("augmentations", f"keepaugment(length=3, saliency='{saliency}')")
    job = recipe(augmentation=method)
    assert same(trained(job, data), launched(job, data))


@pytest.mark.gpu
def test_features_mixed_in_the_network_change_no_recorded_step(data: Dataset) -> None:
    """Manifold Mixup draws a stage for each batch; of stage 0, which is the images, it is plain."""
    job = recipe(mix="manifold-mixup")
    assert same(trained(job, data), launched(job, data))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields",
    [{"model": "shake-shake-26-2x32d"}, {"robust": "sparse-trades(k=2, steps=2)"}],
    ids=str,
)
def test_a_step_that_draws_is_not_recorded(
    fields: dict[str, Any], data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(steps.Repeated, "_record", lambda *given: recorded.append(given))
    trained(recipe(**fields, epochs=2), data)
    assert not recorded


@pytest.mark.gpu
def test_a_step_of_large_batches_is_not_recorded(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LARGE", 128 * 8 * 8)
    network = networks.build_for(data, "resnet8", seed=0)
    for size, worth in ((128, False), (127, True)):
        images = torch.zeros(size, 1, 8, 8, device="cuda")
        assert steps.repeatable(recipe(), network, images) == worth


class Memory:
    """A recorded computation that needs no CUDA device: it reads and writes the same tensors."""

    def __init__(self, compute: Any, images: torch.Tensor, targets: torch.Tensor) -> None:
        self.compute, self.images, self.targets = compute, images.clone(), targets.clone()
        self.result: torch.Tensor | None = None
        self.sizes: list[int] = []

    def repeat(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(self.images.copy_(images)))
        found = self.compute(self.images, self.targets.copy_(targets))
        self.result = found if self.result is None else self.result.copy_(found)
        return self.result


@pytest.mark.parametrize("method", ["cutout(length=3)", "keepaugment(length=3)"])
def test_every_batch_after_the_first_of_its_shape_is_repeated_in_place(
    method: str, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories: list[Memory] = []

    def record(self: steps.Repeated, *given: torch.Tensor) -> Memory:
        memories.append(Memory(self.compute, *given))
        return memories[-1]

    job = recipe(augmentation=registry.build("augmentations", method))
    plain = loop.train(job, 0, data)
    monkeypatch.setattr(steps, "repeatable", lambda *given: True)
    monkeypatch.setattr(steps.Repeated, "_record", record)
    repeated = loop.train(job, 0, data)
    # each of four epochs has two batches of 64 images and one of 22
    once = [[64] * 7, [22] * 3]
    found = sorted((memory.sizes for memory in memories), reverse=True)
    assert found == sorted(once * (2 if "keep" in method else 1), reverse=True)
    assert [entry["loss"] for entry in plain.curve] == [entry["loss"] for entry in repeated.curve]
    tensors = zip(
        plain.network.state_dict().values(), repeated.network.state_dict().values(), strict=True
    )
    assert all(torch.equal(one, other) for one, other in tensors)


def test_a_step_repeats_nothing_unless_it_may(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "repeatable", lambda *given: True)
    network = networks.build_for(data, "resnet8", seed=0)
    optimiser = optimizers.build(recipe(), network)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    for repeats, recordings in ((False, 0), (True, 2)):
        recorded: list[Memory] = []

        def record(
            self: steps.Repeated, *given: torch.Tensor, to: list[Memory] = recorded
        ) -> Memory:
            to.append(Memory(self.compute, *given))
            return to[-1]

        monkeypatch.setattr(steps.Repeated, "_record", record)
        step = steps.Step(recipe(), network, optimiser, repeats)
        for number in range(3):
            step(images, labels, labels, nullcontext(), (0, 0, number))
            step.saliency(images, labels)
        assert len(recorded) == recordings


def test_a_step_on_a_cpu_is_never_recorded(data: Dataset) -> None:
    network = networks.build_for(data, "resnet8", seed=0)
    assert not steps.repeatable(recipe(), network, torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_learning_rate_reaches_the_update(data: Dataset, optimizer: str, device: str) -> None:
    network = networks.build_for(data, "resnet8", seed=0).to(device)
    before = [each.clone() for each in network.parameters()]
    optimiser = optimizers.build(recipe(optimizer=optimizer), network)
    for rate, moves in ((0.0, False), (0.1, True)):
        optimizers.set_rate(optimiser, rate)
        for each in network.parameters():
            each.grad = torch.ones_like(each)
        optimiser.step()
        same = all(map(torch.equal, before, network.parameters()))
        assert same != moves


@pytest.mark.usefixtures("unchecked")
def test_a_computation_is_recorded_on_the_device_of_its_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernels of another device than that of the recording stream would not be recorded."""
    used: list[Any] = []

    class Place(nullcontext[None]):
        def __init__(self, *given: Any, stream: Any = None, **_: Any) -> None:
            super().__init__()
            used.append(stream or str(given[0]))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(steps, "Recorded", lambda *given: given)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "device", Place)
    monkeypatch.setattr(torch.cuda, "graph", Place)
    with FakeTensorMode():
        images = torch.empty(2, 3, 8, 8, device="cuda:1")
        steps.Repeated(lambda images, targets: images)._record(images, images)
    assert used == ["cuda:1", "stream of cuda:1"]


def test_draws_are_those_of_the_networks_device(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[tuple[int, int]] = []
    kept: list[Any] = []

    class Draws:
        def __init__(self, number: int) -> None:
            self.number = number

        def manual_seed(self, seed: int) -> None:
            seeded.append((self.number, seed))

    monkeypatch.setattr(torch.cuda, "default_generators", [Draws(0), Draws(1)])
    monkeypatch.setattr(
        torch.random, "fork_rng", lambda devices: kept.extend(devices) or nullcontext()
    )
    state = torch.get_rng_state()
    with FakeTensorMode():
        network = torch.nn.Linear(2, 2, device="cuda:1")
    with networks.reseeded(network, 7):
        pass
    torch.set_rng_state(state)
    assert seeded == [(1, 7)]
    assert kept == [torch.device("cuda:1")]
