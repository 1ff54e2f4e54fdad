"""The studies of this project: their folder, and what is said of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
README = (ROOT / "README.md").read_text()
SHOWN = README.partition("<!-- results: start -->")[2].partition("<!-- results: end -->")[0]


def said(study: str) -> str:
    """What the README of a study says, in one line."""
    return " ".join((RESULTS / study / "README.md").read_text().split())
