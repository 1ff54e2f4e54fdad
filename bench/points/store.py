"""Adversarial points of a training set, and the files that keep them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bench.data.dataset import Dataset
from bench.errors import reason
from bench.files import atomic, json_text, tensor_files

if TYPE_CHECKING:
    pass

KINDS = {"places": (torch.int16, 2), "offsets": (torch.int64, 1), "reached": (torch.bool, 1)}
"""What a set of points is kept as: type and number of axes of each tensor."""


@dataclass(frozen=True)
class Points:
    """Where each picture of a training set is fragile.

    ``places`` holds (row, column) pairs of all pictures one after the other; those of picture ``i``
    are ``places[offsets[i]:offsets[i + 1]]``. A picture without points is one whose attack failed
    (``reached`` is False). ``about`` says of which data set and how they were made.
    """

    places: Int[Tensor, "p 2"]
    offsets: Int[Tensor, " m"]  # one more than there are pictures
    reached: Bool[Tensor, " n"]
    about: dict[str, Any]

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """Points per picture."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.reached)

    def __getitem__(self, index: int) -> Int[Tensor, "k 2"]:
        """The points of one image, as (row, column) pairs."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are points of {len(self)} images, none of number {index}")
        index %= len(self)
        return self.places[self.offsets[index] : self.offsets[index + 1]].long()

    def guide(self) -> Bool[Tensor, "n 1 h w"]:
        """One map per picture, True at its points."""
        h, w = self.about["size"]
        guide = torch.zeros(len(self.reached), 1, h, w, dtype=torch.bool)
        owner = torch.repeat_interleave(torch.arange(len(self.reached)), self.counts)
        guide[owner, 0, self.places[:, 0].long(), self.places[:, 1].long()] = True
        return guide

    @classmethod
    def of(
        cls, changed: Bool[Tensor, "n h w"], reached: Bool[Tensor, " n"], about: dict[str, Any]
    ) -> Points:
        """The points of maps that are True where a picture was changed."""
        where = changed.nonzero()
        offsets = torch.zeros(len(changed) + 1, dtype=torch.int64)
        offsets[1:] = changed.flatten(1).sum(1).cumsum(0)
        about = about | {"size": list(changed.shape[1:])}
        return cls(where[:, 1:].to(torch.int16).contiguous(), offsets, reached, about)

    def fits(self, data: Dataset) -> None:
        """Refuse a data set that these points were not made for, and a set without any point."""
        n, _, h, w = data.train.images.shape
        if self.about.get("digest") != data.digest or len(self.reached) != n:
            raise ValueError(
                f"these points belong to {self.about.get('data')} "
                f"({self.about.get('digest')}, {len(self.reached)} pictures), not to "
                f"{data.name} ({data.digest}, {n} pictures): "
                "build points for it with: bench points build"
            )
        if self.about["size"] != [h, w]:
            raise ValueError(f"these points are for pictures of {self.about['size']}, not {h}x{w}")
        if not len(self.places):
            raise ValueError("the set of points is empty: no attack on the training set succeeded")

    def save(self, path: Path) -> None:
        """Write them as safetensors; the metadata holds ``about`` as JSON and a checksum."""
        tensors = {"places": self.places, "offsets": self.offsets, "reached": self.reached}
        atomic.write(path, tensor_files.pack(tensors, {"about": json.dumps(self.about)}))

    @classmethod
    def load(cls, path: Path) -> Points:
        """Read what `save` wrote; raises ``ValueError`` for a file that is damaged or no points."""
        tensors, metadata = tensor_files.read(path)
        try:
            if {name: (each.dtype, each.ndim) for name, each in tensors.items()} != KINDS:
                raise ValueError("its tensors are not places, offsets and reached")
            about = json_text.parse(metadata.get("about", ""))
            check(tensors, about)
        except ValueError as error:
            raise ValueError(f"{path} holds no points that can be used: {reason(error)}") from None
        return cls(**tensors, about=about)

    def summary(self) -> dict[str, float]:
        """Numbers to judge a set by.

        ``points`` per picture (mean and median), ``success`` of the attack, ``inside`` the share of
        points in the central half of the area, ``spread`` the mean distance of points from their
        centre as a share of that of points placed everywhere.
        """
        counts = self.counts.float()
        h, w = self.about["size"]
        size = torch.tensor([h, w], dtype=torch.float32)
        owner = torch.repeat_interleave(torch.arange(len(self.reached)), self.counts)
        places = (self.places.float() + 0.5) / size - 0.5
        inside = (places.abs() < 0.5**1.5).all(1).float().mean()
        centre = torch.zeros(len(self.reached), 2).index_add_(0, owner, places)
        centre = centre / counts.clamp(min=1)[:, None]
        spread = (places - centre[owner]).square().sum(1).mean().sqrt()
        return {
            "pictures": float(len(counts)),
            "points_mean": float(counts.mean()),
            "points_median": float(counts.median()),
            "without_points": float((counts == 0).float().mean()),
            "success": float(self.reached.float().mean()),
            "inside": float(inside),
            "spread": float(spread / (1 / 6) ** 0.5),
        }


def join(parts: list[Points]) -> Points:
    """Consecutive parts of one job as one set."""
    starts = torch.cat([torch.tensor([0]), torch.cat([part.counts for part in parts]).cumsum(0)])
    return Points(
        torch.cat([part.places for part in parts]),
        starts,
        torch.cat([part.reached for part in parts]),
        parts[0].about,
    )


def check(tensors: dict[str, Tensor], about: Any) -> None:
    """Refuse points outside the picture, and offsets that do not divide them."""
    places, offsets, reached = (tensors[name] for name in ("places", "offsets", "reached"))
    size = about.get("size") if isinstance(about, dict) else None
    if not isinstance(size, list) or len(size) != 2 or {*map(type, size)} != {int}:
        raise ValueError("it does not say how large the pictures are")
    if max(size) > torch.iinfo(torch.int16).max:
        raise ValueError(f"pictures of {size[0]}x{size[1]} pixels are too large")
    if len(offsets) != len(reached) + 1 or int(offsets[-1]) != len(places):
        raise ValueError(
            f"the offsets do not divide {len(places)} points over {len(reached)} pictures"
        )
    if int(offsets[0]) or bool((offsets.diff() < 0).any()):
        raise ValueError("the offsets must start at 0 and never fall")
    if places.shape[1] != 2 or bool(((places < 0) | (places >= torch.tensor(size))).any()):
        raise ValueError(f"some points lie outside the picture of {size[0]}x{size[1]} pixels")
