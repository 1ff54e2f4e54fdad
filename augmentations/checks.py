"""Checks of hyperparameters and settings: each refuses a bad value in one line that names it."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, get_args

LONGEST = 10**6
"""The longest side in pixels that a hyperparameter may have; tensors hold no number without end."""


def within(name: str, pair: Any, least: float | int, most: float | int) -> None:
    """Refuse a range of hyperparameters that is no ordered pair or leaves [least, most].

    >>> within("ratio", (0.4, 0.2), 0, 1)
    Traceback (most recent call last):
    ValueError: ratio is (0.4, 0.2): it must be (low, high) with 0 <= low <= high <= 1
    """
    numbers = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_number, pair))
    if not numbers or not least <= pair[0] <= pair[1] <= most:
        raise ValueError(
            f"{name} is {pair!r}: it must be (low, high) with {least} <= low <= high <= {most}"
        )


def choice(name: str, value: str, allowed: Any) -> None:
    """Refuse a hyperparameter that is none of the words of ``allowed``, a ``Literal``.

    >>> from typing import Literal
    >>> choice("fill", "Mean", Literal["mean", "noise"])
    Traceback (most recent call last):
    ValueError: fill is 'Mean': choose 'mean' or 'noise'
    """
    *most, last = get_args(allowed)
    if value not in (*most, last):
        choices = f"{', '.join(map(repr, most))} or {last!r}"
        raise ValueError(f"{name} is {value!r}: choose {choices}")


def is_number(value: Any) -> bool:
    """Whether a value is a real number, of NumPy too; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(name: str, value: Any) -> None:
    """Refuse a setting that is no number.

    >>> number("ratio", "half")
    Traceback (most recent call last):
    ValueError: ratio is 'half': it must be a number
    """
    if not is_number(value):
        raise ValueError(f"{name} is {value!r}: it must be a number")


def fraction(name: str, value: Any) -> None:
    """Refuse a setting outside of [0, 1].

    >>> fraction("probability", 1.5)
    Traceback (most recent call last):
    ValueError: probability is 1.5: it must be a fraction from 0 to 1
    """
    number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}: it must be a fraction from 0 to 1")


def whole(name: str, *values: Any, least: int | None = None) -> None:
    """Refuse a setting that counts something and is no whole number, or is below ``least``.

    >>> whole("epochs", 2.5)
    Traceback (most recent call last):
    ValueError: epochs is 2.5: it must be a whole number
    """
    for value in values:
        if not is_number(value) or not isinstance(value, Integral):
            raise ValueError(f"{name} is {value!r}: it must be a whole number")
        if least is not None and value < least:
            raise ValueError(f"{name} is {value}: it must be at least {least}")


def pixels(name: str, *values: Any, least: int = 1) -> None:
    """Refuse a length that is no whole number of pixels, or none that an image can have.

    >>> pixels("length", 1, least=2)
    Traceback (most recent call last):
    ValueError: length is 1: it must be at least 2 and at most 1000000 pixels
    """
    whole(name, *values)
    for value in values:
        if not least <= value <= LONGEST:
            raise ValueError(
                f"{name} is {value}: it must be at least {least} and at most {LONGEST} pixels"
            )
