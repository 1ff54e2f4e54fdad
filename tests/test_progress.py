"""Progress: what is left is estimated from the work of this command alone."""

from __future__ import annotations

import time

import pytest

from bench.execution.pool import Relay
from bench.execution.progress import Bars, Lines


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_what_an_earlier_command_finished_is_no_part_of_the_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, passed = Clock(monkeypatch), list[str]()
    for progress in (Lines(), Relay(passed.append)):
        with progress.task("none, resnet8, seed 0", 60, 28) as advance:
            for _ in range(2):
                clock.now += 20
                advance()
    told = [
        "none, resnet8, seed 0: 29/60, 10 min 20 s left",
        "none, resnet8, seed 0: 30/60, 10 min 0 s left",
    ]
    assert capsys.readouterr().err.splitlines() == told
    assert passed == told


def test_a_bar_begins_where_an_earlier_command_ended() -> None:
    progress = Bars()
    with progress.task("none, resnet8, seed 0", 60, 28) as advance:
        advance()
        (bar,) = progress.bars.tasks
        assert bar.completed == 29
        assert bar.total == 60
