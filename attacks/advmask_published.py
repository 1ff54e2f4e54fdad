"""AdvMask's attack with the constants that its authors published later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from attacks.base import BaseAttack, Goal, Images, Logits, Shape, Streams, Unit, check_eps
from attacks.draws import draw
from attacks.encoder import SGD, Codes, Encoder, LinearEncoder, PublishedUNetEncoder
from attacks.norms import box


@dataclass(frozen=True)
class PublishedAdvMask(BaseAttack):
    """Learn a perturbation and the mask of the classification-sensitive pixels, as published.

    Yang et al., "AdvMask", Pattern Recognition 2023, section 3.1, equations 2-6, with the constants
    that the same group published later with IPF-RDA (TPAMI 2025, arXiv 2509.16678). The mask is to
    find the pixels that matter to the model, about a seventh of them at 32x32, not the fewest.

    Momentum-PGD within ``eps`` finds a dense perturbation delta, from a uniform start and with all
    ``start_steps``. A network of its own per image then encodes delta into one code per pixel, and
    m = sigmoid(alpha · code). One loss trains both for ``steps`` steps, with x + delta · m in the
    model: max(r, ``leak`` · r), where r = 1 - CE / CE of the dense perturbation (eq. 3), plus
    (``sparsity`` + ``sparsity_slope`` · share of the pixels with m > 0.5) · mean of m (eq. 4).
    Delta goes ``step_size`` along the sign of its gradient's running mean (eqs. 5, 6), the network
    follows SGD. Alpha rises evenly from ``alpha_start`` to ``alpha_end``; in the last sixth of the
    steps it stays, but for ten steps' worth at each step at which fewer than 99 % of the mask lie
    outside [0.01, 0.99]. At the end delta is kept where m > 0.5 and judged once. An image for which
    this fails has a second try from the same dense perturbation, with ``retry_slope``.

    For a targeted goal the first term is the cross-entropy with the target itself, as published.

    Deviations: the random start is cut to [0, 1]; the dense perturbation follows the gradient of
    `Goal.soft_margin`, which is the cross-entropy's divided by its l1 norm but doesn't vanish on
    images of which the model is certain; the dense perturbation's cross-entropy counts as at least
    0.001; one initial weight matrix serves all images, with random signs of its rows and columns
    (`attacks.encoder.LinearEncoder`); targeted goals take as many steps as others (published: 640).
    The paper names 5 as the last alpha for Tiny-ImageNet and Flowers; at 64x64 pixels with the
    fully-connected encoder it broke as many of twelve images as 100 (9 and 8, at 4/255), with as
    many points.

    Attributes:
        eps: Largest change of an element, above 0 and at most 1; None is 1, which is no bound.
        steps: Steps of the joint training.
        start_steps: Steps of momentum-PGD.
        step_size: Change of an element per step, of either, in the units of the image.
        decay: Momentum of the gradients that delta follows, of either.
        sparsity: The constant C in eq. 4.
        sparsity_slope: The constant gamma in eq. 4.
        retry_slope: Gamma in the second try.
        leak: The constant eta in eq. 3: slope of the first term below 0.
        alpha_start: First value of alpha.
        alpha_end: Last value of alpha; None for 100 with the fully-connected encoder and 20 with
            the U-Net.
        lr: Learning rate of the encoder.
        momentum: Momentum of the encoder's SGD.
        weight_decay: Weight decay of the encoder's weights and biases.
        encoder: ``"linear"``, fully connected; ``"u-net"``, two levels of at least 16 channels; or
            ``"auto"``, the U-Net for images of more than 64·64 pixels.

    Raises:
        ValueError: For a value out of its range, naming it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> images, labels = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    >>> adversarial = PublishedAdvMask(eps=0.3, steps=12, start_steps=5)(model, images, labels)
    >>> bool((adversarial - images).abs().max() <= 0.3 + 1e-6)
    True
    """

    unit: ClassVar[Unit] = "pixels"

    eps: float | None = 4 / 255
    steps: int = 360
    start_steps: int = 80
    step_size: float = 2 / 255
    decay: float = 0.9
    sparsity: float = 1.0
    sparsity_slope: float = 10.0
    retry_slope: float = 1.0
    leak: float = 0.05
    alpha_start: float = 0.1
    alpha_end: float | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    encoder: Literal["auto", "linear", "u-net"] = "auto"

    def __post_init__(self) -> None:
        check_eps(self.eps)
        for name in ("steps", "start_steps", "step_size", "alpha_start", "alpha_end", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}: it must be positive")
        for name in (
            "decay", "sparsity", "sparsity_slope", "retry_slope", "leak", "weight_decay",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: it must lie in [0, 1)")
        if self.encoder not in ("auto", "linear", "u-net"):
            raise ValueError(f"encoder is {self.encoder!r}: choose 'auto', 'linear' or 'u-net'")

    def shortened(self, steps: int = 20) -> PublishedAdvMask:
        """The same attack in fewer steps; its points are about a quarter more.

        The encoder's learning rate rises as the steps fall, so that its codes travel as far, and
        momentum-PGD takes a fourth as many steps. On a ResNet-20 with CIFAR-10's images, 20 steps
        find the points of the whole attack as often as the whole attack with other draws does.

        Args:
            steps: Steps of the joint training, at least 1.

        Raises:
            ValueError: There are fewer steps.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}: give at least 1")
        start = max(1, min(self.start_steps, steps // 4))
        return replace(self, steps=steps, start_steps=start, lr=self.lr * self.steps / steps)

    def refine(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal | Tensor,
        generators: Streams | None,
        codes: Codes,
    ) -> Images:
        """Attack from known codes: those of another attack, or of a network that predicts them.

        The encoder starts as the constant ``codes`` instead of random weights, and learns from
        there. Everything else is as in a call: the passes, what is refused, and the halves of a
        batch for which memory is too short.

        Args:
            model: As in a call.
            images: Likewise.
            goal: Likewise.
            generators: Likewise.
            codes: One code per pixel of each image, positive where it is thought to be a point;
                codes of the size of 0.01 are undecided at first and decided at the end.

        Returns:
            The adversarial images, as a call does.

        Raises:
            ValueError: As in a call; there is not one code per pixel; or the encoder is the U-Net,
                which cannot start as a constant.
        """
        if not self._linear(images):
            raise ValueError(
                "only the fully-connected encoder can start from known codes: give "
                "encoder='linear', or images of at most 64x64 pixels"
            )
        wanted = (len(images), images.shape[2] * images.shape[3])
        if codes.shape != wanted:
            raise ValueError(f"codes have shape {tuple(codes.shape)}: give one per pixel, {wanted}")
        return self._call(model, images, goal, generators, "unchanged", codes)

    def passes(self, shape: Shape) -> int:
        """Both passes of every step of PGD and of two tries, and four forward passes to judge."""
        return 2 * self.start_steps + 4 * self.steps + 4

    def usual_passes(self, shape: Shape) -> int:
        """Those of one try, which is enough for most images."""
        return 2 * self.start_steps + 2 * self.steps + 3

    def _attack(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        generators: Sequence[Generator],
        codes: Codes | None = None,
    ) -> Images:
        result = images.clone()
        rows = (~goal.reached(model(images))).nonzero()[:, 0]
        if not len(rows):
            return result
        chosen = [generators[row] for row in rows.tolist()]
        dense = self._dense(model, images[rows], goal[rows], chosen)
        reference = _cross_entropy(model(images[rows] + dense), goal[rows]).clamp(min=1e-3)
        for slope in (self.sparsity_slope, self.retry_slope):
            found, reached = self._learn(
                model, images[rows], goal[rows], chosen, dense, reference, slope,
                None if codes is None else codes[rows],
            )  # fmt: skip
            result[rows[reached]] = found[reached]
            left = ~reached
            rows, dense, reference = rows[left], dense[left], reference[left]
            chosen = [generators[row] for row in rows.tolist()]
            if not len(rows):
                break
        return result

    def _dense(
        self, model: nn.Module, images: Images, goal: Goal, generators: Sequence[Generator]
    ) -> Images:
        """The perturbation of momentum-PGD, whether it reaches the goal or not."""
        low, high = box(images, self.eps, goal.region)
        place = draw(torch.rand, generators, images.shape[1:], images.device, images.dtype)
        delta = (place * 2 - 1) * self.bound
        delta.clamp_(low, high)
        velocity = torch.zeros_like(images)
        for _ in range(self.start_steps):
            with torch.enable_grad():
                attacked = (images + delta).requires_grad_(True)
                (slope,) = torch.autograd.grad(goal.soft_margin(model(attacked)).sum(), attacked)
            self._step(delta, velocity, slope, low, high)
        return delta

    def _learn(
        self,
        model: nn.Module,
        images: Images,
        goal: Goal,
        generators: Sequence[Generator],
        dense: Images,
        reference: Float[Tensor, " b"],
        sparsity_slope: float,
        codes: Codes | None = None,
    ) -> tuple[Images, Bool[Tensor, " b"]]:
        """One try: the masked perturbation's images, and which of them reach the goal."""
        low, high = box(images, self.eps, goal.region)
        pixels, shape = images[0, 0].numel(), images[:, :1].shape
        encoder = self._encoder(images, generators, codes)
        delta, velocity = dense.clone(), torch.zeros_like(images)
        alpha = images.new_full((len(images), 1), self.alpha_start)
        end = self.alpha_end or (100.0 if self._linear(images) else 20.0)
        for step in range(self.steps):
            mask = (alpha * encoder.encode(delta)).sigmoid_()
            with torch.enable_grad():
                attacked = (images + delta * mask.view(shape)).requires_grad_(True)
                entropy = _cross_entropy(model(attacked), goal)
                if goal.targeted:
                    term = entropy
                else:
                    r = 1 - entropy / reference
                    term = torch.maximum(r, self.leak * r)
                (slope,) = torch.autograd.grad(term.sum(), attacked)
            kept = (mask > 0.5).to(mask).mean(1, keepdim=True)
            price = (self.sparsity + sparsity_slope * kept) / pixels
            gain = (delta * slope).sum(1).flatten(1)
            back = encoder.learn(alpha * mask * (1 - mask) * (gain + price))
            gradient = slope.mul_(mask.view(shape)).add_(back)
            self._step(delta, velocity, gradient, low, high)
            alpha = self._sharpen(alpha, mask, step, end)
        chosen = (alpha * encoder.encode(delta) > 0).view(shape)
        attacked = (images + torch.where(chosen, delta, 0)).clamp_(0, 1)
        return attacked, goal.reached(model(attacked))

    def _step(
        self, delta: Images, velocity: Images, gradient: Images, low: Images, high: Images
    ) -> None:
        """Move ``delta`` along the sign of its velocity, within the box, in place."""
        length = gradient.flatten(1).abs().sum(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        velocity.mul_(self.decay).add_(gradient / length[:, None, None, None])
        delta.sub_(velocity.sign(), alpha=self.step_size).clamp_(low, high)

    def _linear(self, images: Images) -> bool:
        """Whether the encoder is fully connected."""
        small = images.shape[2] * images.shape[3] <= 64 * 64
        return self.encoder == "linear" or (self.encoder == "auto" and small)

    def _encoder(
        self, images: Images, generators: Sequence[Generator], codes: Codes | None
    ) -> Encoder:
        sgd = SGD(self.lr, self.momentum, weight_decay=self.weight_decay)
        if self._linear(images):
            return LinearEncoder(images, generators, sgd, self.steps, constant=codes)
        return PublishedUNetEncoder(images, generators, sgd)

    def _sharpen(
        self, alpha: Float[Tensor, "b 1"], mask: Codes, step: int, end: float
    ) -> Float[Tensor, "b 1"]:
        """The next alpha of each image, after ``step`` (from 0) with ``mask``."""
        rise = (end - self.alpha_start) / self.steps
        if 6 * step < 5 * self.steps:
            return alpha + rise
        decided = ((mask < 0.01) | (mask > 0.99)).to(mask).mean(1, keepdim=True)
        return torch.where(decided < 0.99, alpha + 10 * rise, alpha)


def _cross_entropy(logits: Logits, goal: Goal) -> Float[Tensor, " b"]:
    """What leaving a class raises, and what reaching one lowers."""
    return functional.cross_entropy(logits, goal.labels, reduction="none")
