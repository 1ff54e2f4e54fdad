"""KeepAugment with a policy: an important square of the image is pasted back (Gong et al. 2021).

Its counterpart for deletion is the augmentation ``keepaugment``.
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

WEIGHT = 0.3  # of the early head's loss; third-party code's, as the paper's is unknown here
POOLED = 4  # the early head sees 4x4 averages of each channel


def selective_paste(
    images: Images,
    augmented: Images,
    guide: Guide,
    generator: Generator,
    length: int = 16,
    quantile: float = 0.6,
) -> Images:
    """Return the augmented images with one important square of each original pasted back.

    The importance of a square is the sum of the guide over it, for all centres, clipped at the
    border. The centre is uniform among those whose importance exceeds the quantile tau of all
    centres of that image, which is the distribution of the paper's rejection sampling; if none
    exceeds it, as under a constant guide, those that equal it are admitted. Deviation: the paper's
    values for pasting are unknown here; 16 pixels and 0.6 are those of third-party code.

    Args:
        images: The originals, shape (b, c, h, w).
        augmented: The augmented images, of the same shape.
        guide: Importance of each pixel, shape (b, 1, h, w).
        generator: Source of the centres.
        length: Side of the square in pixels; an odd side acts as the even one below.
        quantile: The quantile tau, from 0 up to 1.

    Returns:
        The images, shape (b, c, h, w).

    Raises:
        ValueError: The guide is missing or has another shape, or as `KeepAugment`.
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
    """Return the saliency that a policy's ``keep`` asks for.

    Args:
        kind: ``"full"``, ``"low"`` (images of half the size), ``"early"`` (early head) or
            ``"early-low"``; the early kinds need a network with an `EarlyHead`.
        network: The network in training.
        images: Images in [0, 1], shape (b, c, h, w).
        labels: True classes, shape (b,).
    """
    if kind.startswith("early"):
        network = Early(network)
    return (low_resolution if kind.endswith("low") else gradient)(network, images, labels)


def low_resolution(network: nn.Module, images: Images, labels: Int[Tensor, " b"]) -> Guide:
    """Return the saliency of images of half the size, at full size: about a quarter of the work.

    The small images average 2x2 pixels; every pixel gets the saliency of its average.
    """
    h, w = images.shape[-2:]
    copies = functional.interpolate(images, size=(max(1, h // 2), max(1, w // 2)), mode="area")
    return functional.interpolate(gradient(network, copies, labels), size=(h, w))


class EarlyHead(nn.Module):
    """An auxiliary classifier on the first stage of a network, trained together with it.

    It becomes ``network.early_head``, so that optimiser, checkpoints and modes include it; the
    stored weights of a finished run do not. A pass in training mode stores the features of the
    stage here, for `loss`.

    Args:
        network: The network.
        classes: Number of classes.
        images: One image, which determines the width of the stage.
        seed: Seed of the initial weights.

    Raises:
        ValueError: The stages of the network are unknown.
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
        """Return the weighted loss of the last pass; ``targets`` as in ``cross_entropy``."""
        assert self.features is not None, "the network was not passed in training mode"
        features, self.features = self.features, None
        return WEIGHT * functional.cross_entropy(self(features), targets)

    def _catch(self, module: nn.Module, given: tuple[Tensor, ...], features: Tensor) -> None:
        if self.cut:
            raise _Reached(features)
        self.features = features if self.training else None


class Early(nn.Module):
    """A network up to its first stage, followed by its early head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Float[Tensor, "b k"]:
        """Return the early logits without computing the later stages."""
        logits: Tensor = self.head(self.features(images))
        return logits

    @property
    def head(self) -> EarlyHead:
        """The early head of the network."""
        head = self.network.early_head
        assert isinstance(head, EarlyHead)
        return head

    def features(self, images: Images) -> Float[Tensor, "b width y x"]:
        """Return the output of the first stage."""
        head = self.head
        head.cut = True
        try:
            self.network(images)
        except _Reached as reached:
            return reached.features
        finally:
            head.cut = False
        raise AssertionError("the network did not run its first stage")


class _Reached(Exception):
    """Ends a forward pass after the first stage; carries its output."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


def first_stage(network: nn.Module) -> nn.Module:
    """Return the module that ends the first stage of a network.

    Raises:
        ValueError: The stages of the network are unknown.
    """
    for name in ("layer1", "stages", "blocks"):
        found = getattr(network, name, None)
        if name == "layer1" and isinstance(found, nn.Module):
            return found
        if isinstance(found, nn.Sequential | nn.ModuleList):
            return found[max(1, len(found) // 3) - 1]
    raise ValueError(
        f"the first stage of {type(network).__name__} is unknown; "
        "use keep-autoaugment without -early"
    )
