"""Where trained networks look: class activation maps, and two numbers for each."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from augmentations import Images
from bench.errors import Missing
from bench.models.networks import Normalised

Maps = Float[Tensor, "b h w"]


def last_stage(network: nn.Module) -> nn.Module:
    """The module whose features are averaged before the classes: the last block, or convolution.

    Raises ``ValueError`` for a network without any.
    """
    last = _convolutions(network)[-1:]
    for name in ("blocks", "stages", "layer3", "layer4"):
        found = getattr(network, name, None)
        if isinstance(found, nn.Sequential | nn.ModuleList) and len(found):
            last = [found[len(found) - 1]]
    if not last or not _convolutions(last[0]):  # the blocks of a transformer have none
        raise ValueError(
            f"{type(network).__name__} does not end in convolutions, and so has no class "
            "activation maps: choose another network"
        )
    return last[0]


def _convolutions(network: nn.Module) -> list[nn.Module]:
    return [each for each in network.modules() if isinstance(each, nn.Conv2d)]


def maps(network: Normalised, images: Images, labels: Int[Tensor, " b"]) -> Maps:
    """Grad-CAM of each image for its own class (Selvaraju et al. 2017), by the library grad-cam.

    Args:
        network: Takes images in [0, 1]; in eval mode. It is left as it was.
        images: In [0, 1].
        labels: The class of each image whose evidence is shown.

    Returns:
        Maps of the size of the images, in [0, 1], 1 at the largest value of each.

    Raises:
        Missing: The library is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise Missing(
            "class activation maps need the library grad-cam: pip install 'deletion-bench[cam]'"
        ) from error
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    with torch.enable_grad(), GradCAM(network, [last_stage(network.network)]) as method:
        found = torch.from_numpy(method(input_tensor=images, targets=targets))
    network.zero_grad(set_to_none=True)
    return found.float().clamp(0, 1)


def spread(maps: Maps) -> Float[Tensor, " b"]:
    """How far a map's mass spreads around its centre, 1 for an even map; NaN for an empty one.

    The root of the mean squared distance, in shares of the sides, over that of an even map.
    """
    mass, rows, columns = _places(maps)
    centre = [(mass * place).sum((1, 2)) for place in (rows, columns)]
    squares = [
        (mass * (place - middle[:, None, None]).square()).sum((1, 2))
        for place, middle in zip((rows, columns), centre, strict=True)
    ]
    even = rows.square().mean() + columns.square().mean()
    return (sum(squares) / even).sqrt()


def central(maps: Maps) -> Float[Tensor, " b"]:
    """The share of a map's mass inside the central half of the area; NaN for an empty map.

    It stands for the share inside the object: the datasets have no outlines of objects, but
    objects tend to be in the middle. A pixel on the border counts by the part that is inside.
    """
    mass, *_ = _places(maps)
    rows, columns = (_inside(size) for size in maps.shape[1:])
    return (mass * rows[:, None].to(maps) * columns.to(maps)).sum((1, 2))


def overlay(images: Images, maps: Maps) -> Float[Tensor, "b 3 h w"]:
    """The images, bright and orange where the map is high, dark where it is low."""
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    orange = torch.tensor([1.0, 0.55, 0.0]).to(images)[:, None, None]
    weight = maps[:, None]
    return (grey * (0.35 + 0.4 * weight) + 0.6 * weight * orange).clamp(0, 1)


def _places(maps: Maps) -> tuple[Tensor, Tensor, Tensor]:
    """Each map with mass 1, and the rows and columns of its pixels from -0.5 to 0.5."""
    _, h, w = maps.shape
    mass = maps / maps.sum((1, 2), keepdim=True)
    rows = ((torch.arange(h) + 0.5) / h - 0.5).to(maps)[:, None].expand(h, w)
    columns = ((torch.arange(w) + 0.5) / w - 0.5).to(maps).expand(h, w)
    return mass, rows, columns


def _inside(size: int) -> Tensor:
    """The part of each of so many pixels that is in the central square of half the area."""
    low, high = (size * (0.5 - 0.5**1.5), size * (0.5 + 0.5**1.5))
    edges = torch.arange(size + 1.0)
    return (edges[1:].clamp(low, high) - edges[:-1].clamp(low, high)).clamp(0, 1)
