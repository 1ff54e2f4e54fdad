"""Adversarial points of a training set, and their files."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bench.data.dataset import Dataset
from bench.errors import reason
from bench.files import atomic, json_text, tensor_files

KINDS = {"places": (torch.int16, 2), "offsets": (torch.int64, 1), "reached": (torch.bool, 1)}
"""Type and number of axes of each tensor of the file."""


@dataclass(frozen=True)
class Points:
    """Adversarial points of n images: the pixels that a successful attack changed.

    Attributes:
        places: Row and column of the points of all images, one image after the other, shape (p, 2).
        offsets: Image i has ``places[offsets[i]:offsets[i + 1]]``; shape (n + 1,).
        reached: Whether the attack on each image succeeded, shape (n,). An image on which it failed
            has no points; predicted points are there whether the attack would succeed or not.
        about: Name and checksum of the dataset, ``size`` (h, w) of the images, victim model and
            attack, as JSON values.
        contents: A checksum of each image, shape (n,), by which `augmentations.WithMask` notices
            that a dataset has changed; None where the images are not at hand. Not stored.

    >>> points = Points(
    ...     torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 2, 2]), torch.tensor([True, False]),
    ...     {"size": [2, 2]},
    ... )
    >>> points[0].tolist(), points[1].tolist(), points.guide().shape
    ([[0, 1], [1, 1]], [], torch.Size([2, 1, 2, 2]))
    """

    places: Int[Tensor, "p 2"]
    offsets: Int[Tensor, " m"]  # m = n + 1
    reached: Bool[Tensor, " n"]
    about: dict[str, Any]
    contents: Int[Tensor, " n"] | None = None

    @property
    def counts(self) -> Int[Tensor, " n"]:
        """Number of points of each image."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.reached)

    def __getitem__(self, index: int) -> Int[Tensor, "k 2"]:
        """Return the points of one image as (row, column) pairs."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for the points of {len(self)} images")
        index %= len(self)
        return self.places[self.offsets[index] : self.offsets[index + 1]].long()

    def guide(self) -> Bool[Tensor, "n 1 h w"]:
        """Return one map per image, True at its points."""
        h, w = self.about["size"]
        guide = torch.zeros(len(self.reached), 1, h, w, dtype=torch.bool)
        owner = torch.repeat_interleave(torch.arange(len(self.reached)), self.counts)
        guide[owner, 0, self.places[:, 0].long(), self.places[:, 1].long()] = True
        return guide

    @classmethod
    def of(
        cls, changed: Bool[Tensor, "n h w"], reached: Bool[Tensor, " n"], about: dict[str, Any]
    ) -> Points:
        """Build points from maps.

        Args:
            changed: One map per image, True at the changed pixels.
            reached: Whether the attack on each image succeeded.
            about: What the points belong to.
        """
        where = changed.nonzero()
        offsets = torch.zeros(len(changed) + 1, dtype=torch.int64)
        offsets[1:] = changed.flatten(1).sum(1).cumsum(0)
        about = about | {"size": list(changed.shape[1:])}
        return cls(where[:, 1:].to(torch.int16).contiguous(), offsets, reached, about)

    def fits(self, data: Dataset) -> None:
        """Check that the points belong to a dataset.

        Raises:
            ValueError: They belong to another dataset, or there is no point at all.
        """
        n, _, h, w = data.train.images.shape
        if self.about.get("digest") != data.digest or len(self.reached) != n:
            raise ValueError(
                f"these points belong to {self.about.get('data')} "
                f"({self.about.get('digest')}, {len(self.reached)} images), not to "
                f"{data.name} ({data.digest}, {n} images); "
                "find points of this dataset with: bench points build"
            )
        if self.about["size"] != [h, w]:
            raise ValueError(
                f"these points belong to images of size {self.about['size']}, not {[h, w]}"
            )
        if not len(self.places):
            raise ValueError(
                "there are no points: the attack succeeded on no training image; give a larger eps "
                f"than that of {self.about.get('attack', 'the attack')}"
            )

    def save(self, path: Path) -> None:
        """Write a safetensors file with ``about`` as JSON and a checksum in its metadata."""
        tensors = {"places": self.places, "offsets": self.offsets, "reached": self.reached}
        atomic.write(path, tensor_files.pack(tensors, {"about": json.dumps(self.about)}))

    @classmethod
    def load(cls, path: Path) -> Points:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged or does not hold points.
        """
        tensors, metadata = tensor_files.read(path)
        try:
            if {name: (each.dtype, each.ndim) for name, each in tensors.items()} != KINDS:
                raise ValueError("its tensors are not places, offsets and reached")
            about = json_text.parse(metadata.get("about", ""))
            check(tensors, about)
        except ValueError as error:
            raise ValueError(f"{path} does not hold valid points: {reason(error)}") from None
        return cls(**tensors, about=about)

    def summary(self) -> dict[str, float]:
        """Return statistics of the points.

        Returns:
            ``images`` (number of images), ``points_mean``, ``points_median``, ``points_least``
            and ``points_most`` (per image), ``without_points`` and ``success`` (shares of the
            images), ``victim_accuracy`` (share of the images that the victim model classifies
            correctly, where it is known), ``inside`` (share of the points in the central half of
            the area), ``spread`` (root mean square distance of an image's points from their
            centre, relative to that of points everywhere) and ``neighbours`` (mean number of a
            point's 8 neighbours that are points).
        """
        counts, known = self.counts.float(), _share(self.about.get("victim_accuracy"))
        h, w = self.about["size"]
        size = torch.tensor([h, w], dtype=torch.float32)
        owner = torch.repeat_interleave(torch.arange(len(self.reached)), self.counts)
        places = (self.places.float() + 0.5) / size - 0.5
        inside = (places.abs() < 0.5**1.5).all(1).float().mean()
        centre = torch.zeros(len(self.reached), 2).index_add_(0, owner, places)
        centre = centre / counts.clamp(min=1)[:, None]
        spread = (places - centre[owner]).square().sum(1).mean().sqrt()
        return {
            "images": float(len(counts)),
            **describe_counts(self.counts),
            "without_points": float((counts == 0).double().mean()),
            "success": float(self.reached.double().mean()),
            **({} if known is None else {"victim_accuracy": known}),
            "inside": float(inside),
            "spread": float(spread / (1 / 6) ** 0.5),
            "neighbours": 2 * self._adjacent() / max(len(self.places), 1),
        }

    def _adjacent(self) -> int:
        """Count the pairs of points of an image that touch, at a side or a corner."""
        pairs = 0
        for guide in self.guide()[:, 0].split(4096):  # the copies stay small
            pairs += int((guide[:, 1:] & guide[:, :-1]).sum())
            pairs += int((guide[:, :, 1:] & guide[:, :, :-1]).sum())
            pairs += int((guide[:, 1:, 1:] & guide[:, :-1, :-1]).sum())
            pairs += int((guide[:, 1:, :-1] & guide[:, :-1, 1:]).sum())
        return pairs


