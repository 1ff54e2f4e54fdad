"""lp-box ADMM: choose a given number of units by descent on a relaxed binary selection."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attacks.base import Images
from attacks.norms import largest

Selection = Float[Tensor, "b u h w"]  # u is 1 where pixels are selected, c where elements are
Labels = Int[Tensor, "b u h w"]
SEGMENTS = 150


def select(
    slope: Callable[[Selection], Selection],
    start: Selection,
    count: Int[Tensor, " b"],
    rates: list[float],
    labels: Labels | None,
    group_weight: float,
) -> Bool[Tensor, "b u h w"]:
    """Mark ``count`` units of each row so that a function with this ``slope`` becomes small.

    Wu & Ghanem, "lp-box ADMM", TPAMI 2019: binary means in [0, 1] and on a sphere around 1/2. Each
    of the two, the group norms and the sum has a copy or a residual, a dual and a growing penalty;
    one step of descent, of the length in ``rates``, alternates with one of the duals. The
    ``count`` largest values are marked. Without ``labels`` there is no group term.
    """
    G, units = start, start[0].numel()
    z1, z2, z3 = torch.zeros_like(G), torch.zeros_like(G), torch.zeros_like(G)
    z4 = G.new_zeros(len(G), 1, 1, 1)
    target = count[:, None, None, None]
    for step, rate in enumerate(rates):
        r1, r2, r3, r4 = penalties(step / len(rates), rate, units)
        y1 = (G + z1 / r1).clamp(0, 1)
        y2 = sphere(G + z2 / r2)
        pull = z1 + z2 + z4 + r1 * (G - y1) + r2 * (G - y2) + r4 * (_sum(G) - target)
        if labels is not None:
            y3 = shrink(G + z3 / r3, labels, group_weight / r3)
            pull = pull + z3 + r3 * (G - y3)
        G = G - rate * (slope(G) + pull)
        z1, z2, z4 = z1 + r1 * (G - y1), z2 + r2 * (G - y2), z4 + r4 * (_sum(G) - target)
        if labels is not None:
            z3 = z3 + r3 * (G - y3)
    return largest(G.flatten(1), count).view_as(G)


def penalties(progress: float, rate: float, units: int) -> tuple[float, float, float, float]:
    """The penalties on the box, the sphere, the groups and the sum, when ``progress`` is done.

    They grow by 1.01 each of 2000 steps, from 0.005 (the sum's: 1e-4) up to 20, 20, 100 and 0.01,
    and stay so small that ``rate`` · (box + sphere + groups + ``units`` · sum) is at most 1: a
    descent step on a quadratic of that curvature cannot overshoot; beyond 2 it diverges.
    """
    growth, cap = 1.01 ** (2000 * progress), 1 / (4 * rate)
    box, groups = min(5e-3 * growth, 20.0, cap), min(5e-3 * growth, 100.0, cap)
    return box, box, groups, min(1e-4 * growth, 0.01, cap / units)


def sphere(point: Selection) -> Selection:
    """The nearest point at distance sqrt(n)/2 from 1/2, where all binary selections lie."""
    centred = point - 0.5
    radius = 0.5 * math.sqrt(point[0].numel())
    return 0.5 + radius * centred / _sum(centred.square()).sqrt().clamp(min=1e-12)


def shrink(point: Selection, labels: Labels, threshold: float) -> Selection:
    """Shorten each group of units, those of one label, by ``threshold``, at least to 0."""
    squares, groups = point.square().flatten(1), labels.flatten(1)
    totals = squares.new_zeros(len(point), int(groups.max()) + 1 if groups.numel() else 0)
    norms = totals.scatter_add(1, groups, squares).sqrt()  # 0 where a group is: shortened by inf
    return point * (1 - threshold / norms).clamp(min=0).gather(1, groups).view_as(point)


def grid(images: Images) -> Int[Tensor, "b h w"]:
    """About 150 square cells."""
    b, _, h, w = images.shape
    side = max(1, round(math.sqrt(h * w / SEGMENTS)))
    rows = torch.arange(h, device=images.device) // side
    columns = torch.arange(w, device=images.device) // side
    return (rows[:, None] * (columns.amax() + 1) + columns).expand(b, h, w)


def superpixels(images: Images) -> Int[Tensor, "b h w"]:
    """About 150 superpixels of each image, by SLIC on the CPU, one image at a time."""
    from skimage.segmentation import slic

    maps = [
        torch.from_numpy(slic(image.numpy(), n_segments=SEGMENTS, start_label=0, channel_axis=0))
        for image in images.detach().cpu().double()
    ]
    stacked = torch.stack(maps) if maps else torch.zeros(0, *images.shape[2:], dtype=torch.long)
    return stacked.long().to(images.device)


def _sum(values: Selection) -> Float[Tensor, "b 1 1 1"]:
    return values.flatten(1).sum(1)[:, None, None, None]
