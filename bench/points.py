"""Adversarial points of a training set, and the files that keep them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bench import records
from bench.datasets import Dataset


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
        if self.about.get("digest") != data.digest or len(self.reached) != len(data.train.labels):
            raise ValueError(
                f"these points belong to {self.about.get('data')} "
                f"({self.about.get('digest')}, {len(self.reached)} pictures), not to "
                f"{data.name} ({data.digest}, {len(data.train.labels)} pictures): "
                "build points for it with: bench points build"
            )
        if not len(self.places):
            raise ValueError("the set of points is empty: no attack on the training set succeeded")

    def save(self, path: Path) -> None:
        """Write them as safetensors; the metadata holds ``about`` as JSON and a checksum."""
        from safetensors.torch import save

        tensors = {"places": self.places, "offsets": self.offsets, "reached": self.reached}
        metadata = {"about": json.dumps(self.about), "sha256": _checksum(tensors)}
        records.write(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> Points:
        """Read what `save` wrote; raises ``ValueError`` for a file that is damaged or no points."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            points = cls(
                tensors["places"],
                tensors["offsets"],
                tensors["reached"],
                json.loads(metadata["about"]),
            )
            if _checksum(tensors) != metadata["sha256"]:
                raise ValueError("its checksum differs")
            points.check()
        except FileNotFoundError:
            raise
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path} holds no points that can be used: {error}") from None
        return points

    def check(self) -> None:
        """Refuse points outside the picture, offsets that do not count them, an empty set."""
        h, w = self.about["size"]
        n = len(self.reached)
        if len(self.offsets) != n + 1 or int(self.offsets[-1]) != len(self.places):
            raise ValueError(
                f"the offsets do not divide {len(self.places)} points over {n} pictures"
            )
        if int(self.offsets[0]) or bool((self.counts < 0).any()):
            raise ValueError("the offsets must start at 0 and never fall")
        limit = torch.tensor([h, w])
        if bool(((self.places < 0) | (self.places >= limit)).any()):
            raise ValueError(f"some points lie outside the picture of {h}x{w} pixels")

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


def to_numpy(points: Points) -> bytes:
    """The points as an ``.npz`` file that needs nothing of this project.

    ``places`` (int16, rows and columns of all pictures), ``offsets`` (int64; picture ``i`` owns
    ``places[offsets[i]:offsets[i + 1]]``), ``reached`` (bool) and ``about`` (JSON text).
    """
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        places=points.places.numpy(),
        offsets=points.offsets.numpy(),
        reached=points.reached.numpy(),
        about=np.array(json.dumps(points.about)),
    )
    return buffer.getvalue()


def from_numpy(path: Path, data: Dataset) -> Points:
    """Points of a data set from an ``.npz`` file: what `to_numpy` wrote, or one array ``masks``.

    ``masks`` has shape (n, h, w) and is not zero at the points of each training picture. Nothing in
    the file is executed, and what it unpacks to is bounded by what the data set can need. Raises
    ``ValueError`` for anything that does not fit the data set.
    """
    import zipfile

    import numpy as np

    n, _, h, w = data.train.images.shape
    limit = 8 * n * h * w + 2**20
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > limit:
                raise ValueError(f"it unpacks to more than the {limit} bytes that could be points")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = {"data": data.name, "digest": data.digest, "imported": path.name}
        if "about" in arrays:
            about = json.loads(str(arrays["about"]))
        if "masks" in arrays:
            masks = torch.from_numpy(arrays["masks"] != 0)
            if masks.shape != (n, h, w):
                raise ValueError(f"masks have shape {tuple(masks.shape)}, not {(n, h, w)}")
            return Points.of(masks, masks.flatten(1).any(1), about)
        offsets = torch.from_numpy(arrays["offsets"].astype("int64"))
        places = arrays["places"]
        if places.ndim != 2 or places.shape[1] != 2 or not np.issubdtype(places.dtype, np.integer):
            raise ValueError("places must be whole numbers of shape (points, 2): rows and columns")
        wide = torch.from_numpy(places.astype("int64"))
        if bool(((wide < 0) | (wide >= torch.tensor([h, w]))).any()):
            raise ValueError(f"some points lie outside the picture of {h}x{w} pixels")
        given = arrays.get("reached")
        reached = offsets.diff() > 0 if given is None else torch.from_numpy(given.astype(bool))
        found = Points(wide.to(torch.int16), offsets, reached, about | {"size": [h, w]})
        found.check()
    except (zipfile.BadZipFile, KeyError, OSError, TypeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} holds no points: an .npz file with places and offsets, or masks ({error})"
        ) from None
    found.fits(data)
    return found


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
