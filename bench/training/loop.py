"""The training loop: one network, trained by a recipe with one seed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from augmentations import delete, draw
from augmentations.base import fields
from bench import registry
from bench.data import masks, mixing, policies, seeds
from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.data.loader import Loader, batches
from bench.data.splits import Split, cut
from bench.data.streaming import open_loader
from bench.errors import Stopped
from bench.execution.progress import Progress, Silent
from bench.models import networks
from bench.models.arithmetic import full_float32
from bench.models.networks import Normalised
from bench.records.record import Number
from bench.training import after_crop, checkpoints, fine_tuning, live_saliency, optimizers
from bench.training.recipes import Precision, Recipe
from bench.training.steps import Diverged, Step, autocast, diverging

SAVED_EVERY = 1.0
"""Least seconds between two checkpoints: epochs on few images take less than writing one."""


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        network: The network.
        curve: One entry per epoch: epoch (from 1), loss, learning rate, accuracies (fractions) and
            seconds. The last one also has what its masks delete; see `masks.describe`.
    """

    network: Normalised
    curve: list[dict[str, Number]]

    @property
    def metrics(self) -> dict[str, Number]:
        """The metrics of a training; accuracies are fractions of the test images.

        ``accuracy`` is that of the last epoch, which the tables show; ``accuracy_median10`` is the
        median of the last ten epochs, ``accuracy_best_validation`` the test accuracy at the epoch
        with the best validation accuracy (the last epoch without a validation set), and
        ``accuracy_best`` the best over epochs on the test images, which no table shows. Where the
        augmentation has drawn masks, there is also what those of the last epoch delete.
        """
        test = [entry["test_accuracy"] for entry in self.curve]
        chosen = max(self.curve, key=lambda entry: entry.get("validation_accuracy", entry["epoch"]))
        return {
            "accuracy": test[-1],
            "accuracy_median10": statistics.median(test[-10:]),
            "accuracy_best_validation": chosen["test_accuracy"],
            "accuracy_best": max(test),
            "epochs": len(test),
            "seconds_per_epoch": statistics.fmean(entry["seconds"] for entry in self.curve),
            "seconds": sum(entry["seconds"] + entry["test_seconds"] for entry in self.curve),
            **{name: self.curve[-1][name] for name in masks.NAMES if name in self.curve[-1]},
        }


def split(recipe: Recipe, seed: int, data: Dataset) -> tuple[Split, Split]:
    """Split the training images into a training and a validation part by a seed.

    Args:
        recipe: Its ``validation`` is the share of the validation part.
        seed: Seed of the run.
        data: The dataset.

    Returns:
        The training and the validation part; disjoint, and without test images.
    """
    return cut(data.train, recipe.validation, seeds.generator(seed, "validation"))


