"""C&W-l0: its rounds, its modes, and that no image waits for another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planes import fewest, plane, some_images, two_classes
from torch import Generator, Tensor, nn

from attacks import Goal
from attacks.cw_l0 import CWL0
from attacks.norms import l0_elements, l0_pixels, linf

SIZE = (3, 5, 4)


class Counted(nn.Module):
    """Counts the images that pass forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += len(images)
        logits: Tensor = self.model(images)
        return logits


def attacked(method: CWL0, model: nn.Module, images: Tensor, goal: Goal) -> Tensor:
    return method(model, images, goal, Generator())


def predicted(model: nn.Module, images: Tensor) -> Goal:
    with torch.no_grad():
        return Goal(model(images).argmax(1))


@pytest.mark.parametrize("unit", ["pixels", "elements"])
def test_it_finds_the_fewest_units_of_a_plane(unit: Any) -> None:
    model, images = plane(SIZE, 2, seed=1), some_images(SIZE, 6, seed=2)
    goal = predicted(model, images)
    adversarial = attacked(CWL0(eps=0.2, unit=unit), model, images, goal)
    count = (l0_pixels if unit == "pixels" else l0_elements)(adversarial - images)
    assert goal.reached(model(adversarial)).all()
    assert (count <= fewest(model, images, goal, 0.2, unit) + 1).all()


def test_a_batch_asks_for_as_many_passes_as_its_images_alone() -> None:
    model, images = plane(SIZE, 4, seed=1), some_images(SIZE, 4, seed=3)
    goal, method = predicted(model, images), CWL0(eps=0.2, steps=20, c=1.0)
    together, alone = Counted(model), Counted(model)
    whole = attacked(method, together, images, goal)
    for row in torch.arange(4).split(1):
        part = attacked(method, alone, images[row], goal[row])
        torch.testing.assert_close(part, whole[row], rtol=0, atol=1e-9)
    assert together.passes == alone.passes


def test_an_impossible_image_costs_its_doublings_and_no_more() -> None:
    model, images = plane(SIZE, 2, seed=1), some_images(SIZE, 3, seed=2)
    goal, counted = predicted(model, images), Counted(model)
    method = CWL0(eps=1e-3, steps=7, c=1.0, c_max=20.0)
    adversarial = attacked(method, counted, images, goal)
    assert torch.equal(adversarial, images)
    doublings = math.floor(math.log2(20.0)) + 1  # c = 1, 2, 4, 8, 16
    assert counted.passes == len(images) * (1 + 7 * doublings)


def test_free_changes_ignore_eps_and_need_fewer_pixels() -> None:
    model, images = plane(SIZE, 3, seed=4), some_images(SIZE, 6, seed=2)
    goal = predicted(model, images)
    free, near = CWL0(eps=0.1, mode="free"), CWL0(eps=0.1)
    assert near.bounded
    assert not free.bounded
    assert not CWL0(eps=None).bounded
    wide, narrow = (attacked(method, model, images, goal) for method in (free, near))
    assert linf(wide - images).max() > 0.1
    assert linf(narrow - images).max() <= 0.1
    assert l0_pixels(wide - images).sum() < l0_pixels(narrow - images).sum()


def test_with_a_number_of_units_an_image_stops_once_it_has_so_few() -> None:
    model, images = plane(SIZE, 3, seed=4), some_images(SIZE, 6, seed=2)
    goal, full, short = predicted(model, images), Counted(model), Counted(model)
    least = attacked(CWL0(mode="free"), full, images, goal)
    matched = attacked(CWL0(mode="free", l0=8), short, images, goal)
    assert goal.reached(model(matched)).all()
    assert (l0_pixels(matched - images) <= 8).all()
    assert l0_pixels(matched - images).sum() > l0_pixels(least - images).sum()
    assert short.passes < full.passes


def test_the_released_ranking_works_too() -> None:
    model, images = plane(SIZE, 3, seed=4), some_images(SIZE, 4, seed=2)
    goal = predicted(model, images)
    method = CWL0(mode="free", importance="released")
    assert goal.reached(model(attacked(method, model, images, goal))).all()


def test_the_released_ranking_ends_where_a_change_too_small_to_count_succeeds() -> None:
    """Each round leaves at least one element out, as the released code does."""
    weight = 100 * torch.randn(*SIZE, generator=Generator().manual_seed(1), dtype=torch.float64)
    images = torch.full((1, *SIZE), 0.5, dtype=torch.float64)
    model = two_classes(weight, 0.01 - float((images[0] * weight).sum()))
    method = CWL0(importance="released", eps=5e-5)
    counted = Counted(model)

    def no_more(module: nn.Module, inputs: tuple[Tensor], answer: Tensor) -> None:
        assert counted.passes <= method.passes(SIZE)

    model.register_forward_hook(no_more)
    attacked(method, counted, images, Goal(torch.zeros(1, dtype=torch.long)))
    assert counted.passes > 0


def test_the_official_constants_are_those_of_the_released_code() -> None:
    official = CWL0.official()
    constants = official.steps, official.lr, official.c, official.c_max, official.fraction
    assert constants == (1000, 0.01, 1e-3, 2e6, 0.3)
    assert not official.bounded


def test_a_round_forbids_the_least_important_up_to_the_first_that_matters() -> None:
    method = CWL0(fraction=1.0, small=0.5)  # 9 touched: at most 3 at a time
    change = torch.ones(2, 1, 1, 10)
    change[..., 9] = 0
    scores = torch.tensor(
        [[8.0, 7, 6, 5, 4, 0.3, 0.2, 0.1, 9, 0], [8, 7, 6, 5, 4, 3, 2, 0.1, 9, 0]]
    )
    allowed = torch.ones(2, 1, 1, 10, dtype=torch.bool)
    left = method._forbid(scores[:, None, None], change, allowed)
    expected = [{0, 1, 2, 3, 4, 8}, {0, 1, 2, 3, 4, 5, 8}]
    assert [set(row.nonzero().flatten().tolist()) for row in left[:, 0, 0]] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l0": 0}, "l0 is 0: give at least 1"),
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"lr": 0.0}, r"lr is 0\.0: it must be positive"),
        ({"c": 10.0, "c_max": 1.0}, r"c_max is 1\.0: it must be at least c = 10\.0"),
    ],
)
def test_a_wrong_setting_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CWL0(**options)
