"""The trainable encoders of AdvMask: from a perturbation to one code per pixel, one network each.

Every image trains a network of its own. For the fully-connected encoder that would be c·h²·w²
weights per image (12.6 MB at 3x32x32) read and written many times a step; ``LinearEncoder`` never
holds them. The gradient of a linear layer is a product of two vectors, so the weights are the
initial ones plus a sum over the steps, and what they do to a vector follows from the history of
those vectors alone, exactly.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from attacks.base import Images
from attacks.draws import draw

Codes = Float[Tensor, "b n"]  # one number per pixel, n = h·w, or per element, n = c·h·w


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
            raise ValueError(f"the encoder's momentum is {self.momentum}: it must be in [0, 1)")
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
    different images uncorrelated. ``per_pixel`` codes are given for each pixel. With ``constant``,
    W₀ is 0 and b₀ that, of shape (b, n), instead.

    Memory is 4·(c+1)·h·w bytes per step and image: 3.3 MB for 200 steps at 3x32x32.
    """

    def __init__(
        self,
        like: Images,
        generators: Sequence[Generator],
        sgd: SGD,
        steps: int,
        per_pixel: int = 1,
        constant: Codes | None = None,
    ) -> None:
        count, inputs, outputs = len(like), like[0].numel(), per_pixel * like[0, 0].numel()
        bound = inputs**-0.5
        weight = torch.rand(outputs, inputs, generator=Generator().manual_seed(0))
        self._weight = (weight * 2 - 1).mul_(bound).to(like)
        draws = _uniform(generators, inputs + 2 * outputs, like)
        signs = torch.where(draws < 0, -1, 1).to(like)
        self._columns, self._rows, _ = signs.split([inputs, outputs, outputs], dim=1)
        self._bias = draws[:, inputs + outputs :] * bound
        if constant is not None:
            self._weight, self._bias = torch.zeros_like(self._weight), constant.to(like)
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


class ConvolutionalEncoder(ABC):
    """A convolutional network per image, batched as grouped convolutions, one group per image.

    Subclasses give the shapes of the parameters and the network. A deep network has no short form
    such as `LinearEncoder`'s, so the parameters of every image are kept.

    Args:
        like: Images of the shape, dtype and device of the perturbations.
        generators: Source of the initial weights, one per image.
        sgd: The optimiser.
        shapes: Shape of each parameter of one image's network.
        laws: Centre and half width of the uniform law that each parameter starts with.
    """

    def __init__(
        self,
        like: Images,
        generators: Sequence[Generator],
        sgd: SGD,
        shapes: Sequence[tuple[int, ...]],
        laws: Sequence[tuple[float, float]],
    ) -> None:
        self._shapes = list(shapes)
        self._sizes = [math.prod(shape) for shape in shapes]
        each = torch.repeat_interleave(torch.tensor(laws), torch.tensor(self._sizes), dim=0)
        centre, width = each.to(like).unbind(1)
        self._weights = _uniform(generators, sum(self._sizes), like) * width + centre
        self._velocity = torch.zeros_like(self._weights)
        self._sgd = sgd
        self._step = 0

    @abstractmethod
    def _codes_of(self, maps: Images, parameters: Sequence[Tensor]) -> Tensor:
        """The codes, of shape (b, 1, h, w), from parameters of shape (b, size) each."""

    def encode(self, delta: Images) -> Codes:
        """The codes of the perturbations, with the weights as they are."""
        self._inputs = delta.detach().requires_grad_(True)
        self._leaves = self._weights.detach().requires_grad_(True)
        with torch.enable_grad():
            parameters = self._leaves.split(self._sizes, dim=1)
            self._codes = self._codes_of(self._inputs, parameters).flatten(1)
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


class UNetEncoder(ConvolutionalEncoder):
    """A small U-Net per image, for images too large for a fully-connected encoder.

    Two levels down and up again, 3x3 convolutions with ReLU (widths ``width``, 2·``width``,
    4·``width``) and skips. ``per_pixel`` codes are given for each pixel.
    """

    def __init__(
        self,
        like: Images,
        generators: Sequence[Generator],
        sgd: SGD,
        width: int = 8,
        per_pixel: int = 1,
    ) -> None:
        layers = [
            (like.shape[1], width),
            (width, 2 * width),
            (2 * width, 4 * width),
            (6 * width, 2 * width),
            (3 * width, width),
            (width, per_pixel),
        ]
        # bias and kernel in one: they start with the same law, He's uniform one
        self._layers = layers
        shapes = [(outputs * (1 + 9 * inputs),) for inputs, outputs in layers]
        laws = [(0.0, (6 / (9 * inputs)) ** 0.5) for inputs, _ in layers]
        super().__init__(like, generators, sgd, shapes, laws)

    def _codes_of(self, maps: Images, parameters: Sequence[Tensor]) -> Tensor:
        fine = self._convolve(maps, parameters, 0).relu()
        middle = functional.avg_pool2d(fine, 2, ceil_mode=True)
        middle = self._convolve(middle, parameters, 1).relu()
        coarse = functional.avg_pool2d(middle, 2, ceil_mode=True)
        coarse = self._convolve(coarse, parameters, 2).relu()
        middle = self._convolve(_join(coarse, middle), parameters, 3).relu()
        fine = self._convolve(_join(middle, fine), parameters, 4).relu()
        return self._convolve(fine, parameters, 5)

    def _convolve(self, maps: Tensor, parameters: Sequence[Tensor], layer: int) -> Tensor:
        inputs, outputs = self._layers[layer]
        bias, kernel = parameters[layer].split([outputs, 9 * inputs * outputs], dim=1)
        return _grouped(maps, kernel.reshape(-1, outputs, inputs, 3, 3), bias)


