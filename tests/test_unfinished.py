"""`bench status` names the command that continues what was interrupted, whatever the command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.cli import main
from bench.errors import Stopped
from bench.execution import unfinished
from bench.points import find
from bench.studies import attack_study, search, until_decided
from bench.studies.status import status_of

COMMANDS = [
    (attack_study, "run", "attack-eval --attack 'jsma(steps=3)' --data digits --no-tracking"),
    (find, "adversarial", "points build --data digits"),
    (search, "run", "search --aug cutout --model resnet8 --no-tracking"),
    (until_decided, "run", "run --aug none --aug cutout --until decided --no-tracking"),
]


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)


@pytest.mark.parametrize(("module", "function", "command"), COMMANDS)
def test_status_names_the_command_that_was_interrupted(
    module: object, function: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = f"interrupted: bench {command}; the same command continues it"
    shown = {}

    def interrupted(*_: object, **__: object) -> None:
        shown["running"] = typed("status").output
        raise Stopped("stopped after 3 of 16 blocks of images")

    def failing(*_: object, **__: object) -> None:
        raise ValueError("this cannot work: do something else")

    monkeypatch.setattr(module, function, interrupted)
    words = shlex.split(command)
    assert typed(*words).exit_code == 130
    assert f"running: bench {command}" in shown["running"].splitlines()
    assert wanted in typed("status").output.splitlines()
    assert json.loads(typed("status", "--json").output)["stopped_commands"] == [f"bench {command}"]
    if "--until" in words:  # another command leaves the note alone
        assert typed(*words, "--dry-run").exit_code == 0
        assert wanted in typed("status").output.splitlines()
    monkeypatch.setattr(module, function, failing)
    assert typed(*words).exit_code == 2
    assert "bench" not in typed("status").output


def test_a_killed_command_is_named_and_its_end_removes_the_name(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from bench.execution import unfinished\n"
        "with unfinished.noted(Path('results'), 'bench run table1'): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path)
    results = tmp_path / "results"
    assert unfinished.found(results) == ([], ["bench run table1"])
    assert "interrupted: bench run table1; the same command" in str(status_of(results))
    with unfinished.noted(results, "bench run table1"):
        assert unfinished.found(results) == (["bench run table1"], [])
        with unfinished.noted(results, "bench run table1"):  # typed twice
            assert unfinished.found(results)[0] == ["bench run table1"]
        assert unfinished.found(results) == (["bench run table1"], [])
    assert unfinished.found(results) == ([], [])


def test_passwords_are_not_kept_and_foreign_notes_are_passed_over(tmp_path: Path) -> None:
    with unfinished.noted(tmp_path, "bench run --tracking-uri https://me:secret@host"):
        (note,) = tmp_path.glob("cache/commands/*.json")
        assert "secret" not in note.read_text()
        assert unfinished.found(tmp_path)[0] == ["bench run --tracking-uri https://***@host"]
    for name, content in (("a", "[]"), ("b", "{}"), ("c", "no json")):
        (tmp_path / f"cache/commands/{name}.json").write_text(content)
    (tmp_path / "cache/commands/d.json").symlink_to("/etc/hostname")
    assert unfinished.found(tmp_path) == ([], [])
