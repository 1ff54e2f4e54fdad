"""Networks: their size, their first weights, their files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.models import networks
from bench.models.networks import build, reseed
from bench.models.resnet import fold
from bench.models.weight_files import read, save_weights, take

GREY = {"mean": [0.5], "std": [0.25]}
COLOUR = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def tiny(seed: int = 0, name: str = "resnet8") -> networks.Normalised:
    return build(name, classes=4, channels=1, side=8, seed=seed, **GREY)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet44-bottleneck"])
def test_folding_leaves_the_logits_and_their_gradient(name: str) -> None:
    network, folded = (tiny(name=name).double().eval() for _ in range(2))
    stream = torch.Generator().manual_seed(0)
    for one in (network, folded):
        stream.manual_seed(0)
        for module in one.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after a training
                for values in (module.running_mean, module.running_var, module.weight, module.bias):
                    assert values is not None
                    torch.nn.init.uniform_(values.data, 0.5, 2.0, stream)
    fold(folded)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    images = torch.rand(3, 1, 9, 7, dtype=torch.float64, requires_grad=True)
    logits = [one(images) for one in (network, folded)]
    slopes = [torch.autograd.grad(each[:, 0].sum(), images)[0] for each in logits]
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(slopes[0], slopes[1])


def test_folding_leaves_other_networks_alone() -> None:
    network = tiny(name="wrn-40-2").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold(network)
    assert network.state_dict().keys() == before.keys()


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("resnet50", 10, 23_520_842),
        ("resnet50", 100, 23_705_252),
        ("resnet20", 10, 269_722),
        ("resnet44", 10, 658_586),
        ("resnet44", 100, 664_436),
        ("resnet44-bottleneck", 10, 684_058),
        ("resnet44-bottleneck", 100, 707_188),
        ("wrn-28-10", 10, 36_479_194),
        ("wrn-28-10", 100, 36_536_884),
        ("wrn-40-2", 10, 2_243_546),
        ("wrn-40-2", 100, 2_255_156),
        # the released code also counts projections that it never uses: nine blocks keep their
        # shape, three of each width w, and a projection has w * w weights and 2 * w of its norm
        ("shake-shake-26-2x32d", 10, 2_989_002 - 3 * sum(w * w + 2 * w for w in (32, 64, 128))),
        ("shake-shake-26-2x32d", 100, 3_000_612 - 3 * sum(w * w + 2 * w for w in (32, 64, 128))),
        ("timm:resnet18", 200, 11_279_112),
        ("timm:resnet50", 200, 23_917_832),
        ("timm:wide_resnet50_2", 200, 67_244_040),
        ("timm:resnet50", 102, 23_717_030),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        model = build(name, classes=classes, seed=0, **COLOUR)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (28, 1)])
def test_every_network_takes_every_image(side: int, channels: int) -> None:
    norm = {"mean": [0.5] * channels, "std": [0.2] * channels}
    for name in networks.names():
        with torch.device("meta"):
            model = build(name, classes=7, channels=channels, side=side, seed=0, **norm)
            assert model.eval()(torch.rand(2, channels, side, side)).shape == (2, 7), name


def test_a_network_is_added_by_one_entry_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = networks.Network(
        "one linear layer",
        lambda to: nn.Sequential(nn.Flatten(), nn.Linear(to.channels * to.side**2, to.classes)),
        draws=True,
    )
    monkeypatch.setitem(networks.NETWORKS, "linear", linear)
    assert networks.names()["linear"] == "one linear layer"
    assert networks.admit("linear") == "linear"
    assert not networks.draws_nothing("linear")
    assert tiny(name="linear")(torch.rand(2, 1, 8, 8)).shape == (2, 4)
    with pytest.raises(ValueError, match="did you mean linear"):
        networks.check("liner")


def test_large_images_keep_the_imagenet_stem() -> None:
    with torch.device("meta"):
        small, large = (
            build("resnet18", classes=2, side=side, seed=0, **COLOUR) for side in (64, 96)
        )
    assert small.network.conv1.stride == (1, 1)
    assert large.network.conv1.stride == (2, 2)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "shake-shake-26-2x32d"])
def test_first_weights_come_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one = tiny(0, name)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = tiny(0, name), tiny(1, name)
    weights = one.network.state_dict()
    assert all(torch.equal(v, again.network.state_dict()[k]) for k, v in weights.items())
    assert not torch.equal(
        next(one.parameters()),
        next(other.parameters()),
    )


def test_the_model_normalises_inside() -> None:
    model = tiny().eval()
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(model(images), model.network((images - 0.5) / 0.25))
    assert not any(key in ("mean", "std") for key in model.state_dict())


def test_a_forward_pass_of_shake_shake_depends_on_its_own_draws() -> None:
    model = tiny(name="shake-shake-26-2x32d").train()
    images = torch.rand(4, 1, 8, 8)
    state = torch.random.get_rng_state()
    reseed(model, 3)
    first, second = model(images), model(images)
    reseed(model, 3)
    again = model(images)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()
    assert torch.equal(model(images), model(images))


def test_shake_shake_mixes_values_and_gradients_by_different_weights() -> None:
    from bench.models.shake_shake import Block

    class Constant(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.value + 0 * features

    block = Block(2, 2, 1)
    block.first, block.second = Constant(1.0), Constant(3.0)
    forward, backward = torch.full((1, 1, 1, 1), 0.25), torch.full((1, 1, 1, 1), 0.75)
    out = block(torch.zeros(1, 2, 4, 4), forward, backward)
    assert torch.allclose(out, torch.tensor(0.25 * 1 + 0.75 * 3))
    out.mean().backward()
    assert block.first.value.grad == pytest.approx(0.75)
    assert block.second.value.grad == pytest.approx(0.25)


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    model, other = tiny(0), tiny(1)
    path = tmp_path / "deep" / "w.safetensors"
    save_weights(model, path, {"data": "digits"})
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]
    assert "conv1.weight" in load_file(path)
    take(other, read(path), path)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(model.eval()(images), other.eval()(images))


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    model = tiny()
    path = tmp_path / "w.safetensors"
    weights = {k: v.clone() for k, v in model.network.state_dict().items()}
    del weights["bn1.weight"]
    weights["stranger"] = torch.zeros(1)
    weights["linear.bias"] = torch.zeros(9)
    save_file(weights, path)
    before = model.network.linear.bias.clone()
    with pytest.raises(
        ValueError,
        match=r"missing: bn1\.weight; unexpected: stranger; of another shape: linear\.bias \(9,\)",
    ):
        take(model, read(path), path)
    assert torch.equal(model.network.linear.bias, before)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        take(model, read(path), path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((4,), torch.nan), r"not finite: linear\.bias"),
        (torch.zeros(4, dtype=torch.complex64), r"of another type: linear\.bias torch\.complex64"),
        (torch.zeros(4, dtype=torch.int64), r"of another type: linear\.bias torch\.int64"),
        (torch.zeros(5), r"of another shape: linear\.bias \(5,\) for \(4,\)"),
    ],
)
def test_weights_of_a_wrong_kind_are_named(
    tmp_path: Path, value: torch.Tensor, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_file(tiny().network.state_dict() | {"linear.bias": value}, path)
    with pytest.raises(ValueError, match=message):
        take(tiny(), read(path), path)


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_weights(tiny(), path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean resnet18"):
        build("resnet-18", classes=2, seed=0, **COLOUR)
    with pytest.raises(ValueError, match="did you mean timm:resnet26d"):
        networks.check("timm:resnet26-d")
    for name in networks.names():
        networks.check(name)
    with pytest.raises(ValueError, match=r"did you mean timm:resnet18\.a1_in1k"):
        networks.check("timm:resnet18.a1in1k")
    with pytest.raises(ValueError, match="resnet8 has no weights of timm"):
        build("resnet8", classes=2, seed=0, weights=Path("w"), **COLOUR)
    with pytest.raises(ValueError, match="one per channel, 1"):
        build("resnet8", classes=2, channels=1, seed=0, **COLOUR)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "accuracy"), [("resnet20", 0.810), ("resnet44", 0.827)])
def test_public_weights_reach_their_accuracy(bench_data: Path, name: str, accuracy: float) -> None:
    from bench.data.image_files import Files

    weights = bench_data.parent / "models" / f"cifar10-{name}.safetensors"
    archive = bench_data / "cifar10-jpeg.zip"
    if not weights.exists() or not archive.exists():
        pytest.skip("needs the weights and images of CIFAR-10")
    files = Files(archive)
    names = [name for name in files.names if name.startswith("test/")][::20]
    images = files.images([names], None)[0].float() / 255
    labels = torch.arange(10).repeat_interleave(50)
    model = build(name, classes=10, seed=0, **COLOUR)
    take(model, read(weights), weights)
    model.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        logits = model(images.contiguous(memory_format=torch.channels_last))
    # four standard deviations of 500 images
    assert float((logits.argmax(1) == labels).float().mean()) == pytest.approx(accuracy, abs=0.07)


@pytest.mark.parametrize("name", ["shake-shake-26-2x32d", "vit-96-6", "convmixer-64-4"])
@pytest.mark.parametrize("training", [True, False])
def test_networks_compute_in_bfloat16(name: str, training: bool) -> None:
    """The default on CUDA devices that compute it."""
    network = tiny(name=name).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(each.grad is not None for each in network.parameters())
