"""The judge of attacks: which images are attacked, with which goals, and what counts as success.

Everything about the images that an attack returns is measured here, independently of the attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks import Goal
from attacks.base import Images, check
from attacks.norms import l0_elements, l0_pixels, l2, linf
from attacks.victim import check_form, frozen, images_kept
from bench.data import seeds
from bench.data.floats import as_floats
from bench.data.splits import Split
from bench.models.arithmetic import full_float32
from bench.models.networks import check_logits

Aim = Literal["untargeted", "random", "least-likely", "next", "all", "given"]
TARGETS = ("random", "least-likely", "next", "all")
"""The ways to choose target classes."""

ROUNDING = 1e-6
"""Tolerance of the check against eps: float32 rounds values near 1 to multiples of 6e-8."""

BATCH = 64


@dataclass(frozen=True)
class CorrectImages:
    """Images under attack: those of a test set that the victim model classifies correctly.

    Attributes:
        ids: Indices of the images in the test set, shape (n,).
        images: Images in [0, 1], shape (n, c, h, w).
        labels: True classes, shape (n,).
        logits: Logits of the victim model, shape (n, k).
        seen: Number of test images that were classified to find them.
    """

    ids: Int[Tensor, " n"]
    images: Images
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n k"]
    seen: int

    @property
    def correct(self) -> float:
        """Share of correctly classified images among those that were classified."""
        return len(self.ids) / self.seen


def correct_images(network: nn.Module, test: Split, count: int, device: str) -> CorrectImages:
    """Return the first correctly classified images of a test set.

    They follow a fixed order that mixes the classes, the same for every victim model, attack and
    seed.

    Args:
        network: The victim model.
        test: The test set.
        count: Number of images.
        device: Device of the network.

    Raises:
        ValueError: Fewer images are classified correctly, or some logits are not finite.
    """
    order = torch.randperm(len(test.labels), generator=seeds.generator(0, "pictures"))
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    seen = 0
    for ids in order.split(BATCH):
        images = as_floats(test.images[ids], device)
        labels = test.labels[ids].to(device)
        logits = predict(network, images)
        check_logits(logits, len(images))
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
        f"the victim model classifies {total} of {len(order)} test images correctly; "
        f"lower --images from {count} to at most {total}"
    )


@full_float32()
def predict(network: nn.Module, images: Images) -> Float[Tensor, "b k"]:
    """Return the logits of images, shape (b, k), by new forward passes.

    Raises:
        ValueError: The network changes the images that it is given in place, or returns something
            other than logits of several classes.
    """
    answers = []
    with frozen(network), torch.no_grad(), images_kept(network):
        for batch in images.split(BATCH):
            answers.append(network(batch))
            check_form(answers[-1], len(batch))
    return torch.cat(answers)


def goals(aim: Aim, chosen: CorrectImages, seed: int) -> list[Goal]:
    """Return what the attacks should reach: one goal, or for ``"all"`` one per other class.

    A random target depends on the seed and the image alone, so it is the same for every attack, eps
    and number of images.

    Args:
        aim: ``"untargeted"``, or how target classes are chosen; not ``"given"``, which leaves them
            to the caller.
        chosen: The images under attack.
        seed: Seed of random targets.

    Raises:
        ValueError: Another aim.
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
    elif aim not in TARGETS:
        raise ValueError(f"the aim is {aim!r}: choose untargeted, {', '.join(TARGETS)}")
    else:
        targets = [(labels + step) % classes for step in range(1, classes if aim == "all" else 2)]
    return [Goal(target, targeted=True) for target in targets]


