"""How fast things are, always beside something else timed in the same run.

A single rate says little about code, for machines differ; each table here carries the yardstick its
ratios refer to.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks import Attack, Goal
from augmentations import Augmentation, Images, delete
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.data.loader import Loader
from bench.data.splits import Split
from bench.execution.progress import Progress
from bench.robustness.judge import predict
from bench.robustness.pass_counter import Counted
from bench.training import loop
from bench.training.recipes import Recipe

Works = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Rate:
    """So many per second, and the ratio to the yardstick of its table (1 for the yardstick)."""

    name: str
    per_second: float
    ratio: float


def fastest(work: Callable[[], object], count: int, seconds: float = 0.5) -> float:
    """How many per second ``work`` gets done, if each call does ``count``: the median of rounds.

    The first call is left out, because it pays for what is made once.
    """
    work()
    synchronise()
    rounds: list[float] = []
    start = time.perf_counter()
    while len(rounds) < 5 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        work()
        synchronise()
        rounds.append(time.perf_counter() - before)
    return count / statistics.median(rounds)


def synchronise() -> None:
    """Wait for an accelerator, whose calls return before they are done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def points(count: int, side: int, per_image: int = 137) -> Tensor:
    """Guides with as many random points as the published CIFAR-10 lists have on average."""
    scores = torch.rand(count, side * side, generator=seeds.generator(0, "speed"))
    scaled = per_image * side**2 // 32**2
    threshold = scores.kthvalue(side * side - scaled, dim=1, keepdim=True).values
    return (scores > threshold).float().reshape(count, 1, side, side)


def masks(batch: int, side: int, device: str, progress: Progress) -> list[Rate]:
    """Pictures per second of every augmentation, mask and fill, beside ``images * mask``.

    All masks are boolean. AdvMask is timed twice: the masks alone, and with the deletion.
    """
    images = torch.rand(batch, 3, side, side, generator=seeds.generator(0, "speed")).to(device)
    guide = points(batch, side).to(device)
    keep = torch.rand(batch, 1, side, side, device=device) > 0.2
    mean = torch.full((3,), 0.5, device=device)
    std = torch.full((3,), 0.25, device=device)
    stream = seeds.generator(0, "speed", "draws")
    works: Works = {"images * mask": lambda: images * keep}

    def ours(augmentation: Augmentation) -> Callable[[], object]:
        noise = stream if augmentation.fill == "noise" else None
        return lambda: delete(
            images,
            augmentation.mask(images, stream, guide),
            mean=mean,
            std=std,
            fill=augmentation.fill,
            generator=noise,
        )

    for name in registry.classes("augmentations"):
        method = registry.build("augmentations", name, data="cifar10", side=side)
        works[name] = ours(method)
        if name == "advmask":
            works["advmask, masks alone"] = lambda m=method: m.mask(images, stream, guide)  # type: ignore[misc]
    works |= dict(others(images.cpu()))
    return compare(works, batch, progress, f"batch {batch}, {side} pixels, {device}")


def compare(works: Works, count: int, progress: Progress, label: str) -> list[Rate]:
    """Time each piece of work; the first is the yardstick."""
    rates = {}
    with progress.task(label, len(works)) as advance:
        for name, work in works.items():
            rates[name] = fastest(work, count)
            advance(note=name)
    first = next(iter(rates.values()))
    return [Rate(name, rate, rate / first) for name, rate in rates.items()]


def others(images: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """The erasers of torchvision, timm and albumentations on the same pictures."""
    import albumentations
    from timm.data.random_erasing import RandomErasing as TimmErasing
    from torchvision.transforms import v2

    torchvision_erasing = v2.RandomErasing(p=1.0, value=0)
    yield (
        "torchvision RandomErasing, image by image",
        lambda: [torchvision_erasing(i) for i in images],
    )
    timm_erasing = TimmErasing(probability=1.0, mode="const", device="cpu")
    yield "timm RandomErasing, batch", lambda: timm_erasing(images.clone())
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    hole = (0.5, 0.5)
    erasers = {
        "Erasing": albumentations.Erasing(p=1.0),
        "CoarseDropout": albumentations.CoarseDropout(
            num_holes_range=(1, 1), hole_height_range=hole, hole_width_range=hole, p=1.0
        ),
        "GridDropout": albumentations.GridDropout(p=1.0),
    }
    for title, eraser in erasers.items():
        yield f"albumentations {title}, image by image", functools.partial(_each, eraser, arrays)


def _each(eraser: Callable[..., object], arrays: list[Any]) -> None:
    for array in arrays:
        eraser(image=array)


def inputs(split: Split, data: Dataset, device: str, progress: Progress) -> list[Rate]:
    """From stored pictures to cropped, flipped and erased float batches, per second.

    The yardstick is torchvision's usual pipeline over PIL pictures (crop, flip, tensor, normalise,
    erase) in a data loader with two workers; ours crops, flips, draws a Cutout mask and deletes.
    """
    from torch.utils.data import DataLoader
    from torchvision import transforms

    side = split.images.shape[-1]
    padding = side // 8
    pipeline = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(side, padding=padding),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean.tolist(), data.std.tolist()),
            transforms.RandomErasing(p=1.0),
        ]
    )
    theirs: DataLoader[Tensor] = DataLoader(
        [(pipeline, image) for image in split.images],  # type: ignore[arg-type]
        batch_size=128,
        num_workers=2,
        collate_fn=_transform,
        persistent_workers=True,
    )
    augmentation = registry.build("augmentations", "cutout", data=data.name, side=side)
    loader = Loader(
        split,
        batch_size=128,
        seed=0,
        padding=padding,
        flip=True,
        device=device,
        augmentation=augmentation,
    )
    mean = data.mean.to(device)

    def ours() -> None:
        for batch in loader.epoch(0, 1.0):
            if batch.mask is not None:
                delete(batch.images, batch.mask, mean=mean)

    def usual() -> None:
        for _ in theirs:
            pass

    works: Works = {"torchvision over PIL, 2 workers": usual, "bench": ours}
    return compare(works, len(split.labels), progress, "input side")


