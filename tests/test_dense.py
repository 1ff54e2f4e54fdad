"""What only the dense attacks and the noise promise."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from planes import Plane, plane, some_images
from torch import Generator, Tensor

from attacks import Goal
from attacks.dense import MIFGSM, PGD
from attacks.noise import RandomSigns
from attacks.norms import l0_elements, l0_pixels

SIZE = (3, 5, 4)
EPS = 0.1


def some(count: int = 20, spread: float = 0.1) -> tuple[Plane, Tensor, Goal]:
    victim, images = plane(SIZE, 2), some_images(SIZE, count, seed=1, spread=spread)
    return victim, images, Goal(victim(images).argmax(1).detach())


def corner(victim: Plane, images: Tensor, goal: Goal, eps: float) -> Tensor:
    """The strongest dense change of two classes: every element to its bound."""
    pull = torch.sign(victim.weight[1 - goal.labels] - victim.weight[goal.labels]).detach()
    return (images + eps * pull).clamp(0, 1)


@pytest.mark.parametrize("attack", [PGD(EPS, early_stop=False), MIFGSM(EPS, early_stop=False)])
def test_without_an_early_stop_a_plane_ends_in_the_corner(attack: PGD | MIFGSM) -> None:
    victim, images, goal = some()
    adversarial = attack(victim, images, goal, Generator().manual_seed(0))
    assert goal.reached(victim(adversarial)).all()
    torch.testing.assert_close(adversarial, corner(victim, images, goal, EPS))


@pytest.mark.parametrize("attack", [PGD, MIFGSM])
def test_it_succeeds_exactly_where_the_corner_does(attack: type[PGD] | type[MIFGSM]) -> None:
    victim, images, goal = some(60, spread=0.15)
    eps = 0.03
    possible = goal.reached(victim(corner(victim, images, goal, eps)))
    adversarial = attack(eps=eps)(victim, images, goal, Generator().manual_seed(0))
    assert torch.equal(goal.reached(victim(adversarial)), possible)
    assert possible.any()
    assert not possible.all()


def test_one_step_of_mi_fgsm_is_the_fast_gradient_sign_method() -> None:
    victim, images, goal = some()
    adversarial = MIFGSM(EPS, steps=1)(victim, images, goal, Generator())
    reached = goal.reached(victim(corner(victim, images, goal, EPS)))
    torch.testing.assert_close(
        adversarial[reached], corner(victim, images, goal, EPS)[reached], rtol=0, atol=1e-12
    )


def test_momentum_outweighs_a_gradient_that_turns() -> None:
    asked: list[Tensor] = []

    class Turning(torch.nn.Module):
        """Its gradient has one sign at first and the other, smaller after division, later."""

        def forward(self, images: Tensor) -> Tensor:
            asked.append(images.detach().clone())
            sign = 1.0 if len(asked) <= 3 else -1.0
            score = 100 + sign * images.flatten(1).sum(1)
            return torch.stack([score, torch.zeros_like(score)], 1)

    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    goal = Goal(torch.tensor([0]))
    MIFGSM(EPS, steps=8, decay=1.0)(Turning(), images, goal, Generator())
    # clean check, image, two steps down with momentum 1 and 2, then 1, 0 (no move), then up
    path = [round((seen[0, 0, 0, 0].item() - 0.5) / (EPS / 8)) for seen in asked]
    assert path == [0, 0, -1, -2, -3, -3, -2, -1, 0, 1]


def test_the_early_stop_saves_passes_and_every_iterate_is_judged() -> None:
    victim, images, goal = some()
    asked: list[int] = []
    victim.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    PGD(EPS, steps=5, early_stop=False)(victim, images, goal, Generator().manual_seed(0))
    assert asked == [20] * 7
    asked.clear()
    PGD(EPS, steps=5)(victim, images, goal, Generator().manual_seed(0))
    assert sum(asked) < 20 * 6
    assert asked == sorted(asked, reverse=True)


def test_noise_changes_exactly_the_given_number_by_eps() -> None:
    victim, images, goal = some(300, spread=0.02)
    units: tuple[Literal["pixels", "elements"], ...] = ("pixels", "elements")
    for unit, size in zip(units, (l0_pixels, l0_elements), strict=True):
        attack = RandomSigns(EPS, count=7, unit=unit)
        delta = attack(victim, images, goal, Generator().manual_seed(0)) - images
        changed = delta.flatten(1).any(1)
        assert 5 < changed.sum() < 300
        assert (size(delta)[changed] == 7).all()
        torch.testing.assert_close(delta[delta != 0].abs(), torch.full_like(delta[delta != 0], EPS))
        signs = (delta[delta != 0] > 0).double()
        assert 0.4 < signs.mean() < 0.6


def test_noise_turns_round_where_the_box_leaves_no_room() -> None:
    victim = plane((1, 8, 8), 2)
    images = torch.zeros(200, 1, 8, 8, dtype=torch.float64)
    images[..., 4:] = 1
    goal = Goal(victim(images).argmax(1).detach())
    adversarial = RandomSigns(None, count=64)(victim, images, goal, Generator().manual_seed(0))
    changed = goal.reached(victim(adversarial))
    assert torch.equal(adversarial[changed], 1 - images[changed])


def test_noise_without_a_count_needs_fewer_than_a_large_one_and_often_fails() -> None:
    victim, images, goal = some(100, spread=0.1)
    few = RandomSigns(EPS)(victim, images, goal, Generator().manual_seed(0))
    many = RandomSigns(EPS, count=20)(victim, images, goal, Generator().manual_seed(0))
    found, fixed = goal.reached(victim(few)), goal.reached(victim(many))
    assert fixed.any()
    assert (found | ~fixed).all()  # all 20 pixels are among what the search tries
    assert (l0_pixels(few - images)[found] <= 20).all()
    assert not found.all()


@pytest.mark.parametrize(
    ("attack", "options", "text"),
    [
        (PGD, {"steps": 0}, "steps is 0"),
        (PGD, {"step": 0.0}, "step is 0.0"),
        (MIFGSM, {"steps": 0}, "steps is 0"),
        (MIFGSM, {"decay": -1.0}, "decay is -1.0"),
        (RandomSigns, {"count": 0}, "count is 0"),
        (RandomSigns, {"unit": "channels"}, "unit is 'channels'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    attack: type[PGD] | type[MIFGSM] | type[RandomSigns], options: dict[str, object], text: str
) -> None:
    method = attack()
    for name, value in options.items():
        object.__setattr__(method, name, value)  # past the type checks of the tests
    with pytest.raises(ValueError, match=text):
        method.__post_init__()
