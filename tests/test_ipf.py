"""Selective cut and selective paste, against brute force over all squares."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Generator, Tensor

from augmentations import (
    BUILTIN,
    GridMask,
    HideAndSeek,
    IPFCutout,
    IPFGridMask,
    IPFHideAndSeek,
    IPFRandomErasing,
)
from augmentations.ipf import cut_square, paste_square
from augmentations.squares import square_sums, threshold


def stream(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def squares(h: int, w: int, length: int) -> Iterator[Tensor]:
    """Every square of an image, clipped at the border, in reading order of the centres."""
    half = length // 2
    for row in range(h):
        for column in range(w):
            mask = torch.zeros(h, w, dtype=torch.bool)
            mask[max(0, row - half) : row + half, max(0, column - half) : column + half] = True
            yield mask


def points(h: int, w: int, density: float = 0.3, seed: int = 1) -> Tensor:
    return (torch.rand(1, 1, h, w, generator=stream(seed)) < density).float()


def law(mask: Tensor) -> dict[tuple[bool, ...], int]:
    """How often each mask was drawn."""
    kinds, counts = mask.flatten(1).unique(dim=0, return_counts=True)
    return {tuple(kind.tolist()): int(count) for kind, count in zip(kinds, counts, strict=True)}


@pytest.mark.parametrize("length", [2, 5, 8, 30])
@pytest.mark.parametrize("quantile", [0.0, 0.37, 0.6, 1.0])
def test_thresholds_are_those_of_brute_force_over_all_squares(length: int, quantile: float) -> None:
    h, w = 9, 12
    guide = torch.cat([points(h, w, density, seed=4) for density in (0.0, 0.1, 0.5, 1.0)])
    sums = torch.stack([(guide[:, 0] * one).sum((1, 2)) for one in squares(h, w, length)], 1)
    assert torch.equal(square_sums(guide, length), sums.double())
    wanted = sums.sort(1).values[:, int(quantile * (h * w - 1))]
    assert torch.equal(threshold(sums.double(), quantile)[:, 0], wanted.double())


@pytest.mark.parametrize("kind", ["cut", "paste"])
def test_a_square_is_drawn_evenly_among_exactly_the_admissible_ones(kind: str) -> None:
    h, w, length, n = 5, 6, 3, 30_000
    guide = points(h, w)
    every = list(squares(h, w, length))
    sums = torch.stack([(guide[0, 0] * one).sum() for one in every])
    limit = sums.sort().values[int(0.6 * (h * w - 1))]
    assert limit > 0
    admissible = sums <= limit if kind == "cut" else sums >= limit
    weights: dict[tuple[bool, ...], int] = {}
    for one in (one for one, good in zip(every, admissible, strict=True) if good):
        key = tuple(one.flatten().tolist())
        weights[key] = weights.get(key, 0) + 1
    draw = cut_square if kind == "cut" else paste_square
    found = law(draw(torch.zeros(n, 1, h, w), guide.expand(n, 1, h, w), stream(), length))
    assert found.keys() == weights.keys()
    assert 3 < len(weights) < h * w
    for key, count in found.items():
        expected = n * weights[key] / int(admissible.sum())
        assert abs(count - expected) < 5 * expected**0.5


def test_four_pixels_in_closed_form() -> None:
    # 1 x 4, squares of 2: centres 0..3 cover {0}, {0, 1}, {1, 2}, {2, 3}; one point at 3
    guide = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(1, 1, 1, 4).expand(12_000, 1, 1, 4)
    blank = torch.zeros(12_000, 1, 1, 4)
    kept = law(paste_square(blank, guide, stream(), length=2, quantile=1.0))
    assert list(kept) == [(False, False, True, True)]
    # sums 0, 0, 0, 1: the quantile 0.6 is 0, where the released code takes any square
    anywhere = law(cut_square(blank, guide, stream(), length=2))
    assert len(anywhere) == 4
    assert all(abs(count - 3000) < 250 for count in anywhere.values())
    # points at 1, 2 and 3: sums 0, 1, 2, 2, of which the quantile 0.6 is 1
    three = torch.tensor([0.0, 1.0, 1.0, 1.0]).view(1, 1, 1, 4).expand(12_000, 1, 1, 4)
    few = law(cut_square(blank, three, stream(), length=2))
    assert few.keys() == {(True, False, False, False), (True, True, False, False)}
    assert all(abs(count - 6000) < 300 for count in few.values())


@pytest.mark.parametrize("name", ["ipf-has", "ipf-gridmask"])
def test_the_pasted_square_is_kept_and_nothing_else(name: str) -> None:
    n = 300
    guide = points(32, 32, 0.1).expand(n, 1, 32, 32).contiguous()
    method = BUILTIN[name]()
    generator, blank = stream(), torch.zeros(n, 3, 32, 32)
    mask = method.mask(blank, generator, guide)
    same = stream()
    plain = (HideAndSeek() if name == "ipf-has" else GridMask()).mask(blank, same)
    kept = paste_square(blank, guide, same)
    assert torch.equal(mask, plain & ~kept)
    assert not (mask & kept).any()
    assert (plain & kept).any()
    inside = (kept * guide).sum((1, 2, 3))
    limit = threshold(square_sums(guide[:1], 16), 0.6)
    assert (inside >= limit).all()


def test_points_are_spared_more_than_by_chance() -> None:
    n = 2000
    places = torch.rand(n, 2, 1, 1, generator=stream(8)) * 20 + 6
    y, x = torch.arange(32)[:, None], torch.arange(32)
    guide = (((y - places[:, 0]) ** 2 + (x - places[:, 1]) ** 2) < 40).float()[:, None]
    blank = torch.zeros(n, 3, 32, 32)
    for name, plain in (("cutout", "cutout"), ("has", "has"), ("gridmask", "gridmask")):
        spared = BUILTIN[f"ipf-{name}"]().mask(blank, stream(), guide)
        usual = BUILTIN[plain]().mask(blank, stream())
        lost = [(mask * guide).sum() / guide.sum() for mask in (spared, usual)]
        assert lost[0] < 0.7 * lost[1]


@pytest.mark.parametrize("cls", [IPFCutout, IPFRandomErasing, IPFHideAndSeek, IPFGridMask])
def test_presets_are_16_for_cifar10_and_8_for_cifar100_in_proportion(cls: type) -> None:
    lengths = {
        (data, side): cls.preset(data, side).length  # type: ignore[attr-defined]
        for data, side in (("cifar10", 32), ("cifar100", 32), ("cifar10", 64), ("cifar100", 8))
    }
    assert list(lengths.values()) == [16, 8, 32, 2]
    assert cls.preset("digits", 8).length == 4  # type: ignore[attr-defined]
    assert cls().length == 16
    assert cls().quantile == 0.6


def test_the_lattice_and_the_patches_are_those_of_their_methods() -> None:
    for data, side in (("imagenet", 224), ("cifar10", 32), ("digits", 8)):
        ours, theirs = IPFGridMask.preset(data, side), GridMask.preset(data, side)
        for field in ("period", "ratio", "rotation", "mode", "share", "fill"):
            assert getattr(ours, field) == getattr(theirs, field)
        assert IPFHideAndSeek.preset(data, side).sizes == HideAndSeek.preset(data, side).sizes
    assert IPFRandomErasing().share.at(1.0) == 0.5
    assert dataclasses.replace(IPFCutout(), share=IPFRandomErasing().share) != IPFRandomErasing()


def test_a_square_far_larger_than_the_image_takes_no_more_memory_than_one_that_covers_it() -> None:
    guide = torch.rand(2, 1, 6, 9, generator=Generator().manual_seed(0))
    assert torch.equal(square_sums(guide, 10**6), square_sums(guide, 18))
    torch.testing.assert_close(
        square_sums(guide, 10**6)[:, 0], guide.double().sum((1, 2, 3)), rtol=1e-12, atol=0
    )
