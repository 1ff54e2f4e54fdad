"""The albumentations transform; imported by ``interop`` alone, since it imports albumentations."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import albumentations
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from augmentations import BUILTIN
from augmentations.base import Augmentation, Ramp, delete, draw, fields, points_to_guide
from augmentations.samples import current, fractions, guided, per_channel

REMEDY = (
    "call with guide=map or keypoints=points, in a pipeline with keypoint_params=A.KeypointParams("
    "format='xy', remove_invisible=False), as WithTransform(dataset, pipeline, points=points) does"
)


def describe(augmentation: Augmentation) -> tuple[str, dict[str, Any]]:
    """A built-in augmentation as its name and its options in JSON's types."""
    fields(augmentation)
    for name, cls in BUILTIN.items():
        if type(augmentation) is cls:
            options = asdict(augmentation)  # type: ignore[call-overload]
            return name, {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    raise ValueError(
        f"{type(augmentation).__name__} is not built in: albumentations could not load it again; "
        f"there are: {', '.join(BUILTIN)}"
    )


def rebuild(name: str, options: Mapping[str, Any]) -> Augmentation:
    """What ``describe`` described. Raises ``ValueError`` for names, options or values unknown."""
    if name not in BUILTIN:
        raise ValueError(f"method is {name!r}: there are: {', '.join(BUILTIN)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if isinstance(values.get("share"), Mapping):
        values["share"] = Ramp(**values["share"])
    try:
        return BUILTIN[name](**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


class Deletion(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Delete pixels as a built-in augmentation does; ``interop.as_albumentations`` tells the rest.

    What a call did is kept for replay as the mask's bits in hexadecimal and the seed of the noise.
    """

    class InitSchema(albumentations.BasicTransform.InitSchema):  # type: ignore[misc]
        """The arguments and their types; albumentations checks them."""

        method: str
        options: dict[str, Any] | None
        mean: tuple[float, ...]
        std: tuple[float, ...] | None
        progress: float | None

    def __init__(
        self,
        method: str = "cutout",
        options: dict[str, Any] | None = None,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] | None = None,
        p: float = 1.0,
        progress: float | None = None,
    ) -> None:
        fractions(mean)
        super().__init__(p=p)
        # in shared memory, so that it reaches workers that persist; nan: None
        self._progress = torch.full((), torch.nan, dtype=torch.float64).share_memory_()
        self.progress = progress
        self.method = method
        self.options = options
        self.mean = mean
        self.std = std
        self.augmentation = rebuild(method, options or {})
        self._worker: int | None = None

    @property
    def progress(self) -> float | None:
        """How much of the training is done, from 0 to 1; None: every image is due for a mask."""
        value = float(self._progress)
        return None if math.isnan(value) else value

    @progress.setter
    def progress(self, value: float | None) -> None:
        self._progress.fill_(math.nan if value is None else value)

    def should_apply(self, force_apply: bool = False) -> bool:
        """Toss the coin; in a worker met for the first time, with a random state of its own.

        Workers are copies of one process, so without this all of them, in every epoch, would make
        the same draws.
        """
        worker = get_worker_info() if current() is None else None
        if worker is not None and worker.seed != self._worker:
            self._worker = worker.seed
            seeds = np.random.SeedSequence(
                [int(self.random_generator.integers(2**63)), worker.seed]
            )
            self.set_random_state(
                np.random.default_rng(seeds), random.Random(int(seeds.generate_state(1)[0]))
            )
        return bool(super().should_apply(force_apply))

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the mask of this image."""
        h, w = params["shape"][:2]
        draws = current()
        # a pipeline's seed goes to all its transforms alike: the method tells siblings apart
        entropy = [int(self.random_generator.integers(2**63)), zlib.crc32(repr(self).encode())]
        seed, noise = np.random.SeedSequence(entropy).generate_state(2).tolist()
        generator = torch.Generator().manual_seed(seed)
        guide = self._guide(data, h, w)
        guided(self.augmentation, guide, REMEDY)
        progress = self.progress if draws is None or draws.progress is None else draws.progress
        canvas = torch.empty(1, 1, h, w)
        if progress is None:
            mask = self.augmentation.mask(canvas, generator, guide)
        else:
            mask = draw(self.augmentation, canvas, generator, guide=guide, progress=progress)
        return {"bits": np.packbits(mask.numpy()).tobytes().hex(), "noise": noise}

    def apply(self, img: Any, bits: str, noise: int, **params: Any) -> Any:
        """Replace the masked pixels of an image, (h, w) or (h, w, c), uint8 or float32."""
        h, w = img.shape[:2]
        flat = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))
        if not h * w <= len(flat) < h * w + 8:
            raise ValueError(f"the recorded mask does not fit an image of {h} x {w} pixels")
        mask = torch.from_numpy(flat[: h * w].reshape(1, 1, h, w).astype(bool))
        most = 255 if img.dtype == np.uint8 else 1
        images = torch.from_numpy(img.reshape(h, w, -1) / np.float32(most)).permute(2, 0, 1)[None]
        c = images.shape[1]
        out = delete(
            images,
            mask,
            mean=per_channel("mean", self.mean, c),
            std=None if self.std is None else per_channel("std", self.std, c),
            fill=self.augmentation.fill,
            generator=torch.Generator().manual_seed(noise),
        )
        array = out[0].permute(1, 2, 0).numpy().reshape(img.shape) * most
        return array.round().clip(0, 255).astype(np.uint8) if most == 255 else array

    def _guide(self, data: Mapping[str, Any], h: int, w: int) -> Tensor | None:
        if self.augmentation.wants is None:
            return None
        if data.get("guide") is not None:
            return torch.as_tensor(np.asarray(data["guide"], np.float32))[None, None]
        if data.get("keypoints") is None:
            return None
        count = len(data["keypoints"])
        points = np.asarray(data["keypoints"], np.float64).reshape(count, -1 if count else 2)
        return points_to_guide(torch.from_numpy(points[:, :2]), h, w)[None, None]
