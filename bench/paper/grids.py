"""Grids of recipes that several tables and figures of the paper share, and notes on them."""

from __future__ import annotations

from typing import Any

from bench.paper.experiments import Cell
from bench.paper.scales import DELETION, OTHERS, Places, Scale, places
from bench.training.recipes import Recipe

Cells = dict[Cell, Recipe]

EPOCH_NOTE = (
    "The paper says neither how many seeds its accuracies are of nor at which epoch they were "
    "taken: ours are of the last epoch. Its starred numbers come from other papers and protocols."
)
TINY_NOTE = (
    "The paper fine-tunes ImageNet weights 'for some epochs' at 64x64, and gives neither weights "
    "nor learning rate, batch size or parameters of AdvMask: these rows cannot be replicated, only "
    "designed again. Ours start from torchvision's IMAGENET1K_V1, with a tenth of the epochs and "
    "of the learning rate of section 4.1, and AdvMask's CIFAR-10 parameters scaled to the side."
)
FLOWERS_NOTE = (
    "Split, image size, weights and recipe are not given; ours is the official split (1,020 "
    "training images). Accuracies of 80 to 92 percent suggest that the paper starts from ImageNet "
    "weights or swaps the parts: ours are fine-tuned at 224x224 as in Table 4."
)


TINY = places(["Tiny-ImageNet"], ["ResNet-18", "ResNet-50", "WRN-50-2"])


def deletions(scale: Scale, columns: Places, **fields: Any) -> Cells:
    """One recipe per deletion augmentation and column."""
    return {
        (row, column): scale.recipe(data, model, augmentation, **fields)
        for column, (data, model) in columns.items()
        for row, augmentation in DELETION.items()
    }


def combinations(scale: Scale, columns: Places) -> Cells:
    """One recipe per other augmentation, alone and followed by AdvMask."""
    return {
        (f"AdvMask-{row}" if masked else row, column): scale.recipe(
            data, model, "advmask" if masked else "none", **fields
        )
        for column, (data, model) in columns.items()
        for row, fields in OTHERS.items()
        for masked in (False, True)
    }
