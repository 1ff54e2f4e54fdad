"""What a policy does after crop and flip: a square of the original is pasted back, then Cutout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from augmentations import Images, delete
from augmentations.cutout import Cutout
from augmentations.ipf import paste_square
from augmentations.keep_augment import important_square
from bench.data import seeds
from bench.data.image_operations import Policy
from bench.data.loader import Batch
from bench.training import live_saliency


def finish(
    policy: Policy,
    network: nn.Module,
    batch: Batch,
    mean: Tensor,
    step: tuple[int, int, int],
) -> Images:
    """Apply what a policy does after crop and flip: paste a square of the original, and Cutout.

    Args:
        policy: The policy.
        network: The network in training, for the saliency.
        batch: Images, shape (b, c, h, w), with labels and originals.
        mean: Per-channel mean that fills deleted pixels, shape (c,).
        step: Seed, epoch and number of the step.

    Returns:
        The images, shape (b, c, h, w).
    """
    images = batch.images
    seed, epoch, number = step
    if policy.keep is not None and batch.originals is not None:
        stream = seeds.generator(seed, "keep", epoch, number)
        if policy.keep == "points":
            kept = paste_square(images, batch.guide, stream, policy.length)
        else:
            guide = live_saliency.saliency(policy.keep, network, batch.originals, batch.labels)
            kept = important_square(images, guide, stream, policy.length, squares=policy.squares)
        images = torch.where(kept, batch.originals, images)
    if policy.cutout is not None:
        stream = seeds.generator(seed, "cutout", epoch, number)
        images = delete(images, Cutout(policy.cutout).mask(images, stream), mean=mean)
    return images
