"""The trainable encoders of AdvMask: from a perturbation to one code per pixel, one network each.

Every image trains a network of its own. For the fully-connected encoder that would be c·h²·w²
weights per image (12.6 MB at 3x32x32) read and written many times a step; ``LinearEncoder`` never
holds them. The gradient of a linear layer is a product of two vectors, so the weights are the
initial ones plus a sum over the steps, and what they do to a vector follows from the history of
those vectors alone, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from attacks.base import Images

Codes = Float[Tensor, "b n"]  # one number per pixel, n = h·w


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as ``torch.optim.SGD`` defines it."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"the encoder's lr is {self.lr}: it must be positive")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"the encoder's momentum is {self.momentum}: it must lie in [0, 1)")
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError("the encoder's nesterov needs a momentum and no dampening")


@runtime_checkable
class Encoder(Protocol):
    """One small network per image, trained while it is used."""

    def encode(self, delta: Images) -> Codes:
        """The codes of the perturbations, with the weights as they are."""
        ...

    def learn(self, gradient: Codes) -> Images:
        """Take a step down ``gradient``, that of the loss with respect to the last codes.

        Returns the loss's gradient with respect to the last perturbations, through the weights as
        they were before the step.
        """
        ...


class LinearEncoder:
    """h = W·delta + b per image, trained by SGD without ever forming W.

    With the gradient cₛ of the codes at step s, the gradient of W is cₛ·deltaₛᵀ and that of b is
    cₛ, so Wₜ = p·W₀ - Σₛ aₛ·cₛ·deltaₛᵀ and bₜ = p·b₀ - Σₛ aₛ·cₛ, where p and aₛ follow scalar
    recurrences that hold the learning rate, momentum, dampening, weight decay and Nesterov's rule.

    W₀ and b₀ have the law of ``torch.nn.Linear``. One W₀, always the same, serves all images:
    random signs of its rows and columns, drawn per image, keep that law and make the weights of
    different images uncorrelated.

    Memory is 4·(c+1)·h·w bytes per step and image: 3.3 MB for 200 steps at 3x32x32.
    """

    def __init__(self, like: Images, generators: Sequence[Generator], sgd: SGD, steps: int) -> None:
        count, inputs, outputs = len(like), like[0].numel(), like[0, 0].numel()
        bound = inputs**-0.5
        weight = torch.rand(outputs, inputs, generator=Generator().manual_seed(0))
        self._weight = (weight * 2 - 1).mul_(bound).to(like)
        draws = _uniform(generators, inputs + 2 * outputs, like)
        signs = torch.where(draws < 0, -1, 1).to(like)
        self._columns, self._rows, _ = signs.split([inputs, outputs, outputs], dim=1)
        self._bias = draws[:, inputs + outputs :] * bound
        self._deltas = like.new_empty(count, steps, inputs)
        self._gradients = like.new_empty(count, steps, outputs)
        self._sgd = sgd
        self._shape = like.shape
        self._step = 0
        # how much of the start and of each step is in the weights and in the momentum buffer
        self._start, self._start_velocity = 1.0, 0.0
        self._share, self._velocity = like.new_zeros(2, steps)

    def encode(self, delta: Images) -> Codes:
        """The codes of the perturbations, with the weights as they are."""
        self._last = flat = delta.flatten(1)
        t = self._step
        codes = ((self._columns * flat) @ self._weight.T).mul_(self._rows).add_(self._bias)
        # as rows: a batch of products matrix times column takes several times longer on a CPU
        overlap = torch.bmm(flat[:, None], self._deltas[:, :t].mT).add_(1)
        overlap.mul_(self._share[:t])
        return torch.baddbmm(
            codes[:, None], overlap, self._gradients[:, :t], beta=self._start, alpha=-1
        )[:, 0]

    def learn(self, gradient: Codes) -> Images:
        """Take a step down ``gradient``, that of the loss with respect to the last codes."""
        t = self._step
        self._deltas[:, t], self._gradients[:, t] = self._last, gradient
        back = ((self._rows * gradient) @ self._weight).mul_(self._columns)
        overlap = torch.bmm(gradient[:, None], self._gradients[:, :t].mT)
        overlap.mul_(self._share[:t])
        back = torch.baddbmm(
            back[:, None], overlap, self._deltas[:, :t], beta=self._start, alpha=-1
        )[:, 0]
        self._descend()
        return back.reshape(self._shape)

    def _descend(self) -> None:
        sgd, t = self._sgd, self._step
        fresh = 1 - sgd.dampening if t else 1.0
        start = sgd.weight_decay * self._start
        share = -sgd.weight_decay * self._share
        share[t] = 1
        self._start_velocity = sgd.momentum * self._start_velocity + fresh * start
        self._velocity.mul_(sgd.momentum).add_(share, alpha=fresh)
        if sgd.nesterov:
            start += sgd.momentum * self._start_velocity
            share += sgd.momentum * self._velocity
        else:
            start, share = self._start_velocity, self._velocity
        self._start -= sgd.lr * start
        self._share.add_(share, alpha=sgd.lr)
        self._step += 1


class UNetEncoder:
    """A small U-Net per image, for pictures too large for a fully-connected encoder.

    Two levels down and up again, 3x3 convolutions with ReLU (widths ``width``, 2·``width``,
    4·``width``) and skips. Batched as grouped convolutions, one group per image.
    """

    def __init__(
        self, like: Images, generators: Sequence[Generator], sgd: SGD, width: int = 8
    ) -> None:
        channels = like.shape[1]
        self._layers = [
            (channels, width),
            (width, 2 * width),
            (2 * width, 4 * width),
            (6 * width, 2 * width),
            (3 * width, width),
            (width, 1),
        ]
        sizes = [9 * inputs * outputs + outputs for inputs, outputs in self._layers]
        scales = [(6 / (9 * inputs)) ** 0.5 for inputs, _ in self._layers]  # He's uniform law
        bound = torch.repeat_interleave(torch.tensor(scales), torch.tensor(sizes))
        self._sizes = sizes
        self._weights = _uniform(generators, sum(sizes), like) * bound.to(like)
        self._velocity = torch.zeros_like(self._weights)
        self._sgd = sgd
        self._step = 0

    def encode(self, delta: Images) -> Codes:
        """The codes of the perturbations, with the weights as they are."""
        self._inputs = delta.detach().requires_grad_(True)
        self._leaves = self._weights.detach().requires_grad_(True)
        with torch.enable_grad():
            parts = self._leaves.split(self._sizes, dim=1)
            fine = self._convolve(self._inputs, parts[0], 0).relu()
            middle = self._convolve(functional.avg_pool2d(fine, 2, ceil_mode=True), parts[1], 1)
            middle = middle.relu()
            coarse = self._convolve(functional.avg_pool2d(middle, 2, ceil_mode=True), parts[2], 2)
            middle = self._convolve(_join(coarse.relu(), middle), parts[3], 3).relu()
            fine = self._convolve(_join(middle, fine), parts[4], 4).relu()
            self._codes = self._convolve(fine, parts[5], 5).flatten(1)
        return self._codes.detach()

    def learn(self, gradient: Codes) -> Images:
        """Take a step down ``gradient``, that of the loss with respect to the last codes."""
        sgd = self._sgd
        back, slope = torch.autograd.grad(self._codes, [self._inputs, self._leaves], gradient)
        slope = slope.add(self._weights, alpha=sgd.weight_decay)
        fresh = 1 - sgd.dampening if self._step else 1.0
        self._velocity.mul_(sgd.momentum).add_(slope, alpha=fresh)
        step = slope.add(self._velocity, alpha=sgd.momentum) if sgd.nesterov else self._velocity
        self._weights.sub_(step, alpha=sgd.lr)
        self._step += 1
        return back

    def _convolve(self, maps: Tensor, parameters: Tensor, layer: int) -> Tensor:
        inputs, outputs = self._layers[layer]
        count, _, h, w = maps.shape
        weight = parameters[:, outputs:].reshape(count * outputs, inputs, 3, 3)
        bias = parameters[:, :outputs].reshape(-1)
        grouped = maps.reshape(1, count * inputs, h, w)
        out = functional.conv2d(grouped, weight, bias, padding=1, groups=count)
        return out.reshape(count, outputs, h, w)


def _join(coarse: Tensor, fine: Tensor) -> Tensor:
    """Bring the coarse maps to the size of the fine ones and stack the two."""
    return torch.cat([functional.interpolate(coarse, size=fine.shape[-2:]), fine], dim=1)


def _uniform(generators: Sequence[Generator], size: int, like: Images) -> Float[Tensor, "b n"]:
    """Uniform draws from [-1, 1), a row per generator."""
    rows = [torch.rand(size, generator=g, device=g.device) for g in generators]
    return torch.stack(rows).to(like) * 2 - 1
