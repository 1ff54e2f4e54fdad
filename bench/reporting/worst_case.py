"""What depends on all attacks of a table: how close each comes to the best, and the worst case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.records import over_images
from bench.records.record import Curve, Record
from bench.records.statistics import wilson
from bench.reporting.grouping import bounded, eps_values, group_attacks

NAME = "worst case"
Reader = Callable[[Record], Curve]
"""Reads what an attack did to each image, as `bench.robustness.metrics.per_image` makes it."""


UNITS = ("pixels", "elements")
PICKED = dict.fromkeys(("pixels", "l2", "linf"), np.inf) | {"success_8bit": 0.0}
"""What an image has from the attack that needs the fewest pixels, and what a failure has."""


@dataclass(frozen=True)
class WorstCase:
    """What several attacks reach together.

    Attributes:
        record: The metrics and the curve, as those of an attack; shown and not stored.
        shares: Share of the broken images on which each attack needs the fewest pixels, by name,
            the largest first. Attacks that tie share an image.
    """

    record: Record
    shares: Mapping[str, float]

    def __str__(self) -> str:
        parts = [f"{name} {100 * share:.0f} %" for name, share in self.shares.items() if share]
        if not parts:
            return ""
        return f"Fewest pixels of the broken images, ties shared: {', '.join(parts)}"


def worst_cases(records: Iterable[Record], images: Reader) -> list[WorstCase]:
    """The worst case of each setting, eps and seed over its sparse attacks that keep within eps.

    An image counts with the attack that succeeds with the fewest changed pixels; its elements are
    those of the attack with the fewest, and its passes and seconds those of all attacks together.
    What others submitted is not part of it.

    Args:
        records: Records of any kind; those of attacks that finished are used.
        images: Reads what an attack did to each image.

    Returns:
        Nothing where there are fewer than two such attacks, or where one of them was recorded
        without what it did to each image.
    """
    tables = (_worst(members, entries) for members, entries in _tables(records, images))
    return [found for found in tables if found is not None]


def compared(records: Sequence[Record], images: Reader) -> list[Record]:
    """The records, each compared with the others of its setting, and each worst case behind them.

    Optimality and the changes on common images (`over_images.relate`) are those among these
    records, whatever a record was compared with when it was made. Where what an attack did to each
    image is not stored, its table keeps what the records say.
    """
    related: dict[int, Record] = {}
    worst: list[Record] = []
    for members, entries in _tables(records, images):
        related |= {id(each): found for each, found in _related(members, entries)}
        if (found := _worst(members, entries)) is not None:
            worst.append(found.record)
    return [*(related.get(id(record), record) for record in records), *worst]


def _tables(
    records: Iterable[Record], images: Reader
) -> Iterator[tuple[list[Record], list[Curve]]]:
    """The attacks within eps, by setting, eps and seed, with what they did to each image."""
    for every in group_attacks(records).values():
        for eps in eps_values(every):
            same = [each for each in every if each.labels["eps"] == eps and _counts(each)]
            for seed in sorted({each.seed for each in same}):
                members = [each for each in same if each.seed == seed]
                yield members, [images(each) for each in members]


def _counts(record: Record) -> bool:
    return record.status == "finished" and bounded(record) and "source" not in record.labels


def _of_same_images(entries: Sequence[Curve]) -> bool:
    """Whether every attack has entries, for as many images."""
    sizes = set(map(len, entries))
    return len(sizes) == 1 and 0 not in sizes


def _worst(members: Sequence[Record], entries: Sequence[Curve]) -> WorstCase | None:
    sparse = [place for place, each in enumerate(members) if each.labels["role"] == "sparse"]
    done = [entries[place] for place in sparse]
    if len(sparse) < 2 or not _of_same_images(done):
        return None
    return _combine([members[place] for place in sparse], done)


def _related(
    members: Sequence[Record], entries: Sequence[Curve]
) -> Iterator[tuple[Record, Record]]:
    """Each attack of a table as it was recorded, and with its metrics among these."""
    if not _of_same_images(entries):
        return
    keys = [each.key for each in members]
    metrics = over_images.relate_units(
        {unit: dict(zip(keys, _table(entries, unit, np.inf), strict=True)) for unit in UNITS},
        [each.key for each in members if each.labels["role"] != "sparse"],
    )
    for each in members:
        own = {name: v for name, v in each.metrics.items() if name not in over_images.RELATED}
        yield each, replace(each, metrics={**own, **metrics[each.key]})


def _combine(members: Sequence[Record], entries: Sequence[Curve]) -> WorstCase:
    """The worst case of attacks on the same images: entries by goal, then by image."""
    first = members[0]
    images = int(first.metrics.get("images", len(entries[0])))
    if images < 1 or len(entries[0]) % images:
        images = len(entries[0])  # a record that was not made here
    pixels = _table(entries, "pixels", np.inf)
    chosen = pixels.argmin(0)[None]
    picked = {
        name: np.take_along_axis(_table(entries, name, missing), chosen, 0)[0]
        for name, missing in PICKED.items()
    }
    picked["elements"] = _table(entries, "elements", np.inf).min(0)
    metrics = {
        "images": float(images),
        **_success(np.isfinite(picked["pixels"]), images),
        "misclassified": float(_table(entries, "misclassified", 0.0).any(0).mean()),
        "success_8bit": float(picked["success_8bit"].mean()),
        "seconds_per_image": sum(each.metrics.get("seconds_per_image", 0.0) for each in members),
        **_norms(picked, images),
    }
    for name in ("forwards", "backwards"):
        passes = _table(entries, name, 0.0).sum(0)
        metrics |= {name: float(passes.mean()), f"{name}_max": float(passes.max())}
    record = Record(
        kind="attack",
        key=NAME,
        seed=first.seed,
        labels={**first.labels, "attack": NAME, "hyperparameters": "", "role": "worst"},
        metrics=metrics,
        job=first.job,
        curve=over_images.success_curve(picked["pixels"], picked["elements"]),
    )
    return WorstCase(record, shares([each.labels["attack"] for each in members], pixels))


def _success(won: np.ndarray, images: int) -> dict[str, float]:
    """The success rate and its interval, as `bench.robustness.metrics.summarise` gives them."""
    low: float | None
    high: float | None
    if won.size == images:
        low, high = wilson(int(won.sum()), won.size)
    else:
        from bench.robustness.metrics import share_interval

        low, high = share_interval(won.reshape(-1, images).mean(0))
    ends = {"success_low": low, "success_high": high}
    known = {name: end for name, end in ends.items() if end is not None}
    return {"success": float(won.mean()), **known}


def _norms(picked: Mapping[str, np.ndarray], images: int) -> dict[str, float]:
    """Mean norms over the successes, and percentiles in which failures are infinite."""
    won = np.isfinite(picked["pixels"])
    found: dict[str, float] = {}
    for unit in UNITS:
        found |= over_images.quartiles(f"l0_{unit}", picked[unit])
        if won.size > images:
            found |= over_images.extremes(f"l0_{unit}", picked[unit].reshape(-1, images))
    if won.any():
        found |= {f"l0_{unit}_mean": float(picked[unit][won].mean()) for unit in UNITS}
        found |= {norm: float(picked[norm][won].mean()) for norm in ("l2", "linf")}
        found["linf_max"] = float(picked["linf"][won].max())
    return found


def _table(entries: Sequence[Curve], name: str, missing: float) -> np.ndarray:
    """A number of each image: a row for each attack."""
    return np.array([[entry.get(name, missing) for entry in each] for each in entries], float)


def shares(names: Sequence[str], pixels: np.ndarray) -> dict[str, float]:
    """Share of the broken images on which each attack needs the fewest pixels, the largest first.

    Args:
        names: Names of the attacks.
        pixels: Changed pixels of each image, infinity for failures, a row for each attack.
    """
    broken = np.isfinite(pixels).any(0)
    if not broken.any():
        return {}
    best = pixels[:, broken] == pixels[:, broken].min(0)
    found = (best / best.sum(0)).mean(1)
    order = np.argsort(-found, kind="stable")
    return {names[place]: float(found[place]) for place in order}
