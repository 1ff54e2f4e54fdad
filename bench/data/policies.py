"""Policies: image operations such as shear or solarize, drawn anew for every image.

A policy acts on the stored bytes, ahead of the crop, the flip, the mixing and the deletion. The
operations are torchvision's.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from augmentations.base import scaled
from augmentations.ipf import published_length
from bench import registry
from bench.data import seeds

Bytes = UInt8[Tensor, "b c h w"]

NAMES = {
    "autoaugment": "25 pairs of operations found for CIFAR-10 (Cubuk et al. 2019)",
    "trivialaugment": "one of 14 operations at one of 31 levels (Müller and Hutter 2021)",
    "fast-autoaugment": "493 pairs of operations found for CIFAR-10 (Lim et al. 2019)",
    "randaugment": "two of 14 operations at level 9 of 30 (Cubuk et al. 2020)",
    "keep-autoaugment": "autoaugment, with an important square pasted back (Gong et al. 2021)",
    "keep-autoaugment-low": "the same, the saliency taken at half the size",
    "keep-autoaugment-early": "the same, the saliency taken from an early head",
    "keep-autoaugment-early-low": "the same, from an early head at half the size",
    "ipf-autoaugment": "autoaugment, a square with many points pasted back, Cutout (IPF-RDA)",
    "ipf-trivialaugment": "the same around trivialaugment",
    "ipf-fast-autoaugment": "the same around fast-autoaugment",
    "ipf-randaugment": "the same around randaugment",
}
"""Policies by name; with ``+cutout`` behind the name, a Cutout follows the crop and the flip.

Those named ``ipf-`` include it.
"""

GREY = 128  # what AutoAugment fills uncovered pixels with; the others leave them black
TINT = (125, 123, 114)  # what the operation Cutout of Fast AutoAugment paints


class Step(NamedTuple):
    """An operation by torchvision's name, applied with a probability; its sign may be drawn."""

    operation: str
    probability: float
    magnitude: float = 0.0
    signed: bool = False


@dataclass(frozen=True)
class Policy:
    """Draws one of its sequences of steps for every image, each as probable as the others.

    Attributes:
        sequences: The steps, as many in each.
        fill: The byte that a geometric operation uncovers.
        cutout: Side in pixels of the Cutout that follows, if any.
        keep: What the square that is pasted back is chosen by: a saliency of the network in
            training (``"full"``, ``"low"``, ``"early"``, ``"early-low"``) or the ``"points"``; None
            where nothing is pasted back.
        length: Side of that square in pixels.
    """

    sequences: tuple[tuple[Step, ...], ...] = field(repr=False)
    fill: int
    cutout: int | None = None
    keep: str | None = None
    length: int = 16

    @property
    def points(self) -> bool:
        """Whether it needs the points of the images."""
        return self.keep == "points"

    @property
    def early(self) -> bool:
        """Whether the saliency comes from an early head, which has to be trained along."""
        return self.keep is not None and self.keep.startswith("early")

    def apply(self, images: Bytes, seed: int, epoch: int, ids: Int[Tensor, " b"]) -> Bytes:
        """Return the transformed images; what happens to one depends on seed, epoch and id only.

        The images have 1 or 3 channels; raises ``ValueError`` for others.
        """
        if images.shape[1] not in (1, 3):
            raise ValueError(
                f"the images have {images.shape[1]} channels: a policy needs grey or RGB ones"
            )
        draws = torch.stack([self._draws(seed, epoch, id_) for id_ in ids.tolist()])
        sequence = (draws[:, 0] * len(self.sequences)).long()
        images = images.clone()
        for i, (probability, variants) in enumerate(self._plan.steps):
            applied, sign, *place = draws[:, 1 + 4 * i : 5 + 4 * i].unbind(1)
            variant = variants[sequence, (sign < 0.5).long()]
            variant = torch.where(applied < probability[sequence], variant, -1)
            for j in variant.unique().tolist():
                operation, magnitude = self._plan.operations[j]
                if j < 0 or operation == "Identity":
                    continue
                rows = (variant == j).nonzero()[:, 0]
                where = torch.stack(place, 1)[rows]
                rows = rows.to(images.device)
                images[rows] = _operate(images[rows], operation, magnitude, self.fill, where)
        return images

    def _draws(self, seed: int, epoch: int, id_: int) -> Float[Tensor, " k"]:
        """One number for the sequence; for each step whether, its sign, and two for its place."""
        stream = seeds.generator(seed, "policy", epoch, id_)
        return torch.rand(1 + 4 * len(self._plan.steps), generator=stream, dtype=torch.float64)

    @functools.cached_property
    def _plan(self) -> _Plan:
        return _Plan.of(self.sequences)


