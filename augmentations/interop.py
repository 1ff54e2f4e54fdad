"""Other libraries' erasers as an ``Augmentation``, and any ``Augmentation`` inside theirs.

albumentations, torchvision and timm are imported only by what uses them.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from augmentations.base import Augmentation, Fill, Guide, Images, Mask, Ramp, delete, draw, fields
from augmentations.relocation import Movable, Rule, demanded, relocate
from augmentations.samples import guided, per_channel

CANVAS = 0.314159  # a value that no eraser writes, unlike white or black

REMEDY = "give MaskedLoader guide=, a function that makes maps (b, 1, h, w) of (images, targets)"


@dataclass(frozen=True)
class Foreign(Movable):
    """An eraser of albumentations, torchvision v2 or timm as an augmentation.

    The eraser is called image by image on an even canvas with values in [0, 1]; what it changes is
    the mask. Each image's seed comes from the generator: transforms of
    albumentations are given random states of their own, the others find the global states of
    ``random`` and torch seeded, which get back what they held (no other thread may draw from them
    meanwhile). The eraser itself is copied, never changed. Its gates (``p``) act beside ``share``.

    Args:
        eraser: A transform or a pipeline; give timm's ``device="cpu"``.
        share: The share of images that get a mask.
        fill: What takes the place of deleted pixels: the mean colour or noise.
        points: ``"seek"`` or ``"avoid"`` move the masks to where many or few points are; see
            `augmentations.relocation.relocate`.

    Raises:
        ValueError: ``fill`` or ``points`` is unknown.

    >>> from torchvision.transforms import v2
    >>> erase = Foreign(v2.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0)))
    >>> erase.mask(torch.zeros(2, 3, 8, 8), torch.Generator()).sum((1, 2, 3)).tolist()
    [16, 16]
    """

    eraser: Callable[..., Any]
    share: Ramp = Ramp(1.0)
    fill: Fill = "mean"
    points: Rule = "ignore"

    @classmethod
    def preset(cls, data: str, side: int) -> Foreign:
        """There is none: the eraser brings its own hyperparameters."""
        raise ValueError("Foreign has no preset: give it an eraser")

    def mask(self, images: Images, generator: Generator, guide: Guide | None = None) -> Mask:
        """Draw one seed per image and see what the eraser changes on the canvas."""
        b, c, h, w = images.shape
        seeds = torch.randint(2**31, (b,), generator=generator, device=generator.device).tolist()
        eraser = copy.deepcopy(self.eraser)
        run = _on_arrays if hasattr(eraser, "set_random_state") else _on_tensors
        gone = [run(eraser, seed, (c, h, w)) for seed in seeds]
        none = torch.zeros(0, h, w, dtype=torch.bool)
        mask = torch.stack(gone or [none])[: len(gone)].view(b, 1, h, w).to(images.device)
        if self.points == "ignore":
            return mask
        guide = demanded(guide, images, "Foreign")
        return relocate(mask, guide, images, self.points, generator)


def _on_arrays(eraser: Any, seed: int, shape: tuple[int, int, int]) -> Bool[Tensor, "h w"]:
    # not set_random_seed: it gives every transform of a pipeline the same draws
    eraser.set_random_state(np.random.default_rng(seed), random.Random(seed))
    c, h, w = shape
    out = eraser(image=np.full((h, w, c), CANVAS, np.float32))["image"]
    gone: Tensor = torch.from_numpy((out != np.float32(CANVAS)).any(-1))
    return gone


def _on_tensors(eraser: Any, seed: int, shape: tuple[int, int, int]) -> Bool[Tensor, "h w"]:
    canvas = torch.full(shape, CANVAS)
    before = random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            out = eraser(canvas.clone())
        finally:
            random.setstate(before)
    gone: Tensor = (out != canvas).any(0)
    return gone


def as_albumentations(
    augmentation: Augmentation,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...] | None = None,
    p: float = 1.0,
    progress: float | None = None,
) -> Any:
    """A built-in augmentation as an albumentations 2.0.8 transform.

    Points for AdvMask are the pipeline's keypoints, which follow its crops and flips; those outside
    the image are dropped, whatever ``remove_invisible`` is. Any guide may also be given as
    ``guide=``, an array (h, w) that fits the image at that place of the pipeline. It can be saved,
    loaded and replayed (import ``augmentations.interop`` and call ``as_albumentations`` once before
    loading). Draws differ between the workers of a DataLoader and between epochs; in a
    `WithTransform` they are the same for any number of workers, and after a resumed training.

    Args:
        augmentation: One of `BUILTIN`'s.
        mean: The dataset's mean per channel, in [0, 1], whether images are uint8 or float32.
        std: The dataset's standard deviation per channel, in [0, 1]; needed for noise.
        p: The probability that an image is masked.
        progress: How much of the training is done, from 0 to 1: of the images that ``p`` lets
            through, the augmentation's share is masked. None masks all of them. An attribute that
            may be set as training goes on and reaches the workers of a DataLoader, those that
            persist too.

    Returns:
        An ``albumentations.ImageOnlyTransform``.

    Raises:
        ValueError: The augmentation is not built in, or a hyperparameter or the mean is out of
            range.

    >>> import albumentations as A
    >>> import numpy as np
    >>> from augmentations import Cutout
    >>> deletion = as_albumentations(Cutout(4), mean=(0.5, 0.5, 0.5))
    >>> pipeline = A.Compose([A.HorizontalFlip(), deletion])
    >>> pipeline(image=np.zeros((8, 8, 3), np.uint8))["image"].max()
    np.uint8(128)
    """
    from augmentations._albumentations import Deletion, describe

    name, options = describe(augmentation)
    return Deletion(method=name, options=options, mean=mean, std=std, p=p, progress=progress)


def as_torchvision(
    augmentation: Augmentation,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...] | None = None,
    seed: int = 0,
    progress: float = 1.0,
) -> Any:
    """An augmentation as a torchvision v2 transform with a generator of its own.

    Takes images or batches of them, float in [0, 1] or uint8, and PIL images, which come out as
    grey (``L``) or RGB; each image gets its own mask, the share that is due at ``progress``. Points
    for AdvMask are the sample's ``tv_tensors.KeyPoints``, which follow crops and flips. Draws come
    from ``seed``, and in the workers of a DataLoader from the worker's seed too, so that they
    differ between workers and epochs; torch's global state is not touched. In a `WithTransform`
    they are the same for any number of workers, and after a resumed training.

    Args:
        augmentation: What to delete.
        mean: The dataset's mean per channel, in [0, 1].
        std: The dataset's standard deviation per channel, in [0, 1]; needed for noise.
        seed: Any whole number.
        progress: How much of the training is done, from 0 to 1; an attribute that may be set as
            training goes on and reaches the workers of a DataLoader, those that persist too.

    Returns:
        A ``torchvision.transforms.v2.Transform``.

    Raises:
        ValueError: The mean is outside of [0, 1].

    >>> from torchvision.transforms import v2
    >>> from augmentations import Cutout
    >>> pipeline = v2.Compose([v2.RandomCrop(8, 1), as_torchvision(Cutout(4), mean=(0.5,))])
    >>> pipeline(torch.zeros(2, 1, 8, 8)).amax((1, 2, 3)).tolist()
    [0.5, 0.5]
    """
    from augmentations._torchvision import Deletion

    return Deletion(augmentation, mean, std, seed, progress)


@dataclass
class MaskedLoader:
    """A loader of batches, such as timm's ``create_loader`` makes, that yields them masked.

    It belongs after normalisation (and after timm's mixup and prefetching). Everything else
    (``mixup_enabled``, ``sampler``, ``dataset``, ``len``) is the loader's.

    Args:
        loader: Yields (images, targets); images of shape (b, c, h, w).
        augmentation: What to delete.
        generator: All draws come from it, in this process, so the loader's workers do not matter.
            `set_epoch` restarts it, as a resumed training needs.
        guide: Makes the guide of a batch from its images and targets, where the augmentation wants
            one.
        mean: Of the batches per channel, by default 0: a deleted pixel becomes the mean colour.
        std: Of the batches per channel, by default 1.
        progress: How much of the training is done, from 0 to 1; set it as training goes on.

    >>> from augmentations import Cutout
    >>> batches = [(torch.ones(2, 3, 8, 8), torch.tensor([0, 1]))]
    >>> [(images, targets)] = MaskedLoader(batches, Cutout(4), torch.Generator())
    >>> images.amin((1, 2, 3)).tolist()
    [0.0, 0.0]
    """

    loader: Any
    augmentation: Augmentation
    generator: Generator
    guide: Callable[[Tensor, Tensor], Tensor] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    progress: float = field(default=1.0, kw_only=True)
    _first: int | None = field(default=None, init=False, repr=False)  # the first seed

    def __post_init__(self) -> None:
        fields(self.augmentation)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in self.loader:
            c = images.shape[1]
            guide = self.guide(images, targets) if self.guide else None
            guided(self.augmentation, guide, REMEDY)
            mask = draw(
                self.augmentation, images, self.generator, guide=guide, progress=self.progress
            )
            yield (
                delete(
                    images,
                    mask,
                    mean=per_channel("mean", self.mean, c),
                    std=per_channel("std", self.std, c),
                    fill=self.augmentation.fill,
                    generator=self.generator,
                ),
                targets,
            )

    def set_epoch(self, epoch: int) -> None:
        """Restart the draws for an epoch: it then has the same masks whatever was drawn before.

        The epoch is passed on to a sampler that has a ``set_epoch``, for its order.

        Args:
            epoch: From 0.
        """
        if self._first is None:
            self._first = self.generator.initial_seed()
        seeds = np.random.SeedSequence([self._first % 2**63, epoch])
        self.generator.manual_seed(int(seeds.generate_state(1, np.uint64)[0]) >> 1)
        restart = getattr(getattr(self.loader, "sampler", None), "set_epoch", None)
        if restart is not None:
            restart(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not set yet, as while unpickling
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name in type(self).__dataclass_fields__
        object.__setattr__(self if own else self.loader, name, value)
