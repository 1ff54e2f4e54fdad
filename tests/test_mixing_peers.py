"""Mixup and CutMix held against torchvision's own, number by number."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from bench.data import mixing, seeds

N, CLASSES = 16, 10


def batch(channels: int = 3, side: int = 32) -> tuple[Tensor, Tensor]:
    stream = seeds.generator(0, "images")
    images = torch.rand(N, channels, side, side, generator=stream)
    return images, torch.randint(CLASSES, (N,), generator=stream)


def drawn(kind: str, alpha: float, seed: int, images: Tensor) -> dict[str, Any]:
    """What torchvision draws for a batch when its generator is seeded."""
    theirs = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](alpha=alpha, num_classes=CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return theirs.make_params([images])


def streams(seed: int) -> tuple[Tensor, int]:
    """The order of the batch and torchvision's seed, as `Mix` draws them from a stream."""
    stream = seeds.generator(seed, "mix")
    torch.rand((), generator=stream)
    order = torch.randperm(N, generator=stream)
    return order, int(torch.randint(2**62, (), generator=stream))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_the_formula_at_torchvisions_lambda(alpha: float) -> None:
    images, labels = batch()
    for seed in range(10):
        mix = mixing.Mix("mixup", alpha=alpha)
        mixed, weights = mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"))
        order, theirs = streams(seed)
        weight = drawn("mixup", alpha, theirs, images[order])["lam"]
        other = torch.empty(N, dtype=torch.long)
        other[order] = order.roll(1)  # torchvision rolls the batch that it is given
        own = torch.nn.functional.one_hot(labels, CLASSES).float()
        torch.testing.assert_close(mixed, weight * images + (1 - weight) * images[other])
        torch.testing.assert_close(weights, weight * own + (1 - weight) * own[other])
        assert (other != torch.arange(N)).all()


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 33)])
def test_cutmix_pastes_torchvisions_box_and_weighs_by_its_area(channels: int, side: int) -> None:
    images, labels = batch(channels, side)
    for seed in range(20):
        mix = mixing.Mix("cutmix")
        mixed, weights = mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"))
        order, theirs = streams(seed)
        params = drawn("cutmix", 1.0, theirs, images[order])
        x1, y1, x2, y2 = params["box"]
        other = torch.empty(N, dtype=torch.long)
        other[order] = order.roll(1)
        wanted = images.clone()
        wanted[..., y1:y2, x1:x2] = images[other][..., y1:y2, x1:x2]
        assert torch.equal(mixed, wanted)
        weight = 1 - (x2 - x1) * (y2 - y1) / side**2
        own = torch.nn.functional.one_hot(labels, CLASSES).float()
        torch.testing.assert_close(weights, weight * own + (1 - weight) * own[other])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_weights_have_torchvisions_law(kind: str) -> None:
    """Kolmogorov and Smirnov's test of 800 batches of ours against as many of theirs."""
    images, _ = batch(1, 32)
    labels = torch.arange(N) % CLASSES
    labels[1:] = (labels[1:] + (labels[1:] == labels[0])) % CLASSES  # image 0 is alone in its class
    mix = mixing.Mix(kind)  # type: ignore[arg-type]
    ours = [
        float(mix.apply(images, labels, CLASSES, seeds.generator(seed, "mix"))[1][0, labels[0]])
        for seed in range(800)
    ]
    theirs = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](alpha=1.0, num_classes=CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        other = [float(theirs(images, labels)[1][0, labels[0]]) for _ in range(800)]
    assert stats.ks_2samp(ours, other).pvalue > 0.001
    assert np.mean(ours) == pytest.approx(np.mean(other), abs=0.03)