def _transform(items: list[tuple[Callable[[Tensor], Tensor], Tensor]]) -> Tensor:
    return torch.stack([pipeline(image) for pipeline, image in items])


def bare(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    ready: list[tuple[Tensor, Tensor]],
    turn: int,
) -> None:
    """An epoch with nothing but forward, backward and step over batches that lie ready."""
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
    optimiser: torch.optim.Optimizer,
    loader: Loader,
    turn: int,
) -> None:
    """An epoch as `bench run` trains it, late in the schedule, when most pictures are masked."""
    loop.train_epoch(recipe, 0, data, network, optimiser, loader, recipe.epochs - 1 - turn % 2)


def epochs(
    recipes: list[Recipe],
    data: Dataset,
    guide: Tensor | None,
    device: str,
    progress: Progress,
    rounds: int = 5,
) -> list[Rate]:
    """Training epochs per second of each recipe, beside a bare loop over the same network.

    The bare loop takes batches that lie ready in memory, already augmented: forward, backward and
    step, nothing else. Rounds alternate between the loops, so that a machine that slows down slows
    all of them; the median round counts, and the median of the ratios within a round.
    """
    from bench.models import networks

    loops: dict[str, Callable[[int], object]] = {}
    for recipe in recipes:
        network = (
            networks.build_for(data, recipe.model, seed=0)
            .to(device)
            .to(memory_format=torch.channels_last)
        )
        optimiser = torch.optim.SGD(
            network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        split = loop.split(recipe, 0, data)[0]
        loader = Loader(
            split,
            batch_size=recipe.batch_size,
            seed=0,
            padding=recipe.padding,
            flip=data.flip,
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
        name = registry.label(recipe.augmentation, data.name, data.train.images.shape[-1])
        if recipe.augmentation.wants == "saliency":
            name += ", with its second pass for saliency"
        loops[name] = functools.partial(ours, recipe, data, network, optimiser, loader)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    with progress.task("epochs", (rounds + 1) * len(loops)) as advance:
        for turn in range(rounds + 1):
            for name, work in loops.items():
                start = time.perf_counter()
                work(turn)
                synchronise()
                if turn:  # the first round pays for what is made once
                    seconds[name].append(time.perf_counter() - start)
                advance(note=name)
    return paired(seconds)


def paired(seconds: dict[str, list[float]]) -> list[Rate]:
    """Rates from rounds in which everything was timed once; ratios are of times, to the first.

    >>> paired({"one": [1.0, 4.0, 2.0], "other": [3.0, 8.0, 4.0]})[1]
    Rate(name='other', per_second=0.25, ratio=2.0)
    """
    first = next(iter(seconds.values()))
    return [
        Rate(
            name,
            1 / statistics.median(values),
            statistics.median(one / other for one, other in zip(values, first, strict=True)),
        )
        for name, values in seconds.items()
    ]


def attacks(
    methods: dict[str, Attack], network: nn.Module, images: Images, progress: Progress, rounds: int
) -> tuple[list[Rate], list[Rate]]:
    """Pictures per second of attacks that shall leave the class that the network sees.

    The first result's ratio is an attack's time to that of the forwards and backwards it asked for,
    as they ran within it. The second is the time of a backward pass of a picture and all that
    belongs to it, beside that of the first attack: for those that step down a gradient, an
    iteration. Rounds alternate between the attacks; the median counts.
    """
    labels = predict(network, images).argmax(1)
    whole: dict[str, list[float]] = {name: [] for name in methods}
    shares: dict[str, list[float]] = {name: [] for name in methods}
    steps: dict[str, list[float]] = {name: [] for name in methods}
    with progress.task("attacks", rounds * len(methods)) as advance:
        for _ in range(rounds):
            for name, method in methods.items():
                counted = Counted(network, images, labels)
                streams = [seeds.generator(0, "attack", i) for i in range(len(images))]
                start = counted.clock()
                method(counted, images.clone(), Goal(labels), streams)
                took = counted.clock() - start - counted.counting
                whole[name].append(took / len(images))
                shares[name].append(took / counted.passing)
                steps[name].append(took / max(1, int(counted.backwards.sum())))
                advance(note=name)
    return [
        Rate(name, 1 / statistics.median(whole[name]), statistics.median(shares[name]))
        for name in methods
    ], paired(steps)
