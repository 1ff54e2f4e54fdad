"""Break things while the bench works, and count what survives: ``nox -s faults``.

Each scenario tries something several times and says how often every finished result was there
afterwards exactly once and equal to that of an undisturbed run, the tracker included. It covers
every command (`breaking.commands`). Nothing here is collected by pytest: it takes half an hour and
kills processes. The table is written to ``results/faults`` after each scenario, and a run that was
stopped goes on where it was.

    nox -s faults                     three random moments and one call of each kind a command
    nox -s faults -- --times 20       more random moments
    nox -s faults -- --calls 0        every system call that changes the disk; takes days
    nox -s faults -- tracker clock    the scenarios with one of these words in their title
"""

from __future__ import annotations

import argparse
import functools
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from breaking import disks, kills, trackers
from breaking.commands import CASES
from breaking.table import Report, Row
from breaking.truth import Count, Undisturbed

ROOT = Path(__file__).parent.parent
Scenario = Callable[[Undisturbed, Path], "Count | None"]


def scenarios(times: int, each: int | None) -> dict[str, Scenario]:
    """Every scenario by its title.

    Args:
        times: Random moments of each signal.
        each: System calls of each kind; None: all.
    """
    found: dict[str, Scenario] = {}
    for case in CASES:
        kinds = " of each kind" if case.thorough else ""
        scenario = functools.partial(kills.at_calls, case=case, each=each)
        found[f"killed at system calls{kinds}: {case.title}"] = scenario
    commands = {"run": "a run", "points": "points build", "attacks": "attack-eval"}
    for name, shown in commands.items():
        for how in (signal.SIGKILL, signal.SIGTERM):
            scenario = functools.partial(kills.killed_by, name=name, how=how, times=times)
            found[f"{how.name} during {shown}"] = scenario
    return {
        **found,
        "SIGTERM during each other command": kills.terminated,
        "two equal commands at once": kills.twice,
        "four on an empty folder": kills.four_on_nothing,
        "disk full": disks.full_disk,
        "disk full under each other command": disks.each_on_full_disk,
        "damaged files": disks.damaged,
        "damaged folder under each command": disks.each_on_damaged_folder,
        "tracker refuses or is deaf": trackers.deaf_tracker,
        "tracker dies": trackers.dying_tracker,
        "tracker is slow": trackers.slow_tracker,
        "results not writable": disks.read_only,
        "read-only disk under each command": disks.each_on_read_only_disk,
        "clock set back": disks.clock_set_back,
        "diverged seeds": disks.diverged,
        "a worker killed": kills.memory,
        "folder moved": disks.moved,
    }


def commit() -> str:
    """The commit that is tested."""
    from bench.execution import machine

    return machine.commit()


def main() -> int:
    """Run every scenario and write the table; 1 when anything was lost."""
    parser = argparse.ArgumentParser(description="Break things while the bench works.")
    parser.add_argument("words", nargs="*", help="only scenarios with one of them in the title")
    parser.add_argument("--times", type=int, default=3, help="random moments of each signal")
    parser.add_argument("--calls", type=int, default=1, help="calls of each kind; 0: all")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "faults")
    asked = parser.parse_args()
    settings = {"commit": commit(), "times": asked.times, "calls": asked.calls}
    report, broken = Report(asked.output, settings), False
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        truth = Undisturbed(root / "undisturbed")
        print(f"{'fault':52} tried survived  lost seconds", flush=True)
        for title, scenario in scenarios(asked.times, asked.calls or None).items():
            if asked.words and not any(word in title for word in asked.words):
                continue
            if title not in report.rows:
                start = time.monotonic()
                try:
                    count = scenario(truth, root)
                except Exception:  # a scenario that cannot be set up is tried again the next time
                    print(f"{title:52} broken\n{traceback.format_exc()}", flush=True)
                    broken = True
                    continue
                taken = time.monotonic() - start
                tried = (None, None) if count is None else (count.tried, count.survived)
                report.add(Row(title, *tried, taken))
            row = report.rows[title]
            if row.tried is None:
                print(f"{title:52} cannot be tried here", flush=True)
            else:
                numbers = f"{row.tried:5} {row.survived:8} {row.lost:5} {row.seconds:7.0f}"
                print(f"{title:52} {numbers}", flush=True)
    return int(broken or any(row.lost for row in report.rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
