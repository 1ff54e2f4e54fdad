"""Networks by name. Each takes images in [0, 1] and normalises inside."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from attacks.victim import check_form
from bench import registry
from bench.data.seeds import derive
from bench.errors import reason
from bench.files import code
from bench.models.resnet import Basic, Bottleneck, ResNet
from bench.models.shake_shake import ShakeShake
from bench.models.wide_resnet import WideResNet

if TYPE_CHECKING:
    from bench.data.dataset import Dataset

TIMM = {"resnet18": "resnet18", "resnet50": "resnet50", "wide-resnet50-2": "wide_resnet50_2"}
"""The networks that timm and torchvision have published weights for, and what these call them."""
SMALL = 64  # pixels; up to this side the ImageNet stem would throw away most of the image


class Normalised(nn.Module):
    """A network behind the normalisation of its dataset: takes images in [0, 1].

    Args:
        network: Takes normalised images, gives logits.
        mean: Subtracted per channel. Like ``std`` no part of the weights, so the ``network`` inside
            loads plain published files.
        std: What each channel is then divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1).clone(), persistent=False)
        self.register_buffer("std", std.reshape(1, -1, 1, 1).clone(), persistent=False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class Wanted(NamedTuple):
    """What a network is built for; ``stem`` as in `build`."""

    classes: int
    channels: int
    side: int
    stem: int | None = None


class Network(NamedTuple):
    """A network that has a name.

    Attributes:
        about: What it is, in a line of ``bench list models``.
        build: Gives it with random weights, for images that are normalised already.
        draws: Whether it draws random numbers in training, whose order a CUDA graph would fix.
    """

    about: str
    build: Callable[[Wanted], nn.Module]
    draws: bool = False


def _resnet(blocks: int, block: type[Basic | Bottleneck] = Basic) -> Callable[[Wanted], nn.Module]:
    return lambda to: ResNet(blocks, to.classes, to.channels, block)


def _wide(depth: int, factor: int) -> Callable[[Wanted], nn.Module]:
    return lambda to: WideResNet(depth, factor, to.classes, to.channels)


def _resnet_of_timm(name: str) -> Callable[[Wanted], nn.Module]:
    def build(to: Wanted) -> nn.Module:
        network = _timm(name, to.classes, to.channels, to.side)
        if to.stem == 3 or (to.stem is None and to.side <= SMALL):
            network.conv1 = nn.Conv2d(to.channels, 64, 3, 1, 1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
            network.maxpool = nn.Identity()
        return network

    return build


def _transformer(to: Wanted) -> nn.Module:
    """timm's vision transformer with about 8 patches a side; 683,242 parameters at side 32."""
    import timm

    network: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", num_classes=to.classes, in_chans=to.channels, img_size=to.side,
        patch_size=max(1, to.side // 8), embed_dim=96, depth=6, num_heads=3,
    )  # fmt: skip
    return network


def _mixer(width: int, depth: int) -> Callable[[Wanted], nn.Module]:
    """timm's ConvMixer with about 16 patches a side."""

    def build(to: Wanted) -> nn.Module:
        from timm.models.convmixer import ConvMixer

        mixer: nn.Module = ConvMixer(
            dim=width, depth=depth, kernel_size=5, patch_size=max(1, to.side // 16),
            in_chans=to.channels, num_classes=to.classes,
        )  # fmt: skip
        # a processor computes depthwise convolutions faster in this layout; ResNets gain nothing
        return mixer.to(memory_format=torch.channels_last)

    return build


_BASIC = "for small images, shortcuts without parameters"
_WIDE = "wide residual network"
_STEM = "timm's, with a 3x3 stem for sides up to 64"
NETWORKS: dict[str, Network] = {
    "resnet8": Network(_BASIC, _resnet(1)),
    "resnet20": Network(_BASIC, _resnet(3)),
    "resnet32": Network(_BASIC, _resnet(5)),
    "resnet44": Network(_BASIC, _resnet(7)),
    "resnet56": Network(_BASIC, _resnet(9)),
    "resnet44-bottleneck": Network(
        "three times seven bottlenecks, the ResNet-44 of the paper's code", _resnet(7, Bottleneck)
    ),
    "wrn-28-10": Network(_WIDE, _wide(28, 10)),
    "wrn-40-2": Network(_WIDE, _wide(40, 2)),
    "shake-shake-26-2x32d": Network(
        "two branches, mixed at random in training",
        lambda to: ShakeShake(32, to.classes, to.channels),
        draws=True,
    ),
    **{name: Network(_STEM, _resnet_of_timm(own)) for name, own in TIMM.items()},
    "vit-96-6": Network(
        "timm's vision transformer, about 8 patches a side, 6 blocks of width 96", _transformer
    ),
    "convmixer-96-6": Network(
        "timm's ConvMixer, about 16 patches a side, 6 blocks of width 96", _mixer(96, 6)
    ),
    "convmixer-64-4": Network(
        "the same with 4 blocks of width 64, as fast as ResNet-8", _mixer(64, 4)
    ),
}
"""The networks by name; an entry here is all that a new one needs beside its module."""


def build(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    side: int = 32,
    mean: Float[Tensor, " c"] | Sequence[float],
    std: Float[Tensor, " c"] | Sequence[float],
    seed: int,
    stem: int | None = None,
    weights: Path | None = None,
) -> Normalised:
    """Build a network whose first weights are drawn from ``seed`` alone.

    ``resnet18``, ``resnet50`` and ``wide-resnet50-2`` are timm's; for sides up to 64 their stem
    becomes one 3x3 convolution of stride 1 without pooling, as in the published CIFAR code.
    A tag, as in ``timm:resnet18.a1_in1k``, says nothing here but how the weights are read.

    Args:
        name: One of `names`, ``timm:NAME``, or what `admit` returned. A network of one's own takes
            images in [0, 1], so ``mean`` and ``std`` are not used.
        classes: The number of logits.
        channels: Of the images.
        side: Height and width of the images, in pixels.
        mean: Per channel, in [0, 1]: that of the dataset, or of the weights made elsewhere.
        std: Likewise.
        seed: Draws the weights, and what the network draws in training.
        stem: Side of the first convolution of those three, 3 or 7 (that of ImageNet weights); None
            decides by the side of the images.
        weights: A file of timm's weights of ``timm:NAME.TAG``, which timm adapts to the channels,
            the side and the classes: another number of classes gets a new classifier.

    Raises:
        ValueError: The name is not known, the weights are not those of a ``timm:NAME.TAG``,
            ``mean`` and ``std`` do not have a value per channel, or one that cannot be used, or a
            factory fails or gives no network for such images.
    """
    if weights is not None and not name.startswith("timm:"):
        raise ValueError(f"{name} has no weights of timm: they exist for timm:NAME.TAG")
    centre, spread = (torch.as_tensor(v, dtype=torch.float32) for v in (mean, std))
    if len(centre) != channels or len(spread) != channels:
        raise ValueError(
            f"mean and std have {len(centre)} and {len(spread)} values: one per channel, {channels}"
        )
    middles, widths = ([float(each) for each in values] for values in (mean, std))
    if not all(map(math.isfinite, middles + widths)) or min(widths) <= 0:
        raise ValueError(
            f"mean and std are {middles} and {widths}: they must be finite, and each std above 0"
        )
    # fork_rng gives the global generator back as it was; seeding it alone leaves CUDA's in peace
    own = factory(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        if own is not None:
            network = _made(name, own, classes, channels, side)
            centre, spread = torch.zeros(channels), torch.ones(channels)
        else:
            network = _named(name, Wanted(classes, channels, side, stem), weights)
    reseed(network, derive(seed, "network"))
    return Normalised(network, centre, spread)


def build_for(data: Dataset, name: str, *, seed: int, **others: Any) -> Normalised:
    """`build` for the classes, images and statistics of a dataset; ``others`` replace them."""
    images = data.train.images
    fields: dict[str, Any] = {
        "classes": len(data.classes),
        "channels": images.shape[1],
        "side": images.shape[-1],
        "mean": data.mean,
        "std": data.std,
    }
    return build(name, seed=seed, **(fields | others))


def _named(name: str, to: Wanted, weights: Path | None) -> nn.Module:
    if name in NETWORKS:
        return NETWORKS[name].build(to)
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), to.classes, to.channels, to.side, weights)
    raise _unknown(name)


def _made(name: str, make: Callable[..., Any], classes: int, channels: int, side: int) -> nn.Module:
    """What a factory gives, once it has mapped a batch of images to logits."""
    given = {"classes": classes, "channels": channels, "side": side}
    try:
        taken = {"classes"} | inspect.signature(make).parameters.keys()
        network = make(**{key: each for key, each in given.items() if key in taken})
    except Exception as error:
        raise ValueError(
            f"{name} failed when it was called with classes={classes}: "
            f"{type(error).__name__}: {reason(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} gave a {type(network).__name__}: it must give an nn.Module")
    training = network.training
    images = torch.zeros(2, channels, side, side)
    try:
        with torch.no_grad():
            logits = network.eval()(images)
    except Exception as error:
        raise ValueError(
            f"the network of {name} failed on images of shape {tuple(images.shape)}: "
            f"{type(error).__name__}: {reason(error)}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network of {name} gave {shape} for 2 images: it must give logits of shape "
            f"(2, {classes}), one per class"
        )
    return network.train(training)


def _timm(
    name: str, classes: int, channels: int, side: int, weights: Path | None = None
) -> nn.Module:
    import timm

    check(f"timm:{name}")
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if weights is not None:
        overlay = {"file": str(weights), "custom_load": False}
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    card = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if card is not None and card.fixed_input_size:
        options["img_size"] = side
    network: nn.Module = timm.create_model(name, **options)
    return network


def _unknown(name: str) -> ValueError:
    known = list(NETWORKS)
    prefix, others = "", f"there are {', '.join(NETWORKS)}, timm:NAME and FILE.py:FACTORY"
    if name.startswith("timm:"):
        import timm

        tags = timm.list_pretrained() if "." in name else []
        known = [*timm.list_models(), *tags]
        prefix, others = "timm:", "name one of timm.list_models()"
    elif name.endswith(".py"):
        others = f"write {name}:FACTORY, with the function that gives it"
    near = difflib.get_close_matches(name.removeprefix(prefix), known, 1)
    return ValueError(
        f"no network is called {name!r}: "
        + (f"did you mean {prefix}{near[0]}?" if near else others)
    )


def check_logits(logits: Tensor, count: int) -> None:
    """Raise ``ValueError`` for anything but finite logits of several classes for ``count`` images.

    Args:
        logits: What a victim model returned.
        count: Number of images that it was given.
    """
    check_form(logits, count)
    wrong = int((~logits.isfinite().all(1)).sum())
    if wrong:
        raise ValueError(
            f"the victim model gives logits that are not finite for {wrong} of {len(logits)} "
            "images: its weights, mean or std cannot be right"
        )


def names() -> dict[str, str]:
    """Every network that has a name, and what it is; ``timm:NAME`` reaches those of timm."""
    found = registry.plugins("models", NETWORKS)
    return {name: each.about for name, each in NETWORKS.items()} | {
        name: (inspect.getdoc(each) or "of another package").partition("\n")[0]
        for name, each in found.items()
    }


def factory(name: str) -> Callable[..., Any] | None:
    """Return the factory of a network of a user's own or of another package, or None.

    A factory is called as ``factory(classes=10)``, with ``channels`` and ``side`` as well if it has
    such arguments, and gives an ``nn.Module`` for images in [0, 1].

    Args:
        name: What `admit` returned, or the name of an entry point of the group ``bench.models``.
    """
    found: Callable[..., Any] | None = code.find(name)
    if found is None and name not in NETWORKS and ":" not in name:
        found = registry.plugins("models", NETWORKS).get(name)
    return found


def admit(text: str) -> str:
    """Return the name of a network that a user has typed, ready for `build`.

    Args:
        text: One of `names`, ``timm:NAME``, or ``FILE.py:FACTORY`` or ``PACKAGE:FACTORY``, whose
            file is then read; see `factory` and `bench.files.code`.

    Raises:
        ValueError: The name is not known, or the file cannot be loaded.
        Missing: There is no such file or package.
    """
    if code.is_reference(text):
        text = code.admit(text)
        if not callable(code.find(text)):
            raise ValueError(f"{text} is not a factory: it is called with classes=10")
    check(text)
    return text


def check(name: str) -> None:
    """Raise ValueError, with the nearest name, for a network that ``build`` does not know."""
    if factory(name) is not None:
        return
    if name.startswith("timm:"):
        import timm

        own = name.removeprefix("timm:")
        if timm.is_model(own) and ("." not in own or timm.is_model_pretrained(own)):
            return
    if name not in NETWORKS:
        raise _unknown(name)


@contextmanager
def reseeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Restart the draws that a network makes in training: Shake-Shake's, and those of dropout.

    Opened for the forward pass of each step, with a seed derived from run, epoch and step, it makes
    a step depend on nothing before it. Torch's global generators, which layers of other libraries
    use, get back the states that they had.
    """
    reseed(model, seed)
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(seed)  # of this very device
        yield


def draws_nothing(name: str) -> bool:
    """Return whether the network of a name is known to draw no random numbers in training.

    >>> draws_nothing("resnet18"), draws_nothing("shake-shake-26-2x32d")
    (True, False)
    """
    return name in NETWORKS and not NETWORKS[name].draws


def reseed(model: nn.Module, seed: int) -> None:
    """Restart the draws of a network's own generators (Shake-Shake); no effect on the others."""
    for module in model.modules():
        draws = getattr(module, "draws", None)
        if isinstance(draws, Generator):
            draws.manual_seed(seed)
