"""Where attacks may act, what they return when they fail, and which victims they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planes import plane, some_images, two_classes
from torch import Generator, Tensor, nn

from attacks import BUILTIN, SAPF, Goal, SigmaZero
from attacks.victim import out_of_memory

NAMES = sorted(BUILTIN)
SIZE = (3, 6, 7)
QUICK: dict[str, dict[str, Any]] = {
    "advmask": {"steps": 60},
    "cw-l0": {"steps": 20},
    "fmn-l0": {"steps": 60},
    "gse": {"searches": 2},
    "pgd-l0": {"steps": 10},
    "pgd-trim": {"steps": 8, "samples": 5},
    "sapf": {"searches": 3, "steps": (25, 25, 25)},
    "sparse-autoattack": {"steps": 10, "queries": 100},
    "sparse-pgd": {"steps": 10},
    "sparse-rs": {"queries": 150},
}


def quick(name: str, eps: float = 0.2) -> Any:
    return BUILTIN[name](eps=eps, **QUICK.get(name, {}))


def labels_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_keeps_to_the_region_of_each_image(name: str) -> None:
    model, images = plane(SIZE, 3), some_images(SIZE, 4, seed=2, spread=0.1)
    region = torch.zeros(4, 1, 6, 7, dtype=torch.bool)
    region[0, :, :, :4] = region[1, :, 2:] = region[2, :, ::2] = region[3, :, :, 3:] = True
    goal = Goal(labels_of(model, images), region=region)
    adversarial = quick(name)(model, images, goal)
    assert torch.equal(adversarial.where(~region, 0), images.where(~region, 0))
    if name != "noise":
        assert (goal.reached(model(adversarial))).float().mean() >= 0.5


@pytest.mark.parametrize("name", NAMES)
def test_no_attack_finds_anything_in_an_empty_region(name: str) -> None:
    model, images = plane(SIZE, 3), some_images(SIZE, 2, seed=2, spread=0.1)
    nowhere = torch.zeros(2, 1, 6, 7, dtype=torch.bool)
    goal = Goal(labels_of(model, images), region=nowhere)
    assert torch.equal(quick(name)(model, images, goal), images)


@pytest.mark.parametrize(
    "region",
    [torch.ones(2, 6, 7, dtype=torch.bool), torch.ones(2, 1, 6, 7), torch.ones(3, 1, 6, 7) > 0],
)
def test_a_region_that_fits_no_batch_is_refused(region: Tensor) -> None:
    model, images = plane(SIZE, 3), some_images(SIZE, 2, seed=2)
    with pytest.raises(ValueError, match=r"give torch.bool of shape \(2, 1, 6, 7\), True where"):
        SigmaZero()(model, images, Goal(torch.zeros(2).long(), region=region))


@pytest.mark.parametrize("name", NAMES)
def test_the_closest_failed_attempt_comes_back_on_request(name: str) -> None:
    weight = torch.randn(*SIZE, generator=Generator().manual_seed(3), dtype=torch.float64)
    images = some_images(SIZE, 2, seed=4, spread=0.1)
    far = two_classes(weight, 1e3)  # no change suffices
    goal = Goal(torch.zeros(2, dtype=torch.long))
    assert torch.equal(quick(name)(far, images, goal), images)
    closest = quick(name)(far, images, goal, failures="closest")
    assert (goal.margin(far(closest)) <= goal.margin(far(images))).all()
    assert (closest - images).abs().max() <= 0.2 + 1e-6
    assert closest.min() >= 0
    assert closest.max() <= 1
    if name not in ("noise", "greedyfool", "sparsefool"):
        assert (closest != images).flatten(1).any(1).all()


def test_the_closest_attempt_is_a_failed_one_also_where_a_dense_start_succeeded() -> None:
    """SAPF looks for ten pixels at most, from a change of all pixels that succeeds."""
    weight = torch.ones(SIZE, dtype=torch.float64)
    images = torch.full((2, *SIZE), 0.5, dtype=torch.float64)
    needed = 30 * 0.1  # thirty elements by eps
    model = two_classes(weight, needed - float((images[0] * weight).sum()))
    goal = Goal(torch.zeros(2, dtype=torch.long))
    attack = SAPF(eps=0.1, l0=3, strength=1.0, searches=3)
    shown: list[Tensor] = []
    model.register_forward_hook(lambda module, inputs, answer: shown.append(inputs[0].detach()))
    assert torch.equal(attack(model, images, goal), images)
    assert any(goal.reached(model(each)).all() for each in list(shown) if len(each) == 2)
    closest = attack(model, images, goal, failures="closest")
    assert not goal.reached(model(closest)).any()
    assert (goal.margin(model(closest)) < goal.margin(model(images))).all()


def test_successes_and_images_at_the_goal_do_not_change_with_the_request() -> None:
    model, images = plane(SIZE, 3), some_images(SIZE, 4, seed=2, spread=0.1)
    labels = labels_of(model, images)
    labels[0] = (labels[0] + 1) % 3  # reached from the start
    usual = SigmaZero(eps=0.2)(model, images, labels)
    assert torch.equal(SigmaZero(eps=0.2)(model, images, labels, failures="closest"), usual)
    with pytest.raises((ValueError, TypeError), match="failures"):  # checked types refuse it first
        SigmaZero()(model, images, labels, failures="best")  # type: ignore[arg-type]


class Small(nn.Module):
    """Has memory for a few images at once."""

    def __init__(self, model: nn.Module, error: Exception) -> None:
        super().__init__()
        self.model, self.error = model, error
        self.largest = 0

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 3:
            raise self.error
        self.largest = max(self.largest, len(images))
        logits: Tensor = self.model(images)
        return logits


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["sigma-zero", "sparse-rs"])
def test_a_batch_that_is_too_large_shrinks_and_gives_the_same_images(
    name: str, error: Exception
) -> None:
    model, images = plane(SIZE, 3), some_images(SIZE, 10, seed=2, spread=0.1)
    labels = labels_of(model, images)
    small = Small(model, error)
    found = quick(name)(small, images, labels)
    assert small.largest == 3
    torch.testing.assert_close(found, quick(name)(model, images, labels))


def test_an_image_that_is_too_large_alone_says_so() -> None:
    class Full(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    images = some_images(SIZE, 2, seed=2)
    with pytest.raises(torch.OutOfMemoryError):
        SigmaZero()(Full(), images, torch.zeros(2).long())
    assert not out_of_memory(RuntimeError("shapes do not match"))


class Answers(nn.Module):
    """Returns what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: torch.full((len(x), 3), torch.nan), "returned NaN for 2 of 2 images: check its"),
        (lambda x: x.flatten(1)[:, :1], "the model has 1 class: an attack needs at least 2"),
        (lambda x: x, r"of shape \(2, 3, 6, 7\) for 2 images: it must return float logits"),
        (lambda x: x.flatten(1)[:1], r"of shape \(1, 126\) for 2 images"),
        (lambda x: (x.flatten(1) > 0).long(), "torch.int64 of shape"),
        (lambda x: (x,), "the model returned a tuple: it must return a tensor of logits"),
        (lambda x: x.flatten(1)[:, :2], "the labels hold class 2, but the model has 2 classes"),
    ],
)
@pytest.mark.parametrize("name", ["sigma-zero", "jsma", "sparse-autoattack"])
def test_a_victim_without_logits_is_refused_in_one_line(
    name: str, answer: Any, message: str
) -> None:
    images = some_images(SIZE, 2, seed=2)
    with pytest.raises(ValueError, match=message) as caught:
        quick(name)(Answers(answer), images, torch.tensor([0, 2]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("eps", [0.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_no_attack_takes_an_eps_outside_its_range(name: str, eps: float) -> None:
    images = some_images(SIZE, 2, seed=2)
    with pytest.raises(ValueError, match=f"eps is {eps}: it must"):
        BUILTIN[name](eps=eps)(plane(SIZE, 3), images, torch.zeros(2).long())


@pytest.mark.parametrize("side", [(1, 1), (1, 9), (17, 33)])
@pytest.mark.parametrize("name", NAMES)
def test_every_attack_takes_images_of_any_size(name: str, side: tuple[int, int]) -> None:
    size = (2, *side)
    model, images = plane(size, 2), some_images(size, 2, seed=7, spread=0.02)
    labels = labels_of(model, images)
    adversarial = quick(name, eps=0.5)(model, images, labels)
    if name != "noise":
        assert Goal(labels).reached(model(adversarial)).all()
