"""One static page that ranks attacks: those measured here and those that others submitted.

Every row says how its numbers are known: *measured here*, *re-judged from images* or
*self-reported*. The page contains everything it shows and needs neither network nor scripts.
Records and submissions may come from anyone: what cannot be shown is skipped and counted, every
text is escaped.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from bench.files import atomic
from bench.records import over_images
from bench.records.over_images import OverImages, finite
from bench.records.record import Curve, Record
from bench.records.statistics import mean_interval
from bench.records.store import Store
from bench.reporting import plots
from bench.reporting.cells import three_digits
from bench.reporting.grouping import (
    AttackSetting,
    bound_in_words,
    bounded,
    eps_values,
    group_attacks,
    rows_of_attacks,
)
from bench.reporting.page import fill, inline
from bench.reporting.panels import attack_panels, share_steps
from bench.reporting.worst_case import WorstCase, worst_cases
from bench.robustness.rejudging import SOURCE as REJUDGED
from bench.robustness.submissions import About

MEASURED: Final = "measured here"
REPORTED: Final = "self-reported"
Known = Literal["measured here", "re-judged from images", "self-reported"]

CHANGES = (1, 5, 10, 20, 50)
"""The numbers of pixels at which the success is shown."""


@dataclass(frozen=True)
class Number:
    """A number with its 95 % interval; None where it is not known, infinite where most failed.

    Attributes:
        value: The number.
        low: The lower end of the interval.
        high: The upper end.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def shown(self, percent: bool = False) -> str:
        """The number as text, in percent or to three digits; empty where it is not known.

        >>> Number(0.5, 0.25, 0.75).shown(percent=True), Number(12.34).shown()
        ('50.0 [25.0, 75.0]', '12.3')
        """

        def text(value: float) -> str:
            if math.isinf(value):
                return "∞"
            return f"{100 * value:.1f}" if percent else three_digits(value)

        if self.value is None:
            return ""
        if self.low is None or self.high is None:
            return text(self.value)
        return f"{text(self.value)} [{text(self.low)}, {text(self.high)}]"


@dataclass(frozen=True)
class Entry:
    """One row of a board.

    Attributes:
        attack: Name of the attack.
        known: How its numbers are known.
        success: Share of the images.
        pixels: Median number of changed pixels, failures counted as infinite.
        pixels_mean: Mean over the successes; likewise ``elements_mean``.
        within: Success with at most so many pixels, in the order of `CHANGES`.
        passes: Mean number of forward and backward passes of an image.
        seeds: Number of seeds.
        ranked: Whether it competes: not if it ignores eps or nobody here has checked it.
        rank: Its place, which entries with the same numbers share; None where it has no success or
            does not compete.
        remarks: What a reader should know.
        link: Address of a paper or of code; empty without one.
    """

    attack: str
    known: Known
    success: Number
    pixels: Number = Number()
    pixels_mean: float | None = None
    elements_mean: float | None = None
    within: tuple[float | None, ...] = (None,) * len(CHANGES)
    passes: float | None = None
    seeds: int = 1
    ranked: bool = True
    rank: int | None = None
    remarks: tuple[str, ...] = ()
    link: str = ""

    @property
    def order(self) -> tuple[Any, ...]:
        """Ranked entries first, by median, success and mean."""
        median = self.pixels.value
        return (
            not self.ranked,
            math.inf if median is None else median,
            -(self.success.value or 0.0),
            math.inf if self.pixels_mean is None else self.pixels_mean,
            self.attack,
        )


@dataclass
class Board:
    """The attacks on one victim model with one goal and eps.

    Attributes:
        title: Network, dataset, goal, eps and number of images.
        victim: The victim model with its weights.
        entries: The rows, the best first.
        verdict: One sentence on who needs the fewest pixels.
        note: How much each attack adds to the worst case; empty without one, or with several seeds.
        svg: The success against the changed pixels, as SVG; empty without curves.
    """

    title: str
    victim: str
    entries: list[Entry] = field(default_factory=list)
    verdict: str = ""
    note: str = ""
    svg: str = ""


def write_leaderboard(
    store: Store, submissions: Sequence[About], path: Path
) -> tuple[list[Board], list[str]]:
    """Write the page and, beside it, its numbers as JSON.

    Args:
        store: The records of a results folder.
        submissions: What others report; images that were judged are among the records.
        path: The page; the numbers have the same name and end in ``.json``.

    Returns:
        The boards, and warnings that count what was skipped.

    Raises:
        ValueError: There is neither an attack among the records nor a submission with claims.
    """
    found, warnings = store.read()
    boards = make_boards(found, store.curve, submissions, store.images)
    if not boards:
        raise ValueError(
            f"{store.path} has no attack for a leaderboard: bench attack-eval and bench judge "
            "make such records"
        )
    if path.suffix == ".json":
        raise ValueError(
            f"--output {path} is the page, whose numbers lie beside it: end it in .html"
        )
    counts = Counter(entry.known for board in boards for entry in board.entries)
    html = fill(
        "leaderboard.html",
        boards=boards,
        counts=counts,
        warnings=warnings,
        ks=CHANGES,
        three_digits=three_digits,
    )
    atomic.write(path, html)
    numbers = _finite([asdict(board) | {"svg": ""} for board in boards])
    text = json.dumps(numbers, default=str, allow_nan=False)
    atomic.write(path.with_suffix(".json"), text + "\n")
    return boards, warnings


