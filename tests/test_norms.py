"""Sizes and boxes of changes, draws per image, and the largest scores of a row."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from planes import some_images

from attacks.draws import draw
from attacks.norms import box, counter, l0_elements, l0_pixels, largest


@pytest.mark.parametrize("most", [0, 1, 5, 40, 64, 80])
@pytest.mark.parametrize("values", [3, 20, 1000])
def test_the_largest_are_the_first_of_a_stable_sort(most: int, values: int) -> None:
    draws = torch.Generator().manual_seed(most)
    scores = torch.randint(values, (200, 64), generator=draws).float()
    scores[scores == 0] = -torch.inf
    scores[scores == 1] = torch.inf
    count = torch.randint(most + 1, (200,), generator=draws)
    count[0] = most
    order = scores.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(64) < count[:, None]
    assert torch.equal(largest(scores, count), first.scatter(1, order, first))


def test_nothing_is_marked_in_an_empty_batch() -> None:
    assert largest(torch.empty(0, 5), torch.empty(0, dtype=torch.long)).shape == (0, 5)


def test_a_score_that_is_not_a_number_stays_in_its_row() -> None:
    scores = torch.tensor([[torch.nan, 2.0, 1.0], [3.0, 2.0, 1.0]])
    marked = largest(scores, torch.tensor([1, 2]))
    assert marked[1].tolist() == [True, True, False]
    assert marked[0].sum() <= 1


@pytest.mark.parametrize(("unit", "changes"), [("pixels", 1), ("elements", 2)])
def test_a_unit_is_counted_by_its_name(unit: Literal["pixels", "elements"], changes: int) -> None:
    delta = torch.zeros(1, 3, 2, 2)
    delta[0, 1:, 0, 1] = 0.5
    assert counter(unit)(delta).tolist() == [changes]
    assert counter(unit) is {"pixels": l0_pixels, "elements": l0_elements}[unit]


def test_without_eps_the_box_is_all_of_the_range() -> None:
    images = some_images((3, 4, 5), 2, seed=1, spread=0.3)
    region = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    region[:, :, 1:] = True
    for inside in (None, region):
        for free, widest in zip(box(images, None, inside), box(images, 1.0, inside), strict=True):
            assert torch.equal(free, widest)
    low, high = box(images, None)
    assert torch.equal(low, -images)
    assert torch.equal(high, 1 - images)


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("law", [torch.rand, torch.randn])
def test_an_image_gets_what_its_generator_draws_alone(law: Any, dtype: torch.dtype | None) -> None:
    def streams() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 1, 2)]

    generators, own = streams(), streams()
    for shape in ((2, 3), (5,)):
        drawn = draw(law, generators, shape, torch.device("cpu"), dtype)
        alone = [law(shape, generator=generator, dtype=dtype) for generator in own]
        assert torch.equal(drawn, torch.stack(alone))
        assert drawn.dtype == (dtype or torch.get_default_dtype())
