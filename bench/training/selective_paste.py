"""KeepAugment around a policy: what matters most is pasted back (Gong et al. 2021).

Its cutting counterpart is the augmentation ``keep-augment``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from attacks.base import frozen
from augmentations import squares
from augmentations.base import Guide, Images, on_device_of, required
from augmentations.keep_augment import KeepAugment
from bench.data import seeds
from bench.models.networks import Normalised
from bench.models.saliency import saliency as gradient

WEIGHT = 0.3  # of the early head's loss; that of a third-party code, the paper's is not known here
POOLED = 4  # the early head sees this many by this many averages of each channel


def selective_paste(
    images: Images,
    augmented: Images,
    guide: Guide,
    generator: Generator,
    length: int = 16,
    quantile: float = 0.6,
) -> Images:
    """The augmented images with one important square of the images pasted back into each.

    The importance of a square is the sum of the guide over it, for all centres, clipped at the
    border. The centre is uniform among those whose importance lies above the ``quantile`` (tau) of
    all in that image, which is the law of the paper's redrawing; where none lies above it, as
    under a constant guide, those that reach it count too. Squares are of ``length`` pixels, an odd
    one acting as the even one below. Raises ``ValueError`` as `KeepAugment` does.

    The sizes for pasting are not known to us: 16 pixels and 0.6 are those of a third-party code.
    """
    KeepAugment(length, quantile)
    guide = required(guide, images, "selective paste", "the saliency of each pixel")
    sums = squares.square_sums(guide, length)
    limit, near = squares.threshold(sums, quantile), squares.slack(sums)
    admissible = sums > limit + near
    admissible |= ~admissible.any(1, keepdim=True) & (sums >= limit - near)
    weights = admissible.to(generator.device, torch.float32)
    centre = torch.multinomial(weights, 1, generator=generator)[:, 0]
    centre = on_device_of(generator, images)(centre)
    kept = squares.square_at(centre, length, images)
    return torch.where(kept, images, augmented)


def saliency(kind: str, network: nn.Module, images: Images, labels: Int[Tensor, " b"]) -> Guide:
    """The saliency of a `Policy`'s ``keep``: "full", "low", "early" or "early-low".

    The early kinds need a network that has an early head.
    """
    if kind.startswith("early"):
        network = Early(network)
    return (low_resolution if kind.endswith("low") else gradient)(network, images, labels)


def low_resolution(network: nn.Module, images: Images, labels: Int[Tensor, " b"]) -> Guide:
    """The saliency of copies of half the size, mapped back: about a quarter of the work.

    Copies average 2x2 pixels; every pixel gets the value of the average it went into.
    """
    h, w = images.shape[-2:]
    copies = functional.interpolate(images, size=(max(1, h // 2), max(1, w // 2)), mode="area")
    return functional.interpolate(gradient(network, copies, labels), size=(h, w))


class EarlyHead(nn.Module):
    """An auxiliary classifier on the first stage of a network, trained along with it.

    It becomes ``network.early_head``, so that the optimiser, checkpoints and modes reach it; the
    weights that are published do not hold it. A pass in training mode leaves the features of the
    stage here, for `loss`. First weights are drawn from ``seed``. Raises ``ValueError`` for a
    network without known stages.
    """

    def __init__(self, network: Normalised, classes: int, images: Images, seed: int) -> None:
        super().__init__()
        self.features: Tensor | None = None
        self.cut = False
        stage = first_stage(network.network)
        stage.register_forward_hook(self._catch)
        network.early_head = self
        with frozen(network), torch.no_grad():
            width = Early(network).features(images[:1]).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeds.derive(seed, "early head"))
            self.linear = nn.Linear(width * POOLED**2, classes)

    def forward(self, features: Float[Tensor, "b width y x"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        pooled = functional.adaptive_avg_pool2d(features, POOLED)
        logits: Tensor = self.linear(pooled.flatten(1))
        return logits

    def loss(self, targets: Tensor) -> Float[Tensor, ""]:
        """The weighted loss at the last pass; ``targets`` are labels or weights of the classes."""
        assert self.features is not None, "the network was not passed in training mode"
        features, self.features = self.features, None
        return WEIGHT * functional.cross_entropy(self(features), targets)

    def _catch(self, module: nn.Module, given: tuple[Tensor, ...], features: Tensor) -> None:
        if self.cut:
            raise _Reached(features)
        self.features = features if self.training else None


class Early(nn.Module):
    """A network cut short after its first stage: images to the logits of its early head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Float[Tensor, "b k"]:
        """Return the early logits; the later stages are not computed."""
        logits: Tensor = self.head(self.features(images))
        return logits

    @property
    def head(self) -> EarlyHead:
        """The network's early head."""
        head = self.network.early_head
        assert isinstance(head, EarlyHead)
        return head

    def features(self, images: Images) -> Float[Tensor, "b width y x"]:
        """What the first stage puts out."""
        head = self.head
        head.cut = True
        try:
            self.network(images)
        except _Reached as reached:
            return reached.features
        finally:
            head.cut = False
        raise AssertionError("the network never came to its first stage")


class _Reached(Exception):
    """The first stage is done; carries what it put out."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


def first_stage(network: nn.Module) -> nn.Module:
    """The module that ends the first of a network's stages."""
    for name in ("layer1", "stages", "blocks"):
        found = getattr(network, name, None)
        if name == "layer1" and isinstance(found, nn.Module):
            return found
        if isinstance(found, nn.Sequential | nn.ModuleList):
            return found[max(1, len(found) // 3) - 1]
    raise ValueError(
        f"no early stage is known of {type(network).__name__}: use keep-autoaugment without -early"
    )
