"""Adversarial training: each step attacks its images first and learns from what comes back.

The attacks are those of the package ``attacks``, with few steps. They stop at an image's first
success, as in friendly adversarial training (Zhang et al., ICML 2020), which saves most of the
passes while the network is weak. That deviates from Madry et al. and Zhong et al., who maximise the
loss until the last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from attacks import PGD, BaseAttack, SparsePGD
from attacks.base import Images
from bench.data import seeds
from bench.data.floats import as_floats
from bench.data.splits import Split
from bench.errors import suggest
from bench.models.arithmetic import full_float32
from bench.registry import notation

EVALUATED = 500
"""Test images on which the robust accuracy is measured after a training."""

STRONGER = 4
"""How many times the steps of the training attack this measurement takes."""


class RobustTraining:
    """How the images of a step are attacked, and the loss of what comes back.

    Subclasses are frozen dataclasses, whose fields are the options that a user types.

    Attributes:
        steps: Most steps of the attack on an image.
    """

    about: ClassVar[str]
    steps: int

    def method(self, steps: int, generator: Generator) -> BaseAttack:
        """The attack of one batch, with so many steps."""
        raise NotImplementedError

    def attacked(
        self,
        network: nn.Module,
        images: Images,
        labels: Int[Tensor, " b"],
        generator: Generator,
        steps: int | None = None,
    ) -> Images:
        """Attack a batch of images, untargeted, with the network in eval mode.

        Args:
            network: The network in training; its mode is restored.
            images: Images in [0, 1], shape (b, c, h, w).
            labels: True classes, shape (b,).
            generator: Source of the attack's draws.
            steps: Most steps; None: those of the training.

        Returns:
            The images after the attack, of the same shape; where it failed, the attempt that came
            closest to another class.
        """
        method = self.method(steps or self.steps, generator)
        return method(network, images.clamp(0, 1), labels, generator, failures="closest")

    def loss(
        self,
        network: nn.Module,
        images: Images,
        attacked: Images,
        targets: Int[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """The cross-entropy of the attacked images (Madry et al. 2018, equation 2.1).

        Args:
            network: The network, in training mode.
            images: The images before the attack.
            attacked: The images after it.
            targets: True classes.
        """
        return functional.cross_entropy(network(_fast(attacked)), targets)


@dataclass(frozen=True)
class SparseAT(RobustTraining):
    """Adversarial training against changes of at most ``k`` pixels: sAT (Zhong et al., ICML 2024).

    Attributes:
        k: Most pixels that the attack changes.
        steps: Most steps of the attack on an image.

    Raises:
        ValueError: A value below 1.
    """

    about: ClassVar[str] = "adversarial training against changes of at most k pixels"

    k: int = 20
    steps: int = 10

    def __post_init__(self) -> None:
        _at_least_one(self, "k", "steps")

    def method(self, steps: int, generator: Generator) -> BaseAttack:
        """Sparse-PGD on ``k`` pixels, with one of its two gradients, drawn for each batch."""
        projected = bool(torch.randint(2, (), generator=generator))
        kind: Literal["projected", "unprojected"] = "projected" if projected else "unprojected"
        return SparsePGD(eps=None, k=self.k, gradient=kind, steps=steps)


@dataclass(frozen=True)
class SparseTRADES(SparseAT):
    """TRADES against changes of at most ``k`` pixels: sTRADES (Zhong et al., ICML 2024).

    The loss is the cross-entropy of the images plus ``beta`` times the Kullback-Leibler divergence
    of the attacked predictions from theirs (Zhang et al., ICML 2019, equation 5). Deviations: the
    attack looks for a wrong class, not for the largest divergence; and images and attacked images
    are one batch, so that batch normalisation sees both together.

    Attributes:
        k: Most pixels that the attack changes.
        steps: Most steps of the attack on an image.
        beta: Weight of the divergence, as in the paper of TRADES.

    Raises:
        ValueError: A value out of its range.
    """

    about: ClassVar[str] = "TRADES against changes of at most k pixels"

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta is {self.beta}: it must be above 0")

    def loss(
        self, network: nn.Module, images: Images, attacked: Images, targets: Int[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the images, and the divergence that the attack causes."""
        clean, moved = network(_fast(torch.cat([images, attacked]))).chunk(2)
        divergence = functional.kl_div(
            moved.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True
        )
        return functional.cross_entropy(clean, targets) + self.beta * divergence


@dataclass(frozen=True)
class LinfAT(RobustTraining):
    """Adversarial training against changes of every value by at most ``eps`` (Madry et al. 2018).

    Attributes:
        eps: Largest change of a value, above 0 and at most 1.
        steps: Most steps of the attack on an image.

    Raises:
        ValueError: A value out of its range.
    """

    about: ClassVar[str] = "adversarial training against changes of every value by at most eps"

    eps: float = 8 / 255
    steps: int = 7

    def __post_init__(self) -> None:
        _at_least_one(self, "steps")
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps is {self.eps}: it must be above 0 and at most 1, such as 8/255")

    def method(self, steps: int, generator: Generator) -> BaseAttack:
        """PGD within ``eps``, which draws its start from the generator of the batch."""
        return PGD(eps=self.eps, steps=steps)


METHODS: dict[str, type[RobustTraining]] = {
    "sparse-at": SparseAT,
    "sparse-trades": SparseTRADES,
    "linf-at": LinfAT,
}
"""The methods by the name that a user types."""


def build(text: str) -> RobustTraining:
    """Return the method that a text describes.

    Args:
        text: Name with options, as ``"sparse-at(k=20)"``.

    Raises:
        ValueError: Unknown name or option, or a value of the wrong type or range.

    >>> build("sparse-trades(k=10)")
    SparseTRADES(k=10, steps=10, beta=6.0)
    """
    name, options = notation.parse(text)
    if name not in METHODS:
        raise ValueError(f"there is no robust training {name!r}: {suggest(name, METHODS)}")
    found: RobustTraining = notation.configured(METHODS[name], name, options)
    return found


def express(method: Any) -> str:
    """Return the shortest text from which `build` builds the same method.

    >>> express(SparseAT(k=20, steps=5)), express(LinfAT())
    ('sparse-at(steps=5)', 'linf-at')
    """
    name = next(name for name, cls in METHODS.items() if type(method) is cls)
    return notation.write(name, method, METHODS[name]())


@full_float32()
def accuracy(method: RobustTraining, network: nn.Module, test: Split, device: str) -> float:
    """Return the share of test images that a trained network still gets right after the attack.

    The attack is that of the training with `STRONGER` times its steps, on the first `EVALUATED`
    images of a fixed order; attacks of an evaluation find more.

    Args:
        method: How the network was trained.
        network: The network.
        test: The test images.
        device: Device of the network.
    """
    order = torch.randperm(len(test.labels), generator=seeds.generator(0, "pictures"))
    right = 0
    network.eval()
    chosen = order[:EVALUATED]
    for ids in chosen.split(100):
        images = as_floats(test.images[ids], device)
        labels = test.labels[ids].to(device)
        stream = seeds.generator(0, "robust accuracy", int(ids[0]))
        moved = method.attacked(network, images, labels, stream, STRONGER * method.steps)
        with torch.no_grad():
            right += int((network(moved).argmax(1) == labels).sum())
    return right / len(chosen)


def _fast(images: Images) -> Images:
    return images.contiguous(memory_format=torch.channels_last)


def _at_least_one(method: Any, *names: str) -> None:
    for name in names:
        if getattr(method, name) < 1:
            raise ValueError(f"{name} is {getattr(method, name)}: give at least 1")