class _Plan(NamedTuple):
    """The sequences as tables, so that images with the same operation can go together.

    ``operations`` are the different ones with their magnitudes; for every place in a sequence
    there are the probabilities, shape (n), and the number of the operation, shape (n, 2), whose
    second axis is the sign.
    """

    operations: list[tuple[str, float]]
    steps: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, sequences: tuple[tuple[Step, ...], ...]) -> _Plan:
        number: dict[tuple[str, float], int] = {}
        steps = []
        for place in zip(*sequences, strict=True):
            variants = [
                [number.setdefault((step.operation, sign * step.magnitude), len(number))]
                for step in place
                for sign in (1, -1 if step.signed else 1)
            ]
            probability = torch.tensor([step.probability for step in place], dtype=torch.float64)
            steps.append((probability, torch.tensor(variants).reshape(-1, 2)))
        return cls(list(number), steps)


def build(name: str, *, side: int, data: str = "cifar10") -> Policy:
    """The policy of that name.

    Args:
        name: One of `NAMES`. ``NAME+cutout`` adds the Cutout of half the side that the published
            results of these policies include, after the crop and the flip.
        side: Of the images, in pixels.
        data: Name of the dataset; sets the square that an ``ipf-`` policy pastes back: 16 pixels
            for CIFAR-10, 8 for CIFAR-100, in proportion to the side.

    Raises:
        ValueError: The name is unknown, or Cutout is asked for twice.

    - AutoAugment: torchvision's table and ranges; uncovered pixels are grey, as in the released
      code. The policy of CIFAR-10 is used for every data set.
    - TrivialAugment: the wide ranges. Shifts reach 32 pixels, as published for any side, but never
      more than the side.
    - Fast AutoAugment: the published policy and ranges. Shifts are cut to whole pixels.
    - RandAugment: torchvision's ranges and defaults, N = 2 operations of magnitude M = 9 on a scale
      from 0 to 30; the paper searches N and M for each dataset and network.
    - Those named ``ipf-`` paste a square with many points back into the changed image and include
      the Cutout (IPF-RDA, selective paste; see `augmentations.ipf.paste_square`).

    Points and guides are not moved with the geometry of a policy, as in the AdvMask code; the
    square that is pasted back comes from the unchanged image, to which they belong.
    """
    base, plus, extra = name.partition("+")
    if base not in NAMES or (plus and extra != "cutout"):
        known = [*NAMES, *(f"{other}+cutout" for other in NAMES)]
        raise ValueError(f"there is no policy {name!r}: {registry.suggest(name, known)}")
    if base.startswith("ipf-"):
        if plus:
            raise ValueError(f"the policy {base!r} includes Cutout: remove +cutout")
        policy = _POLICIES[base.removeprefix("ipf-")](side)
        length = published_length(data.partition("(")[0], side)
        return replace(policy, keep="points", length=length, cutout=max(2, scaled(16, side)))
    family, _, variant = base.partition("autoaugment")
    policy = _POLICIES["autoaugment" if family == "keep-" else base](side)
    if family == "keep-":
        keep = variant.removeprefix("-") or "full"
        policy = replace(policy, keep=keep, length=max(2, scaled(16, side)))
    return replace(policy, cutout=max(2, scaled(16, side))) if plus else policy


def _autoaugment(side: int) -> Policy:
    from torchvision.transforms import v2

    # torchvision keeps its tables private; a test notices when they move
    table = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    return Policy(
        tuple(
            tuple(
                Step(operation, probability, *_level(table, operation, level or 0, 10, side))
                for operation, probability, level in pair
            )
            for pair in table._policies
        ),
        fill=GREY,
    )


