"""AdvMask's attack and its encoders."""

from __future__ import annotations

import math

import pytest
import torch
from planes import two_classes
from smooth import draw_images, network, predicted
from torch import Tensor, nn

from attacks import BUILTIN, Goal
from attacks.advmask import AdvMask
from attacks.base import streams
from attacks.encoder import SGD, Encoder, LinearEncoder, UNetEncoder
from attacks.norms import l0_pixels
from attacks.sparsest import Sparsest

pytestmark = pytest.mark.slow


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "sgd",
    [
        SGD(0.3),
        SGD(0.3, momentum=0.9),
        SGD(0.3, momentum=0.9, nesterov=True),
        SGD(0.3, momentum=0.8, dampening=0.4),
        SGD(0.3, weight_decay=0.05),
        SGD(0.3, momentum=0.9, weight_decay=0.05, nesterov=True),
        SGD(0.3, momentum=0.7, dampening=0.2, weight_decay=0.05),
    ],
    ids=str,
)
def test_the_linear_encoder_is_a_linear_layer_trained_by_torch(sgd: SGD) -> None:
    count, steps = 3, 60
    like = torch.zeros(count, 2, 3, 4, dtype=torch.float64)
    encoder = LinearEncoder(like, streams(generator(), count), sgd, steps)
    layers, optimisers = [], []
    for i in range(count):
        layer = nn.Linear(24, 12, dtype=torch.float64)
        start, unit = encoder_start(like, sgd, i, count)
        with torch.no_grad():
            layer.weight.copy_(unit)
            layer.bias.copy_(start)
        layers.append(layer)
        options = (sgd.lr, sgd.momentum, sgd.dampening, sgd.weight_decay, sgd.nesterov)
        optimisers.append(torch.optim.SGD(layer.parameters(), *options))
    draws = generator(3)
    for _ in range(steps):
        deltas = torch.randn(count, 2, 3, 4, generator=draws, dtype=torch.float64)
        goals = torch.randn(count, 12, generator=draws, dtype=torch.float64)
        codes = encoder.encode(deltas)
        back = encoder.learn((codes - goals).tanh())
        for i, (layer, optimiser) in enumerate(zip(layers, optimisers, strict=True)):
            delta = deltas[i].flatten().requires_grad_(True)
            code = layer(delta)
            torch.testing.assert_close(codes[i], code.detach(), rtol=1e-9, atol=1e-11)
            optimiser.zero_grad()
            (code - goals[i]).cosh().log().sum().backward()
            assert delta.grad is not None
            torch.testing.assert_close(back[i].flatten(), delta.grad, rtol=1e-9, atol=1e-11)
            optimiser.step()


def encoder_start(like: Tensor, sgd: SGD, index: int, count: int) -> tuple[Tensor, Tensor]:
    """Read the initial bias and weight of one image's encoder off its codes."""
    fresh = LinearEncoder(like, streams(generator(), count), sgd, 1)
    bias = fresh.encode(like)
    inputs = like[0].numel()
    columns = []
    for unit in torch.eye(inputs, dtype=like.dtype):
        probe = unit.view_as(like[0]).expand_as(like)
        columns.append(fresh.encode(probe)[index] - bias[index])
    return bias[index], torch.stack(columns, dim=1)


def test_the_linear_encoder_starts_with_the_law_of_a_linear_layer() -> None:
    like = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    _, first = encoder_start(like, SGD(1.0), 0, 2)
    _, second = encoder_start(like, SGD(1.0), 1, 2)
    assert first.abs().max() <= 1 / 6
    assert first.std().item() == pytest.approx(1 / 6 / math.sqrt(3), rel=0.05)
    torch.testing.assert_close(first.abs(), second.abs())
    assert abs((first * second).sum() / (first * first).sum()) < 0.2


