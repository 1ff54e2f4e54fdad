"""What every deletion augmentation is: something that draws, per image, the pixels to delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

Images = Float[Tensor, "b c h w"]  # in [0, 1], not normalised
Mask = Bool[Tensor, "b 1 h w"]  # True where a pixel is deleted
Guide = Float[Tensor, "b 1 h w"]  # how much each pixel matters, at least 0
Fill = Literal["mean", "noise"]


@dataclass(frozen=True)
class Ramp:
    """A share that grows linearly with training: from ``low`` to ``high``, reached at ``until``.

    All three are fractions in [0, 1]; ``until`` is a fraction of the training run. A single number
    is constant.

    >>> Ramp(0.0, 0.8).at(0.5)
    0.4
    >>> Ramp(0.0, 0.8, until=0.5).at(0.75)
    0.8
    >>> Ramp(0.5).at(0.0)
    0.5
    """

    low: float
    high: float | None = None
    until: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.end), ("until", self.until)):
            if not 0 <= value <= 1:
                raise ValueError(f"Ramp: {name} is {value}: it must be a fraction from 0 to 1")

    @property
    def end(self) -> float:
        """The share once the ramp is over."""
        return self.low if self.high is None else self.high

    def at(self, progress: float) -> float:
        """The share when ``progress`` of the training (0 to 1) is done."""
        done = min(1.0, progress / self.until) if self.until else 1.0
        return self.low + (self.end - self.low) * done


@runtime_checkable
class Augmentation(Protocol):
    """Draws, for each image of a batch, the pixels to delete.

    Implementations are frozen dataclasses: the fields are the hyperparameters and ``repr`` gives
    the expression that rebuilds the object.
    """

    wants: ClassVar[str | None]
    """The guide it needs: ``"attack"`` points, live ``"saliency"`` of the network, or None."""

    @property
    def share(self) -> Ramp:
        """The share of the images that get a mask, as training goes on."""
        ...

    @property
    def fill(self) -> Fill:
        """What takes the place of a deleted pixel: the data set's mean colour or normal noise."""
        ...

    @classmethod
    def preset(cls, data: str, side: int) -> Augmentation:
        """The published hyperparameters for a data set whose images have this side in pixels."""
        ...

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw one mask per image, shape (b, 1, h, w), True where deleted.

        Of ``images`` only shape and device count: what a mask depends on beyond them is the guide.
        All draws come from ``generator``; nothing is written into ``images`` or ``guide``.
        """
        ...


def scaled(length: int, side: int, reference: int = 32) -> int:
    """A length published for images of side ``reference``, for images of another side; at least 1.

    >>> scaled(16, 8), scaled(16, 64), scaled(1, 8)
    (4, 32, 1)
    """
    return max(1, round(length * side / reference))


def on_device_of(generator: Generator, images: Images) -> Callable[[Tensor], Tensor]:
    """Draws happen on the generator's device; the returned function moves them to the images'."""
    return lambda draws: draws.to(images.device, non_blocking=generator.device == images.device)


def squares(
    top: Int[Tensor, "b s"], left: Int[Tensor, "b s"], length: Int[Tensor, " b"], h: int, w: int
) -> Mask:
    """The union of ``s`` axis-parallel squares per image, clipped at the border.

    ``top`` and ``left`` are corners in pixels and may lie outside; ``length`` is the side.
    """
    rows = torch.arange(h, device=top.device)
    columns = torch.arange(w, device=top.device)
    side = length[:, None, None]
    in_rows = (rows >= top[..., None]) & (rows < top[..., None] + side)
    in_columns = (columns >= left[..., None]) & (columns < left[..., None] + side)
    return (in_rows[..., :, None] & in_columns[..., None, :]).any(1, keepdim=True)


def draw(
    augmentation: Augmentation,
    images: Images,
    generator: Generator,
    *,
    guide: Guide | None = None,
    progress: float = 1.0,
) -> Mask:
    """Draw masks for the share of the images that is due when ``progress`` of training is done."""
    chosen = torch.rand(len(images), generator=generator, device=generator.device)
    chosen = (chosen < augmentation.share.at(progress)).to(images.device)
    return augmentation.mask(images, generator, guide) & chosen[:, None, None, None]


def delete(
    images: Images,
    mask: Mask,
    *,
    mean: Float[Tensor, " c"],
    std: Float[Tensor, " c"] | None = None,
    fill: Fill = "mean",
    generator: Generator | None = None,
) -> Images:
    """Return the images with the masked pixels replaced: the only place that erases.

    ``mean`` and ``std`` are the data set's, per channel, in [0, 1]. Fill ``"mean"`` puts the mean
    colour, which is 0 after normalisation; ``"noise"`` draws per pixel and channel from the normal
    law that is standard after normalisation (it needs ``std`` and ``generator``; values may leave
    [0, 1], as in the published recipes).
    """
    colour = mean.to(images)[None, :, None, None]
    if fill == "mean":
        return torch.where(mask, colour, images)
    if std is None or generator is None:
        raise ValueError("fill='noise' needs the data set's std and a generator")
    noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
    return torch.where(mask, colour + noise * std.to(images)[None, :, None, None], images)