@full_float32()
def train(
    recipe: Recipe,
    seed: int,
    data: Dataset,
    *,
    guide: Tensor | None = None,
    weights: Path | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    called: str = "",
) -> Trained:
    """Train a network; everything random comes from the seed through separate named streams.

    Args:
        recipe: How the network is trained.
        seed: Seed of the run.
        data: The dataset.
        guide: One map per training image (before the validation split), shape (n, 1, h, w).
        weights: The file of the weights that the recipe starts from, if it names some.
        device: Device of the network.
        progress: Shows the epochs.
        checkpoint: Folder in which the run is saved after an epoch, `SAVED_EVERY` seconds after the
            last time or later, and from which it continues, bit for bit; None: nothing is saved.
        stop: Whether to stop soon.
        called: What the progress calls the run; empty: its method.

    Returns:
        The network after the last epoch and its curve.

    Raises:
        Diverged: The loss, or a logit of an evaluation, is not finite.
        ValueError: The augmentation lacks a field, or what it draws are no masks.
        Stopped: ``stop()`` returned True; the same call continues from the last epoch saved.
    """
    progress = progress or Silent()
    fields(recipe.augmentation)
    training, validation = split(recipe, seed, data)
    side = data.train.images.shape[-1]
    policy = (
        None if recipe.policy is None else policies.build(recipe.policy, side=side, data=data.name)
    )
    mix = mixer(recipe, data)
    network = first(recipe, data, weights, seed).to(device).to(memory_format=torch.channels_last)
    optimiser = optimizers.build(recipe, network)
    loader = open_loader(
        training,
        batch_size=recipe.batch_size,
        seed=seed,
        padding=recipe.padding,
        flip=data.flip and recipe.flip,
        device=device,
        augmentation=None if live_saliency.follows(recipe) else recipe.augmentation,
        guide=guide,
        policy=policy,
        guided=any(one is not None and one.points for one in (policy, mix)),
    )
    curve = checkpoints.resume(checkpoint, network, optimiser) if checkpoint else []
    step = Step(recipe, network, optimiser)
    method = recipe.method(registry.label(recipe.augmentation, recipe.data, side))
    label = f"{called or method.name}, {recipe.model}, seed {seed}"
    saved = -math.inf
    with progress.task(label, recipe.epochs, len(curve)) as advance:
        for epoch in range(len(curve), recipe.epochs):
            rate = optimizers.rate(recipe, epoch)
            optimizers.set_rate(optimiser, rate)
            start = time.perf_counter()
            # one tensor from the start: a small one kept from each step would break the heap up
            last = epoch + 1 == recipe.epochs
            deleted = torch.full((len(training),), -1, device=device) if last else None
            loss = train_epoch(recipe, seed, data, network, step, loader, epoch, stop, deleted)
            trained = time.perf_counter()
            entry = {
                "epoch": epoch + 1,
                "loss": loss,
                "learning_rate": rate,
            }
            for name, part in (("validation", validation), ("test", data.test)):
                if len(part.labels):
                    try:
                        entry[f"{name}_accuracy"] = accuracy(
                            network, part, device=device, precision=recipe.precision
                        )
                    except Diverged as error:
                        raise Diverged(
                            f"{error} after epoch {epoch + 1}; try a smaller --learning-rate"
                        ) from None
            entry["seconds"] = trained - start
            entry["test_seconds"] = time.perf_counter() - trained
            if deleted is not None:
                pixels = math.prod(data.train.images.shape[-2:])
                entry |= masks.describe(deleted.cpu(), pixels, recipe.augmentation)
            curve.append(entry)
            ended = stop()
            if checkpoint and (ended or last or time.monotonic() - saved >= SAVED_EVERY):
                checkpoints.save(checkpoint, network, optimiser, curve)
                saved = time.monotonic()
            advance(note=f"test {entry['test_accuracy']:.1%}")
            if ended:
                raise Stopped(f"stopped after epoch {epoch + 1} of {recipe.epochs}")
    return Trained(network, curve)


def first(recipe: Recipe, data: Dataset, weights: Path | None, seed: int) -> Normalised:
    """Return the network that a training starts from; everything random comes from the seed.

    Where the recipe needs one, it has an early head.

    Args:
        recipe: The recipe.
        data: The dataset.
        weights: The file of the weights that it names, if it names some.
        seed: Seed of the run.

    Raises:
        ValueError: The weights do not fit the network, their file is not given, or the network
            does not give the saliency that the recipe asks for: the stages are unknown, after the
            first of which an early head sits, or images of half the size are not taken.
    """
    stream = seeds.derive(seed, "weights")
    if recipe.pretrained is None:
        network = networks.build_for(data, recipe.model, seed=stream)
    elif weights is None:
        raise ValueError(f"the recipe starts from {recipe.pretrained}: give their file as weights")
    else:
        network = fine_tuning.start(data, recipe.model, recipe.pretrained, weights, stream)
    pasted = None
    if recipe.policy is not None:
        side = data.train.images.shape[-1]
        pasted = policies.build(recipe.policy, side=side, data=data.name).keep
    asked = f"{pasted} {live_saliency.kind(recipe)}"
    image = as_floats(data.train.images[:1], "cpu")
    if "early" in asked:
        live_saliency.EarlyHead(network, len(data.classes), image, seed)
    if "low" in asked:
        live_saliency.check_halved(network, image)
    return network