@pytest.mark.parametrize("sgd", [SGD(1e-3, 0.5), SGD(1e-3, 0.5, 0.0, 0.1, True)])
def test_the_u_net_trains_each_image_on_its_own(sgd: SGD) -> None:
    deltas = torch.randn(3, 2, 7, 5, generator=generator(), dtype=torch.float64)
    seeds = [5, 6, 7]

    def train(rows: list[int]) -> tuple[Tensor, Tensor]:
        encoder = UNetEncoder(deltas[rows], [generator(seeds[i]) for i in rows], sgd)
        for _ in range(5):
            codes = encoder.encode(deltas[rows])
            back = encoder.learn(codes - 1)
        return codes, back

    together = train([0, 1, 2])
    for i in range(3):
        for whole, alone in zip(together, train([i]), strict=True):
            torch.testing.assert_close(whole[i], alone[0])
    start = UNetEncoder(deltas, [generator(seed) for seed in seeds], sgd).encode(deltas)
    assert ((together[0] - 1).square().sum(1) < (start - 1).square().sum(1)).all()


@pytest.mark.parametrize("sgd", [SGD(1e-3), SGD(1e-3, 0.9)])
def test_the_gradient_through_the_u_net_is_that_of_its_codes(sgd: SGD) -> None:
    delta = torch.randn(1, 1, 6, 6, generator=generator(), dtype=torch.float64)
    encoder: Encoder = UNetEncoder(delta, [generator(2)], sgd)
    ahead = torch.randn(delta.shape, generator=generator(3), dtype=torch.float64) * 1e-6
    slope = (encoder.encode(delta + ahead) - encoder.encode(delta - ahead)).sum()
    codes = encoder.encode(delta)
    back = encoder.learn(torch.ones_like(codes))
    assert (back * 2 * ahead).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_alpha_follows_autopruners_schedule() -> None:
    attack = AdvMask(steps=200, alpha_start=0.1, alpha_end=100.0)
    undecided, decided = torch.full((1, 10), 0.5), torch.full((1, 10), 0.95)
    masks = torch.cat([undecided, decided])
    alpha = torch.full((2, 1), attack.alpha_start, dtype=torch.float64)
    seen = {}
    for step in range(200):
        seen[step] = alpha
        alpha = attack._sharpen(alpha, masks, step)
    rise = 99.9 / 200
    torch.testing.assert_close(seen[0], torch.tensor([[0.1], [0.1]], dtype=torch.float64))
    torch.testing.assert_close(
        seen[160], torch.tensor([[0.1 + 160 * rise], [0.1 + 160 * rise]], dtype=torch.float64)
    )
    torch.testing.assert_close(
        alpha, torch.tensor([[100.0 + 40 * 10 * rise], [100.0]], dtype=torch.float64)
    )


