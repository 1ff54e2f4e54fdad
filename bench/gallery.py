"""Pictures side by side, enlarged pixel by pixel."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from augmentations import delete
from bench import registry, seeds
from bench.datasets import Dataset
from bench.points import Points

MARGIN, TITLE = 6, 16


def masked(data: Dataset, points: Points, count: int) -> dict[str, Float[Tensor, "n _ h w"]]:
    """Training pictures, their points, AdvMask's masks on them and what is left."""
    ids = torch.linspace(0, len(data.train.labels) - 1, count).long()
    images = data.train.images[ids].float() / 255
    guide = points.guide()[ids]
    side = images.shape[-1]
    augmentation = registry.build("augmentations", "advmask", data=data.name, side=side)
    mask = augmentation.mask(images, seeds.generator(0, "gallery"), guide.float())
    red = torch.tensor([1.0, 0.1, 0.1])[:, None, None]
    return {
        "image": images,
        "points": torch.where(guide, red, images * 0.5),
        "mask": mask.float(),
        "masked": delete(images, mask, mean=data.mean),
    }


def grid(columns: Mapping[str, Float[Tensor, "n _ h w"]], width: int = 96) -> Any:
    """One row per picture, one titled column per entry, as a PIL image.

    The tensors hold values in [0, 1] with one or three channels; each picture is enlarged by a
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
    for i, (title, pictures) in enumerate(columns.items()):
        pen.text((MARGIN + i * cell_w, 3), title, fill="black")
        for j, picture in enumerate(pictures):
            colour = picture.expand(3, -1, -1).clamp(0, 1).mul(255).round().to(torch.uint8)
            pixels = Image.fromarray(colour.permute(1, 2, 0).contiguous().cpu().numpy())
            enlarged = pixels.resize((w * scale, h * scale), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (MARGIN + i * cell_w, TITLE + MARGIN + j * cell_h))
    return canvas


def png(image: Any) -> bytes:
    """A PIL image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
