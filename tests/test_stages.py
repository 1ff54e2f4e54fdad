"""The stages of networks, and Manifold Mixup inside them."""

import pytest
import torch
from torch import Tensor, nn

from bench.data import catalog, mixing, seeds
from bench.data.dataset import Dataset
from bench.data.loader import Batch
from bench.data.manifold_mixup import Blend, ManifoldMixup
from bench.models import networks, stages
from bench.training import after_crop, loop
from bench.training.recipes import Recipe


def network(name: str) -> networks.Normalised:
    mean = [0.5] * 3
    return networks.build(name, classes=4, side=16, mean=mean, std=mean, seed=0).eval()


@pytest.mark.parametrize("name", ["resnet8", "resnet44-bottleneck", "wrn-40-2", "resnet18"])
def test_stages_follow_each_other_and_halve_the_side(name: str) -> None:
    built, seen = network(name), {}
    for number in (1, 2, 3):
        module = stages.stage(built, number, "a test")
        module.register_forward_hook(
            lambda module, given, features, number=number: seen.update({number: features.shape})
        )
    built(torch.rand(2, 3, 16, 16))
    assert list(seen) == [1, 2, 3]
    assert [shape[-1] for shape in seen.values()] == [16, 8, 4]


def test_features_are_blended_where_it_is_said_and_nowhere_else() -> None:
    built, images = network("resnet8"), torch.rand(4, 3, 16, 16)
    blend = Blend(2, torch.tensor([1, 2, 3, 0]), 0.3)
    inner = built.network
    assert isinstance(inner, nn.Module)
    normalised = (images - 0.5) / 0.5
    features = torch.relu(inner.bn1(inner.conv1(normalised)))
    features = inner.layer2(inner.layer1(features))
    features = 0.3 * features + 0.7 * features[[1, 2, 3, 0]]
    wanted = inner.linear(inner.layer3(features).mean((2, 3)))
    plain = built(images)
    with stages.changed(built, 2, blend, "a test"):
        torch.testing.assert_close(built(images), wanted)
    assert torch.equal(built(images), plain)


def test_a_blend_of_images_needs_no_stage_and_one_of_features_leaves_the_images() -> None:
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8)
    batch = Batch(images, labels, labels, None)
    flat = nn.Flatten()
    kinds = set()
    for seed in range(20):
        stream = seeds.generator(seed, "mix")
        blend, wanted = ManifoldMixup().draw(labels, 8, seeds.generator(seed, "mix"))
        kinds.add(blend.stage)
        mixed, targets, inside = after_crop.mix_images(
            ManifoldMixup(), flat, images, batch, 8, stream
        )
        assert torch.equal(mixed, images if blend.stage else blend(images))
        assert torch.equal(targets, wanted)
        if blend.stage:
            message = f"stage {blend.stage} of Flatten is unknown, which Manifold Mixup needs"
            with pytest.raises(ValueError, match=message), inside:
                pass
    assert kinds == {0, 1, 2}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalog.load("digits(train=80)")


@pytest.mark.slow
@pytest.mark.parametrize("policy", [None, "keep-autoaugment-early"])
def test_manifold_mixup_trains_and_repeats_itself(digits: Dataset, policy: str | None) -> None:
    recipe = Recipe(
        data="digits(train=80)", model="resnet8", mix="manifold-mixup", policy=policy, epochs=2,
        batch_size=32, padding=1,
    )  # fmt: skip
    first, again = (loop.train(recipe, 0, digits) for _ in range(2))
    losses = [entry["loss"] for entry in first.curve]
    assert losses == [entry["loss"] for entry in again.curve]
    plain = loop.train(Recipe.from_json(recipe.to_json() | {"mix": "mixup"}), 0, digits)
    assert losses != [entry["loss"] for entry in plain.curve]
    hooks = sum(len(module._forward_hooks) for module in first.network.network.children())
    assert hooks == (0 if policy is None else 1)  # that of the early head


def test_every_mix_says_whether_it_wants_points() -> None:
    wants = {name: mixing.build(name).points for name in mixing.NAMES}
    assert [name for name, points in wants.items() if points] == ["ipf-cutmix"]


def test_weights_of_a_blend_are_lerped_exactly_at_the_ends() -> None:
    features: Tensor = torch.rand(3, 2)
    assert torch.equal(Blend(0, torch.tensor([1, 2, 0]), 1.0)(features), features)
    assert torch.equal(Blend(0, torch.tensor([1, 2, 0]), 0.0)(features), features[[1, 2, 0]])
