"""Deletion augmentations: each draws, per image, the pixels to delete."""

from augmentations.advmask import AdvMask
from augmentations.base import Augmentation, Guide, Images, Mask, Ramp, delete, draw
from augmentations.cutout import Cutout
from augmentations.gridmask import GridMask
from augmentations.hide_and_seek import HideAndSeek
from augmentations.keep_augment import KeepAugment
from augmentations.no_deletion import NoDeletion
from augmentations.random_erasing import RandomErasing

BUILTIN: dict[str, type[Augmentation]] = {
    "none": NoDeletion,
    "cutout": Cutout,
    "has": HideAndSeek,
    "gridmask": GridMask,
    "random-erasing": RandomErasing,
    "keepaugment": KeepAugment,
    "advmask": AdvMask,
}
"""Command-line name → class; every class has defaults that make a usable object."""

__all__ = [
    "BUILTIN",
    "AdvMask",
    "Augmentation",
    "Cutout",
    "GridMask",
    "Guide",
    "HideAndSeek",
    "Images",
    "KeepAugment",
    "Mask",
    "NoDeletion",
    "Ramp",
    "RandomErasing",
    "delete",
    "draw",
]
