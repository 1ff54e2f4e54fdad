"""Evaluate attacks on a network and images in memory: the same judge, nothing on disk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Integer
from torch import Tensor, nn

from attacks import Goal
from attacks.base import Images, check
from attacks.goal import as_goal
from bench.data.dataset import MEMORY, Dataset
from bench.data.splits import Split
from bench.models.networks import check_logits
from bench.robustness import batches
from bench.robustness.evaluation import usual_batch
from bench.robustness.judge import CorrectImages, goals, judge, predict
from bench.robustness.metrics import Outcome, join
from bench.robustness.trials import Trial, change_counts


def prepare(
    network: nn.Module, images: Images, labels: Integer[Tensor, " n"]
) -> tuple[Dataset, CorrectImages]:
    """Return the images as a dataset, and those of them that the network classifies correctly.

    Args:
        network: Maps images in [0, 1] to logits, shape (n, k).
        images: Float images in [0, 1], shape (n, c, h, w).
        labels: True classes, shape (n,), from 0 to k - 1.

    Raises:
        ValueError: Values outside [0, 1], labels that do not fit, or no image is classified
            correctly.
    """
    check(images, None)
    if labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} for {len(images)} images: give one class "
            "for each image"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are of type {labels.dtype}: give integers, one class per image")
    labels = labels.to(images.device, torch.long)
    logits = predict(network, images)
    check_logits(logits, len(images))
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"labels are in [{int(labels.min())}, {int(labels.max())}], but the network has "
            f"{classes} classes, from 0"
        )
    right = (logits.argmax(1) == labels).nonzero()[:, 0]
    if not len(right):
        raise ValueError(
            f"the network classifies none of the {len(images)} images correctly; check the labels "
            "and the normalisation"
        )
    split = Split((images * 255).round().to(torch.uint8).cpu(), labels.cpu())
    statistics = torch.zeros(images.shape[1])
    data = Dataset(
        name="images in memory",
        classes=tuple(map(str, range(classes))),
        train=split,
        test=split,
        mean=statistics,
        std=statistics + 1,
        flip=False,
        digest="",
        source=MEMORY,
    )
    chosen = CorrectImages(
        right.cpu(), images[right].detach(), labels[right], logits[right], len(images)
    )
    return data, chosen


def given_goal(
    chosen: CorrectImages,
    images: Images,
    targets: Integer[Tensor, " t"] | None,
    region: Bool[Tensor, "r 1 y x"] | None,
) -> Goal | None:
    """The goal of the chosen images where the caller has given targets or a region, else None.

    Args:
        chosen: The images under attack.
        images: All images, shape (n, c, h, w).
        targets: The class that each image should reach, shape (n,); None: any but its own.
        region: Where pixels may change, shape (n, 1, h, w) or (1, 1, h, w); None: everywhere.

    Raises:
        ValueError: Targets or a region that do not fit the images or the network, or the target of
            an image is its own class.
    """
    if targets is None and region is None:
        return None
    rows = chosen.ids.to(images.device)
    wanted = chosen.labels
    if targets is not None:
        classes = chosen.logits.shape[1]
        if targets.shape != images.shape[:1]:
            raise ValueError(
                f"targets have shape {tuple(targets.shape)} for {len(images)} images: give one "
                "class for each image"
            )
        if targets.is_floating_point() or targets.dtype == torch.bool:
            raise ValueError(f"targets are of type {targets.dtype}: give integers, from 0")
        if int(targets.min()) < 0 or int(targets.max()) >= classes:
            raise ValueError(
                f"targets are in [{int(targets.min())}, {int(targets.max())}], but the network has "
                f"{classes} classes, from 0"
            )
        wanted = targets.to(images.device, torch.long)[rows]
        if len(own := (wanted == chosen.labels).nonzero()):
            image = int(chosen.ids[int(own[0])])
            raise ValueError(
                f"the target of image {image} is its own class, {int(targets[image])}: choose "
                "another one"
            )
    if region is not None:
        every, one = ((n, 1, *images.shape[2:]) for n in (len(images), 1))
        if region.dtype != torch.bool or region.shape not in (every, one):
            raise ValueError(
                f"the region is {region.dtype} of shape {tuple(region.shape)}: give torch.bool of "
                f"shape {every}, or {one} for all images, True where an image may change"
            )
        region = region.expand(every).to(images.device)[rows]
    return as_goal(Goal(wanted, targets is not None, region), chosen.images)


def attack(
    trial: Trial,
    seed: int,
    network: nn.Module,
    chosen: CorrectImages,
    matched: Sequence[Outcome] | None = None,
    given: Goal | None = None,
    batch_size: int | None = None,
) -> tuple[Images, list[Outcome]]:
    """Attack images and judge the result.

    Args:
        trial: The attack and how it is evaluated.
        seed: Seed of targets and draws.
        network: The victim model.
        chosen: The images under attack.
        matched: Outcomes, one per goal, whose counts of changed pixels the attack uses.
        given: The goal of the chosen images; None: as the trial says.
        batch_size: Images attacked as one batch; None: as many as are usual on the device.

    Returns:
        The attacked images of the first goal, and one outcome per goal.
    """
    outcomes, first = [], chosen.images
    size = batch_size or usual_batch(chosen.labels.device.type)
    bound = trial.bound
    for number, goal in enumerate([given] if given else goals(trial.aim, chosen, seed)):
        counts = None if matched is None else change_counts(matched[number])
        parts, attacked = [], []
        for rows in torch.arange(len(chosen.ids)).split(size):
            there = rows.to(chosen.labels.device)
            block = batches.attack(
                trial, seed, network, chosen.images[there], chosen.labels[there], goal[there],
                chosen.ids[rows], None if counts is None else counts[rows],
            )  # fmt: skip
            verdict = judge(
                network, chosen.images[there], chosen.labels[there], goal[there],
                block.adversarial, bound,
            )  # fmt: skip
            parts.append(block.outcome(verdict))
            attacked.append(block.adversarial)
        outcomes.append(join(parts))
        if number == 0:
            first = torch.cat(attacked)
    return first, outcomes
