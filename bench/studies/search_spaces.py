"""Which hyperparameters of each augmentation a search varies, and between which values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from augmentations import Augmentation, Ramp
from augmentations.advmask import AdvMask
from augmentations.cutout import Cutout
from augmentations.gridmask import GridMask
from augmentations.hide_and_seek import HideAndSeek
from augmentations.keep_augment import KeepAugment
from augmentations.random_erasing import RandomErasing
from bench import registry

if TYPE_CHECKING:
    from optuna.trial import Trial

Space = Callable[[Any, "Trial", int], Augmentation]
"""From the published values, the source of values and the side of the images to an augmentation."""


def _constant(trial: Trial) -> Ramp:
    return Ramp(trial.suggest_float("share", 0.2, 1.0))


def _rising(trial: Trial) -> Ramp:
    """A share that is constant, or rises from 0 over the training, as GridMask's and AdvMask's."""
    high = trial.suggest_float("share", 0.2, 1.0)
    rising = trial.suggest_categorical("schedule", ["rising", "constant"]) == "rising"
    return Ramp(0.0, high) if rising else Ramp(high)


def _cutout(own: Cutout, trial: Trial, side: int) -> Cutout:
    length = trial.suggest_int("length", 2, max(2, 3 * side // 4))
    return replace(own, length=length, share=_constant(trial))


def _hide_and_seek(own: HideAndSeek, trial: Trial, side: int) -> HideAndSeek:
    largest = trial.suggest_int("largest", 1, max(1, side // 3))
    sizes = tuple(sorted({round(largest * part / 4) for part in range(5)}))
    probability = trial.suggest_float("probability", 0.05, 0.7)
    return replace(own, sizes=sizes, probability=probability, share=_constant(trial))


def _gridmask(own: GridMask, trial: Trial, side: int) -> GridMask:
    low = trial.suggest_int("period", max(2, side // 4), side)
    high = trial.suggest_int("longest", low, side)
    ratio = trial.suggest_float("ratio", 0.3, 0.8)
    return replace(own, period=(low, high), ratio=ratio, share=_rising(trial))


def _random_erasing(own: RandomErasing, trial: Trial, side: int) -> RandomErasing:
    area = own.area[0], trial.suggest_float("largest area", 0.05, 0.6)
    return replace(own, area=area, share=_constant(trial))


def _keep_augment(own: KeepAugment, trial: Trial, side: int) -> KeepAugment:
    length = trial.suggest_int("length", 2, max(2, 3 * side // 4))
    quantile = trial.suggest_float("quantile", 0.2, 1.0)
    return replace(own, length=length, quantile=quantile, share=_constant(trial))


def _advmask(own: AdvMask, trial: Trial, side: int) -> AdvMask:
    low = trial.suggest_int("shortest", 1, max(1, side // 4))
    high = trial.suggest_int("longest", low, max(low, 2 * side // 3))
    least = trial.suggest_float("least", 0.02, 0.4)
    most = trial.suggest_float("most", least, 0.7)
    overlap = trial.suggest_float("overlap", 0.0, 0.5)
    return replace(
        own, length=(low, high), ratio=(least, most), overlap=overlap, share=_rising(trial)
    )


SPACES: dict[str, Space] = {
    "cutout": _cutout,
    "has": _hide_and_seek,
    "gridmask": _gridmask,
    "random-erasing": _random_erasing,
    "keepaugment": _keep_augment,
    "advmask": _advmask,
}
"""The augmentations that can be searched."""


def candidates(name: str, count: int, data: str, side: int) -> list[Augmentation]:
    """Return the published values and random others, always the same ones.

    Args:
        name: One of `SPACES`.
        count: Number of candidates, at least 1.
        data: Name of the dataset, which determines the published values.
        side: Side of the images in pixels.

    Raises:
        ValueError: There is nothing to search, or Optuna is not installed.
    """
    if name not in SPACES:
        raise ValueError(
            f"{name} has no hyperparameters to search: choose among {', '.join(SPACES)}"
        )
    try:
        import optuna
    except ImportError as error:
        raise ValueError("a search needs Optuna: pip install 'deletion-bench[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    published = registry.build("augmentations", name, data=data, side=side)
    drawn = [SPACES[name](published, study.ask(), side) for _ in range(count - 1)]
    return [published, *(rounded(each) for each in drawn)]


def rounded(augmentation: Augmentation) -> Augmentation:
    """Return the augmentation with values of three digits, as a reader would type them.

    >>> from augmentations.cutout import Cutout
    >>> rounded(Cutout(length=7, share=Ramp(0.123456)))
    Cutout(length=7, share=Ramp(low=0.123, high=None, until=1.0), fill='mean', points='ignore')
    """
    fields = vars(augmentation)
    return replace(augmentation, **{name: _three(value) for name, value in fields.items()})  # type: ignore[type-var]


def _three(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Ramp):
        high = None if value.high is None else round(value.high, 3)
        return replace(value, low=round(value.low, 3), high=high)
    if isinstance(value, tuple):
        return tuple(_three(each) for each in value)
    return value
