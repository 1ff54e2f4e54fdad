"""Hide-and-Seek's law, against patches read back from its masks."""

import pytest
import torch

from augmentations import HideAndSeek


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_deleted_fraction_is_probability_times_hiding() -> None:
    mask = HideAndSeek().mask(torch.zeros(10_000, 1, 32, 32), stream())
    assert mask.float().mean().item() == pytest.approx(0.4, abs=0.005)
    mask = HideAndSeek(sizes=(4,), probability=0.2).mask(torch.zeros(5000, 1, 32, 32), stream())
    assert mask.float().mean().item() == pytest.approx(0.2, abs=0.005)
    untouched = HideAndSeek().mask(torch.zeros(10_000, 1, 32, 32), stream()).flatten(1).sum(1) == 0
    assert untouched.float().mean().item() == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("size", [1, 3, 8, 50])
def test_patches_tile_from_the_top_left_and_are_hidden_whole(size: int) -> None:
    mask = HideAndSeek(sizes=(size,)).mask(torch.zeros(300, 3, 20, 31), stream())[:, 0]
    cells = mask[:, ::size, ::size]
    whole = cells.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :20, :31]
    assert torch.equal(mask, whole)
    # every cell by a coin of its own
    assert (cells.float().mean(0) - 0.5).abs().max() < 0.15
    assert len(cells.flatten(1).unique(dim=0)) >= min(2 ** cells[0].numel(), 200)


def test_sizes_are_drawn_per_image() -> None:
    sizes = (0, 4, 16)
    mask = HideAndSeek(sizes=sizes, probability=1.0).mask(torch.zeros(3000, 1, 32, 32), stream())
    hidden = mask.flatten(1).all(1)
    assert torch.equal(hidden, mask.flatten(1).any(1))
    assert hidden.float().mean().item() == pytest.approx(2 / 3, abs=0.03)


def test_imagenet_has_the_published_sizes() -> None:
    assert HideAndSeek.preset("imagenet", 224).sizes == (0, 16, 32, 44, 56)
    assert HideAndSeek.preset("digits", 8).sizes == (0, 1, 1, 2, 2)