def _finite(value: Any) -> Any:
    """JSON values with None for each number that is not finite."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def make_boards(
    records: Sequence[Record],
    curves: Callable[[Record], Curve],
    submissions: Sequence[About] = (),
    images: Callable[[Record], Curve] = lambda record: record.images,
) -> list[Board]:
    """One board for each setting and eps, with the entries in order.

    Args:
        records: Records of any kind; those of attacks that finished are used, without dense attacks
            and noise.
        curves: Reads the curve of a record.
        submissions: What others report.
        images: Reads what an attack did to each image, for the worst case of those measured here.
    """
    sparse = [
        each
        for each in records
        if each.kind == "attack" and each.status == "finished" and each.labels["role"] == "sparse"
    ]
    boards: dict[tuple[str, ...], Board] = {}
    last: dict[tuple[str, ...], list[WorstCase]] = {}
    for setting, every in group_attacks(sparse).items():
        for eps in eps_values(every):
            members = [each for each in every if each.labels["eps"] == eps]
            board = Board(_title(setting, members[0].labels["model"], eps), setting.victim)
            board.entries = [_entry(same, curves) for same in rows_of_attacks(members).values()]
            drawn = [(each, curve) for each in members if (curve := curves(each))]
            if drawn:
                svg = plots.draw(attack_panels(drawn), "svg", f"board-{len(boards)}").decode()
                board.svg = inline(svg)
            name = _name(setting.victim, setting.data, setting.goal, eps, setting.images)
            if setting.limit:
                name = (*name, setting.limit)
            boards[name] = board
            if worst := worst_cases(members, images):
                last[name] = worst
    for about in submissions:
        _report(boards, about)
    for board in boards.values():
        board.entries = _placed(board.entries)
        board.verdict = _verdict(board.entries)
    for name, worst in last.items():
        boards[name].entries.append(_together(worst))
        boards[name].note = str(worst[0]) if len(worst) == 1 else ""
    return list(boards.values())


def _placed(entries: Sequence[Entry]) -> list[Entry]:
    """The entries in order, each with its rank."""
    ordered = sorted(entries, key=lambda entry: entry.order)
    merits = [entry.order[:-1] for entry in ordered]  # all but the name
    return [
        replace(entry, rank=merits.index(merit) + 1)
        if entry.ranked and entry.success.value
        else entry
        for entry, merit in zip(ordered, merits, strict=True)
    ]


def _name(victim: str, data: str, goal: str, eps: str, images: str) -> tuple[str, ...]:
    return victim, data, goal, str(Fraction(eps)), images


def _title(setting: AttackSetting, model: str, eps: str) -> str:
    network = f"{model} ({setting.weights})" if setting.weights else model
    parts = [network, setting.data, setting.goal_in_words, bound_in_words(eps)]
    return ", ".join(filter(None, [*parts, setting.size, setting.limit]))


def _entry(same: Sequence[Record], curves: Callable[[Record], Curve]) -> Entry:
    """The row of one attack over its seeds."""
    first = same[0]
    rejudged = first.labels.get("source") == REJUDGED
    link = first.labels.get("link", "")
    remarks = [first.labels[name] for name in ("authors", "note") if name in first.labels]
    if not bounded(first):
        remarks.append("ignores eps")
    if first.message:
        remarks.append(first.message)
    pixels, within = _distances(same, curves)
    passes = _mean(same, "passes_reported") if rejudged else None
    if rejudged and passes is not None:
        remarks.append("passes as reported")
    if not rejudged:
        both = [_mean(same, name) for name in ("forwards", "backwards")]
        passes = None if None in both else sum(filter(None, both))
    return Entry(
        attack=first.labels["attack"],
        known=REJUDGED if rejudged else MEASURED,
        success=_success(same),
        pixels=pixels,
        pixels_mean=_mean(same, "l0_pixels_mean"),
        elements_mean=_mean(same, "l0_elements_mean"),
        within=within,
        passes=passes,
        seeds=len(same),
        ranked=bounded(first),
        remarks=tuple(remarks),
        link=link if re.fullmatch(r"https?://[^\s\"'<>]+", link) else "",
    )


def _together(worst: Sequence[WorstCase]) -> Entry:
    """The last row: the worst case over the attacks that were measured here."""
    entry = _entry([each.record for each in worst], lambda record: record.curve)
    return replace(entry, ranked=False)


def _mean(same: Sequence[Record], metric: str) -> float | None:
    values = [each.metrics[metric] for each in same if metric in each.metrics]
    return float(np.mean(values)) if values else None


def _success(same: Sequence[Record]) -> Number:
    if len(same) > 1:
        found = _over_seeds([each.metrics.get("success", 0.0) for each in same])
        if found.low is None or found.high is None:
            return found
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
    metrics = same[0].metrics
    return Number(
        metrics.get("success", 0.0), metrics.get("success_low"), metrics.get("success_high")
    )


def _over_seeds(values: Sequence[float]) -> Number:
    """The mean with Student's interval; without one where the values show no spread."""
    interval = mean_interval(values)
    if not interval.std:
        return Number(interval.mean)
    return Number(interval.mean, interval.low, interval.high)