def train_epoch(
    recipe: Recipe,
    seed: int,
    data: Dataset,
    network: nn.Module,
    step: Step,
    loader: Loader,
    epoch: int,
    stop: Callable[[], bool] = lambda: False,
    deleted: Tensor | None = None,
) -> float:
    """Train for one epoch.

    Args:
        recipe: How the network is trained.
        seed: Seed of the run.
        data: The dataset.
        network: The network; changed in place.
        step: Takes its steps.
        loader: Loader of the training images.
        epoch: Number of the epoch, from 0.
        stop: Whether to stop soon.
        deleted: Takes the number of pixels that the mask of each image deletes, in the order of the
            epoch; images that were not due for one get -1.

    Returns:
        The mean loss over the training images.

    Raises:
        Diverged: The loss is not finite.
        Stopped: ``stop()`` returned True.
    """
    device = next(network.parameters()).device
    mean, std = data.mean.to(device), data.std.to(device)
    done = (epoch + 1) / recipe.epochs
    fill = recipe.augmentation.fill
    mix = mixer(recipe, data)
    total, count = torch.zeros((), device=device), 0
    network.train()
    for number, batch in enumerate(loader.epoch(epoch, done)):
        images, targets, mask, due = batch.images, batch.labels, batch.mask, batch.due
        if loader.policy is not None:
            images = after_crop.finish(loader.policy, network, batch, mean, (seed, epoch, number))
        if mask is None:
            guide = step.saliency(images, batch.labels)
            stream = seeds.generator(seed, "masks", epoch, number)
            with diverging(guide, epoch):
                mask = draw(recipe.augmentation, images, stream, guide=guide, progress=done)
            if deleted is not None:  # the first numbers of the stream, as `draw` uses them
                stream = seeds.generator(seed, "masks", epoch, number)
                chance = torch.rand(len(images), generator=stream).to(device)
                due = chance < recipe.augmentation.share.at(done)
        if deleted is not None and due is not None:
            deleted[count : count + len(due)] = torch.where(due, mask.flatten(1).sum(1), -1)
        inside: AbstractContextManager[None] = nullcontext()
        if mix is not None:
            stream = seeds.generator(seed, "mix", epoch, number)
            images, targets, inside = after_crop.mix_images(
                mix, network, images, batch, len(data.classes), stream
            )
        noise = seeds.generator(seed, "noise", epoch, number) if fill == "noise" else None
        images = delete(images, mask, mean=mean, std=std, fill=fill, generator=noise)
        loss = step(images, targets, batch.labels, inside, (seed, epoch, number))
        total += loss * len(batch.labels)
        count += len(batch.labels)
        if stop():
            raise Stopped(f"stopped in epoch {epoch + 1} of {recipe.epochs}")
    mean_loss = float(total) / max(count, 1)
    if not math.isfinite(mean_loss):
        raise Diverged(
            f"the loss is {mean_loss} in epoch {epoch + 1}; try a smaller --learning-rate"
        )
    return mean_loss


def mixer(recipe: Recipe, data: Dataset) -> mixing.AnyMix | None:
    """Return the image mixing of a recipe, or None.

    Args:
        recipe: The recipe.
        data: The dataset, which determines the published hyperparameters.
    """
    if recipe.mix is None:
        return None
    return mixing.build(recipe.mix, data=data.name, side=data.train.images.shape[-1])


def evaluated_at_once(pixels: int, device: str) -> int:
    """Return how many images are evaluated at once, so that large ones do not take more memory.

    Args:
        pixels: Pixels of an image.
        device: Kind of the device. On a CPU larger batches exceed the caches and make the allocator
            fetch new pages.

    >>> [evaluated_at_once(side**2, "cuda") for side in (32, 64, 224, 512)]
    [1000, 1000, 81, 15]
    """
    most, reference = (128, 32**2) if device == "cpu" else (1000, 64**2)
    return min(most, max(8, most * reference // pixels))


def accuracy(
    network: nn.Module,
    split: Split,
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> float:
    """Return the share of images that the network classifies correctly, in eval mode.

    Args:
        network: The network.
        split: The images and labels.
        device: Device of the network.
        precision: Number format of the forward pass.

    Raises:
        Diverged: A logit is not finite, so that the class of the image is unknown.
    """
    device = torch.device(device)
    batch_size = evaluated_at_once(math.prod(split.images.shape[-2:]), device.type)
    correct = torch.zeros((), dtype=torch.long, device=device)
    unknown = torch.zeros_like(correct)
    network.eval()
    with torch.inference_mode(), autocast(precision, device):
        for images, labels in batches(split, batch_size, device):
            logits = network(images.contiguous(memory_format=torch.channels_last))
            correct += (logits.argmax(1) == labels).sum()
            unknown += (~logits.isfinite().all(1)).sum()
    if wrong := int(unknown):
        raise Diverged(f"the logits of {wrong} of {len(split.labels)} images are not finite")
    return int(correct) / len(split.labels)
