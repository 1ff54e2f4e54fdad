"""Evaluate attacks on a network and images in memory: the same judge, nothing on disk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks.base import Images, check
from bench.data.dataset import MEMORY, Dataset
from bench.data.splits import Split
from bench.models.networks import check_logits
from bench.robustness import batches
from bench.robustness.evaluation import BLOCK
from bench.robustness.judge import CorrectImages, goals, judge, predict
from bench.robustness.metrics import Outcome, join
from bench.robustness.trials import Trial, change_counts


def prepare(
    network: nn.Module, images: Images, labels: Int[Tensor, " n"]
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
    labels = labels.to(images.device)
    logits = predict(network, images)
    check_logits(logits)
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


def attack(
    trial: Trial,
    seed: int,
    network: nn.Module,
    chosen: CorrectImages,
    matched: Sequence[Outcome] | None = None,
) -> tuple[Images, list[Outcome]]:
    """Attack images and judge the result.

    Args:
        trial: The attack and how it is evaluated.
        seed: Seed of targets and draws.
        network: The victim model.
        chosen: The images under attack.
        matched: Outcomes, one per goal, whose counts of changed pixels the attack uses.

    Returns:
        The attacked images of the first goal, and one outcome per goal.
    """
    outcomes, first = [], chosen.images
    bound = trial.bound
    for number, goal in enumerate(goals(trial.aim, chosen, seed)):
        counts = None if matched is None else change_counts(matched[number])
        parts, attacked = [], []
        for rows in torch.arange(len(chosen.ids)).split(BLOCK):
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
