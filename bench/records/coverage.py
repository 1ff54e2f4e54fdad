"""The metrics of coverage: what the masks of a run delete, as its record says it.

`bench.points.coverage` measures them and says what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.records.record import Record

OF_MASKS = ("deleted_share", "masks_below_minimum", "masks_at_maximum")
"""What `bench.data.masks.describe` measures, as records name it."""

OF_POINTS = (
    *("points_mean", "points_median", "points_least", "points_most", "images_without_points"),
    *("images_broken", "victim_accuracy", "points_agreement", "points_epochs"),
)
"""What `bench.points.coverage.of_points` measures, as records name it."""

NAMES = (*OF_MASKS, *OF_POINTS)
"""Every metric of coverage that a record may have."""


def mean_coverage(records: Iterable[Record]) -> dict[str, float]:
    """The mean of each metric of coverage over the finished records that have it."""
    found = [record.metrics for record in records if record.status == "finished"]
    return {
        name: sum(values) / len(values)
        for name in NAMES
        if (values := [float(each[name]) for each in found if name in each])
    }
