"""How long a training epoch takes, and how near it is to what the machine can do."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import registry
from bench.data.dataset import Dataset
from bench.data.loader import Loader
from bench.execution.progress import Progress
from bench.models import networks
from bench.speed.throughput import Rate, paired_rates, synchronise
from bench.training import loop, optimizers
from bench.training.recipes import Recipe
from bench.training.steps import Step


def bare(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    ready: list[tuple[Tensor, Tensor]],
    turn: int,
) -> None:
    """Train for one epoch with forward, backward and step only, over batches in memory."""
    network.train()
    for images, labels in ready:
        loss = functional.cross_entropy(network(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def ours(
    recipe: Recipe,
    data: Dataset,
    network: nn.Module,
    step: Step,
    loader: Loader,
    turn: int,
) -> None:
    """Train for one epoch as `bench run` does, late in the schedule: most images are masked."""
    loop.train_epoch(recipe, 0, data, network, step, loader, recipe.epochs - 1 - turn % 2)


def products(
    network: nn.Module, images: Tensor, dtype: torch.dtype, batches: int
) -> Callable[[int], object]:
    """The convolutions and matrix products of an epoch, forward and backward, and nothing else.

    No normalisation, activation, addition, optimiser or data: no training of this network is faster
    on this machine with these kernels.

    Args:
        network: The network.
        images: One batch of its input, shape (b, c, h, w).
        dtype: Number format of the products.
        batches: Number of batches of an epoch.

    Returns:
        What does them once; it takes a number, which has no effect.
    """
    seen: list[tuple[nn.Conv2d | nn.Linear, torch.Size]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        seen.append((module, given[0].shape))

    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [each.register_forward_pre_hook(note) for each in layers]
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    work = []
    for place, (module, shape) in enumerate(seen):
        # the first layer has no gradient of its input
        given = torch.zeros(shape, dtype=dtype, device=images.device)
        if len(shape) == 4:
            given = given.contiguous(memory_format=torch.channels_last)
        weight = module.weight.detach().to(dtype).requires_grad_()
        inputs = [weight] if place == 0 else [weight, given.requires_grad_()]
        work.append((module, given, weight, inputs))

    def once(turn: int) -> None:
        for _ in range(batches):
            for module, given, weight, inputs in work:
                if isinstance(module, nn.Conv2d):
                    out = functional.conv2d(
                        given, weight, None, module.stride, module.padding, module.dilation,
                        module.groups,
                    )  # fmt: skip
                else:
                    out = functional.linear(given, weight)
                torch.autograd.grad(out, inputs, torch.zeros_like(out))

    return once


def epochs(
    recipes: list[Recipe],
    data: Dataset,
    guide: Tensor | None,
    device: str,
    progress: Progress,
    rounds: int = 5,
) -> list[Rate]:
    """Time training epochs of each recipe, beside a bare loop over the same network and its limit.

    The bare loop takes augmented batches from memory: forward, backward and step, nothing else. The
    limit is what its convolutions and matrix products take alone, in float32 and in bfloat16, which
    the first recipe is timed in as well. On a CUDA device, where recorded steps are repeated, each
    recipe is also timed with every kernel launched.
    Rounds alternate between the loops, so that a change of the machine's speed affects all; the
    result is the median over rounds, and the median of the ratios within a round.

    Args:
        recipes: The recipes.
        data: The dataset.
        guide: Guide of augmentations that use adversarial points.
        device: Device of the networks.
        progress: Shows the epochs.
        rounds: Number of rounds.

    Returns:
        Epochs per second of each loop.
    """
    loops: dict[str, Callable[[int], object]] = {}
    reduced = dataclasses.replace(recipes[0], precision="bfloat16")
    for recipe in [recipes[0], reduced, *recipes[1:]]:
        network = loop.first(recipe, data, None, 0).to(device).to(memory_format=torch.channels_last)
        optimiser = optimizers.build(dataclasses.replace(recipe, learning_rate=0.01), network)
        split = loop.split(recipe, 0, data)[0]
        loader = Loader(
            split,
            batch_size=recipe.batch_size,
            seed=0,
            padding=recipe.padding,
            flip=data.flip and recipe.flip,
            device=device,
            augmentation=recipe.augmentation,
            guide=guide if recipe.augmentation.wants == "attack" else None,
        )
        if not loops:
            ready = [
                (b.images.contiguous(memory_format=torch.channels_last), b.labels)
                for b in loader.epoch(0, 1.0)
            ]

            loops["bare loop over ready batches"] = functools.partial(
                bare, network, optimiser, ready
            )
            for dtype in (torch.float32, torch.bfloat16):
                loops[f"its convolutions alone, {str(dtype).removeprefix('torch.')}"] = products(
                    networks.build_for(data, recipe.model, seed=0).to(device),
                    ready[0][0], dtype, len(ready),
                )  # fmt: skip
        name = registry.label(recipe.augmentation, data.name, data.train.images.shape[-1])
        if recipe.augmentation.wants == "saliency":
            name += ", with its pass for saliency"
        if recipe is reduced:
            name += ", bfloat16"
        step = Step(recipe, network, optimiser)
        loops[name] = functools.partial(ours, recipe, data, network, step, loader)
        if device.startswith("cuda"):
            step = Step(recipe, network, optimiser, repeats=False)
            loops[f"{name}, every kernel launched"] = functools.partial(
                ours, recipe, data, network, step, loader
            )
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with progress.task("epochs", (rounds + 1) * len(loops)) as advance:
        for turn in range(rounds + 1):
            for name, work in loops.items():
                start = time.perf_counter()
                work(turn)
                synchronise()
                if turn:  # the first round is a warm-up
                    seconds[name].append(time.perf_counter() - start)
                advance(note=name)
    return paired_rates(seconds)
