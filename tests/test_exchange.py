"""The local search that takes changed units back, and AdvMask's attack with it."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from planes import fewest, plane, some_images, two_classes
from scipy.stats import binomtest, chisquare
from test_attacks import Counting
from torch import Generator, Tensor

from attacks import AdvMask, Goal
from attacks.exchange import exchange
from attacks.norms import box, l0_elements, l0_pixels

Unit = Literal["pixels", "elements"]
UNITS: list[Unit] = ["pixels", "elements"]
COUNT = {"pixels": l0_pixels, "elements": l0_elements}
SIZE = (3, 6, 7)


def seeded(count: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in range(count)]


def wasteful(count: int = 6) -> tuple[torch.nn.Module, Tensor, Goal, Tensor]:
    """Successes that change every element as far as a bound of 0.2 allows."""
    model, images = plane(SIZE, 2), some_images(SIZE, count, seed=5, spread=0.15)
    goal = Goal(model(images).argmax(1).detach())
    low, high = box(images, 0.2)
    pull = (model.weight[1] - model.weight[0]) * torch.where(goal.labels == 0, 1, -1)[
        :, None, None, None
    ]
    return model, images, goal, images + torch.where(pull > 0, high, low)


@pytest.mark.parametrize("unit", UNITS)
@torch.no_grad()
def test_the_search_ends_at_the_fewest_changes_of_a_plane(unit: Unit) -> None:
    model, images, goal, dense = wasteful()
    least = fewest(model, images, goal, 0.2, unit)  # type: ignore[arg-type]
    found = exchange(model, images, goal, dense, 0.2, unit, 2000, seeded(6))
    assert goal.reached(model(found)).all()
    assert (found - images).abs().max() <= 0.2 + 1e-9
    changes = COUNT[unit](found - images)
    assert (changes >= least).all()
    assert (changes <= least + 1).all(), (changes, least)


@torch.no_grad()
def test_the_search_improves_on_single_removals_by_exchanging() -> None:
    model, images, goal, _ = wasteful()
    low, high = box(images, 0.2)
    pull = (model.weight[1] - model.weight[0]).abs().sum(0).flatten()
    weak = pull.argsort()[: pull.numel() // 2 + 8]  # a success of weak pixels alone
    mask = torch.zeros_like(pull).index_fill(0, weak, 1).view(1, 1, 6, 7)
    sign = (model.weight[1] - model.weight[0]) * torch.where(goal.labels == 0, 1, -1)[
        :, None, None, None
    ]
    given = images + mask * torch.where(sign > 0, high, low)
    rows = goal.reached(model(given))
    assert rows.any()
    found = exchange(
        model, images[rows], goal[rows], given[rows], 0.2, "pixels", 2000, seeded(int(rows.sum()))
    )
    least = fewest(model, images[rows], goal[rows], 0.2, "pixels")  # type: ignore[arg-type]
    assert (l0_pixels(found - images[rows]) <= least + 1).all()


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 10, 57])
@torch.no_grad()
def test_the_search_makes_no_more_passes_than_it_may(passes: int) -> None:
    model, images, goal, dense = wasteful(1)
    counting = Counting(model)
    found = exchange(counting, images, goal, dense, 0.2, "pixels", passes, seeded(1))
    done = l0_pixels(found - images).item() == 1  # there is nothing left to take back
    assert (0 if done else passes - 2) <= counting.count <= passes
    assert goal.reached(model(found)).all()
    if passes < 3:
        assert torch.equal(found, dense)


@torch.no_grad()
def test_many_units_leave_at_once_and_come_back_where_that_was_too_many() -> None:
    """One at a time, 12 passes with a gradient for every third would take at most 7 back."""
    model, images, goal, dense = wasteful()
    found = exchange(model, images, goal, dense, 0.2, "pixels", 12, seeded(6))
    assert goal.reached(model(found)).all()
    assert (l0_pixels(dense - images) == 42).all()
    assert (l0_pixels(found - images) <= 30).all()


@torch.no_grad()
def test_any_unit_goes_and_one_comes_by_the_square_of_its_promised_gain() -> None:
    """A failure with two units: one of them goes, as likely either, for one of the other four."""
    weight = torch.tensor([0.5, 1.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 1, 6)
    model, count = two_classes(weight, 100.0), 6000  # a goal out of reach
    shown: list[Tensor] = []
    model.register_forward_hook(lambda _, images, logits: shown.append(images[0]))
    images = torch.full((count, 1, 1, 6), 0.5, dtype=torch.float64)
    given = images.clone()
    given[..., :3] = 0
    goal = Goal(torch.zeros(count, dtype=torch.long))
    # a gradient, the first unit leaves as the one that counts least, and one exchange
    exchange(model, images, goal, given, 1.0, "pixels", 4, seeded(count))
    changed = (shown[-1] != 0.5).flatten(1)
    others = changed[:, [0, 3, 4, 5]]
    swapped = others.any(1)
    assert binomtest(int(swapped.sum()), count, 0.75).pvalue > 0.001  # else another value
    assert (changed.sum(1) == 2).all()
    came = others[swapped].sum(0)
    gains = torch.tensor([0.25, 4.0, 9.0, 16.0], dtype=torch.float64)
    assert chisquare(came, gains / gains.sum() * came.sum()).pvalue > 0.001
    went = int((~changed[swapped, 1]).sum())
    assert binomtest(went, int(swapped.sum())).pvalue > 0.001


@torch.no_grad()
def test_two_weak_units_end_as_one_strong_one() -> None:
    """Neither of the two suffices; the one that does was not among them."""
    weight = torch.zeros(1, 4, 4, dtype=torch.float64)
    weight[0, 0, :3] = torch.tensor([0.9, 0.9, 2.0])
    images = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    model, goal = two_classes(-weight, 1.5), Goal(torch.tensor([0]))
    given = images.clone()
    given[0, 0, 0, :2] = 1
    found = exchange(model, images, goal, given, 1.0, "pixels", 60, seeded(1))
    assert found.nonzero().tolist() == [[0, 0, 0, 2]]


@torch.no_grad()
def test_failures_come_back_and_no_image_feels_its_batch() -> None:
    model, images, goal, dense = wasteful()
    dense[2] = images[2]  # a failure
    whole = exchange(model, images, goal, dense, 0.2, "pixels", 100, seeded(6))
    assert torch.equal(whole[2], images[2])
    for row in (0, 5):
        one = torch.tensor([row])
        alone = exchange(
            model, images[one], goal[one], dense[one], 0.2, "pixels", 100, [seeded(6)[row]]
        )
        torch.testing.assert_close(alone, whole[one])


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_advmask_is_near_the_fewest_of_its_unit(eps: float, unit: Unit) -> None:
    model, images = plane(SIZE, 2), some_images(SIZE, 8, seed=5, spread=0.15)
    labels = model(images).argmax(1)
    attack = AdvMask(eps=eps, unit=unit)
    found = attack(model, images, labels)
    least = fewest(model, images, Goal(labels), eps, unit)
    changes = COUNT[unit](found - images)
    assert Goal(labels).reached(model(found)).all()
    assert (changes >= least).all()
    assert (changes <= 1.25 * least + 1).all(), (changes, least)


def test_the_local_search_is_for_elements_and_for_no_bound_by_default() -> None:
    usual = AdvMask().passes(SIZE)
    assert usual == 413
    assert AdvMask(eps=1.0).passes(SIZE) == AdvMask(unit="elements").passes(SIZE) == usual + 300
    assert AdvMask(eps=1.0, exchanges=0).passes(SIZE) == usual
    assert AdvMask(exchanges=50).passes(SIZE) == usual + 50


@pytest.mark.parametrize("budget", [16, 17, 60, 300, 1000])
def test_a_budget_is_used_up_and_not_exceeded(budget: int) -> None:
    for attack in (AdvMask(budget=budget), AdvMask(eps=1.0, unit="elements", budget=budget)):
        assert attack.passes(SIZE) == budget
    model, images, goal, _ = wasteful(1)
    counting = Counting(model)
    with torch.no_grad():
        found = AdvMask(budget=budget)(counting, images, goal.labels)
    assert counting.count <= budget
    assert bool(goal.reached(model(found)).all()) == (budget >= 60)
    if budget >= 60:  # without a success there is nothing that fewer changes could be asked of
        assert counting.count >= budget - 2
    assert AdvMask(budget=1000).passes(SIZE) == AdvMask(exchanges=587).passes(SIZE)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"budget": 15}, "budget is 15: give at least 16"),
        ({"budget": 300, "exchanges": 9}, "budget is 300 and exchanges 9: give one of them"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(options: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AdvMask(**options)  # type: ignore[arg-type]


def test_a_negative_number_of_exchanges_is_refused() -> None:
    with pytest.raises(ValueError, match="exchanges is -1: it must not be negative"):
        AdvMask(exchanges=-1)
