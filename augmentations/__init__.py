"""Deletion augmentations: each draws, per image, the pixels to delete."""

from augmentations.advmask import AdvMask
from augmentations.base import (
    Augmentation,
    Fill,
    Guide,
    Images,
    Mask,
    Ramp,
    delete,
    draw,
    points_to_guide,
)
from augmentations.cutout import Cutout
from augmentations.dataset import WithMask
from augmentations.grid_dropout import GridDropout
from augmentations.gridmask import GridMask
from augmentations.hide_and_seek import HideAndSeek
from augmentations.interop import Foreign, MaskedLoader, as_albumentations, as_torchvision
from augmentations.ipf import IPFCutout, IPFGridMask, IPFHideAndSeek, IPFRandomErasing
from augmentations.keep_augment import KeepAugment
from augmentations.no_deletion import NoDeletion
from augmentations.pipeline import WithTransform
from augmentations.random_erasing import RandomErasing

BUILTIN: dict[str, type[Augmentation]] = {
    "none": NoDeletion,
    "cutout": Cutout,
    "has": HideAndSeek,
    "gridmask": GridMask,
    "random-erasing": RandomErasing,
    "keepaugment": KeepAugment,
    "advmask": AdvMask,
    "grid-dropout": GridDropout,
    "ipf-cutout": IPFCutout,
    "ipf-random-erasing": IPFRandomErasing,
    "ipf-has": IPFHideAndSeek,
    "ipf-gridmask": IPFGridMask,
}
"""Command-line name → class; every class has defaults that make a usable object."""

__all__ = [
    "BUILTIN",
    "AdvMask",
    "Augmentation",
    "Cutout",
    "Fill",
    "Foreign",
    "GridDropout",
    "GridMask",
    "Guide",
    "HideAndSeek",
    "IPFCutout",
    "IPFGridMask",
    "IPFHideAndSeek",
    "IPFRandomErasing",
    "Images",
    "KeepAugment",
    "Mask",
    "MaskedLoader",
    "NoDeletion",
    "Ramp",
    "RandomErasing",
    "WithMask",
    "WithTransform",
    "as_albumentations",
    "as_torchvision",
    "delete",
    "draw",
    "points_to_guide",
]
