"""JSON texts that come from outside."""

from __future__ import annotations

import json
from typing import Any


def parse(text: str | bytes) -> Any:
    """The value of a JSON text from outside; raises ``ValueError`` for whatever cannot be one.

    Numbers that no float can hold are refused.

    >>> parse('{"epoch": 1}')
    {'epoch': 1}
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
