"""Images side by side, enlarged pixel by pixel."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks import Attack
from augmentations import NoDeletion, delete
from augmentations.base import Images
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.models.saliency import saliency
from bench.points.blocks import attack_images
from bench.points.front import Front
from bench.points.store import Points

MARGIN, TITLE = 6, 16


def advmask_images(
    data: Dataset, points: Points, count: int
) -> dict[str, Float[Tensor, "n _ h w"]]:
    """Training images, their adversarial points, AdvMask's masks on them, and what is left."""
    ids, images = _spread(data, count)
    guide = points.guide()[ids]
    side = images.shape[-1]
    augmentation = registry.build("augmentations", "advmask", data=data.name, side=side)
    mask = augmentation.mask(images, seeds.generator(0, "gallery"), guide.float())
    return {
        "image": images,
        "points": with_points(images, guide),
        "mask": mask.float(),
        "masked": delete(images, mask, mean=data.mean),
    }


def exact_images(
    data: Dataset, network: nn.Module, attack: Attack, count: int
) -> Float[Tensor, "n _ h w"]:
    """The images that `advmask_images` shows, with the points that an attack finds now.

    Args:
        data: The dataset.
        network: The victim model.
        attack: The attack.
        count: Number of images.
    """
    ids, images = _spread(data, count)
    device = next(network.parameters()).device.type
    return with_points(images, attack_images(network, data, ids, attack, device).guide())


def front_images(data: Dataset, front: Front, count: int) -> dict[str, Float[Tensor, "n _ h w"]]:
    """Images of a comparison of ways to make points, and the points of each way that attacks.

    Args:
        data: The dataset.
        front: The comparison.
        count: Most images to show.
    """
    images = data.train.images[front.ids[:count]].float() / 255
    shown = {"image": images}
    for label, mask in front.masks.items():
        title = label.replace("exact, other draws", "exact again").replace(
            "predicted and", "pred. +"
        )
        shown[title] = with_points(images, mask[:count, None])
    return shown


def with_points(
    images: Float[Tensor, "n c h w"], guide: Bool[Tensor, "n 1 h w"]
) -> Float[Tensor, "n _ h w"]:
    """Images made darker, with their points in red."""
    red = torch.tensor([1.0, 0.1, 0.1])[:, None, None]
    return torch.where(guide, red, images * 0.5)


def deletion_images(
    data: Dataset, points: Points, count: int, network: nn.Module
) -> dict[str, Float[Tensor, "n _ h w"]]:
    """What each augmentation but AdvMask leaves of the images that `advmask_images` shows.

    Each image gets a mask, whatever the share of masked images in training. Saliency, where an
    augmentation asks for it, is that of ``network``; in training it is that of the network being
    trained.
    """
    ids, images = _spread(data, count)
    device = next(network.parameters()).device
    guides = {
        "attack": points.guide()[ids].float(),
        "saliency": saliency(network, images.to(device), data.train.labels[ids].to(device)).cpu(),
    }
    found = {}
    for name, method in registry.classes("augmentations").items():
        if name == "advmask" or method is NoDeletion:
            continue
        augmentation = registry.build("augmentations", name, data=data.name, side=images.shape[-1])
        generator = seeds.generator(0, "gallery")
        mask = augmentation.mask(images, generator, guides.get(augmentation.wants))
        found[name] = delete(
            images, mask, mean=data.mean, std=data.std, fill=augmentation.fill, generator=generator
        )
    return found


def _spread(data: Dataset, count: int) -> tuple[Int[Tensor, " n"], Images]:
    """Indices and pixels of training images at even distances."""
    ids = torch.linspace(0, len(data.train.labels) - 1, count).long()
    return ids, data.train.images[ids].float() / 255


def grid(columns: Mapping[str, Float[Tensor, "n _ h w"]], width: int = 96) -> Any:
    """One row per image, one titled column per entry, as a PIL image.

    The tensors hold values in [0, 1] with one or three channels; each image is enlarged by a
    whole factor to about ``width`` pixels without smoothing.
    """
    from PIL import Image, ImageDraw

    first = next(iter(columns.values()))
    n, _, h, w = first.shape
    scale = max(1, width // max(h, w))
    cell_w, cell_h = w * scale + MARGIN, h * scale + MARGIN
    canvas = Image.new(
        "RGB", (len(columns) * cell_w + MARGIN, n * cell_h + TITLE + MARGIN), "white"
    )
    pen = ImageDraw.Draw(canvas)
    for i, (title, images) in enumerate(columns.items()):
        pen.text((MARGIN + i * cell_w, 3), title, fill="black")
        for j, image in enumerate(images):
            colour = image.expand(3, -1, -1).clamp(0, 1).mul(255).round().to(torch.uint8)
            pixels = Image.fromarray(colour.permute(1, 2, 0).contiguous().cpu().numpy())
            enlarged = pixels.resize((w * scale, h * scale), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (MARGIN + i * cell_w, TITLE + MARGIN + j * cell_h))
    return canvas


def png(image: Any) -> bytes:
    """A PIL image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
