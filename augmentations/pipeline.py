"""A dataset whose images and points go through a pipeline of torchvision or albumentations."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from augmentations.samples import (
    Draws,
    Indexed,
    Samples,
    as_bytes,
    as_floats,
    as_pil,
    drawn,
    is_pil,
    stream,
)


class WithTransform(Samples):
    """A dataset of (image, label) that a pipeline transforms, each image together with its points.

    Crops, flips and rotations of the pipeline then move image and points alike, and the
    augmentation in it (`as_torchvision` or `as_albumentations`) finds the points where the pixels
    are. It is an ordinary map-style dataset for any ``DataLoader``.

    All draws of an image depend on the seed, the epoch and its index only, as with `WithMask`:
    those of the augmentation, of albumentations, and what other transforms draw from the global
    states of torch, numpy and ``random``. So no number of workers changes an image, whether workers
    persist or not, and `set_epoch` continues a training that was stopped.

    Args:
        dataset: A map-style dataset of (image, label). Images are PIL images, tensors (c, h, w) or
            arrays (h, w) or (h, w, c); floats in [0, 1] or uint8. PIL images become grey or RGB.
            Labels pass unchanged.
        transform: A pipeline. One of albumentations gets arrays (h, w, c) and, where there are
            points, keypoints as (x, y): make it with ``keypoint_params=KeypointParams(format="xy",
            remove_invisible=False)``. Any other gets a PIL image or a tensor and, where there are
            points, ``tv_tensors.KeyPoints`` as second argument. torchvision's RandAugment,
            TrivialAugmentWide, AutoAugment and AugMix take no points: they raise "Inputs of type
            KeyPoints are not supported". Its rotations may move a point by a pixel against the
            image.
        points: One entry for each index, as for `WithMask`; None: the pipeline gets images alone.
        seed: Any whole number.
        epochs: The length of the training, for augmentations whose share of masked images grows:
            in epoch e (from 0) ``(e + 1) / epochs`` counts as done. None leaves the shares to the
            transforms (their ``progress``).

    Raises:
        ValueError: There are not as many entries as images, an entry does not fit its image, an
            image is not the one whose points were found, a sample is no (image, label) pair, or the
            pipeline takes no keypoints or others than (x, y).

    What the pipeline gives as an array or as a PIL image comes out as a float tensor (c, h, w),
    uint8 divided by 255; its tensors pass as they are.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> from torchvision.transforms import v2
    >>> from augmentations import AdvMask, Ramp, as_torchvision
    >>> images, points = torch.ones(4, 3, 8, 8), [[(2, 2)], [(4, 4)], [(6, 6)], []]
    >>> advmask = AdvMask(length=(2, 3), share=Ramp(1.0))
    >>> pipeline = v2.Compose(
    ...     [v2.RandomCrop(8, padding=1, fill=1.0), as_torchvision(advmask, mean=(0.0,) * 3)]
    ... )
    >>> train_set = WithTransform(TensorDataset(images, torch.arange(4)), pipeline, points)
    >>> [bool((image == 0).any()) for image, _ in train_set]
    [True, True, True, False]
    """

    def __init__(
        self,
        dataset: Indexed,
        transform: Callable[..., Any],
        points: Indexed | None = None,
        seed: int = 0,
        *,
        epochs: int | None = None,
    ) -> None:
        super().__init__(dataset, points, seed, epochs)
        self._pipeline = transform
        self._arrays = hasattr(transform, "set_random_state")  # albumentations
        if points is not None and self._arrays:
            _check_keypoints(transform)

    @property
    def transform(self) -> Callable[..., Any]:
        """The pipeline; it cannot be exchanged, as timm's ``create_loader`` would do."""
        return self._pipeline

    @transform.setter
    def transform(self, other: Callable[..., Any]) -> None:
        raise ValueError(
            "WithTransform has a pipeline already: give timm's create_loader a WithMask instead, "
            "or use torch.utils.data.DataLoader"
        )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        index = range(self._count)[index]  # from the end, or refused
        image, label = self._sample(index)
        epoch = self._next_epoch(index)
        progress = None if self.epochs is None else self._progress(epoch)
        places = None
        if self.points is not None:
            pixels = as_floats(image)
            self._compare(index, pixels)
            places = self._places(index, pixels.shape[-2], pixels.shape[-1])
        run = self._on_array if self._arrays else self._on_tensor
        with drawn(Draws(stream(self.seed, epoch, index), progress)) as seed:
            out = run(image, places, seed)
        if isinstance(out, Tensor):
            return out, label
        return as_floats(out), label

    def _on_array(self, image: Any, places: Tensor | None, seed: int) -> Any:
        transform: Any = self._pipeline
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        array = _array(image)
        if places is None:
            return transform(image=array)["image"]
        return transform(image=array, keypoints=places.flip(1).numpy().astype(np.float32))["image"]

    def _on_tensor(self, image: Any, places: Tensor | None, seed: int) -> Any:
        if is_pil(image):
            image = as_pil(image)
        else:
            from torchvision import tv_tensors

            image = tv_tensors.Image(as_floats(image) if isinstance(image, np.ndarray) else image)
        if places is None:
            return _plain(self._pipeline(image))
        return _plain(self._pipeline(image, _keypoints(places, image))[0])


def _check_keypoints(transform: Any) -> None:
    """Refuse an albumentations pipeline that does not take points as keypoints (x, y)."""
    taken = getattr(transform, "processors", {}).get("keypoints")
    remedy = (
        "make it with A.Compose(transforms, keypoint_params=A.KeypointParams("
        "format='xy', remove_invisible=False))"
    )
    if taken is None:
        raise ValueError(
            "the pipeline takes no keypoints, so points would not follow its crops and flips: "
            f"{remedy}"
        )
    if taken.params.format != "xy":
        raise ValueError(
            f"the pipeline takes keypoints of format {taken.params.format!r}, but points are given "
            f"as (x, y): {remedy}"
        )


def _array(image: Any) -> Any:
    """An image as albumentations takes it: (h, w, c), bytes or float32."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Tensor) and image.is_floating_point():
        return np.ascontiguousarray(image.permute(1, 2, 0).float().numpy())
    array = as_bytes(as_floats(image))
    return array[:, :, None] if array.ndim == 2 else array


def _keypoints(places: Tensor, image: Any) -> Any:
    """(row, column) pairs as torchvision's (x, y)."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    if not hasattr(tv_tensors, "KeyPoints"):
        raise ValueError("points in a pipeline need torchvision 0.23 or newer: upgrade torchvision")
    return tv_tensors.KeyPoints(
        places.flip(1).float(), canvas_size=tuple(functional.get_size(image))
    )


def _plain(image: Any) -> Any:
    """A tensor without torchvision's type, which collating would have to keep."""
    return image.as_subclass(Tensor) if isinstance(image, Tensor) else image
