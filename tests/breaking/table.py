"""The table of faults."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """A line of the table."""

    fault: str
    tried: int | None
    survived: int | None
    seconds: float

    @property
    def lost(self) -> int:
        return (self.tried or 0) - (self.survived or 0)


class Report:
    """The table in ``results/faults``, which grows and is continued on the same commit."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = folder / "faults.json", settings
        self.rows: dict[str, Row] = {}
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(self.path.read_text())
            if known["settings"] == settings:
                self.rows = {row["fault"]: Row(**row) for row in known["rows"]}

    def add(self, row: Row) -> None:
        """Take a line in and write the table."""
        self.rows[row.fault] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"settings": self.settings, "rows": [asdict(each) for each in self.rows.values()]}
        self.path.write_text(json.dumps(whole, indent=1) + "\n")
        lines = [
            "# What survives faults",
            "",
            "Every finished result is there afterwards exactly once, equal to that of an "
            "undisturbed run, and shown so by the tracker, or it counts as lost. Made by "
            f"`nox -s faults` on commit {self.settings['commit']}; "
            f"{self.settings['times']} random moments a command, "
            f"{self.settings['calls'] or 'all'} system calls of each kind.",
            "",
            "| fault | tried | survived | lost |",
            "|:--|--:|--:|--:|",
        ]
        for each in self.rows.values():
            shown = ["-"] * 3 if each.tried is None else [each.tried, each.survived, each.lost]
            lines.append(f"| {each.fault} | {' | '.join(map(str, shown))} |")
        known = [each for each in self.rows.values() if each.tried is not None]
        total = [sum(getattr(each, name) or 0 for each in known) for name in ("tried", "survived")]
        lines += [f"| **together** | {total[0]} | {total[1]} | {total[0] - total[1]} |", ""]
        if len(known) < len(self.rows):
            lines += ["-: cannot be tried on this machine.", ""]
        (self.path.parent / "README.md").write_text("\n".join(lines))
