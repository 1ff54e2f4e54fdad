"""Common corruptions of test images: noise, blur, weather and compression."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from bench.data import seeds

OPERATIONS = (
    "gaussian noise", "shot noise", "impulse noise", "defocus blur", "glass blur", "motion blur",
    "zoom blur", "snow", "spatter", "fog", "brightness", "contrast", "elastic", "pixelate", "jpeg",
)  # fmt: skip
"""The kinds of CIFAR-10-C, with spatter, one of its extra kinds, in the place of frost."""


@functools.cache
def _transforms() -> list[Any]:
    """One transform of albumentations for each of `OPERATIONS`."""
    import albumentations as A

    level = {"p": 1}
    return [
        A.GaussNoise(std_range=(0.08, 0.08), **level),
        A.ShotNoise(scale_range=(0.05, 0.05), **level),
        A.SaltAndPepper(amount=(0.05, 0.05), salt_vs_pepper=(0.5, 0.5), **level),
        A.Defocus(radius=(2, 2), alias_blur=(0.4, 0.4), **level),
        A.GlassBlur(sigma=0.4, max_delta=1, iterations=1, **level),
        A.MotionBlur(blur_limit=(5, 5), **level),
        A.ZoomBlur(max_factor=(1.2, 1.2), step_factor=(0.04, 0.04), **level),
        A.RandomSnow(snow_point_range=(0.3, 0.3), brightness_coeff=2.0, **level),
        A.Spatter(mode="rain", **level),
        A.RandomFog(fog_coef_range=(0.5, 0.5), alpha_coef=0.1, **level),
        A.RandomBrightnessContrast(brightness_limit=(0.3, 0.3), contrast_limit=(0.0, 0.0), **level),
        A.RandomBrightnessContrast(
            brightness_limit=(0.0, 0.0), contrast_limit=(-0.6, -0.6), **level
        ),
        A.ElasticTransform(alpha=8, sigma=2, **level),
        A.Downscale(scale_range=(0.5, 0.5), **level),
        A.ImageCompression(quality_range=(20, 20), **level),
    ]


def corrupt(images: UInt8[Tensor, "b c h w"], ids: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
    """Corrupt each image by one of `OPERATIONS`, chosen by its index in the dataset.

    The kinds are those of CIFAR-10-C (Hendrycks & Dietterich, ICLR 2019), at one middle strength,
    made by albumentations. Deviations: spatter replaces frost, which needs photographs of frost;
    the strengths are close to the third of five, not equal; each image is corrupted once and not by
    all kinds. So accuracies are not comparable with those on the files of CIFAR-10-C. Images of one
    channel are corrupted as grey RGB images and averaged over the channels.

    Args:
        images: Images on the CPU.
        ids: Index of each image; it alone decides the kind and the random numbers.
    """
    transforms = _transforms()
    found = np.empty(images.shape, dtype=np.uint8)
    array = images.numpy().transpose(0, 2, 3, 1)
    for place, (image, index) in enumerate(zip(array, ids.tolist(), strict=True)):
        transform = transforms[index % len(transforms)]
        transform.set_random_seed(seeds.derive(0, "corruption", index) % 2**32)
        colour = np.ascontiguousarray(image.repeat(3, axis=2) if image.shape[2] == 1 else image)
        changed = transform(image=colour)["image"]
        if image.shape[2] == 1:
            changed = changed.mean(axis=2, keepdims=True).round().astype(np.uint8)
        found[place] = changed.transpose(2, 0, 1)
    return torch.from_numpy(found)
