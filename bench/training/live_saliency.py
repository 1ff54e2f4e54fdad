"""The saliency of the network in training, which KeepAugment cuts and pastes by, and its savings.

Gong et al. 2021, section 3.3: computed from images of half the size, or from an early head.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from attacks.base import frozen
from augmentations.base import Guide, Images
from augmentations.keep_augment import Saliency
from bench.data import seeds
from bench.models.networks import Normalised
from bench.models.saliency import saliency as gradient
from bench.models.stages import stage
from bench.training.recipes import Recipe

WEIGHT = 0.3  # of the early head's loss; third-party code's, as the paper's is unknown here
POOLED = 4  # the early head sees 4x4 averages of each channel


def follows(recipe: Recipe) -> bool:
    """Return whether the masks follow the saliency of the network in training.

    Args:
        recipe: The recipe.
    """
    return recipe.augmentation.wants == "saliency" and recipe.guide is None


def kind(recipe: Recipe) -> Saliency:
    """Return the saliency that the masks follow; ``"full"`` where they follow none.

    Args:
        recipe: The recipe.
    """
    return getattr(recipe.augmentation, "saliency", "full") if follows(recipe) else "full"


def saliency(
    kind: Saliency, network: nn.Module, images: Images, labels: Int[Tensor, " b"]
) -> Guide:
    """Return the saliency that KeepAugment asks for.

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
    return functional.interpolate(gradient(network, halved(images), labels), size=(h, w))


def halved(images: Images) -> Float[Tensor, "b c _h _w"]:
    """Return the images at half the size, each pixel the mean of 2x2."""
    h, w = images.shape[-2:]
    return functional.interpolate(images, size=(max(1, h // 2), max(1, w // 2)), mode="area")


def check_halved(network: nn.Module, images: Images) -> None:
    """Refuse a network that takes images of one size only.

    Args:
        network: The network.
        images: Images of its size, shape (b, c, h, w).

    Raises:
        ValueError: The network does not take them at half the size.
    """
    try:
        with frozen(network), torch.no_grad():
            network(halved(images))
    except (AssertionError, RuntimeError, ValueError):
        name = type(getattr(network, "network", network)).__name__
        raise ValueError(
            f"{name} does not take images of half the size, which the saliency 'low' needs: choose "
            "another saliency or network"
        ) from None


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
        first = stage(network, 1, "an early head")
        first.register_forward_hook(self._catch)
        network.early_head = self
        with frozen(network), torch.no_grad():
            found = Early(network).features(images[:1])
        if found.ndim != 4:
            raise ValueError(
                f"the first stage of {type(network.network).__name__} gives no maps, which an "
                "early head needs: choose another network, such as resnet18"
            )
        width = found.shape[1]
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

    def features(self, images: Images) -> Tensor:
        """Return the output of the first stage; of convolutions, shape (b, width, y, x)."""
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
