"""Deletion augmentations: each draws, per image, the pixels to delete."""

from augmentations.base import Augmentation, Guide, Images, Mask, Ramp, delete, draw

BUILTIN: dict[str, type[Augmentation]] = {}
"""Command-line name → class; every class has defaults that make a usable object."""

__all__ = ["BUILTIN", "Augmentation", "Guide", "Images", "Mask", "Ramp", "delete", "draw"]
