"""What every deletion augmentation is: something that draws, per image, the pixels to delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from augmentations import noise
from augmentations.checks import choice, fraction

Images = Float[Tensor, "b c h w"]
"""A batch of images with values in [0, 1], before normalisation."""
Mask = Bool[Tensor, "b 1 h w"]
"""One mask per image, True where a pixel is deleted."""
Guide = Float[Tensor, "b 1 h w"]
"""One map per image of how much each pixel matters, with values of at least 0."""
Fill = Literal["mean", "noise"]
"""What replaces a deleted pixel: the mean colour of the dataset, or normal noise."""


@dataclass(frozen=True)
class Ramp:
    """A share that grows linearly with training.

    Args:
        low: The share at the start, a fraction in [0, 1]. Alone it is constant.
        high: The share at the end, a fraction in [0, 1].
        until: The fraction of the training, in [0, 1], at which ``high`` is reached.

    Raises:
        ValueError: One of the three is no fraction.

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
            fraction(f"Ramp: {name}", value)

    @property
    def end(self) -> float:
        """The share once the ramp is over."""
        return self.low if self.high is None else self.high

    def at(self, progress: float) -> float:
        """The share at a time.

        Args:
            progress: How much of the training is done, from 0 to 1.

        Raises:
            ValueError: ``progress`` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(
                f"progress is {progress}: give the share of the training that is done, from 0 to 1"
            )
        done = min(1.0, progress / self.until) if self.until else 1.0
        return self.low + (self.end - self.low) * done


@runtime_checkable
class Augmentation(Protocol):
    """Draws, for each image of a batch, the pixels to delete.

    Implementations are frozen dataclasses: the fields are the hyperparameters and ``repr`` gives
    the expression that rebuilds the object.

    >>> from augmentations import Cutout
    >>> isinstance(Cutout(), Augmentation)
    True
    """

    @property
    def wants(self) -> str | None:
        """The guide it needs: ``"attack"`` points, live ``"saliency"`` of the network, or None."""
        ...

    @property
    def share(self) -> Ramp:
        """The share of the images that get a mask, as training goes on."""
        ...

    @property
    def fill(self) -> Fill:
        """What takes the place of a deleted pixel: the dataset's mean colour or normal noise."""
        ...

    @classmethod
    def preset(cls, data: str, side: int) -> Augmentation:
        """The published hyperparameters for a dataset.

        Args:
            data: Its name, such as ``"cifar10"``; unknown names get the values of CIFAR-10.
            side: Of its images, in pixels: lengths grow in proportion.
        """
        ...

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw one mask per image.

        Args:
            images: Floats, shape (b, c, h, w); only shape and device count.
            generator: All draws come from it.
            guide: How much each pixel matters, at least 0, shape (b, 1, h, w); needed where
                ``wants`` is not None.

        Returns:
            Shape (b, 1, h, w), True where deleted. Nothing is written into images or guide.

        Raises:
            ValueError: The guide is needed and missing, of another size, or negative or undefined
                somewhere.
        """
        ...


def scaled(length: int, side: int, reference: int = 32) -> int:
    """A length published for images of side ``reference``, for images of another side; at least 1.

    >>> scaled(16, 8), scaled(16, 64), scaled(1, 8)
    (4, 32, 1)
    """
    return max(1, round(length * side / reference))


def fields(augmentation: Any) -> None:
    """Refuse what is no augmentation, and one without the fields that deleting needs.

    Raises:
        ValueError: It is a name or a class; ``share`` or ``fill`` is missing or of another kind.
    """
    if isinstance(augmentation, str):
        raise ValueError(f"{augmentation!r} is a name: give an augmentation, such as Cutout()")
    if isinstance(augmentation, type):
        name = augmentation.__name__
        raise ValueError(f"give an augmentation, such as {name}(), not the class {name}")
    name, share = type(augmentation).__name__, getattr(augmentation, "share", None)
    if not isinstance(share, Ramp):
        if isinstance(share, int | float):
            raise ValueError(f"{name}: share is {share!r}: write it as Ramp({share!r})")
        raise ValueError(f"{name}: share is {share!r}: give it a field share: Ramp = Ramp(0.5)")
    if not hasattr(augmentation, "fill"):
        raise ValueError(f"{name} has no fill: give it a field fill: str = 'mean', or 'noise'")
    try:
        choice("fill", augmentation.fill, Fill)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def on_device_of(images: Images) -> Callable[[Tensor], Tensor]:
    """Draws happen on the generator's device; the returned function moves them to the images'."""
    return lambda draws: draws.to(images.device)


def exact(values: Tensor) -> Tensor:
    """The values in float64, in which sums of points are compared.

    Raises:
        ValueError: They are on an Apple GPU, which lacks float64.
    """
    if values.device.type == "mps":
        raise ValueError("this augmentation computes in float64, which mps lacks: use the cpu")
    return values.double()


def extent(images: Images) -> tuple[int, int, int]:
    """Number, height and width of the images of a batch.

    Raises:
        ValueError: They are no batch, as a single image.
    """
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}: give a batch, (b, c, h, w)")
    return len(images), images.shape[2], images.shape[3]


def required(guide: Guide | None, images: Images, who: str, what: str) -> Guide:
    """The guide on the images' device, once it has their size and no bad value."""
    b, h, w = extent(images)
    if guide is None:
        raise ValueError(f"{who} needs a guide: {what}, of shape {(b, 1, h, w)}")
    if guide.shape != (b, 1, h, w):
        raise ValueError(
            f"{who} needs a guide of shape {(b, 1, h, w)}, one value per pixel: "
            f"this one has shape {tuple(guide.shape)}"
        )
    if guide.numel():
        low, high = torch.stack(guide.aminmax()).tolist()  # a GPU is waited for once
        if not 0 <= low <= high < torch.inf:
            raise ValueError(
                f"{who} needs a guide of finite values, at least 0: "
                f"this one spans {low:.3g} to {high:.3g}"
            )
    return guide.to(images.device)


