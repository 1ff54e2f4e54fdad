"""The judge of attacks: which pictures, which goals, and what counts as a success.

The judged do not judge: an attack returns pictures, and everything about them is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks import Goal
from attacks.base import Images, check, frozen
from attacks.norms import l0_elements, l0_pixels, l2, linf
from bench.data import seeds
from bench.data.splits import Split

Aim = Literal["untargeted", "random", "least-likely", "next", "all"]

ROUNDING = 1e-6
"""How far beyond eps a change may seem to be: pictures near 1 are rounded to 6e-8 in float32."""

PORTION = 64


@dataclass(frozen=True)
class CorrectImages:
    """Images under attack: those of a test part that the victim classifies correctly.

    ``ids`` are their places in the test part and ``seen`` how many pictures were looked at to find
    them, so that ``correct`` is the victim's accuracy on those.
    """

    ids: Int[Tensor, " n"]
    images: Images
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n k"]
    seen: int

    @property
    def correct(self) -> float:
        """The share of correctly classified pictures among those that were looked at."""
        return len(self.ids) / self.seen


def correct_images(network: nn.Module, test: Split, count: int, device: str) -> CorrectImages:
    """The first ``count`` correctly classified pictures of a test part.

    In a fixed order that mixes the classes, the same for every victim, attack and seed. Raises
    ``ValueError`` when there are fewer.
    """
    order = torch.randperm(len(test.labels), generator=seeds.generator(0, "pictures"))
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    seen = 0
    for ids in order.split(PORTION):
        images = test.images[ids].to(device).float() / 255
        labels = test.labels[ids].to(device)
        logits = predict(network, images)
        right = (logits.argmax(1) == labels).nonzero()[:, 0]
        missing = count - sum(len(part[0]) for part in found)
        seen += len(ids) if len(right) <= missing else int(right[missing - 1]) + 1
        right = right[:missing]
        found.append((ids[right.cpu()], images[right], labels[right], logits[right]))
        if len(right) == missing:
            chosen, shown, classes, answers = map(torch.cat, zip(*found, strict=True))
            return CorrectImages(chosen, shown, classes, answers, seen)
    total = sum(len(part[0]) for part in found)
    raise ValueError(
        f"the victim classifies {total} of {len(order)} test pictures correctly: "
        f"ask for --images {total} or fewer, not {count}"
    )


def predict(network: nn.Module, images: Images) -> Float[Tensor, "b k"]:
    """The logits of a fresh forward."""
    with frozen(network), torch.no_grad():
        return torch.cat([network(portion) for portion in images.split(PORTION)])


def goals(aim: Aim, chosen: CorrectImages, seed: int) -> list[Goal]:
    """What the attacks shall reach: one goal, or with ``"all"`` one for each other class.

    A random target comes from the seed and the picture alone, so that it is the same for every
    attack, eps and number of pictures.
    """
    labels, classes = chosen.labels, chosen.logits.shape[1]
    if aim == "untargeted":
        return [Goal(labels)]
    if aim == "random":
        steps = [
            torch.randint(1, classes, (), generator=seeds.generator(seed, "targets", i))
            for i in chosen.ids.tolist()
        ]
        targets = [(labels + torch.stack(steps).to(labels.device)) % classes]
    elif aim == "least-likely":
        targets = [chosen.logits.argmin(1)]
    else:
        targets = [(labels + step) % classes for step in range(1, classes if aim == "all" else 2)]
    return [Goal(target, targeted=True) for target in targets]


@dataclass(frozen=True)
class Verdict:
    """What the judge found for each picture.

    ``success``: the goal is reached within the box and eps; ``misclassified``: the same for the
    goal of leaving the label. Norms are of the change, l0 counts pixels and elements; ``_8bit`` is
    after rounding the picture to 256 levels.
    """

    success: Bool[Tensor, " n"]
    misclassified: Bool[Tensor, " n"]
    success_8bit: Bool[Tensor, " n"]
    not_finite: Bool[Tensor, " n"]
    outside_box: Bool[Tensor, " n"]
    beyond_eps: Bool[Tensor, " n"]
    l0_pixels: Int[Tensor, " n"]
    l0_elements: Int[Tensor, " n"]
    l0_pixels_8bit: Int[Tensor, " n"]
    l0_elements_8bit: Int[Tensor, " n"]
    l2: Float[Tensor, " n"]
    linf: Float[Tensor, " n"]

    def distance(self, unit: Literal["pixels", "elements"]) -> np.ndarray:
        """The l0 of each picture, infinity where the attack failed."""
        l0 = self.l0_pixels if unit == "pixels" else self.l0_elements
        return np.where(self.success.numpy(), l0.numpy().astype(float), np.inf)


def judge(
    network: nn.Module,
    images: Images,
    labels: Int[Tensor, " n"],
    goal: Goal,
    adversarial: Images,
    eps: float | None,
) -> Verdict:
    """Judge the pictures that an attack returned by a fresh forward; the result is on the CPU.

    ``eps`` None asks for the box only. Raises ``ValueError`` for images outside [0, 1] and for a
    target that is the picture's own label.
    """
    check(images, eps)
    own = (goal.labels == labels).nonzero()[:, 0] if goal.targeted else labels[:0]
    if len(own):
        raise ValueError(
            f"the target of picture {int(own[0])} is its own label, {int(labels[own[0]])}: "
            "choose another class"
        )
    adversarial = adversarial.to(images.device, images.dtype)
    finite = adversarial.isfinite().flatten(1).all(1)
    outside = ((adversarial < 0) | (adversarial > 1)).flatten(1).any(1)
    sound = torch.where(finite[:, None, None, None], adversarial, images)
    delta = sound - images
    largest = linf(delta)
    beyond = largest > (torch.inf if eps is None else eps + ROUNDING)
    valid = finite & ~outside & ~beyond
    logits = predict(network, sound)
    levels = (sound * 255).round()
    steps = levels - (images * 255).round()
    rounded = predict(network, (levels / 255).clamp(0, 1))
    found = {
        "success": valid & goal.reached(logits),
        "misclassified": valid & Goal(labels).reached(logits),
        "success_8bit": valid & goal.reached(rounded),
        "not_finite": ~finite,
        "outside_box": outside & finite,
        "beyond_eps": beyond,
        "l0_pixels": l0_pixels(delta),
        "l0_elements": l0_elements(delta),
        "l0_pixels_8bit": l0_pixels(steps),
        "l0_elements_8bit": l0_elements(steps),
        "l2": l2(delta),
        "linf": largest,
    }
    return Verdict(**{name: value.cpu() for name, value in found.items()})