def _distances(
    same: Sequence[Record], curves: Callable[[Record], Curve]
) -> tuple[Number, tuple[float | None, ...]]:
    """The median of the pixels and the success within `CHANGES`, from the curves."""
    medians: list[OverImages] = []
    shares: list[list[float]] = []
    for record in same:
        curve = curves(record)
        if not curve and record.metrics.get("success"):
            return Number(), (None,) * len(CHANGES)  # the curve was lost
        n = int(float(record.metrics.get("images", record.job["images"])))
        steps = share_steps(curve, "pixels")
        medians.append(_median(record, steps, n))
        shares.append([max((s for c, s in steps if c <= k), default=0.0) for k in CHANGES])
    within = tuple(float(each) for each in np.mean(shares, axis=0))
    if len(medians) == 1:
        return Number(medians[0].value, medians[0].low, medians[0].high), within
    values = [each.value for each in medians]
    if not all(map(math.isfinite, values)):
        return Number(math.inf), within
    return _over_seeds(values), within


def _median(record: Record, steps: Sequence[tuple[float, float]], n: int) -> OverImages:
    """The median of the pixels of n images; without an interval where goals share an image."""
    found = over_images.median(distances(steps, n))
    if record.labels["goal"] != "all":
        return found
    return OverImages(record.metrics.get("l0_pixels_median", found.value), None, None, n)


def distances(steps: Sequence[tuple[float, float]], n: int) -> list[float]:
    """The changes of each of n images from a curve of their success; infinity for failures.

    Args:
        steps: Numbers of changes, ascending, and the share of images broken with at most as many.
        n: Number of images.

    >>> distances([(2.0, 0.25), (5.0, 0.75)], 4)
    [2.0, 5.0, 5.0, inf]
    """
    found: list[float] = []
    for changes, share in steps:
        found += [changes] * (min(round(share * n), n) - len(found))
    return found + [math.inf] * (n - len(found))


def _report(boards: dict[tuple[str, ...], Board], about: About) -> None:
    """Add what a submission claims: to its own row if its images were judged, else as a row."""
    claims = about.claims
    if claims is None:
        return
    eps, images, goal = about.eps or "1", str(about.images or "?"), about.goal or "untargeted"
    name = _name(about.victim, about.data, goal, eps, images)
    board = boards.get(name)
    if board is None:
        setting = AttackSetting(about.victim, about.data, goal, images)
        model = about.victim.split(" ")[0] or "unknown network"
        board = boards.setdefault(name, Board(_title(setting, model, eps), about.victim))
    for place, entry in enumerate(board.entries):
        if entry.attack == about.attack and entry.known == REJUDGED:
            claimed = f"claims {100 * claims.success:.1f} %"
            if claims.pixels_median is not None:
                claimed += f", median {claims.pixels_median:g} pixels"
            values = vars(entry) | {"remarks": (*entry.remarks, claimed)}
            board.entries[place] = Entry(**values)
            return
    board.entries.append(
        Entry(
            attack=about.attack,
            known="self-reported",
            success=Number(claims.success),
            pixels=Number(claims.pixels_median),
            pixels_mean=claims.pixels_mean,
            elements_mean=claims.elements_mean,
            passes=claims.passes,
            ranked=False,
            remarks=tuple(filter(None, (about.authors, about.note, "not checked, not ranked"))),
            link=about.link,
        )
    )


def _verdict(entries: Sequence[Entry]) -> str:
    """Who needs the fewest pixels in the median, and whether others need as many or could."""
    ranked = [entry for entry in entries if entry.ranked]
    if not ranked:
        return "Nothing on this board was checked, so nothing is ranked."
    best, *others = ranked
    if not any(entry.success.value for entry in ranked):
        return "No attack succeeds on any image, so none is ahead."
    if best.pixels.value is None or math.isinf(best.pixels.value):
        return "No attack succeeds on half of the images, so none has a median."
    median = best.pixels.shown()
    if equals := [each.attack for each in others if each.pixels.value == best.pixels.value]:
        return (
            f"{best.attack} needs {median} pixels in the median, as many as {', '.join(equals)}; "
            "none needs fewer."
        )
    text = f"{best.attack} needs the fewest pixels in the median, {median}"
    if not others or others[0].pixels.value is None:
        return f"{text}."
    second = others[0].pixels
    high, low = best.pixels.high, second.low
    overlap = high is not None and low is not None and low <= high
    apart = "; the two intervals overlap" if overlap else ""
    return f"{text}, before {others[0].attack} with {second.shown()}{apart}."
