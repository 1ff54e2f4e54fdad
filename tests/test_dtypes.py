"""Number formats of images and logits, and models without a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_attacks import BLIND, NAMES, attack
from torch import Generator, Tensor, nn

from attacks import AdvMask, BaseAttack, Goal, RandomSigns, SparseRS
from attacks.fewest import fewest_changes

DTYPES = [torch.float64, torch.bfloat16, torch.float16]
NEEDS_GRADIENT = sorted(set(NAMES) - BLIND - {"sparse-rs"})
SEARCHES = {
    "elements": AdvMask(steps=30, unit="elements", exchanges=30),
    "budget": AdvMask(eps=1.0, budget=60),
}


class Convolution(nn.Module):
    """A small float32 network whose logits are of another type."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30, 5)
            )
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).to(self.dtype)


class Detached(Convolution):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


class WithoutGradients(Convolution):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class ForInference(Convolution):
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


def some(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(4, 3, 5, 6, generator=Generator().manual_seed(1)).to(dtype)


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


def method(name: str) -> Any:
    return SEARCHES[name] if name in SEARCHES else attack(name, 1.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*NAMES, *SEARCHES])
def test_every_attack_takes_logits_of_another_type_than_the_images(
    name: str, dtype: torch.dtype
) -> None:
    model, images = Convolution(dtype), some()
    found = method(name)(model, images, predicted(model, images))
    assert found.dtype == images.dtype
    assert (found != images).any() or name in BLIND


@pytest.mark.parametrize("name", ["advmask", *SEARCHES])
def test_the_local_search_works_in_mixed_precision(name: str) -> None:
    model, images = Convolution(), some()
    with torch.autocast("cpu", torch.bfloat16):
        found = method(name)(model, images, predicted(model, images))
    assert found.dtype == images.dtype
    assert (found != images).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_attack_takes_images_of_half_precision(name: str, dtype: torch.dtype) -> None:
    model, images = Convolution().to(dtype), some(dtype)
    model.dtype = dtype
    with pytest.raises(
        ValueError, match=f"^images are {dtype}: give float32 or float64 images and"
    ):
        method(name)(model, images, predicted(model, images))


@pytest.mark.parametrize("victim", [Detached, WithoutGradients, ForInference])
@pytest.mark.parametrize("name", NEEDS_GRADIENT)
def test_a_model_without_a_gradient_is_refused_in_one_line(
    name: str, victim: type[Convolution]
) -> None:
    model, images = victim(), some()
    with pytest.raises(
        ValueError, match=r"^the model's logits have no gradient .*sparse-rs$"
    ) as no:
        method(name)(model, images, predicted(model, images))
    assert "\n" not in str(no.value)
    assert not model._forward_hooks


@pytest.mark.parametrize("black_box", [SparseRS(queries=20), RandomSigns()])
def test_an_attack_without_gradients_takes_a_model_without_one(black_box: BaseAttack) -> None:
    model, images = Detached(), some()
    labels = predicted(model, images)
    found = black_box(model, images, labels)
    assert torch.equal(found, black_box(Convolution(), images, labels))


@pytest.mark.parametrize("name", [*NAMES, *SEARCHES])
def test_every_attack_finds_the_same_in_inference_mode(name: str) -> None:
    model, images = Convolution(), some()
    region = torch.ones(4, 1, 5, 6, dtype=torch.bool)
    region[:, :, 0] = False
    goal = Goal(predicted(model, images), region=region)
    usual = method(name)(model, images, goal)
    with torch.inference_mode():
        assert torch.equal(method(name)(model, images, goal), usual)
        same = images.clone(), Goal(goal.labels.clone(), region=region.clone())
        assert torch.equal(method(name)(model, *same), usual)
    assert same[0].is_inference()
    assert torch.equal(method(name)(model, *same), usual)


def test_a_model_that_was_built_in_inference_mode_is_for_attacks_without_gradients() -> None:
    usual, images = Convolution(), some()
    labels, black_box = predicted(usual, images), SparseRS(queries=20)
    with torch.inference_mode():
        model = Convolution()
        assert torch.equal(black_box(model, images, labels), black_box(usual, images, labels))
        with pytest.raises(ValueError, match=r"^the model was built or loaded in torch.inference"):
            attack("pgd", 1.0)(model, images, labels)
    assert all(each.requires_grad for each in model.parameters())
    assert not model._forward_pre_hooks


def test_the_search_ends_where_an_attempt_changes_more_than_it_may() -> None:
    calls: list[list[int]] = []

    def attempt(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(counts.tolist())
        assert len(calls) < 10, "it goes on forever"
        return torch.full((len(rows), 1, 1, 1), 0.5), torch.where(counts >= 3, 9, 0)

    images = torch.zeros(1, 1, 1, 1)
    assert fewest_changes(attempt, images, torch.tensor([True]), 8).item() == 0.5
    assert calls == [[1], [2], [4], [3]]