class PublishedUNetEncoder(ConvolutionalEncoder):
    """The U-Net that the authors of AdvMask published later as encoder of larger images.

    ``levels`` times down by maximum pooling and up by transposed convolutions, with skips; at every
    level two 3x3 convolutions, each with batch normalisation over the one image and ReLU, of
    ``width`` channels at the top and twice as many per level; a 1x1 convolution at the end. The
    parameters start with the laws of ``torch.nn``. The published code has this network with 2
    levels of 16 channels, 0.1 million weights (the default), and with 4 levels of 64 channels,
    the U-Net of Ronneberger et al. 2015 with 31 million, all of them per image.

    Raises:
        ValueError: If the images are too small for that many levels.
    """

    def __init__(
        self,
        like: Images,
        generators: Sequence[Generator],
        sgd: SGD,
        width: int = 16,
        levels: int = 2,
    ) -> None:
        if min(like.shape[2:]) < 2 ** (levels + 1):
            raise ValueError(
                f"images of {like.shape[2]}x{like.shape[3]} pixels are too small for a U-Net of "
                f"{levels} levels: give at least {2 ** (levels + 1)} pixels a side"
            )
        self._levels = levels
        shapes: list[tuple[int, ...]] = []
        laws: list[tuple[float, float]] = []

        def convolution(kernel: tuple[int, ...], outputs: int, fan: int) -> None:
            shapes.extend([kernel, (outputs,)])
            laws.extend([(0.0, fan**-0.5)] * 2)

        def double(inputs: int, outputs: int) -> None:
            for before in (inputs, outputs):
                convolution((outputs, before, 3, 3), outputs, 9 * before)
                shapes.extend([(outputs,), (outputs,)])
                laws.extend([(1.0, 0.0), (0.0, 0.0)])  # scale and shift of the normalisation

        widths = [width << level for level in range(levels + 1)]
        double(like.shape[1], width)
        for fine, coarse in itertools.pairwise(widths):
            double(fine, coarse)
        for coarse, fine in itertools.pairwise(reversed(widths)):
            convolution((coarse, fine, 2, 2), fine, 4 * fine)
            double(coarse, fine)
        convolution((1, width, 1, 1), 1, width)
        super().__init__(like, generators, sgd, shapes, laws)

    def _codes_of(self, maps: Images, parameters: Sequence[Tensor]) -> Tensor:
        count = len(maps)
        shaped = [p.reshape(count, *s) for p, s in zip(parameters, self._shapes, strict=True)]
        queue = iter(shaped)

        def double(maps: Tensor) -> Tensor:
            for _ in range(2):
                kernel, bias, scale, shift = (next(queue) for _ in range(4))
                maps = _normalise(_grouped(maps, kernel, bias), scale, shift).relu()
            return maps

        maps = double(maps)
        skips = []
        for _ in range(self._levels):
            skips.append(maps)
            maps = double(functional.max_pool2d(maps, 2))
        for skip in reversed(skips):
            kernel, bias = next(queue), next(queue)
            up = _upwards(maps, kernel, bias)
            down, right = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
            up = functional.pad(up, [right // 2, right - right // 2, down // 2, down - down // 2])
            maps = double(torch.cat([skip, up], dim=1))
        return _grouped(maps, next(queue), next(queue))


def _grouped(maps: Tensor, kernel: Float[Tensor, "b o i k k"], bias: Tensor) -> Tensor:
    """Convolve each image with a kernel of its own; the size stays."""
    count, outputs, inputs, side, _ = kernel.shape
    out = functional.conv2d(
        maps.reshape(1, count * inputs, *maps.shape[2:]),
        kernel.reshape(count * outputs, inputs, side, side),
        bias.reshape(-1),
        padding=side // 2,
        groups=count,
    )
    return out.reshape(count, outputs, *maps.shape[2:])


def _upwards(maps: Tensor, kernel: Float[Tensor, "b i o k k"], bias: Tensor) -> Tensor:
    """Convolve each image transposed with a kernel of its own; the sides grow by the kernel's."""
    count, inputs, outputs, side, _ = kernel.shape
    out = functional.conv_transpose2d(
        maps.reshape(1, count * inputs, *maps.shape[2:]),
        kernel.reshape(count * inputs, outputs, side, side),
        bias.reshape(-1),
        stride=side,
        groups=count,
    )
    return out.reshape(count, outputs, *out.shape[2:])


def _normalise(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Batch normalisation in training mode of a batch of one image, for each image."""
    channels = maps.reshape(1, -1, *maps.shape[2:])
    out = functional.batch_norm(
        channels, None, None, scale.reshape(-1), shift.reshape(-1), training=True
    )
    return out.reshape(maps.shape)


def _join(coarse: Tensor, fine: Tensor) -> Tensor:
    """Bring the coarse maps to the size of the fine ones and stack the two."""
    return torch.cat([functional.interpolate(coarse, size=fine.shape[-2:]), fine], dim=1)


def _uniform(generators: Sequence[Generator], size: int, like: Images) -> Float[Tensor, "b n"]:
    """Uniform draws from [-1, 1), a row per generator."""
    return draw(torch.rand, generators, (size,), like.device).to(like) * 2 - 1
