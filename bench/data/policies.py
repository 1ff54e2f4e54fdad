"""Policies by name: AutoAugment and what came after it, alone or with what is pasted or cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from augmentations.base import scaled
from augmentations.ipf import published_length
from bench.data.augmix import AugMix
from bench.data.image_operations import Policy, Step
from bench.errors import suggest
from bench.registry import notation

NAMES = {
    "autoaugment": "25 pairs of operations found for CIFAR-10 (Cubuk et al. 2019)",
    "trivialaugment": "one of 14 operations at one of 31 levels (Müller and Hutter 2021)",
    "fast-autoaugment": "493 pairs of operations found for CIFAR-10 (Lim et al. 2019)",
    "randaugment": "two of 14 operations at level 9 of 30 (Cubuk et al. 2020)",
    "augmix": "three chains of one to three operations, blended (Hendrycks et al. 2020)",
    "keep-autoaugment": "autoaugment, with an important square pasted back (Gong et al. 2021)",
    "keep-autoaugment-low": "the same, the saliency taken at half the size",
    "keep-autoaugment-early": "the same, the saliency taken from an early head",
    "keep-autoaugment-early-low": "the same, from an early head at half the size",
    "ipf-autoaugment": "autoaugment, a square with many points pasted back, Cutout (IPF-RDA)",
    "ipf-trivialaugment": "the same around trivialaugment",
    "ipf-fast-autoaugment": "the same around fast-autoaugment",
    "ipf-randaugment": "the same around randaugment",
    "autoaugment.published": "as its paper trains: the dataset's policy, on CIFAR with Cutout",
    "trivialaugment.published": "as its paper trains: on CIFAR with Cutout",
    "fast-autoaugment.published": "as its paper trains: on CIFAR with Cutout",
    "randaugment.published": "as its paper trains: the dataset's N and M, on CIFAR with Cutout",
}
"""Policies by name; with ``+cutout`` behind the name, a Cutout follows the crop and the flip.

