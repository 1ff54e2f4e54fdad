"""Compare deletion-based image augmentations fairly, and the sparse attacks behind them.

>>> import bench
>>> sorted(name for name in bench.__all__ if name.startswith(("c", "e", "f", "l")))
['compare', 'evaluate_attacks', 'find_points', 'from_arrays', 'load_points', 'load_results']
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.data.dataset import Dataset as Dataset
    from bench.data.dataset import from_arrays as from_arrays
    from bench.execution.options import ExecutionOptions as ExecutionOptions
    from bench.points.find import find_points as find_points
    from bench.points.lookup import load_points as load_points
    from bench.points.store import Points as Points
    from bench.records.record import Record as Record
    from bench.studies.attack_results import AttackRow as AttackRow
    from bench.studies.attack_results import AttackStudy as AttackStudy
    from bench.studies.attack_study import evaluate_attacks as evaluate_attacks
    from bench.studies.comparison import Study as Study
    from bench.studies.comparison import compare as compare
    from bench.studies.designs import TrainingOptions as TrainingOptions
    from bench.studies.stored import Results as Results
    from bench.studies.stored import load_results as load_results
    from bench.studies.tracking import TrackingOptions as TrackingOptions

PUBLIC = {
    "compare": "studies.comparison",
    "evaluate_attacks": "studies.attack_study",
    "find_points": "points.find",
    "load_points": "points.lookup",
    "load_results": "studies.stored",
    "Study": "studies.comparison",
    "AttackStudy": "studies.attack_results",
    "AttackRow": "studies.attack_results",
    "Results": "studies.stored",
    "Points": "points.store",
    "Record": "records.record",
    "Dataset": "data.dataset",
    "from_arrays": "data.dataset",
    "TrainingOptions": "studies.designs",
    "ExecutionOptions": "execution.options",
    "TrackingOptions": "studies.tracking",
}
"""Public name → the module that has it; imported when it is first asked for."""

__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    """The public things and the version, which take a while to import, when they are asked for."""
    if name == "__version__":
        from bench.execution.machine import version

        return version()
    if name not in PUBLIC:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"bench.{PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC, "__version__"]
