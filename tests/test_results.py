"""The results that are shown come from the records beside them, and the studies are whole."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from studies import README, RESULTS, ROOT, SHOWN

from bench.cli import main


def commands() -> list[str]:
    """Every command of the studies; a backslash at the end of a line continues it."""
    whole = "".join(path.read_text() for path in sorted(RESULTS.glob("*/README.md")))
    text = whole.replace("\\\n", "")
    return [" ".join(line.split()) for line in re.findall(r"^\$ (bench .+)$", text, re.MULTILINE)]


STUDIES = [each for each in commands() if each.startswith(("bench run", "bench attack-eval"))]
TABLES = [each for each in commands() if each.startswith("bench tables")]


def test_results_are_made_by_commands() -> None:
    assert len(STUDIES) > 5
    assert len(TABLES) > 10


@pytest.mark.slow
@pytest.mark.parametrize("command", STUDIES)
def test_a_study_has_nothing_missing(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.partition(" > ")[0])[1:]
    folder = words.index("--results") + 1
    shutil.copy(ROOT / words[folder] / "records.jsonl", tmp_path)
    words[folder] = str(tmp_path)
    if "--victim" in words:
        place = words.index("--victim") + 1
        public = Path(os.environ.get("BENCH_DATA", "")) / "../models" / words[place]
        victim = kept if (kept := ROOT / words[place]).exists() else public
        if not victim.exists():
            pytest.skip(f"{words[place]} is not beside $BENCH_DATA")
        words[place] = str(victim)
    result = CliRunner().invoke(main, [*words, "--dry-run"])
    if result.exit_code == 4:
        pytest.skip("its data set is not on this machine")
    assert result.exit_code == 0, result.output
    found = re.findall(r"(\d+) of (\d+) (?:runs|attacks) are done", result.stdout)
    found += [pair[::-1] for pair in re.findall(r"(\d+) runs, (\d+) done", result.output)]
    done, whole = found[0]
    assert int(whole) > 0
    assert done == whole, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", TABLES)
def test_a_table_is_that_of_its_records(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    typed, _, path = command.partition(" > ")
    result = CliRunner().invoke(main, shlex.split(typed)[1:])
    assert result.exit_code == 0, result.output
    kept = (ROOT / path).read_text()
    if not path.endswith(".csv"):
        assert result.stdout.rstrip() == kept.rstrip()
        return
    for line, other in zip(
        *(csv.reader(io.StringIO(text)) for text in (result.stdout, kept)), strict=True
    ):
        assert [number(cell) for cell in line] == [number(cell) for cell in other]


def number(cell: str) -> object:
    """A cell, so that the last bits of a number may differ."""
    try:
        return pytest.approx(float(cell))
    except ValueError:
        return cell


def test_every_file_is_named_in_their_readme_or_made_by_its_commands() -> None:
    text = "".join(path.read_text() for path in RESULTS.glob("**/README.md"))
    for path in RESULTS.glob("*/*"):
        if path.is_file() and path.name != "README.md" and path.suffix not in {".lock", ".db"}:
            assert path.relative_to(ROOT).as_posix() in text, f"{path} is not explained"


def test_every_study_is_in_the_overview_and_every_link_leads_somewhere() -> None:
    overview = (RESULTS / "README.md").read_text()
    for path in RESULTS.glob("*/records.jsonl"):
        assert f"[{path.parent.name}]({path.parent.name}/README.md)" in overview
    for path in RESULTS.glob("**/*.md"):
        for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path}: {link}"


def test_no_study_is_left_out_of_the_repository() -> None:
    """What is under results/ is ignored unless its folder is named."""
    kept = (ROOT / ".gitignore").read_text().splitlines()
    for path in RESULTS.glob("*/README.md"):
        assert f"!results/{path.parent.name}/" in kept


def test_the_numbers_of_the_readme_are_those_of_the_results() -> None:
    tables = re.findall(r"((?:^\|.*\n)+)", SHOWN, re.MULTILINE)
    assert tables, "the README shows no table"
    kept = [path.read_text() for path in RESULTS.glob("*/*.md")]
    for table in tables:
        assert any(table.strip() in text for text in kept), "a table is not from the results"


def test_the_images_of_the_readme_are_there() -> None:
    found = re.findall(r"!\[.+?\]\((.+?)\)", README)
    assert found
    for path in found:
        assert (ROOT / path).stat().st_size > 0
