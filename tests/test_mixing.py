"""Mixup and CutMix against the laws of their papers."""

import pytest
import torch
from torch import Tensor

from augmentations.squares import square_sums, threshold
from bench.data import mixing, seeds

CLASSES = 16


def batch(n: int = 16, side: int = 12) -> tuple[Tensor, Tensor]:
    """Picture i is constant i + 1 and has the label i."""
    values = torch.arange(1.0, n + 1)
    return values[:, None, None, None].expand(n, 1, side, side).contiguous(), torch.arange(n)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_label_weights_sum_to_one_and_follow_the_pixels(name: str) -> None:
    images, labels = batch()
    mix = mixing.Mix(mixing.build(name).kind)
    for seed in range(20):
        mixed, weights = mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"))
        torch.testing.assert_close(weights.sum(1), torch.ones(16))
        wanted = weights @ torch.arange(1.0, 17)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), wanted)
        assert ((weights > 0).sum(1) <= 2).all()


def test_mixup_has_one_uniform_lambda_a_batch_and_partners_of_any_place() -> None:
    images, labels = batch()
    lambdas, partners = [], []
    for seed in range(300):
        _, weights = mixing.build("mixup").apply(images, labels, 16, seeds.generator(seed, "mix"))
        own = weights.diagonal()
        torch.testing.assert_close(own, own[:1].expand(16))
        lambdas.append(float(own[0]))
        partners.append(int((weights[0] - torch.eye(16)[0] * own[0]).argmax()))
    quartiles = torch.tensor(lambdas).quantile(torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([0.25, 0.5, 0.75]), atol=0.09, rtol=0)
    assert set(partners) == set(range(1, 16))


def test_cutmix_pastes_one_box_whose_clipped_area_is_the_labels() -> None:
    images, labels = batch(side=32)
    sizes = []
    for seed in range(300):
        mixed, weights = mixing.Mix("cutmix").apply(
            images, labels, 16, seeds.generator(seed, "mix")
        )
        foreign = mixed != images
        assert torch.equal(foreign, foreign[:1].expand_as(foreign))
        box = foreign[0, 0]
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns)
        torch.testing.assert_close(weights.diagonal(), (1 - box.float().mean()).expand(16))
        inside = not (rows[0] or rows[-1] or columns[0] or columns[-1])
        if inside and box.any():
            assert int(rows.sum()) % 2 == 0
            assert rows.sum() == columns.sum()
        sizes.append(float(box.float().mean()))
    # side 32 sqrt(1 - lambda), lambda uniform, centre uniform, clipped: by quadrature
    assert abs(sum(sizes) / 300 - expected_box(32)) < 0.05


def expected_box(side: int) -> float:
    total, grid = 0.0, 200
    for step in range(grid):
        half = int(0.5 * ((step + 0.5) / grid) ** 0.5 * side)
        edges = [min(side, c + half) - max(0, c - half) for c in range(side)]
        total += (sum(edges) / side**2) ** 2
    return total / grid


def test_cutmix_leaves_half_of_the_batches_alone() -> None:
    images, labels = batch()
    mix = mixing.build("cutmix")
    untouched = 0
    for seed in range(400):
        mixed, weights = mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"))
        if torch.equal(mixed, images):
            untouched += 1
            assert (weights.diagonal() == 1).all()
    # boxes narrower than two pixels are empty: lambda above 1 - (2 / 12)^2
    assert abs(untouched / 400 - (0.5 + 0.5 / 36)) < 0.08


@pytest.mark.parametrize("name", list(mixing.NAMES))
def test_a_mix_repeats_with_its_generator_and_leaves_everything_else_alone(name: str) -> None:
    images, labels = batch()
    before, state = images.clone(), torch.get_rng_state()
    first = mixing.build(name).apply(images, labels, CLASSES, seeds.generator(3, "mix"), images)
    again = mixing.build(name).apply(images, labels, CLASSES, seeds.generator(3, "mix"), images)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_ipf_cutmix_weighs_labels_by_the_points_kept_and_brought_in() -> None:
    images, labels = batch(side=12)
    guide = (torch.rand(16, 1, 12, 12, generator=seeds.generator(0, "points")) < 0.3).float()
    guide[3] = guide[5] = 0  # images without points
    mix = mixing.IPFCutMix(length=6, probability=1.0)
    boxes = set()
    for seed in range(30):
        mixed, weights = mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"), guide)
        torch.testing.assert_close(weights.sum(1), torch.ones(16))
        partners = set()
        for i in range(16):
            box = mixed[i] != images[i]
            other = int(mixed[i][box].unique()) - 1  # constant i + 1: one partner
            partners.add(other)
            assert other != i
            boxes.add(tuple(box.flatten().tolist()))
            kept, brought = float(guide[i][~box].sum()), float(guide[other][box].sum())
            area = float(box.float().mean())
            own = kept / (kept + brought) if kept + brought else 1 - area
            wanted = torch.zeros(CLASSES)
            wanted[i], wanted[other] = own, 1 - own
            torch.testing.assert_close(weights[i], wanted)
            # the box is a square of 6 pixels, clipped, with at most the threshold's points
            rows, columns = box[0].any(1), box[0].any(0)
            assert torch.equal(box[0], rows[:, None] & columns)
            assert 3 <= rows.sum() <= 6
            limit = threshold(square_sums(guide[i : i + 1], 6), 0.6)
            assert guide[i][box].sum() <= limit or limit == 0
        assert len(partners) == 16
    assert len(boxes) > 100


def test_ipf_cutmix_leaves_half_of_the_batches_alone_and_has_presets() -> None:
    images, labels = batch()
    mix = mixing.build("ipf-cutmix")
    mixed = [
        mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"), images)[0]
        for seed in range(300)
    ]
    untouched = sum(torch.equal(one, images) for one in mixed) / 300
    assert abs(untouched - 0.5) < 0.1
    assert mix == mixing.IPFCutMix(length=16)
    assert mixing.build("ipf-cutmix", data="cifar100(train=9)") == mixing.IPFCutMix(length=8)
    assert mixing.build("ipf-cutmix", data="digits", side=8) == mixing.IPFCutMix(length=4)
    assert mix.points
    assert not mixing.build("cutmix").points
    with pytest.raises(ValueError, match="ipf-cutmix needs a guide: positive where a point is"):
        mix.apply(images, labels, CLASSES, seeds.generator(0, "mix"))


def test_wrong_mixes_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no mix 'mixpu': did you mean 'mixup'"):
        mixing.build("mixpu")
    with pytest.raises(ValueError, match=r"alpha is 0\.0: it must be above 0"):
        mixing.Mix("mixup", alpha=0.0)
    with pytest.raises(ValueError, match=r"probability is 2\.0: it must be in"):
        mixing.Mix("cutmix", probability=2.0)
