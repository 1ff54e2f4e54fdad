"""What the judge found about a submission, in words and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bench.records import over_images
from bench.reporting import attack_tables, formats
from bench.reporting.grouping import bound_in_words
from bench.robustness.rejudging import Judged
from bench.robustness.submissions import About, Claims

SHOWN = 8  # indices of a list


def report(judged: Judged, about: About | None) -> str:
    """The result of `bench.robustness.rejudging.rejudge` for a terminal.

    Args:
        judged: What the judge found.
        about: What submission.json says, if there is one.
    """
    labels, metrics = judged.record.labels, judged.record.metrics
    n, verdict = len(judged.ids), judged.verdict
    bound = bound_in_words(judged.terms.eps)
    lines = [
        f"{labels['attack']}: {n} images of {labels['data']} that {labels['model']} classifies "
        f"correctly, {judged.terms.aim}, {bound}",
        f"  submitted: {n - len(judged.missing)} of them",
        *_listed("missing, counted as failures", judged.missing),
        *_listed("left out, as they are not under attack", judged.extra),
        *_listed("unchanged", judged.unchanged),
        *_listed("outside [0, 1], failures", _where(judged, verdict.outside_box.tolist())),
        *(
            []
            if judged.terms.eps == "1"  # whose images outside [0, 1] are named above
            else _listed(f"beyond {bound}, failures", _where(judged, verdict.beyond_eps.tolist()))
        ),
    ]
    if judged.almost:
        lines += _listed("hardly changed in most pixels (below 1e-6)", judged.almost)
        lines.append("    were the originals taken as bytes / 255 in float32?")
    lines.append("")
    table = attack_tables.attack_metrics([judged.record])
    filled = [each for each in table.columns if table.cell(table.rows[0], each)]
    lines.append(formats.text(replace(table, columns=filled)))
    if kept := metrics.get("success_8bit"):
        lines.append(f"After rounding to 256 levels {100 * kept:.2f} % succeed.")
    if about is not None and about.claims is not None:
        lines += compared(about.claims, judged)
    if "passes_reported" not in metrics:
        lines.append("Missing: the passes of each image, which cannot be read from images.")
    if judged.terms.images is None:
        lines.append("Not stored: give --images N to judge it on the images of bench attack-eval.")
    else:
        lines.append("Stored. Next: bench leaderboard")
    return "\n".join(lines)


def compared(claims: Claims, judged: Judged) -> list[str]:
    """What a submission claims beside what was measured, one line per number."""
    distances = judged.verdict.distance("pixels")
    metrics = judged.record.metrics
    measured = {
        "success": metrics["success"],
        "pixels_median": over_images.median(distances).value,
        "pixels_mean": metrics.get("l0_pixels_mean"),
        "elements_mean": metrics.get("l0_elements_mean"),
        "passes": metrics.get("passes_reported"),
    }
    lines = []
    for name, value in claims.model_dump(exclude_none=True).items():
        ours = measured[name]
        shown = "not known" if ours is None else "∞" if math.isinf(ours) else f"{ours:.4g}"
        same = ours is not None and math.isclose(ours, value, rel_tol=0.005)
        lines.append(
            f"Claimed {name.replace('_', ' ')}: {value:.4g}, measured {shown}"
            f"{'' if same or ours is None else ' (differs)'}"
        )
    return lines


def _where(judged: Judged, flags: Sequence[bool]) -> list[int]:
    return [index for index, flag in zip(judged.ids, flags, strict=True) if flag]


def _listed(what: str, indices: Sequence[int]) -> list[str]:
    """One line with a count and the first indices; none without any."""
    if not indices:
        return []
    first = ", ".join(map(str, sorted(indices)[:SHOWN]))
    return [f"  {what}: {len(indices)} ({first}{', …' if len(indices) > SHOWN else ''})"]
