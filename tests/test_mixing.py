"""Mixup and CutMix against the laws of their papers."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from augmentations.squares import square_sums, threshold
from bench.data import mixing, seeds
from bench.data.manifold_mixup import ManifoldMixup
from bench.data.saliency_mix import SaliencyMix, fine_grained

CLASSES = 16


def batch(n: int = 16, side: int = 12) -> tuple[Tensor, Tensor]:
    """Image i is constant i + 1 and has the label i."""
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


def test_saliencymix_pastes_the_most_salient_part_of_each_partner_at_its_place() -> None:
    n, side = 12, 24
    images = torch.full((n, 3, side, side), 0.5)
    places = torch.randint(side, (n, 2), generator=seeds.generator(0, "places"))
    for i, (row, column) in enumerate(places.tolist()):  # one pixel that differs, and a colour
        images[i] += 0.01 * i
        images[i, :, row, column] = 1.0
    labels = torch.arange(n)
    mix = SaliencyMix(probability=1.0)
    shares, boxes = [], set()
    for seed in range(60):
        mixed, weights = mix.apply(images, labels, n, seeds.generator(seed, "mix"))
        torch.testing.assert_close(weights.sum(1), torch.ones(n))
        own_share = float(torch.rand(2, generator=seeds.generator(seed, "mix"))[1])
        half = int(side * (1 - own_share) ** 0.5) // 2
        for i in range(n):
            share = float(weights[i, i])
            box = (mixed[i] != images[i]).any(0)
            if share == 1.0:
                assert not box.any()
                continue
            other = int((weights[i] - torch.eye(n)[i]).argmax())
            assert other != i
            row, column = places[other].tolist()
            rows, columns = box.any(1).nonzero()[:, 0], box.any(0).nonzero()[:, 0]
            assert torch.equal(mixed[i][:, box], images[other][:, box])
            assert rows[0] <= row <= rows[-1]
            assert columns[0] <= column <= columns[-1]
            assert len(rows) == min(row + half, side) - max(row - half, 0)
            assert len(columns) == min(column + half, side) - max(column - half, 0)
            assert int(box.sum()) == round((1 - share) * side**2)
            boxes.add(tuple(box.flatten().tolist()))
        shares.append(float(weights.diagonal().mean()))
    assert len(boxes) > 100
    assert 0.5 < sum(shares) / len(shares) < 0.8  # lambda is uniform, and boxes are clipped


def test_fine_grained_saliency_is_the_contrast_to_the_surrounds() -> None:
    images = torch.rand(2, 3, 7, 30, generator=seeds.generator(0, "images"))
    found = fine_grained(images)
    grey = (images.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    for image, shown in zip(grey, found[:, 0], strict=True):
        wanted = torch.zeros(7, 30, dtype=torch.float64)
        for reach in (12, 24, 28, 48, 56, 112):
            for y in range(7):
                for x in range(30):
                    left = max(0, x - reach)
                    around = image[max(0, y - reach) : y + reach + 1, left : x + reach + 1]
                    mean = (around.sum() - image[y, x]) / (around.numel() - 1)
                    wanted[y, x] += (image[y, x] - mean).abs()
        torch.testing.assert_close(shown, wanted.float(), atol=1e-5, rtol=1e-5)
    assert not fine_grained(torch.full((1, 3, 8, 8), 0.3)).any()


def test_saliencymix_leaves_half_of_the_batches_alone() -> None:
    images, labels = batch()
    images = images + torch.rand(images.shape, generator=seeds.generator(0, "noise"))
    untouched = 0
    for seed in range(300):
        mixed, weights = mixing.build("saliencymix").apply(
            images, labels, CLASSES, seeds.generator(seed, "mix")
        )
        untouched += torch.equal(mixed, images)
        assert torch.equal(mixed, images) == bool((weights.diagonal() == 1).all())
    assert abs(untouched / 300 - (0.5 + 0.5 / 36)) < 0.1


def test_manifold_mixup_blends_the_images_or_one_of_two_stages_with_beta_weights() -> None:
    mix = mixing.build("manifold-mixup")
    assert isinstance(mix, ManifoldMixup)
    labels = torch.arange(CLASSES)
    stages, weights = [], []
    for seed in range(3000):
        blend, targets = mix.draw(labels, CLASSES, seeds.generator(seed, "mix"))
        stages.append(blend.stage)
        weights.append(blend.weight)
        if seed < 20:
            assert (blend.other != labels).all()
            assert sorted(blend.other.tolist()) == labels.tolist()
            wanted = blend.weight * torch.eye(CLASSES)
            wanted[labels, blend.other] = 1 - blend.weight
            torch.testing.assert_close(targets, wanted)
            features = torch.rand(CLASSES, 4, 2, 2)
            expected = blend.weight * features + (1 - blend.weight) * features[blend.other]
            torch.testing.assert_close(blend(features), expected)
    assert abs(torch.tensor(stages).bincount() / 3000 - 1 / 3).max() < 0.03
    assert stats.kstest(weights, stats.beta(2, 2).cdf).pvalue > 0.001


@pytest.mark.parametrize("name", [each for each in mixing.NAMES if each != "manifold-mixup"])
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
    with pytest.raises(ValueError, match=r"probability is 2\.0: it must be a fraction"):
        mixing.Mix("cutmix", probability=2.0)
    with pytest.raises(ValueError, match=r"probability is 2\.0: it must be a fraction"):
        SaliencyMix(probability=2.0)
    with pytest.raises(ValueError, match="alpha is 0: it must be a whole number"):
        ManifoldMixup(alpha=0)
    with pytest.raises(ValueError, match="stages is -1: it must be at least 0"):
        ManifoldMixup(stages=-1)
