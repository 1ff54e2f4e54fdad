"""KeepAugment's choice, against brute force over all centres."""

import pytest
import torch

from augmentations import Cutout, KeepAugment


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(row: int, column: int, h: int, w: int, half: int) -> torch.Tensor:
    mask = torch.zeros(h, w, dtype=torch.bool)
    mask[max(0, row - half) : row + half, max(0, column - half) : column + half] = True
    return mask


def test_exactly_the_admissible_centres_are_drawn_and_evenly() -> None:
    h, w, half = 9, 12, 2
    guide = torch.rand(1, 1, h, w, generator=stream(1))
    regions = torch.stack([square(r, c, h, w, half) for r in range(h) for c in range(w)])
    importance = (regions * guide[0, 0].double()).sum((1, 2))
    threshold = importance.sort().values[int(0.6 * (h * w - 1))]
    admissible = regions[importance < threshold]
    n = 20_000
    mask = KeepAugment(length=4).mask(
        torch.zeros(n, 3, h, w), stream(), guide.expand(n, 1, h, w).contiguous()
    )
    drawn, counts = mask[:, 0].flatten(1).unique(dim=0, return_counts=True)
    expected = admissible.flatten(1).unique(dim=0)
    assert torch.equal(drawn, expected)
    assert len(expected) == len(admissible)
    assert (counts / n * len(expected) - 1).abs().max() < 0.3


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_guide_still_gives_squares(value: float) -> None:
    images = torch.zeros(4000, 1, 32, 32)
    guide = torch.full_like(images, value)
    ratio = KeepAugment().mask(images, stream(), guide).float().mean((1, 2, 3))
    assert ratio.min() > 0
    if value == 0:  # every centre counts: Cutout's law
        cutout = Cutout().mask(images, stream(1)).float().mean()
        assert ratio.mean().item() == pytest.approx(cutout.item(), rel=0.05)


def test_what_matters_most_is_spared() -> None:
    guide = torch.zeros(500, 1, 32, 32)
    guide[:, :, 10:20, 10:20] = 1.0
    mask = KeepAugment(length=8, quantile=0.3).mask(torch.zeros(500, 3, 32, 32), stream(), guide)
    assert not (mask & (guide > 0)).any()


def test_squares_may_be_larger_than_the_image() -> None:
    mask = KeepAugment(length=40).mask(torch.zeros(5, 1, 8, 8), stream(), torch.rand(5, 1, 8, 8))
    assert mask.all()
