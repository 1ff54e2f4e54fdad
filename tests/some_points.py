"""A small part of the digits, and points of known density for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.points.store import Points


def small() -> Dataset:
    return catalog.load("digits(train=60, test=20)")


def some(data: Dataset, share: float = 0.1, **about: Any) -> Points:
    n, _, h, w = data.train.images.shape
    changed = torch.rand(n, h, w, generator=Generator().manual_seed(0)) < share
    own = {"data": data.name, "digest": data.digest} | about
    return Points.of(changed, changed.flatten(1).any(1), own)
