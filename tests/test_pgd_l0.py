"""What only PGD-l0 promises, and the search for the fewest changes."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import pytest
import torch
from planes import fewest, plane, some_images
from torch import Generator, Tensor

from attacks import Goal
from attacks.fewest import fewest_changes
from attacks.norms import l0_elements, l0_pixels
from attacks.pgd_l0 import PGDL0, project

SIZE = (3, 5, 4)
EPS = 0.1
Unit = Literal["pixels", "elements"]


@pytest.mark.parametrize("unit", ["pixels", "elements"])
def test_the_projection_is_the_nearest_point_of_an_exhaustive_search(unit: Unit) -> None:
    shape = (2, 1, 7) if unit == "pixels" else (1, 1, 7)
    generator = Generator().manual_seed(0)
    delta = torch.randn(40, *shape, generator=generator, dtype=torch.float64)
    lower = -torch.rand(40, *shape, generator=generator, dtype=torch.float64)
    upper = torch.rand(40, *shape, generator=generator, dtype=torch.float64)
    counts = torch.arange(40) % 8
    projected = project(delta, lower, upper, counts, unit)
    for row in range(40):
        clipped = delta[row].clamp(lower[row], upper[row])
        distances = []
        for places in combinations(range(7), int(counts[row])):
            keep = torch.zeros(7, dtype=torch.float64)
            keep[list(places)] = 1
            distances.append((clipped * keep - delta[row]).square().sum())
        nearest = torch.stack(distances).min()
        torch.testing.assert_close((projected[row] - delta[row]).square().sum(), nearest)
        assert (projected[row] != 0).any(0).sum() <= counts[row]
    assert (projected >= lower).all()
    assert (projected <= upper).all()


@pytest.mark.parametrize("unit", ["pixels", "elements"])
@pytest.mark.parametrize("targeted", [False, True])
def test_on_two_classes_the_optimum_is_enough_and_less_is_not(unit: Unit, targeted: bool) -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 20, seed=1, spread=0.2)
    labels = victim(images).argmax(1)
    goal = Goal(1 - labels if targeted else labels, targeted)
    least = fewest(victim, images, goal, EPS, unit)
    for count in least.unique().tolist():
        rows = (least == count).nonzero()[:, 0]
        # a long step looks at the gradient alone, which on a plane is all there is to know
        attack = PGDL0(EPS, k=count, unit=unit, steps=5, step=100.0)
        adversarial = attack(victim, images[rows], goal[rows], Generator().manual_seed(0))
        assert goal[rows].reached(victim(adversarial)).all()
        if count > 1:
            less = PGDL0(EPS, k=count - 1, unit=unit, steps=5, restarts=3, step=100.0)
            same = less(victim, images[rows], goal[rows], Generator().manual_seed(0))
            assert torch.equal(same, images[rows])


@pytest.mark.parametrize("unit", ["pixels", "elements"])
def test_without_k_it_finds_the_optimum_of_each_image(unit: Unit) -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 20, seed=2, spread=0.2)
    goal = Goal(victim(images).argmax(1).detach())
    attack = PGDL0(EPS, unit=unit, steps=5, step=100.0)
    adversarial = attack(victim, images, goal, Generator().manual_seed(0))
    size = l0_pixels if unit == "pixels" else l0_elements
    assert torch.equal(size(adversarial - images), fewest(victim, images, goal, EPS, unit))


def test_never_more_than_k_pixels_change() -> None:
    victim, images = plane(SIZE, 3), some_images(SIZE, 20, seed=3)
    goal = Goal(victim(images).argmax(1).detach())
    adversarial = PGDL0(EPS, k=4)(victim, images, goal, Generator().manual_seed(0))
    assert goal.reached(victim(adversarial)).any()
    assert l0_pixels(adversarial - images).max() <= 4


def test_a_start_costs_one_forward_more_than_its_steps_and_ends_at_the_first_success() -> None:
    victim, images = plane(SIZE, 2), some_images(SIZE, 6, seed=4)
    goal = Goal(victim(images).argmax(1).detach())
    least = fewest(victim, images, goal, EPS, "pixels")
    asked: list[int] = []
    victim.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    hard = least > 1
    PGDL0(EPS, k=1, steps=7, restarts=2)(victim, images, goal, Generator().manual_seed(0))
    assert asked[0] == 6
    assert asked[-1] == int(hard.sum())
    assert len(asked) == 1 + 2 * 8
    asked.clear()
    PGDL0(EPS, k=20, steps=7, step=9.0)(victim, images, goal, Generator().manual_seed(0))
    assert len(asked) <= 4


@pytest.mark.parametrize("most", [1, 7, 64, 100])
def test_the_search_finds_every_threshold(most: int) -> None:
    needed = torch.arange(1, most + 2)  # the last is out of reach
    images = torch.zeros(len(needed), 1, 1, 1)
    calls: list[Tensor] = []

    def attempt(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(counts)
        success = counts >= needed[rows]
        return counts[:, None, None, None].float(), counts * success

    best = fewest_changes(attempt, images, needed > 0, most)
    assert torch.equal(best.flatten()[:-1].long(), needed[:-1])
    assert best.flatten()[-1] == 0
    assert len(calls) <= 2 * most.bit_length() + 1


def test_the_search_uses_what_a_success_needed_and_leaves_out_the_other_rows() -> None:
    images = torch.zeros(2, 1, 1, 1)
    calls: list[list[int]] = []

    def attempt(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(rows.tolist())
        changes = torch.where(counts >= 8, 5, 0)
        return torch.full((len(rows), 1, 1, 1), 0.5), changes

    best = fewest_changes(attempt, images, torch.tensor([False, True]), 100)
    assert best.flatten().tolist() == [0.0, 0.5]
    assert calls == [[1]] * 4  # 1, 2, 4, 8; at 8 only 5 were needed, and 4 is known to fail


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"k": 0}, "k is 0"),
        ({"unit": "channels"}, "unit is 'channels'"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"step": 0.0}, "step is 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], text: str) -> None:
    method = PGDL0()
    for name, value in options.items():
        object.__setattr__(method, name, value)  # past the type checks of the tests
    with pytest.raises(ValueError, match=text):
        method.__post_init__()
