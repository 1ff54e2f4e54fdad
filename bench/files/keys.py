"""Names made from contents: what is equal has the same name, on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def key(job: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that stay the same as long as the job does."""
    text = json.dumps(job, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