def _share(value: Any) -> float | None:
    """The value of a file as a number from 0 to 1, None for anything else."""
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def describe_counts(counts: Int[Tensor, " n"]) -> dict[str, float]:
    """Return the mean, the lower median, the least and the most number of points of an image.

    Args:
        counts: Number of points of each image.

    >>> describe_counts(torch.tensor([0, 2, 7]))
    {'points_mean': 3.0, 'points_median': 2.0, 'points_least': 0.0, 'points_most': 7.0}
    """
    return {
        "points_mean": float(counts.double().mean()),
        "points_median": float(counts.median()),
        "points_least": float(counts.min()),
        "points_most": float(counts.max()),
    }


def stored(folder: Path, data: Dataset) -> dict[str, Points]:
    """Return the stored points of a dataset: those found here, and those imported.

    Args:
        folder: Results folder.
        data: The dataset.

    Returns:
        Points by the attack that found them, or by the name under which they were imported. Where
        one attack found several sets, as with different victim models, each has a part of its
        file's name behind the attack.

    Raises:
        ValueError: A file is damaged.
    """
    found: list[tuple[str, str, Points]] = []
    for path in sorted((folder / "points").glob("*.safetensors")):
        points = Points.load(path)
        if points.about.get("digest") != data.digest or len(points) != len(data.train.labels):
            continue
        # what was found here is named after its recipe; imported points have a name of their own
        made = re.fullmatch(r".+-([0-9a-f]{8,})", path.stem)
        attack = points.about.get("attack")
        if made and attack and "imported" not in points.about:
            found.append((str(attack), f" #{made[1][:6]}", points))
        else:
            found.append((path.stem, "", points))
    count = Counter(name for name, _, _ in found)
    return {name + suffix if count[name] > 1 else name: points for name, suffix, points in found}


def join(parts: list[Points]) -> Points:
    """Join the points of consecutive blocks of images."""
    starts = torch.cat([torch.tensor([0]), torch.cat([part.counts for part in parts]).cumsum(0)])
    return Points(
        torch.cat([part.places for part in parts]),
        starts,
        torch.cat([part.reached for part in parts]),
        parts[0].about,
    )


def check(tensors: dict[str, Tensor], about: Any) -> None:
    """Check that points lie in their images and that the offsets divide them.

    Raises:
        ValueError: They do not.
    """
    places, offsets, reached = (tensors[name] for name in ("places", "offsets", "reached"))
    size = about.get("size") if isinstance(about, dict) else None
    if not isinstance(size, list) or len(size) != 2 or {*map(type, size)} != {int}:
        raise ValueError("the size of the images is missing")
    if max(size) > torch.iinfo(torch.int16).max:
        raise ValueError(f"images of {size[0]}x{size[1]} pixels are too large")
    if len(offsets) != len(reached) + 1 or int(offsets[-1]) != len(places):
        raise ValueError(
            f"the offsets do not divide {len(places)} points among {len(reached)} images"
        )
    if int(offsets[0]) or bool((offsets.diff() < 0).any()):
        raise ValueError("the offsets must start at 0 and not decrease")
    if places.shape[1] != 2 or bool(((places < 0) | (places >= torch.tensor(size))).any()):
        raise ValueError(f"some points are outside their image of {size[0]}x{size[1]} pixels")
