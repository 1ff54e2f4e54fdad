"""Throughput of masks, input, training epochs and attacks, beside a reference in the same run.

A single rate depends on the machine; each table here has a reference, to which its ratios refer.
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

from attacks import Attack, Goal
from augmentations import Augmentation, Images, delete
from bench import registry
from bench.data import seeds
from bench.data.dataset import Dataset
from bench.data.loader import Loader
from bench.data.splits import Split
from bench.errors import reason
from bench.execution import signals
from bench.execution.progress import Progress
from bench.robustness.judge import predict
from bench.robustness.pass_counter import Counted

Works = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Rate:
    """A rate, with its ratio to the reference of its table (1 for the reference itself).

    Attributes:
        name: What was timed.
        per_second: The rate.
        ratio: Ratio to the reference.
    """

    name: str
    per_second: float
    ratio: float


def median_rate(work: Callable[[], object], count: int, seconds: float = 0.5) -> float:
    """Return the median rate of several rounds; the first call is a warm-up.

    Args:
        work: The work of one round.
        count: Number of items in one round.
        seconds: Least duration of all rounds together.

    Returns:
        Items per second.
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
    """Wait until the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def points(count: int, side: int, per_image: int = 137) -> Tensor:
    """Return guides with as many random points as the published CIFAR-10 lists have on average."""
    scores = torch.rand(count, side * side, generator=seeds.generator(0, "speed"))
    scaled = per_image * side**2 // 32**2
    threshold = scores.kthvalue(side * side - scaled, dim=1, keepdim=True).values
    return (scores > threshold).float().reshape(count, 1, side, side)


def masks(batch: int, side: int, device: str, progress: Progress) -> list[Rate]:
    """Time every augmentation, mask and fill, beside ``images * mask``.

    All masks are boolean. AdvMask is timed twice: the masks alone, and with the deletion.

    Args:
        batch: Images per batch.
        side: Side of the images in pixels.
        device: Device of the images.
        progress: Shows the methods.

    Returns:
        Images per second of each method.
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
    works |= dict(other_libraries(images.cpu()))
    return compare(works, batch, progress, f"batch {batch}, {side} pixels, {device}")


def compare(works: Works, count: int, progress: Progress, label: str) -> list[Rate]:
    """Time several pieces of work; the first is the reference.

    Args:
        works: Work by name.
        count: Number of items of each.
        progress: Shows the names.
        label: Label of the progress.
    """
    rates = {}
    with progress.task(label, len(works)) as advance:
        for name, work in works.items():
            rates[name] = median_rate(work, count)
            advance(note=name)
    first = next(iter(rates.values()))
    return [Rate(name, rate, rate / first) for name, rate in rates.items()]


def other_libraries(images: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the erasers of torchvision, timm and albumentations on the same images."""
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
    """Time the input side: from stored images to cropped, flipped and erased float batches.

    The reference is torchvision's pipeline over PIL images (crop, flip, tensor, normalise, erase)
    in a data loader with two workers; ours crops, flips, draws a Cutout mask and deletes.

    Args:
        split: The images.
        data: The dataset, for mean and standard deviation.
        device: Device of the batches.
        progress: Shows the pipelines.

    Returns:
        Images per second of each pipeline.
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
        [(pipeline, image) for image in split.images[:]],  # type: ignore[arg-type]
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

    with signals.deferred():  # its workers complain if they are interrupted while they start
        iter(theirs)
    works: Works = {"torchvision over PIL, 2 workers": usual, "bench": ours}
    return compare(works, len(split.labels), progress, "input side")


def _transform(items: list[tuple[Callable[[Tensor], Tensor], Tensor]]) -> Tensor:
    return torch.stack([pipeline(image) for pipeline, image in items])


def paired_rates(seconds: dict[str, list[float]]) -> list[Rate]:
    """Return rates from rounds in which everything was timed once; ratios are to the first.

    >>> paired_rates({"one": [1.0, 4.0, 2.0], "other": [3.0, 8.0, 4.0]})[1]
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
    """Time attacks that leave the class that the network predicts.

    Rounds alternate between the attacks; the result is the median.

    Args:
        methods: Attacks by name.
        network: The victim model.
        images: Images in [0, 1], shape (b, c, h, w).
        progress: Shows the attacks.
        rounds: Number of rounds.

    Returns:
        Images per second of each attack, with the ratio of its time to that of its own passes; and
        backward passes per second (iterations of gradient-based attacks), with the ratio to the
        first attack.
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
                try:
                    method(counted, images.clone(), Goal(labels), streams)
                except Exception as error:
                    raise ValueError(
                        f"{name} failed: {type(error).__name__}: {reason(error)}"
                    ) from error
                if not counted.passing:
                    raise ValueError(f"{name} makes no pass, of which its time could be a multiple")
                took = counted.clock() - start - counted.counting
                whole[name].append(took / len(images))
                shares[name].append(took / counted.passing)
                steps[name].append(took / max(1, int(counted.backwards.sum())))
                advance(note=name)
    return [
        Rate(name, 1 / statistics.median(whole[name]), statistics.median(shares[name]))
        for name in methods
    ], paired_rates(steps)
