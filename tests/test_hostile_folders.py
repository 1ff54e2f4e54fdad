"""Results folders of others: links, pipes, odd names and odd streams harm nobody."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import registry
from bench.cli import main
from bench.cli.output import CUT_OFF
from bench.data import catalog
from bench.execution import machine
from bench.execution.folders import existing_results, results_folder
from bench.files import atomic, locks
from bench.records.record import Record
from bench.records.store import Store
from bench.records.validation import LAST_SEED
from bench.studies.stored import load_results

pytestmark = pytest.mark.slow

READERS = (
    *("list runs", "list runs --json", "status", "status --json", "report --output {out}/r"),
    *("tables", "tables --format csv", "tables --format json", "tables --format text"),
    *("tables differences", "tables attacks", "tables attacks --metric success", "tables table1"),
    *("export {out}/x.zip", "leaderboard --output {out}/l.html"),
)
"""Commands that read a results folder."""


def run(seed: int = 0, name: str = "none", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kind": "run", "key": f"key-{name[:4].encode().hex()}", "seed": seed,
        "labels": {"augmentation": name, "model": "resnet8", "data": "digits"},
        "metrics": {"accuracy": 0.5 + seed / 100, "seconds": 1.5},
        "job": {"data": "digits", "epochs": 3}, "machine": {"device": "cpu"},
        "curve": [{"epoch": 1, "test_accuracy": 0.5}],
    }  # fmt: skip
    return Record(**fields | changes)


def attack(seed: int = 0, name: str = "jsma", **labels: str) -> Record:
    given = {
        "attack": name, "victim": "resnet8 on digits", "data": "digits", "goal": "untargeted",
        "eps": "8/255", "bounded": "yes", "role": "sparse", "model": "resnet8",
    }  # fmt: skip
    return Record(
        kind="attack", key="attack-1", seed=seed, labels=given | labels, job={"images": 100},
        metrics={"success": 0.75, "l0_elements_mean": 12.0, "l2": 0.5, "linf": 0.03},
        curve=[{"changes": 3.0, "pixels": 0.5, "elements": 0.25}],
    )  # fmt: skip


def filled(folder: Path) -> Store:
    store = Store(folder)
    for record in [*map(run, range(2)), *(run(seed, "has") for seed in range(2)), attack()]:
        store.add(record)
    return store


def typed(command: str, results: Path, out: Path) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        words = [word.format(out=out) for word in command.split()]
        return CliRunner().invoke(main, [*words, "--results", str(results)])


def state(folder: Path) -> dict[str, tuple[float, int]]:
    """Every file and folder with its time and mode."""
    return {
        str(path): (path.lstat().st_mtime, path.lstat().st_mode)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("command", READERS)
def test_a_reading_command_changes_no_folder_and_makes_none(command: str, tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    filled(results)
    lock = results / "cache/locks/job.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    before = state(results)
    shown = typed(command, results, out)
    assert shown.exit_code in (0, 3), shown.output
    assert state(results) == before
    mistyped = typed(command, tmp_path / "resluts", out)
    assert mistyped.exit_code == 2
    assert "there is no results folder" in mistyped.stderr
    assert not (tmp_path / "resluts").exists()


def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("the secret")
    return path


PLACES = ("records.jsonl", "records.lock", "curves", "weights", "cache", "figures", "mlflow.db")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_in_the_folder_is_refused_by_every_command(
    place: str, kind: str, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    filled(results)
    target = secret(tmp_path)
    path = results / place
    if path.exists():
        path.rename(tmp_path / "moved")
    path.symlink_to(target) if kind == "link" else os.mkfifo(path)
    for folder in (existing_results, results_folder, load_results):
        with pytest.raises(ValueError, match=rf"{place} is (a link|not a regular file): a results"):
            folder(results)
    shown = typed("tables", results, tmp_path)
    assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)
    with contextlib.suppress(ValueError):
        Store(results).add(run(9))
    assert target.read_text() == "the secret"


def test_links_further_down_are_left_out(tmp_path: Path) -> None:
    results, target = tmp_path / "results", secret(tmp_path)
    store = filled(results)
    for name in ("figures/figure2-x.png", "curves/x.json", "tables/x.txt"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).symlink_to(target)
    curve = store.folder / "curves" / f"{run(0).name}.json"
    curve.unlink()
    os.mkfifo(curve)
    os.mkfifo(results / "figures/figure5-x.png")
    assert store.curve(run(0)) == []
    assert typed("export {out}/x.zip", results, tmp_path).exit_code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert len(archive.namelist()) > 4
        assert all(b"the secret" not in archive.read(name) for name in archive.namelist())
    shown = typed("report --output {out}/r", results, tmp_path)
    assert shown.exit_code == 0, shown.output
    assert shown.stderr.count("left out") == 2
    assert "the secret" not in (tmp_path / "r/index.html").read_text()


def test_a_linked_lock_is_not_followed(tmp_path: Path) -> None:
    target = secret(tmp_path)
    results = tmp_path / "results"
    filled(results)
    lock = results / "cache/locks/job.lock"
    lock.parent.mkdir(parents=True)
    lock.symlink_to(target)
    os.mkfifo(lock.with_name("pipe.lock"))
    assert typed("status", results, tmp_path).exit_code == 0
    with pytest.raises(OSError, match="symbolic link"), FileLock(lock):
        pass
    assert target.read_text() == "the secret"


def test_a_lock_that_is_held_is_seen_and_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not locks.locked(path)
    assert not path.exists()
    with FileLock(path):
        assert locks.locked(path)
    assert not locks.locked(path)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


ODD_NAME = "\x1b[2J\x1b]0;owned\x07 \u202egnp.\x9b31m"


@pytest.mark.parametrize("command", READERS)
def test_no_name_reaches_the_terminal_as_a_command(command: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    store = filled(results)
    store.add(run(0, ODD_NAME))
    store.add(run(1, ODD_NAME, status="failed", message=ODD_NAME, metrics={}))
    store.add(attack(1, ODD_NAME, victim=ODD_NAME, goal=ODD_NAME))
    store.add(run(1, labels=dict.fromkeys(["augmentation", "model", "data"], ODD_NAME)))
    shown = typed(command, results, tmp_path)
    assert shown.exit_code in (0, 3), shown.output
    for text in (shown.stdout, shown.stderr):
        assert all(line.isprintable() for line in text.replace("\r\n", "\n").split("\n"))
    page = tmp_path / "r/index.html"
    if page.exists():
        assert all(line.isprintable() for line in page.read_text().split("\n"))


# --- whole records, drawn field by field ------------------------------------------------------

WILD_TEXT = st.text(max_size=12) | st.sampled_from(
    [ODD_NAME, "=1+1", "[x]", "\ud800", "", "none", "a\nb", "$x_1$", "\\", "</script>", "x" * 999]
)
WILD_NUMBER = st.floats() | st.integers() | st.sampled_from([0, 1, -1, 1e308, 5e-324, 10**400])
WILD = st.recursive(
    st.none() | st.booleans() | WILD_TEXT | WILD_NUMBER,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WILD_TEXT, inner, max_size=3),
    max_leaves=4,
)
SOUND = {"run": run(0).to_json(), "attack": attack(0).to_json()}
EXTRA = ("policy", "mix", "guide", "accuracy", "deleted_share", "l0_pixels_mean", "success_low")


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """A record of which some fields are anything at all, and some are of its kind but odd."""
    line = dict(SOUND[draw(st.sampled_from(["run", "attack"]))])
    line["seed"] = draw(st.integers(0, 3))
    for name in draw(st.lists(st.sampled_from([*line, *EXTRA]), max_size=4)):
        kind = line.get(name)
        own = (
            WILD_TEXT if isinstance(kind, str)
            else st.floats(0, 1) | WILD_NUMBER if isinstance(kind, float)
            else st.dictionaries(WILD_TEXT, WILD_TEXT | WILD, max_size=3) if isinstance(kind, dict)
            else WILD
        )  # fmt: skip
        line[name] = draw(own | WILD)
    if draw(st.booleans()):
        line |= draw(st.dictionaries(WILD_TEXT, WILD, max_size=2))
    return line


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=st.lists(lines(), min_size=1, max_size=5), curve=st.lists(WILD, max_size=2))
def test_every_reader_shows_the_sound_records_whatever_the_others_are(
    drawn: list[dict[str, Any]], curve: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    results = folder / "results"
    store = filled(results)
    with store.path.open("a") as file:
        for line in drawn:
            file.write(json.dumps(line) + "\n")
    (results / "curves" / f"{run(1).name}.json").write_text(json.dumps(curve))
    names = {record.name for record in [run(1), run(1, "has"), attack()]}
    found, said = store.read()
    assert names <= {record.name for record in found}
    assert len(said) <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert str(load_results(results).runs)
    for command in READERS:
        shown = typed(command, results, folder)
        if shown.exit_code not in (0, 3):
            assert shown.exit_code == 2, (command, shown.output, shown.exception)
            assert "Traceback" not in shown.output
            assert command in ("tables differences", "tables attacks --metric success"), (
                shown.output
            )


# --- streams ----------------------------------------------------------------------------------


def bench(*words: str, shell: str = "", **named: Any) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -m bench "$@" {shell}'
    return subprocess.run(
        ["bash", "-c", command, "bash", *words], text=True, capture_output=True, **named
    )


def test_output_that_cannot_be_written_is_said_in_one_line() -> None:
    shown = bench("--help", shell="> /dev/full")
    assert shown.returncode == 2
    assert shown.stderr == ("Error: cannot write to standard output: No space left on device\n")


def test_a_reader_that_has_gone_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        command = [sys.executable, "-m", "bench", "--help"]
        shown = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True)
    assert (shown.returncode, shown.stderr) == (CUT_OFF, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_change_nothing_else(closed: str, tmp_path: Path) -> None:
    filled(tmp_path / "results")
    out = tmp_path / "x.zip"
    shown = bench("export", str(out), "--results", str(tmp_path / "results"), shell=closed)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert zipfile.is_zipfile(out)


# --- small things -----------------------------------------------------------------------------


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old = time.time() - 2 * atomic.HOUR
    for name, age in {
        f"curves/.a.json.{ended.pid}.bench-part": old, f".probe.{ended.pid}.bench-part": old,
        f".young.{ended.pid}.bench-part": time.time(), f".living.{os.getpid()}.bench-part": old,
        ".hidden": old, "a.7": old, f"artifacts/.x.{ended.pid}.bench-part": old,
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    results_folder(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        f".young.{ended.pid}.bench-part", f".living.{os.getpid()}.bench-part", ".hidden", "a.7",
        f".x.{ended.pid}.bench-part",
    }  # fmt: skip


def test_files_have_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write(tmp_path / "weights.safetensors", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o640


def test_git_is_asked_without_taking_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def git(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, str(Path(machine.__file__).parents[2]), "")

    monkeypatch.setattr(subprocess, "run", git)
    machine.commit.cache_clear()
    machine.commit()
    machine.commit.cache_clear()
    (status,) = [each for each in asked if "status" in each]
    assert "--no-optional-locks" in status


@pytest.mark.parametrize("seeds", ["", str(LAST_SEED + 1), "9" * 300, "-1", "1,1", ",", "1,"])
def test_seeds_that_no_file_can_be_named_by_are_refused(seeds: str, tmp_path: Path) -> None:
    words = ["run", "--aug", "none", "--seed-list", seeds, "--results", str(tmp_path / "r")]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 2
    assert "is not a list of seeds" in shown.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["norm (1)", "my data", "a(b", "x)", "q?x=1"])
def test_a_folder_of_images_may_have_any_name(name: str) -> None:
    for method in ("cutout", "gridmask", "advmask"):
        built = registry.build("augmentations", method, data=name, side=8)
        assert built == registry.build("augmentations", method, data="other", side=8)


def blank(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG", optimize=True)
    return file.getvalue()


def test_images_that_are_all_air_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "air.zip"
    content = blank(9400)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train/a", "train/b", "test/a", "test/b"):
            archive.writestr(f"{name}/1.png", content)
    assert path.stat().st_size < 50_000
    decoded: list[Callable[..., Any]] = []
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self))
    with pytest.raises(ValueError, match=r"1\.png in .* it has 9400x9400 pixels in \d+ bytes"):
        catalog.load(str(path))
    assert not decoded


def test_a_blank_image_of_a_usual_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "blank.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/a", "train/b", "test/a", "test/b"):
            archive.writestr(f"{name}/1.png", blank(1024))
        archive.writestr("train/a/2.png", _white())
    assert len(catalog.load(str(path)).train.labels) == 3


def _white() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1024, 1024), "white").save(file, "PNG")
    return file.getvalue()
