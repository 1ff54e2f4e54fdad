"""Small datasets as files, for tests of what is read from them."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.splits import Split


def image_file(value: int, size: tuple[int, int] = (6, 6), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.full((size[1], size[0], 3), value, np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def noise(
    seed: int, size: tuple[int, int] = (12, 12), kind: str = "PNG", mode: str = "RGB"
) -> bytes:
    """An image file of random pixels; ``size`` is width and height."""
    shape = (*size[::-1], len(mode)) if len(mode) > 1 else size[::-1]
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, kind)
    return file.getvalue()


def tree(train: int = 3, test: int = 2) -> dict[str, bytes]:
    """Two classes; the value of a pixel names the image."""
    found = {}
    for index, name in enumerate(("ant", "bee")):
        for kind, count in (("train", train), ("test", test)):
            for number in range(count):
                value = 100 * index + 10 * (kind == "test") + number
                found[f"{kind}/{name}/{number}.png"] = image_file(value)
    return found


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def archive(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def values(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()
