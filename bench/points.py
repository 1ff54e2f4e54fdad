"""Adversarial points of a training set: where a sparse attack changes each picture.

Found once per data set, kept as safetensors, used by every training as a guide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from attacks import Attack, Goal
from attacks.base import frozen
from bench import records, seeds
from bench.datasets import Dataset
from bench.progress import Progress

BLOCK = 128
"""Pictures attacked together and written together. Fixed, because the number of pictures in a batch
changes the last bits of a convolution, and with them points: whatever the order or the number of
shards, a picture is always attacked among the same neighbours."""


@dataclass(frozen=True)
class Points:
    """Where each picture of a training set is fragile.

    ``places`` holds (row, column) pairs of all pictures one after the other; those of picture ``i``
    are ``places[offsets[i]:offsets[i + 1]]``. A picture without points is one whose attack failed
    (``reached`` is False). ``about`` says of which data set and how they were made.
    """

    places: Int[Tensor, "p 2"]
    offsets: Int[Tensor, " n+1"]
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
        return cls(where[:, 1:].to(torch.int16), offsets, reached, about)

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


def attack(
    data: Dataset, network: nn.Module, method: Attack, seed: int, ids: Tensor, device: str
) -> tuple[Bool[Tensor, "b h w"], Bool[Tensor, " b"]]:
    """Attack some training pictures; where each was changed, and whether the goal was reached.

    The class to leave is the one that the network predicts, so that a picture it gets wrong has
    points too.
    """
    images = data.train.images[ids].to(device).float() / 255
    with frozen(network), torch.no_grad():
        goal = Goal(network(images).argmax(1))
    generators = [seeds.generator(seed, "points", int(i)) for i in ids]
    adversarial = method(network, images, goal, generators)
    with frozen(network), torch.no_grad():
        reached = goal.reached(network(adversarial))
    changed = (adversarial != images).any(1) & reached[:, None, None]
    return changed.cpu(), reached.cpu()


def build(
    data: Dataset,
    network: nn.Module,
    method: Attack,
    about: dict[str, Any],
    folder: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Points:
    """Attack the whole training part once, block by block.

    Finished blocks lie in ``folder`` and are not attacked again; a damaged one is. Raises
    ``InterruptedError`` when ``stop()`` turns true.
    """
    blocks = torch.arange(len(data.train.labels)).split(BLOCK)
    about = about | {"data": data.name, "digest": data.digest, "seed": seed}
    with progress.task("attacking the training pictures", len(data.train.labels)) as advance:
        parts = []
        for number, ids in enumerate(blocks):
            part = finished(folder, number, about, len(ids))
            if part is None:
                if stop():
                    raise InterruptedError(
                        f"stopped after {number} of {len(blocks)} blocks; they are kept"
                    )
                changed, reached = attack(data, network, method, seed, ids, device)
                part = Points.of(changed, reached, about)
                part.save(block_path(folder, number))
            parts.append(part)
            advance(
                len(ids), note=f"{torch.cat([p.counts for p in parts]).float().mean():.0f} points"
            )
    return join(parts)


def block_path(folder: Path, number: int) -> Path:
    """Where a block of points lies."""
    return folder / f"block-{number:05d}.safetensors"


def finished(folder: Path, number: int, about: dict[str, Any], count: int) -> Points | None:
    """A block that was attacked before, if it is whole and of the same job."""
    try:
        part = Points.load(block_path(folder, number))
    except (FileNotFoundError, ValueError):
        return None
    same = {name: part.about.get(name) for name in about} == about
    return part if same and len(part.reached) == count else None


def join(parts: list[Points]) -> Points:
    """Blocks of one job as one set."""
    starts = torch.cat([torch.tensor([0]), torch.cat([part.counts for part in parts]).cumsum(0)])
    return Points(
        torch.cat([part.places for part in parts]),
        starts,
        torch.cat([part.reached for part in parts]),
        parts[0].about,
    )


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


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
        about = json.loads(str(arrays["about"])) if "about" in arrays else {}
        about = {"data": data.name, "digest": data.digest, "imported": path.name} | about
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
