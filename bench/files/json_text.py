"""JSON texts that come from outside."""

from __future__ import annotations

import json
import re
from typing import Any

DIGITS = 300  # of a whole number; a float holds at most 309
LONG = re.compile(rf"[0-9]{{{DIGITS + 1}}}")


def parse(text: str | bytes) -> Any:
    """The value of a JSON text from outside; raises ``ValueError`` for whatever cannot be one.

    Numbers that no float can hold are refused.

    >>> parse('{"epoch": 1}')
    {'epoch': 1}
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    # most texts have no such number, and a call for each of theirs would take longer than the rest
    whole = _whole if LONG.search(text) else None
    try:
        return json.loads(text, parse_int=whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