VARIANTS = {
    "default": AdvMask(eps=0.2, steps=40),
    "u-net": AdvMask(eps=0.2, steps=40, encoder="u-net"),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("targeted", [False, True])
def test_advmask_keeps_its_promises(name: str, targeted: bool) -> None:
    model, images = network().train(), draw_images(6)
    labels = predicted(model.eval(), images)
    goal = Goal((labels + 1) % 5 if targeted else labels, targeted)
    model.train()
    model[1].weight.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    before, seed = images.clone(), torch.random.get_rng_state()
    adversarial = VARIANTS[name](model, images, goal, generator())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all((v == state[k]).all() for k, v in model.state_dict().items())
    assert (images == before).all()
    assert (torch.random.get_rng_state() == seed).all()
    assert adversarial.dtype == images.dtype
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (adversarial - images).abs().max() <= 0.2 + 1e-12
    again = VARIANTS[name](model.eval(), images, goal, generator())
    assert (adversarial == again).all()
    reached = goal.reached(model(adversarial))
    changed = l0_pixels(adversarial - images) > 0
    assert (reached == changed).all()
    assert reached.float().mean() >= 0.8


@pytest.mark.parametrize("name", VARIANTS)
def test_the_batch_size_changes_nothing(name: str) -> None:
    model, images = network(), draw_images(8)
    goal = Goal(predicted(model, images))
    whole = VARIANTS[name](model, images, goal, [generator(i) for i in range(8)])
    for size in (1, 3):
        parts = []
        for rows in torch.arange(8).split(size):
            own = [generator(i) for i in rows.tolist()]
            parts.append(VARIANTS[name](model, images[rows], goal[rows], own))
        torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("name", ["default"])
def test_images_that_reach_the_goal_or_cannot_come_back_unchanged(name: str) -> None:
    model, images = network(), draw_images(4)
    labels = predicted(model, images)
    there = VARIANTS[name](model, images, Goal(labels, targeted=True), generator())
    assert (there == images).all()
    stuck = two_classes(torch.zeros(3, 6, 7, dtype=torch.float64), 1.0)
    goal = Goal(torch.zeros(4, dtype=torch.long))
    assert (VARIANTS[name](stuck, images, goal, generator()) == images).all()
    assert VARIANTS[name](model, images[:0], Goal(labels[:0]), generator()).shape == (0, 3, 6, 7)


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 2), (1, 100)])
def test_any_number_of_channels_and_classes_will_do(channels: int, classes: int) -> None:
    model, images = network(channels, classes), draw_images(3, channels)
    goal = Goal(predicted(model, images))
    adversarial = AdvMask(eps=0.5, steps=60)(model, images, goal, generator())
    assert goal.reached(model(adversarial)).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_advmask_is_near_the_fewest_pixels_on_a_plane(targeted: bool) -> None:
    weight = torch.randn(3, 8, 8, generator=generator(4), dtype=torch.float64)
    images = torch.full((4, 3, 8, 8), 0.5, dtype=torch.float64)
    reach = 0.1 * weight.abs().sum(0).flatten().sort(descending=True).values.cumsum(0)
    for fewest in (1, 5, 12):
        # fewest is the smallest count with reach > margin
        margin = reach[fewest - 1].item() - 1e-3
        model = two_classes(weight, margin - (images[0] * weight).sum().item())
        goal = Goal(torch.full((4,), int(targeted)), targeted)
        adversarial = AdvMask(eps=0.1)(model, images, goal, generator())
        assert goal.reached(model(adversarial)).all()
        pixels = l0_pixels(adversarial - images)
        assert (pixels >= fewest).all()
        assert (pixels <= fewest + 1 + 0.1 * fewest).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eps is 0.0: it must be above 0 and at most 1"):
        AdvMask(eps=0.0)
    with pytest.raises(ValueError, match=r"eps is 8.0: it must be above 0"):
        AdvMask(eps=8.0)
    with pytest.raises(ValueError, match=r"steps is 0: it must be positive"):
        AdvMask(steps=0)
    with pytest.raises(ValueError, match=r"leak is -1.0: it must not be negative"):
        AdvMask(leak=-1.0)
    with pytest.raises(ValueError, match=r"adapt is 1.0: it must be in \[0, 1\)"):
        AdvMask(adapt=1.0)
    images = draw_images(1)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        AdvMask()(network(), images, Goal(torch.zeros(1, dtype=torch.long)), generator())


def test_advmask_is_built_in() -> None:
    assert isinstance(BUILTIN["advmask"](), AdvMask)


@pytest.mark.parametrize("limited", [False, True])
def test_the_bisection_asks_nothing_twice_and_only_what_can_change(limited: bool) -> None:
    """It ends after as many queries as a bisection of the pixels takes."""
    model, images = network(), draw_images(6)
    labels = predicted(model, images)
    region = None
    if limited:
        region = torch.zeros(6, 1, *images.shape[2:], dtype=torch.bool)
        region[:, :, 2:5] = True
    goal = Goal(labels, region=region)
    shown: list[Tensor] = []

    delta = torch.where(images > 0.5, -0.2, 0.2).to(images)
    if region is not None:
        delta = delta * region
    codes = torch.randn(6, images[0, 0].numel(), dtype=images.dtype)
    best = Sparsest(images, l0_pixels)
    model.register_forward_hook(lambda module, inputs, answer: shown.append(inputs[0]))
    AdvMask(eps=0.2, searches=40)._search(model, images, goal, delta, codes, best)
    assert len(shown) <= math.ceil(math.log2(codes.shape[1])) + 2
    allowed = torch.ones_like(codes, dtype=torch.bool) if region is None else region.flatten(1)
    assert torch.equal(l0_pixels(shown[0] - images), ((codes > 0) & allowed).sum(1))