def _trivialaugment(side: int) -> Policy:
    from torchvision.transforms import v2

    table = v2.TrivialAugmentWide()

    def step(operation: str, level: int) -> Step:
        magnitude, signed = _level(table, operation, level, 31, side)
        if operation.startswith("Translate"):
            magnitude *= min(1.0, side / 32)
        return Step(operation, 1.0, magnitude, signed)

    return Policy(
        tuple(
            (step(operation, level),)
            for operation in table._AUGMENTATION_SPACE
            for level in range(31)
        ),
        fill=0,
    )


def _randaugment(side: int) -> Policy:
    from torchvision.transforms import v2

    table = v2.RandAugment()
    steps = [
        Step(operation, 1.0, *_level(table, operation, table.magnitude, 31, side))
        for operation in table._AUGMENTATION_SPACE
    ]
    return Policy(tuple(itertools.product(steps, repeat=table.num_ops)), fill=0)


def _level(table: Any, operation: str, level: int, levels: int, side: int) -> tuple[float, bool]:
    """Magnitude and signedness of an operation in a table of torchvision."""
    magnitudes, signed = table._AUGMENTATION_SPACE[operation]
    values = magnitudes(levels, side, side)
    return (0.0 if values is None else float(values[level])), signed


def _fast_autoaugment(side: int) -> Policy:
    text = (files("bench.data") / "policy_data" / "fast_autoaugment_cifar10.json").read_text()
    ranges: dict[str, tuple[float, float, bool]] = {
        # lowest, highest, mirrored
        **dict.fromkeys(("ShearX", "ShearY"), (-0.3, 0.3, True)),
        **dict.fromkeys(("TranslateX", "TranslateY"), (-0.45 * side, 0.45 * side, True)),
        "Rotate": (-30.0, 30.0, True),
        "Solarize": (0.0, 256 / 255, False),
        "Posterize": (4.0, 8.0, False),
        **dict.fromkeys(("Contrast", "Color", "Brightness", "Sharpness"), (-0.9, 0.9, False)),
        "Cutout": (0.0, 0.2 * side, False),
        **dict.fromkeys(("AutoContrast", "Invert", "Equalize"), (0.0, 0.0, False)),
    }

    def step(operation: str, probability: float, level: float) -> Step:
        low, high, signed = ranges[operation]
        return Step(operation, probability, low + level * (high - low), signed)

    return Policy(tuple(tuple(step(*entry) for entry in pair) for pair in json.loads(text)), fill=0)


_POLICIES: dict[str, Callable[[int], Policy]] = {
    "autoaugment": _autoaugment,
    "trivialaugment": _trivialaugment,
    "fast-autoaugment": _fast_autoaugment,
    "randaugment": _randaugment,
}


def _operate(
    images: Bytes, operation: str, magnitude: float, fill: int, place: Float[Tensor, "b 2"]
) -> Bytes:
    """One operation at one magnitude on a batch, each image by itself."""
    if operation == "Cutout":
        return _cutout(images, magnitude, place)
    done: Tensor = _torchvision()(
        images, operation, magnitude, interpolation="nearest", fill={Tensor: [fill]}
    )
    return done


@functools.cache
def _torchvision() -> Any:
    from torchvision.transforms import v2

    return v2.AutoAugment()._apply_image_or_video_transform


def _cutout(images: Bytes, length: float, place: Float[Tensor, "b 2"]) -> Bytes:
    """Fast AutoAugment's own Cutout: a tinted square around a point, clipped at the border."""
    inside = torch.ones_like(images[:, :1], dtype=torch.bool)
    for axis, size in ((2, images.shape[2]), (3, images.shape[3])):
        shape = [-1 if i == axis else 1 for i in range(4)]
        first = (place[:, axis - 2] * size - length / 2).clamp(min=0).floor()
        last = (first + length).clamp(max=size).floor()  # still painted
        pixels = torch.arange(size, device=images.device).reshape(shape)
        first, last = (end.to(images.device)[:, None, None, None] for end in (first, last))
        inside &= (pixels >= first) & (pixels <= last)
    tint = torch.tensor(TINT, dtype=torch.uint8, device=images.device).reshape(1, 3, 1, 1)
    if images.shape[1] == 1:
        tint = tint.float().mean(1, keepdim=True).to(torch.uint8)
    return torch.where(inside, tint, images)
