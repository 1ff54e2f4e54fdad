"""Two datasets of real images that come with scikit-learn and scikit-image: no download."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
from PIL import Image

from bench.data.seeds import generator
from bench.data.splits import Parts, Split, cut

SCIKIT_IMAGE, SCIKIT_LEARN = ("skimage", "data"), ("sklearn", "datasets", "images")
PHOTOS = {
    "astronaut": (*SCIKIT_IMAGE, "astronaut.png"),
    "cat": (*SCIKIT_IMAGE, "chelsea.png"),
    "coffee": (*SCIKIT_IMAGE, "coffee.png"),
    "galaxies": (*SCIKIT_IMAGE, "hubble_deep_field.jpg"),
    "motorcycle": (*SCIKIT_IMAGE, "motorcycle_left.png"),
    "pagoda": (*SCIKIT_LEARN, "china.jpg"),
    "flower": (*SCIKIT_LEARN, "flower.jpg"),
    "retina": (*SCIKIT_IMAGE, "retina.jpg"),
    "rocket": (*SCIKIT_IMAGE, "rocket.jpg"),
    "tissue": (*SCIKIT_IMAGE, "ihc.png"),
}
"""Class → the package and the file that holds its photograph."""

SIDE = 32
LARGEST = 64  # pixels of a photograph that may become one patch side of 32
LEFT = 0.7  # of a photograph belongs to the training part, the rest to the test part
TRAIN, TEST = 200, 50  # patches per class
PLAIN = 32  # of 256 levels; patches whose channels all vary by less show hardly anything


def digits() -> Parts:
    """The 1,797 scans of handwritten digits of scikit-learn, 8x8 pixels, one channel.

    The 17 grey levels are stretched to 0 to 255. A fixed fifth of each class is the test part.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(np.rint(found.images * (255 / 16)).astype(np.uint8))[:, None]
    whole = Split(images, torch.from_numpy(found.target.astype(np.int64)))
    train, test = cut(whole, 0.2, generator(0, "digits"))
    return Parts(tuple(map(str, range(10))), train.alone(), test.alone())


def photos() -> Parts:
    """Colour patches of ten photographs, 32x32 pixels; the class is the photograph.

    Squares of 32 to 64 pixels at fixed random places, scaled down; those of the training part come
    from the left 70 % of each photograph, those of the test part from the right 30 %. Patches of
    hardly more than one colour (a black rim, a clear sky) are passed over.
    """
    parts: list[list[np.ndarray]] = [[], []]
    for name, (package, *path) in PHOTOS.items():
        with Image.open(str(files(package).joinpath(*path))) as file:
            photo = file.convert("RGB")
        edge = round(LEFT * photo.width)
        for patches, count, left, right in (
            (parts[0], TRAIN, 0, edge),
            (parts[1], TEST, edge, photo.width),
        ):
            stream = generator(0, "photos", name, left)
            found = 0
            while found < count:
                size, across, down = torch.rand(3, generator=stream).tolist()
                length = SIDE + int(size * (LARGEST - SIDE + 1))
                x = left + int(across * (right - left - length + 1))
                y = int(down * (photo.height - length + 1))
                patch = photo.crop((x, y, x + length, y + length))
                pixels = np.asarray(patch.resize((SIDE, SIDE), Image.Resampling.BOX))
                if np.ptp(pixels, axis=(0, 1)).max() >= PLAIN:
                    patches.append(pixels)
                    found += 1
    train, test = (
        Split(
            torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous(),
            torch.arange(len(PHOTOS)).repeat_interleave(len(patches) // len(PHOTOS)),
        )
        for patches in parts
    )
    return Parts(tuple(PHOTOS), train, test)
