"""SAPF: its penalties, its constraint sets, its searches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planes import Plane, fewest, plane, some_images
from torch import Generator, Tensor, nn

from attacks import Goal
from attacks.lpbox import grid, penalties, select, shrink, sphere, superpixels
from attacks.norms import l0_elements, l0_pixels, l2, linf
from attacks.sapf import SAPF

pytestmark = pytest.mark.slow

SIZE = (3, 5, 4)


def predicted(model: nn.Module, images: Tensor) -> Goal:
    with torch.no_grad():
        return Goal(model(images).argmax(1))


@pytest.mark.parametrize("units", [60, 3 * 32 * 32, 3 * 299 * 299])
def test_no_step_on_the_penalties_overshoots(units: int) -> None:
    for rate in (0.1, 0.01, 1e-3):
        for progress in (0.0, 0.3, 0.6, 1.0):
            box, ball, groups, total = penalties(progress, rate, units)
            assert 0 < rate * (box + ball + groups + units * total) <= 1 + 1e-12


def test_the_penalties_are_the_published_ones_where_those_are_stable() -> None:
    start = penalties(0.0, 0.1, 3072)
    assert start == (5e-3, 5e-3, 5e-3, 1e-4)
    assert penalties(1.0, 1e-3, 3072) == (20.0, 20.0, 100.0, 0.01)


@pytest.mark.parametrize("size", [(3, 32, 32), (3, 64, 64)])
def test_the_selection_is_exact_and_right_where_the_costs_decide(
    size: tuple[int, int, int],
) -> None:
    costs = torch.rand(2, *size, generator=Generator().manual_seed(0), dtype=torch.double)
    count = torch.tensor([10, 500])
    cheapest = costs.flatten(1).argsort(1).argsort(1) < count[:, None]
    rates = [max(1e-3, 0.1 * 0.9 ** (40 * step // 200)) for step in range(200)]
    seen = []

    def slope(G: Tensor) -> Tensor:
        seen.append(float(G.abs().max()))
        return costs

    chosen = select(slope, torch.ones_like(costs), count, rates, None, 0.0).flatten(1)
    assert torch.equal(chosen.sum(1), count)
    assert ((chosen & cheapest).sum(1) >= 0.9 * count).all()
    assert max(seen) < 20


def test_the_sphere_passes_through_every_binary_selection() -> None:
    binary = torch.randint(2, (4, 3, 5, 4), generator=Generator().manual_seed(0)).double()
    torch.testing.assert_close(sphere(binary), binary)
    torch.testing.assert_close(sphere(0.5 + 3 * (binary - 0.5)), binary)
    assert sphere(torch.full((1, 1, 2, 2), 0.5)).isfinite().all()


def test_groups_shrink_by_the_threshold_and_empty_ones_stay_zero() -> None:
    point = torch.tensor([3.0, 4, 0.3, 0.4, 0, 0]).view(1, 1, 2, 3)
    labels = torch.tensor([0, 0, 1, 1, 2, 2]).view(1, 1, 2, 3)
    expected = torch.tensor([2.4, 3.2, 0, 0, 0, 0]).view(1, 1, 2, 3)
    torch.testing.assert_close(shrink(point, labels, 1.0), expected)


def test_superpixels_and_cells_cover_the_image_with_about_150_groups() -> None:
    ramp = torch.linspace(0, 1, 32, dtype=torch.double)
    images = torch.stack([ramp[:, None] * ramp, ramp[:, None] * ramp.flip(0)])
    images = images[:, None].expand(2, 3, 32, 32)
    for labels in (grid(images), superpixels(images)):
        assert labels.shape == (2, 32, 32)
        assert all(60 <= len(row.unique()) <= 250 for row in labels)


@pytest.mark.parametrize("groups", ["grid", "slic"])
@pytest.mark.parametrize("unit", ["pixels", "elements"])
def test_groups_keep_the_attack_working(unit: Any, groups: Any) -> None:
    model, images = plane((3, 12, 12), 3, seed=1), some_images((3, 12, 12), 3, seed=2)
    goal = predicted(model, images)
    method = SAPF(eps=0.2, unit=unit, groups=groups, steps=(20, 20, 20), searches=3)
    assert goal.reached(model(method(model, images, goal, Generator()))).all()


@pytest.mark.parametrize("unit", ["pixels", "elements"])
def test_it_comes_near_the_fewest_units_of_a_plane(unit: Any) -> None:
    model, images = plane(SIZE, 2, seed=1), some_images(SIZE, 6, seed=2)
    goal = predicted(model, images)
    adversarial = SAPF(eps=0.2, unit=unit)(model, images, goal, Generator())
    count = (l0_pixels if unit == "pixels" else l0_elements)(adversarial - images)
    least = fewest(model, images, goal, 0.2, unit)
    assert goal.reached(model(adversarial)).all()
    # a relaxed selection finds the best elements and, of pixels, whose channels disagree, good ones
    assert (count <= least + (1 if unit == "elements" else 2)).all()


@pytest.mark.parametrize("unit", ["pixels", "elements"])
def test_with_a_number_of_units_it_uses_no_more_and_looks_for_a_short_change(unit: Any) -> None:
    model, images = plane(SIZE, 3, seed=1), some_images(SIZE, 6, seed=2)
    goal = predicted(model, images)
    options: dict[str, Any] = {"mode": "free", "l0": 12, "unit": unit, "strength": 1e-3}
    first = SAPF(**options, searches=4)(model, images, goal, Generator())
    longer = SAPF(**options, searches=8)(model, images, goal, Generator())
    count = l0_pixels if unit == "pixels" else l0_elements
    for adversarial in (first, longer):
        assert goal.reached(model(adversarial)).all()
        assert (count(adversarial - images) <= 12).all()
    assert (l2(longer - images) <= l2(first - images)).all()
    assert l2(longer - images).sum() < l2(first - images).sum()


def test_it_selects_where_magnitude_and_gradient_agree_whatever_their_sign() -> None:
    size = (1, 10, 10)
    weight = torch.rand(size, generator=Generator().manual_seed(0), dtype=torch.double) ** 4
    model = Plane(torch.stack([weight, -weight]), torch.zeros(2).double())
    model.bias.data -= model(torch.full((1, *size), 0.5).double())[0]
    images = some_images(size, 8, seed=2)
    goal = predicted(model, images)
    assert len(goal.labels.unique()) == 2
    adversarial = SAPF(eps=0.2)(model, images, goal, Generator())
    assert goal.reached(model(adversarial)).all()
    least = fewest(model, images, goal, 0.2)
    assert (l0_elements(adversarial - images) <= least + 1).all()


def test_free_changes_ignore_eps_and_need_fewer_elements() -> None:
    model, images = plane(SIZE, 3, seed=4), some_images(SIZE, 6, seed=2)
    goal = predicted(model, images)
    free, near = SAPF(eps=0.1, mode="free"), SAPF(eps=0.1)
    assert near.bounded
    assert not free.bounded
    wide, narrow = (method(model, images, goal, Generator()) for method in (free, near))
    assert linf(wide - images).max() > 0.1
    assert linf(narrow - images).max() <= 0.1
    assert l0_elements(wide - images).sum() < l0_elements(narrow - images).sum()


def test_large_images_give_numbers() -> None:
    model, images = plane((3, 64, 64), 3, seed=1).float(), some_images((3, 64, 64), 2, seed=2)
    images = images.float()
    goal = predicted(model, images)
    method = SAPF(mode="free", l0=400, searches=2, steps=(20, 200, 20))
    adversarial = method(model, images, goal, Generator())
    assert goal.reached(model(adversarial)).all()
    assert (l0_elements(adversarial - images) <= 400).all()


def test_the_official_numbers_are_those_of_the_released_code() -> None:
    official = SAPF.official()
    assert official.searches * sum(official.steps) == 30_000
    assert (official.l0, official.strength, official.group_weight) == (200, 1e-3, 1e-3)
    assert (official.lr, official.lr_floor, official.groups) == (0.1, 1e-3, "slic")
    assert not official.bounded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l0": 0}, "l0 is 0: give at least 1"),
        ({"searches": 0}, "searches is 0 and steps are"),
        ({"steps": (1, 0, 1)}, r"steps are \(1, 0, 1\): give at least 1 each"),
        ({"strength": 0.0}, r"strength is 0\.0: it must be positive"),
        ({"group_weight": -1.0}, r"group_weight is -1\.0: it must be at least 0"),
    ],
)
def test_a_wrong_setting_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAPF(**options)
