"""How often a sequential design claims a difference, drawn over the true difference."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.sequential import Operating, SequentialDesign
from bench.reporting.panels import Line, Panel


def panels(outcomes: Sequence[Operating], design: SequentialDesign) -> list[Panel]:
    """Return the shares of claims and of seeds over the true difference, as one panel.

    Args:
        outcomes: Results of `bench.records.sequential.simulate`.
        design: The design that was simulated.
    """
    shares = {
        f"shown, looks at {design.looks[0]} to {design.most} seeds": [o.claim for o in outcomes],
        f"shown, one look at {design.most} seeds": [o.fixed for o in outcomes],
        "called equivalent": [o.equivalent for o in outcomes],
        f"seeds used, of {design.most}": [o.seeds / design.most for o in outcomes],
    }
    lines = [
        Line(label, [(o.difference, 100 * v) for o, v in zip(outcomes, values, strict=True)])
        for label, values in shares.items()
    ]
    title = f"{design.methods} {'method' if design.methods == 1 else 'methods'}"
    return [Panel(title, "true difference (standard deviations)", "percent", lines)]