@dataclass(frozen=True)
class Verdict:
    """What the judge found for each of n images; all tensors have shape (n,).

    Attributes:
        success: The goal is reached, within [0, 1], eps and the goal's region.
        misclassified: The true class is left, likewise.
        success_8bit: As ``success``, after rounding the image to 256 levels.
        not_finite: Some value, or some logit, is infinite or not a number.
        outside_box: Some value is outside [0, 1].
        beyond_eps: Some value changed by more than eps.
        outside_region: Some pixel outside the goal's region changed.
        l0_pixels: Number of changed pixels.
        l0_elements: Number of changed elements, each channel of a pixel counted.
        l0_pixels_8bit: As ``l0_pixels``, after rounding.
        l0_elements_8bit: As ``l0_elements``, after rounding.
        l2: Euclidean norm of the change.
        linf: Largest change of a value.
    """

    success: Bool[Tensor, " n"]
    misclassified: Bool[Tensor, " n"]
    success_8bit: Bool[Tensor, " n"]
    not_finite: Bool[Tensor, " n"]
    outside_box: Bool[Tensor, " n"]
    beyond_eps: Bool[Tensor, " n"]
    outside_region: Bool[Tensor, " n"]
    l0_pixels: Int[Tensor, " n"]
    l0_elements: Int[Tensor, " n"]
    l0_pixels_8bit: Int[Tensor, " n"]
    l0_elements_8bit: Int[Tensor, " n"]
    l2: Float[Tensor, " n"]
    linf: Float[Tensor, " n"]

    def distance(self, unit: Literal["pixels", "elements"]) -> np.ndarray:
        """Return the number of changes of each image, infinity where the attack failed."""
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
    """Judge the images that an attack returned, by new forward passes.

    Args:
        network: The victim model.
        images: The originals in [0, 1], shape (n, c, h, w).
        labels: True classes, shape (n,).
        goal: What the attack should reach, and where it may change pixels.
        adversarial: What the attack returned, of the same shape.
        eps: Largest change of a value; None: only [0, 1] is required.

    Returns:
        The verdict, on the CPU.

    Raises:
        ValueError: Originals outside [0, 1], or a target that is the image's own label.
    """
    check(images, eps)
    own = (goal.labels == labels).nonzero()[:, 0] if goal.targeted else labels[:0]
    if len(own):
        raise ValueError(
            f"the target of image {int(own[0])} is its own label, {int(labels[own[0]])}; "
            "choose another class"
        )
    adversarial = adversarial.to(images.device, images.dtype)
    finite = adversarial.isfinite().flatten(1).all(1)
    outside = ((adversarial < 0) | (adversarial > 1)).flatten(1).any(1)
    sound = torch.where(finite[:, None, None, None], adversarial, images)
    delta = sound - images
    largest = linf(delta)
    beyond = largest > (torch.inf if eps is None else eps + ROUNDING)
    elsewhere = torch.zeros_like(finite)
    if goal.region is not None:
        elsewhere = ((delta != 0) & ~goal.region.to(delta.device)).flatten(1).any(1)
    valid = finite & ~outside & ~beyond & ~elsewhere
    logits = predict(network, sound)
    known = logits.isfinite().all(1)  # else the class is that of no comparison
    valid &= known
    levels = (sound * 255).round()
    steps = levels - (images * 255).round()
    rounded = predict(network, (levels / 255).clamp(0, 1))
    within = linf(steps / 255) <= (torch.inf if eps is None else eps + ROUNDING)
    found = {
        "success": valid & goal.reached(logits),
        "misclassified": valid & Goal(labels).reached(logits),
        "success_8bit": valid & within & rounded.isfinite().all(1) & goal.reached(rounded),
        "not_finite": ~(finite & known),
        "outside_box": outside & finite,
        "beyond_eps": beyond,
        "outside_region": elsewhere,
        "l0_pixels": l0_pixels(delta),
        "l0_elements": l0_elements(delta),
        "l0_pixels_8bit": l0_pixels(steps),
        "l0_elements_8bit": l0_elements(steps),
        "l2": l2(delta),
        "linf": largest,
    }
    return Verdict(**{name: value.cpu() for name, value in found.items()})