def points_to_guide(points: Shaped[Tensor, "n 2"], h: int, w: int) -> Float[Tensor, "h w"]:
    """The map of a list of points, as a guide for one image.

    Args:
        points: One (x, y) per row, column first, in pixels; fractions are rounded.
        h: Height of the image.
        w: Width of the image.

    Returns:
        Shape (h, w), 1 at the points and 0 elsewhere; points outside the image are dropped.

    >>> points_to_guide(torch.tensor([[2, 0], [5, 5]]), 2, 3).tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    x, y = points.cpu().round().long().unbind(-1)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    guide = torch.zeros(h, w)
    guide[y[inside], x[inside]] = 1.0
    return guide


def cross(rows: Bool[Tensor, "b h"], columns: Bool[Tensor, "b w"]) -> Mask:
    """The pixels whose row and column are both chosen."""
    return _both(rows[:, None, :, None], columns[:, None, None])


def _both(one: Tensor, other: Tensor) -> Tensor:
    """``one & other`` of truth values, three times as fast: on bytes torch uses the vector unit."""
    return (one.view(torch.uint8) & other.view(torch.uint8)).view(torch.bool)


def rectangles(
    top: Int[Tensor, " b"],
    left: Int[Tensor, " b"],
    height: Int[Tensor, " b"],
    width: Int[Tensor, " b"],
    images: Images,
) -> Mask:
    """One axis-parallel rectangle per image, clipped at the border; corners may be outside.

    >>> one, two = torch.tensor([1]), torch.tensor([2])
    >>> rectangles(-one, one, two, two, torch.zeros(1, 3, 2, 4)).int().tolist()
    [[[[0, 1, 1, 0], [0, 0, 0, 0]]]]
    """
    b, _, h, w = images.shape
    if images.device.type == "cpu":
        from augmentations.painting import paint  # numba takes a while to import

        mask = torch.empty(b, 1, h, w, dtype=torch.bool)
        paint(mask[:, 0].numpy(), *(edge.numpy() for edge in (top, left, height, width)))
        return mask
    return cross(_band(top, height, h), _band(left, width, w))


def _band(start: Int[Tensor, " b"], length: Int[Tensor, " b"], size: int) -> Bool[Tensor, "b n"]:
    """Which of ``size`` places lie in an interval per image."""
    place = torch.arange(size, device=start.device) - start[:, None]
    return (place >= 0) & (place < length[:, None])


def draw(
    augmentation: Augmentation,
    images: Images,
    generator: Generator,
    *,
    guide: Guide | None = None,
    progress: float = 1.0,
) -> Mask:
    """Draw masks for the share of the images that is due; the others keep all their pixels.

    Args:
        augmentation: Draws the masks.
        images: Floats, shape (b, c, h, w); only shape and device count.
        generator: All draws come from it.
        guide: What the augmentation ``wants``, shape (b, 1, h, w).
        progress: How much of the training is done, from 0 to 1.

    Returns:
        Shape (b, 1, h, w), True where deleted.

    Raises:
        ValueError: The guide is needed and missing or does not fit, ``progress`` is not in [0, 1],
            or the augmentation has no share or fill.

    >>> from augmentations import Cutout
    >>> images, generator = torch.zeros(2, 3, 8, 8), torch.Generator().manual_seed(0)
    >>> draw(Cutout(4), images, generator).flatten(1).any(1).tolist()
    [True, True]
    >>> draw(Cutout(4, share=Ramp(0.0, 0.8)), images, generator, progress=0.0).any()
    tensor(False)
    """
    fields(augmentation)
    chosen = torch.rand(len(images), 1, generator=generator, device=generator.device)
    chosen = (chosen < augmentation.share.at(progress)).to(images.device)
    mask = draw_all(augmentation, images, generator, guide)
    return _both(mask, chosen[:, :, None, None])


def draw_all(
    augmentation: Augmentation, images: Images, generator: Generator, guide: Guide | None = None
) -> Mask:
    """Draw a mask for every image, and refuse what is none.

    Args:
        augmentation: Draws the masks.
        images: Floats, shape (b, c, h, w); only shape and device count.
        generator: All draws come from it.
        guide: What the augmentation ``wants``, shape (b, 1, h, w).

    Returns:
        Shape (b, 1, h, w), True where deleted.

    Raises:
        ValueError: The augmentation returns something else, or the guide does not fit.
    """
    mask: object = augmentation.mask(images, generator, guide)
    wanted = (len(images), 1, *images.shape[2:])
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == wanted:
        return mask
    found = type(mask).__name__
    if isinstance(mask, Tensor):
        found = f"{mask.dtype} of shape {tuple(mask.shape)}"
    raise ValueError(
        f"{type(augmentation).__name__}: its mask is {found}: return torch.bool of shape "
        f"{wanted}, True where a pixel is deleted"
    )


def delete(
    images: Images,
    mask: Mask,
    *,
    mean: Float[Tensor, " c"],
    std: Float[Tensor, " c"] | None = None,
    fill: Fill = "mean",
    generator: Generator | None = None,
) -> Images:
    """Return the images with the masked pixels replaced.

    Args:
        images: Floats, shape (b, c, h, w); not changed.
        mask: Shape (b, 1, h, w), True where deleted.
        mean: The dataset's mean per channel, on the scale of the images.
        std: The dataset's standard deviation per channel; needed for noise.
        fill: ``"mean"`` puts the mean colour, which is 0 after normalisation; ``"noise"`` draws
            per pixel and channel from the normal law that is standard after normalisation; values
            may leave [0, 1], as in the published recipes. Only what is deleted is drawn.
        generator: Draws the noise.

    Raises:
        ValueError: There is no such fill, noise is asked for without ``std`` or ``generator``, or
            ``mean`` is no tensor.

    >>> mask = torch.tensor([[[[True, False]]]])
    >>> delete(torch.ones(1, 1, 1, 2), mask, mean=torch.tensor([0.5])).tolist()
    [[[[0.5, 1.0]]]]
    """
    choice("fill", fill, Fill)
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor | None):
        raise ValueError("mean and std must be tensors, one value per channel: torch.tensor(mean)")
    colour = mean.to(images)[None, :, None, None]
    if fill == "mean":
        # exact for finite values, and ten times as fast as torch.where on the CPU
        return torch.lerp(images, colour, mask.view(torch.uint8).to(images.dtype))
    if std is None or generator is None:
        raise ValueError("fill='noise' needs the dataset's std and a generator")
    return noise.put(images, mask, mean, std, generator)
