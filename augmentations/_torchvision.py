"""The torchvision v2 transform; imported by ``interop`` alone, since it imports torchvision."""

from __future__ import annotations

from typing import Any

import torch
from PIL.Image import Image
from torch import Generator, Tensor
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from augmentations.base import Augmentation, delete, draw, fields, points_to_guide
from augmentations.samples import (
    as_pil,
    current,
    fractions,
    guided,
    only_bytes,
    per_channel,
)

POINTS = getattr(tv_tensors, "KeyPoints", ())  # not in every release
REMEDY = (
    "give tv_tensors.KeyPoints beside the image, as WithTransform(dataset, pipeline, "
    "points=points) does; MaskedLoader takes maps of any kind"
)


class Deletion(v2.Transform):  # type: ignore[misc]
    """Delete pixels as an augmentation does; ``interop.as_torchvision`` tells the rest."""

    _transformed_types = (torch.Tensor, Image)

    def __init__(
        self,
        augmentation: Augmentation,
        mean: tuple[float, ...],
        std: tuple[float, ...] | None,
        seed: int,
        progress: float,
    ) -> None:
        fields(augmentation)
        fractions(mean)
        super().__init__()
        self.augmentation = augmentation
        self.mean = mean
        self.std = std
        self.seed = seed
        # in shared memory, so that it reaches workers that persist
        self._progress = torch.tensor(progress, dtype=torch.float64).share_memory_()
        self._generator: Generator | None = None
        self._worker: int | None = None

    @property
    def progress(self) -> float:
        """How much of the training is done, from 0 to 1; set it as training goes on."""
        return float(self._progress)

    @progress.setter
    def progress(self, value: float) -> None:
        self._progress.fill_(value)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the masks of the first image or batch, which all others of its size share."""
        images = next((one for one in flat_inputs if self._is_image(one)), None)
        if images is None:
            raise ValueError("the sample holds no image to delete from")
        h, w = functional.get_size(images)
        batch = images.shape[:-3] if isinstance(images, Tensor) else ()
        canvas = torch.empty(1, 1, h, w).expand(batch.numel() if batch else 1, 1, h, w)
        if isinstance(images, Tensor):
            canvas = canvas.to(images.device)
        points = next((one for one in flat_inputs if POINTS and isinstance(one, POINTS)), None)
        guide = None
        if points is not None and self.augmentation.wants is not None:
            rows = points.as_subclass(Tensor)
            rows = rows.expand(*batch, *rows.shape) if rows.ndim == 2 else rows
            if rows.shape[:-2].numel() != len(canvas):
                raise ValueError(
                    f"the key points have shape {tuple(rows.shape)}, the images "
                    f"{tuple(images.shape)}: give (n, 2) for all images, or one list per image"
                )
            rows = rows.reshape(len(canvas), -1, 2)
            guide = torch.stack([points_to_guide(row, h, w) for row in rows])[:, None]
            guide = guide.to(canvas.device)
        guided(self.augmentation, guide, REMEDY)
        draws = current()
        progress = self.progress if draws is None or draws.progress is None else draws.progress
        mask = draw(self.augmentation, canvas, self._stream(), guide=guide, progress=progress)
        return {"mask": mask}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Replace the masked pixels of images; everything else passes unchanged."""
        if not self._is_image(inpt):
            return inpt
        if isinstance(inpt, Image):
            pixels = functional.pil_to_tensor(as_pil(inpt, "the image"))
            return functional.to_pil_image(self.transform(pixels, params))
        c, h, w = inpt.shape[-3:]
        whole = not inpt.is_floating_point()
        if whole:
            only_bytes(inpt)
        values = inpt.as_subclass(Tensor).reshape(-1, c, h, w)
        out = delete(
            values / 255 if whole else values,
            params["mask"],
            mean=per_channel("mean", self.mean, c),
            std=None if self.std is None else per_channel("std", self.std, c),
            fill=self.augmentation.fill,
            generator=self._stream(),
        ).view(inpt.shape)
        out = (out * 255).round().clamp(0, 255).to(inpt.dtype) if whole else out
        return tv_tensors.wrap(out, like=inpt) if isinstance(inpt, tv_tensors.Image) else out

    def extra_repr(self) -> str:
        """What is shown of it in a pipeline."""
        return repr(self.augmentation)

    def _is_image(self, value: Any) -> bool:
        pure = isinstance(value, Tensor) and not isinstance(value, tv_tensors.TVTensor)
        return pure or isinstance(value, (tv_tensors.Image, Image))

    def _stream(self) -> Generator:
        """The generator: of the image inside of a wrapped dataset, else of this worker.

        Workers are copies of one process, so each gets one of its own.
        """
        if (draws := current()) is not None:
            return draws.generator
        worker = get_worker_info()
        seed = None if worker is None else worker.seed
        if self._generator is None or seed != self._worker:
            self._worker = seed
            self._generator = torch.Generator().manual_seed(
                (self.seed * 2**32 + (seed or 0)) % 2**63
            )
        return self._generator
