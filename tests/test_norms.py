"""The largest scores of a row, marked without sorting it."""

from __future__ import annotations

import pytest
import torch

from attacks.norms import largest


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
