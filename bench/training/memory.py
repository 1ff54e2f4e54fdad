"""How much memory a training takes, said before it starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data import streaming
from bench.data.dataset import Dataset
from bench.data.file_images import FileImages
from bench.execution import machine
from bench.models import networks
from bench.training.recipes import Recipe

LEAST = 10**8
"""Bytes of images and masks below which they are not worth a line."""

FEW = 2
"""Images that pass through the network to see what each keeps; with one, batch normalisation of a
single pixel would fail."""


LARGE = 2**20
"""Pixels of a batch from which on the network's memory is worth a line."""


def said(recipe: Recipe, data: Dataset) -> str | None:
    """One line on the memory of a training; None where it takes little.

    Args:
        recipe: The recipe.
        data: The dataset.
    """
    images = of_images(recipe, data)
    stored = data.train.images
    height, width = stored.shape[-2:]
    lazily = isinstance(stored, FileImages)
    large = height * width * recipe.batch_size >= LARGE
    if not (lazily or large or images >= LEAST):
        return None
    need = f"memory: at most {images / 1e9:.2f} GB for images and masks"
    if lazily or large:
        need += f" and {of_network(recipe, data) / 1e9:.2f} GB for the network"
    need += ", beside Python and its libraries (about 1 GB)"
    if isinstance(stored, FileImages):
        need = f"images stay in their files and are decoded by {stored.workers} threads; {need}"
    return need


def of_images(recipe: Recipe, data: Dataset) -> int:
    """The most bytes that images and masks take; see `streaming.memory`."""
    policy = recipe.policy is not None
    moved = getattr(recipe.augmentation, "points", "ignore") != "ignore"
    return streaming.memory(data, recipe.batch_size, masks=True, policy=policy, moved=moved)


def of_network(recipe: Recipe, data: Dataset) -> int:
    """The most bytes that the network takes: weights, optimiser, and what a step keeps.

    That is three times the weights (themselves, their gradients and the momentum), four times with
    AdamW, which keeps two moments; half as much again as the forward pass keeps for the backward
    pass, counted on `FEW` images; and four times its largest tensor in float32. Half as much again,
    and four, are for gradients on the way, for what convolutions unpack and for what the allocator
    holds back: with them, six trainings on images of 224 pixels stayed below the number, by 17 to
    58 %. On a processor without convolutions in bfloat16, PyTorch unpacks the inputs of a
    convolution for the whole batch, and its gradients once more.

    Args:
        recipe: The recipe; its batch size and precision count.
        data: The dataset.
    """
    network = networks.build_for(data, recipe.model, seed=0)
    network = network.to(memory_format=torch.channels_last).train()
    own = {each.untyped_storage().data_ptr() for each in network.state_dict().values()}
    weights = sum(each.nbytes for each in network.parameters())
    kept: dict[int, Tensor] = {}  # tensors, or else a storage could be given away twice

    def keep(saved: Tensor) -> Tensor:
        if (place := saved.untyped_storage().data_ptr()) not in own:
            kept[place] = saved
        return saved

    unpacked = [0]

    def unpack(layer: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            window = layer.weight[0].numel()
            unpacked.append(2 * window * output.shape[0] * output[0, 0].numel())

    images = torch.zeros(FEW, *data.train.images.shape[1:])
    images = images.contiguous(memory_format=torch.channels_last)
    reduced = recipe.precision == "bfloat16"
    if reduced and not machine.convolves_bfloat16():
        for layer in network.modules():
            layer.register_forward_hook(unpack)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved),
        torch.autocast("cpu", torch.bfloat16, enabled=reduced),
    ):
        functional.cross_entropy(network(images), torch.zeros(FEW, dtype=torch.long))
    step = sum(saved.untyped_storage().nbytes() for saved in kept.values())
    largest = max((4 * saved.numel() for saved in kept.values()), default=0)
    batch = min(recipe.batch_size, len(data.train))
    copies = 4 if recipe.optimizer == "adamw" else 3
    return copies * weights + (3 * step // 2 + 4 * largest + 2 * max(unpacked)) * batch // FEW