Those named ``ipf-`` include it. Those named ``.published`` stand for what `resolve` writes out.
"""

OPTIONS: dict[str, dict[str, Any]] = {
    "autoaugment": {"found_for": "cifar10"},
    "randaugment": {"operations": 2, "magnitude": 9},
    **{name: {"squares": "clipped"} for name in NAMES if name.startswith("keep-")},
}
"""The options of a policy and what each is where a recipe does not name it."""

UNCUT = ("imagenet", "tiny-imagenet", "flowers102")
"""Datasets for which the ImageNet settings count as published: no Cutout."""

GREY = 128  # what AutoAugment fills uncovered pixels with; the others leave them black


def resolve(text: str, data: str) -> str:
    """Return what a recipe says of the policy that a user types.

    - ``NAME.published`` becomes the settings of the policy's paper for the dataset. AutoAugment's
      are the policy found for it (SVHN's or ImageNet's); RandAugment's N and M are those of
      WRN-28-10, 3 and 5 on CIFAR-10, 2 and 14 on CIFAR-100, and for `UNCUT` ResNet-50's on
      ImageNet, 2 and 9; other datasets, for which none were published, get CIFAR-10's. Cutout of
      half the side follows, but for `UNCUT`. The paper's scale of M is not settled (its text says
      0 to 10, its experiments go to 30): M counts on torchvision's from 0 to 30. Fast AutoAugment's
      policy is CIFAR-10's everywhere; those of its authors for SVHN and ImageNet are not here.
    - ``keep-autoaugment`` pastes squares that lie inside the image:
      ``keep-autoaugment(squares='inside')``. A recipe that says ``keep-autoaugment`` is one of
      version 0.1, whose squares are clipped at the border.

    Args:
        text: A name of `NAMES`, with options in brackets and ``+cutout`` behind it.
        data: Name of the dataset.

    Raises:
        ValueError: The name or an option is unknown, or Cutout is asked for twice.

    >>> resolve("randaugment.published", "cifar100(train=2000)")
    'randaugment(magnitude=14)+cutout'
    >>> resolve("autoaugment.published", "imagenet")
    "autoaugment(found_for='imagenet')"
    >>> resolve("keep-autoaugment+cutout", "cifar10")
    "keep-autoaugment(squares='inside')+cutout"
    """
    name, options, cutout = _read(text)
    if name.endswith(".published"):
        name, data = name.removesuffix(".published"), data.partition("(")[0]
        cutout = data not in UNCUT
        if name == "autoaugment":
            near = {"svhn": "svhn", **dict.fromkeys(UNCUT, "imagenet")}
            options = {"found_for": near.get(data, "cifar10")} | options
        if name == "randaugment":
            n, m = {"cifar100": (2, 14), **dict.fromkeys(UNCUT, (2, 9))}.get(data, (3, 5))
            options = {"operations": n, "magnitude": m} | options
    if name.startswith("keep-"):
        options = {"squares": "inside"} | options
    given = [
        f"{option}={value!r}" for option, value in options.items() if value != OPTIONS[name][option]
    ]
    return name + (f"({', '.join(given)})" if given else "") + ("+cutout" if cutout else "")


def build(text: str, *, side: int, data: str = "cifar10") -> Policy:
    """The policy that a recipe names.

    Args:
        text: As `resolve` writes it; ``NAME.published`` is resolved here too. ``+cutout`` adds the
            Cutout of half the side that the published results of these policies include, after the
            crop and the flip.
        side: Of the images, in pixels.
        data: Name of the dataset; sets what is published for it, and the square that an ``ipf-``
            policy pastes back: 16 pixels for CIFAR-10, 8 for CIFAR-100, in proportion to the side.

    Raises:
        ValueError: The name or an option is unknown, a value is out of range, or Cutout is asked
            for twice.

    - AutoAugment: torchvision's tables and ranges; uncovered pixels are grey, as in the released
      code. The policy is that found for CIFAR-10 unless ``found_for`` says ``"svhn"`` or
      ``"imagenet"``.
    - TrivialAugment: the wide ranges. Shifts reach 32 pixels, as published for any side, but never
      more than the side.
    - Fast AutoAugment: the published policy and ranges. Shifts are cut to whole pixels.
    - RandAugment: torchvision's ranges and defaults, N = 2 ``operations`` of ``magnitude`` M = 9 on
      a scale from 0 to 30; the paper searches N and M for each dataset and network.
    - AugMix: see `bench.data.augmix`.
    - KeepAutoAugment: see `augmentations.keep_augment.important_square`.
    - Those named ``ipf-`` paste a square with many points back into the changed image and include
      the Cutout (IPF-RDA, selective paste; see `augmentations.ipf.paste_square`).

    Points and guides are not moved with the geometry of a policy, as in the AdvMask code; the
    square that is pasted back comes from the unchanged image, to which they belong.
    """
    name, options, cutout = _read(text)
    if name.endswith(".published"):
        name, options, cutout = _read(resolve(text, data))
    hole = max(2, scaled(16, side))
    if name.startswith("ipf-"):
        policy = _POLICIES[name.removeprefix("ipf-")](side)
        length = published_length(data.partition("(")[0], side)
        return replace(policy, keep="points", length=length, cutout=hole)
    family, _, variant = name.partition("autoaugment")
    if family == "keep-":
        squares = options.get("squares", "clipped")
        keep: Any = variant.removeprefix("-") or "full"
        policy = replace(_autoaugment(side), keep=keep, length=hole, squares=squares)
    else:
        policy = _POLICIES[name](side, **options)
    return replace(policy, cutout=hole) if cutout else policy


def _read(text: str) -> tuple[str, dict[str, Any], bool]:
    """The name, the options and whether Cutout follows, once all of them are known."""
    base, plus, extra = text.partition("+")
    name, options = notation.parse(base)
    if name not in NAMES or (plus and extra != "cutout"):
        known = [*NAMES, *(f"{other}+cutout" for other in NAMES if "." not in other)]
        raise ValueError(f"there is no policy {text!r}: {suggest(text, known)}")
    if plus and (name.startswith("ipf-") or name.endswith(".published")):
        says = "includes Cutout" if name.startswith("ipf-") else "knows if Cutout follows"
        raise ValueError(f"the policy {name!r} {says}: remove +cutout")
    known_options = OPTIONS.get(name.removesuffix(".published"), {})
    for option, value in options.items():
        if option not in known_options:
            has = f"it has: {', '.join(known_options)}" if known_options else "it has none"
            raise ValueError(f"{name} has no option {option!r}; {has}")
        values = _VALUES[option]
        if value not in values or type(value) is not type(values[0]):  # True and 9.0 are in ranges
            allowed = (
                f"an integer from {values[0]} to {values[-1]}"
                if isinstance(values, range)
                else f"one of {', '.join(map(repr, values))}"
            )
            raise ValueError(f"{name}: {option} is {value!r}: it must be {allowed}")
    return name, options, bool(plus)


_VALUES: dict[str, Sequence[Any]] = {
    "found_for": ("cifar10", "svhn", "imagenet"),
    "operations": range(1, 4),  # more would be a table of more than 38,000 sequences
    "magnitude": range(31),
    "squares": ("inside", "clipped"),
}


def _autoaugment(side: int, found_for: str = "cifar10") -> Policy:
    from torchvision.transforms import v2

    # torchvision keeps its tables private; a test notices when they move
    table = v2.AutoAugment(v2.AutoAugmentPolicy(found_for))
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


def _randaugment(side: int, operations: int = 2, magnitude: int = 9) -> Policy:
    from torchvision.transforms import v2

    table = v2.RandAugment(operations, magnitude)
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


def _augmix(side: int) -> Policy:
    from torchvision.transforms import v2

    table = v2.AugMix(all_ops=False)
    steps = [
        Step(operation, 1.0, *_level(table, operation, level, table._PARAMETER_MAX, side))
        for operation in table._PARTIAL_AUGMENTATION_SPACE
        for level in range(table.severity)
    ]
    return AugMix(tuple((step,) for step in steps), fill=0)


_POLICIES: dict[str, Callable[..., Policy]] = {
    "autoaugment": _autoaugment,
    "trivialaugment": _trivialaugment,
    "fast-autoaugment": _fast_autoaugment,
    "randaugment": _randaugment,
    "augmix": _augmix,
}
