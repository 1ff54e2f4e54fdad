"""What happens to images after crop and flip: pasting, the Cutout of a policy, and mixing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Generator, Tensor, nn

from augmentations import Images, delete
from augmentations.cutout import Cutout
from augmentations.ipf import paste_square
from augmentations.keep_augment import important_square
from bench.data import mixing, seeds
from bench.data.image_operations import Policy
from bench.data.loader import Batch
from bench.data.manifold_mixup import ManifoldMixup
from bench.models import stages
from bench.training import live_saliency
from bench.training.steps import diverging


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
            with diverging(guide, epoch):
                kept = important_square(
                    images, guide, stream, policy.length, squares=policy.squares
                )
        images = torch.where(kept, batch.originals, images)
    if policy.cutout is not None:
        stream = seeds.generator(seed, "cutout", epoch, number)
        images = delete(images, Cutout(policy.cutout).mask(images, stream), mean=mean)
    return images


def mix_images(
    mix: mixing.AnyMix,
    network: nn.Module,
    images: Images,
    batch: Batch,
    classes: int,
    stream: Generator,
) -> tuple[Images, Tensor, AbstractContextManager[None]]:
    """Mix the images of a batch or, inside the network, their features.

    Args:
        mix: How.
        network: The network.
        images: What became of the images of the batch, shape (b, c, h, w).
        batch: The batch, for labels and guide.
        classes: Number of classes.
        stream: Source of the draws.

    Returns:
        The images; the weights of the classes for each, shape (b, k); and the context in which the
        network blends features.
    """
    if not isinstance(mix, ManifoldMixup):
        return *mix.apply(images, batch.labels, classes, stream, batch.guide), nullcontext()
    blend, targets = mix.draw(batch.labels, classes, stream)
    if blend.stage == 0:
        return blend(images), targets, nullcontext()
    return images, targets, stages.changed(network, blend.stage, blend, "Manifold Mixup")
