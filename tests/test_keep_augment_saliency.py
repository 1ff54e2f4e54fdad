"""The square that KeepAugment pastes back, and the saliency that chooses it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from augmentations.keep_augment import KeepAugment, important_square
from augmentations.squares import Squares
from bench.data import catalog, seeds
from bench.models import networks
from bench.points import guides
from bench.training import live_saliency, loop
from bench.training.recipes import Recipe
from bench.training.steps import Diverged


@pytest.mark.parametrize("where", ["inside", "clipped"])
def test_the_pasted_square_is_exactly_one_of_high_importance(where: Squares) -> None:
    stream = seeds.generator(0, "test")
    n, side, half = 400, 9, 2
    guide = torch.rand(1, 1, side, side, generator=stream).expand(n, 1, side, side)
    kept = important_square(
        torch.ones(n, 3, side, side), guide, stream, 2 * half, quantile=0.6, squares=where
    )
    sums, squares = [], []
    centres = range(half, side - half + 1) if where == "inside" else range(side)
    for row in centres:
        for column in centres:
            square = torch.zeros(side, side)
            square[max(0, row - half) : row + half, max(0, column - half) : column + half] = 1
            squares.append(square)
            sums.append(float((guide[0, 0] * square).sum()))
    threshold = torch.tensor(sums).quantile(0.6, interpolation="lower")
    allowed = {i for i, value in enumerate(sums) if value > threshold}
    pasted = [
        next(i for i, square in enumerate(squares) if torch.equal(square, one[0].float()))
        for one in kept
    ]
    assert set(pasted) <= allowed
    assert len(set(pasted)) > 0.9 * len(allowed)


@pytest.mark.parametrize("where", ["inside", "clipped"])
def test_under_a_constant_guide_a_square_is_still_pasted(where: Squares) -> None:
    ones = torch.ones(50, 1, 8, 8)
    kept = important_square(ones, 0 * ones, seeds.generator(0, "test"), 4, squares=where)
    assert (kept.sum((1, 2, 3)) >= 4).all()
    assert where == "clipped" or (kept.sum((1, 2, 3)) == 16).all()


def network(name: str, channels: int = 1) -> networks.Normalised:
    return networks.build(
        name,
        classes=5,
        channels=channels,
        side=16,
        mean=[0.5] * channels,
        std=[0.5] * channels,
        seed=0,
    )


def test_the_low_resolution_saliency_is_that_of_the_half_size_copy() -> None:
    class Linear(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            weights = torch.arange(images[0].numel(), dtype=torch.float32)
            return images.flatten(1) @ torch.stack([weights, -2 * weights], 1)

    found = live_saliency.low_resolution(Linear(), torch.rand(1, 1, 4, 4), torch.tensor([1]))
    wanted = 2 * torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    torch.testing.assert_close(found[0, 0], wanted.repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("name", ["resnet8", "wrn-40-2", "shake-shake-26-2x32d"])
def test_the_early_head_sees_the_first_stage_and_trains_along(name: str) -> None:
    built, images, labels = network(name), torch.rand(3, 1, 16, 16), torch.tensor([0, 1, 2])
    head = live_saliency.EarlyHead(built, 5, images, seed=0)
    assert all("early_head" not in key for key in built.network.state_dict())
    assert any("early_head" in key for key in built.state_dict())
    built.train()
    loss = nn.functional.cross_entropy(built(images), labels)
    loss = loss + head.loss(labels)
    loss.backward()
    assert head.linear.weight.grad is not None
    with pytest.raises(AssertionError, match="not passed in training mode"):
        head.loss(labels)
    built.eval()
    statistics = {key: value.clone() for key, value in built.state_dict().items()}
    for kind in ("early", "early-low"):
        found = live_saliency.saliency(kind, built.train(), images, labels)
        assert found.shape == (3, 1, 16, 16)
        assert (found > 0).any()
    assert all(torch.equal(value, statistics[key]) for key, value in built.state_dict().items())
    assert built.training


def test_the_early_saliency_is_the_gradient_of_the_heads_logit() -> None:
    built, images, labels = network("resnet8"), torch.rand(2, 1, 16, 16), torch.tensor([3, 1])
    head = live_saliency.EarlyHead(built, 5, images, seed=0)
    built.eval()
    inner = built.network
    inputs = images.clone().requires_grad_()
    features = inner.layer1(torch.relu(inner.bn1(inner.conv1((inputs - 0.5) / 0.5))))
    logits = head(features)
    (logits[0, 3] + logits[1, 1]).backward()
    assert inputs.grad is not None
    torch.testing.assert_close(
        live_saliency.saliency("early", built, images, labels), inputs.grad.abs()
    )
    full = live_saliency.saliency("full", built, images, labels)
    torch.testing.assert_close(full, guides.saliency(built, images, labels))
    assert not torch.allclose(full, inputs.grad.abs())


def test_an_early_head_draws_its_weights_from_the_seed() -> None:
    images, state = torch.rand(1, 1, 16, 16), torch.get_rng_state()
    weights = [
        live_saliency.EarlyHead(network("resnet8"), 5, images, seed).linear.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_without_stages_gets_no_early_head() -> None:
    plain = networks.Normalised(nn.Flatten(), torch.zeros(1), torch.ones(1))
    with pytest.raises(
        ValueError, match="stage 1 of Flatten is unknown, which an early head needs"
    ):
        live_saliency.EarlyHead(plain, 5, torch.rand(1, 1, 4, 4), seed=0)


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        ("early", "the first stage of VisionTransformer gives no maps, which an early head needs"),
        (
            "low",
            "VisionTransformer does not take images of half the size, which the saliency 'low'",
        ),
    ],
)
def test_a_transformer_is_refused_where_it_does_not_give_the_saliency(
    saliency: Any, message: str
) -> None:
    data = catalog.load("digits(train=20, test=10)")
    method = KeepAugment(length=2, saliency=saliency)
    recipe = Recipe(data="digits", model="vit-96-6", augmentation=method)
    with pytest.raises(ValueError, match=message):
        loop.first(recipe, data, None, seed=0)


@pytest.mark.parametrize(
    "options", [{"augmentation": KeepAugment(length=2)}, {"policy": "keep-autoaugment"}]
)
def test_a_saliency_that_is_not_finite_is_the_end_of_this_training_alone(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes a failed record; as an error of the arguments it would end all that follow."""
    data = catalog.load("photos(train=20, test=10, side=8)")
    recipe = Recipe(data="photos", model="resnet8", epochs=1, validation=0.0, **options)
    monkeypatch.setattr(
        live_saliency,
        "gradient",
        lambda _, images, labels: torch.full_like(images[:, :1], torch.nan),
    )
    with pytest.raises(Diverged, match="saliency is not finite in epoch 1; try a smaller --learn"):
        loop.train(recipe, 0, data)
