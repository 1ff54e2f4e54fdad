"""The command line: what is typed, what is printed, and how it ends."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bench import registry
from bench.cli import main
from bench.data.catalog import facts
from bench.records.record import Record
from bench.records.store import Store
from bench.studies.jobs import labels
from bench.training.recipes import Recipe

SMALL = ["--model", "resnet8", "--epochs", "1", "--data", "digits(train=100)"]
SMALL += ["--no-tracking", "--quiet"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


EVERY = dict(commands(main))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = bench(*path, "--help")
    assert result.exit_code == 0
    assert f"Example: bench {' '.join(path)}" in result.stdout


def test_no_description_is_cut_off_in_a_list_of_commands() -> None:
    for group in ((), ("points",), ("track",)):
        shown = CliRunner().invoke(main, [*group, "--help"], terminal_width=80).stdout
        listed = shown.partition("Commands:\n")[2].splitlines()
        assert listed
        assert [line for line in listed if line.endswith("...") or not line[2].strip()] == []


def test_help_says_what_a_setting_is_without_its_option() -> None:
    shown = {name: " ".join(bench(name, "--help").stdout.split()) for name in ("run", "judge")}
    assert "wds:PATTERN (WebDataset). [default: digits; an experiment's own]" in shown["run"]
    assert "wds:PATTERN (WebDataset). [default: photos]" in shown["judge"]
    trained = shown["run"].partition("Training: ")[2].partition("Execution: ")[0]
    for option in trained.split(" --")[1:]:
        assert "[default: " in option or option.startswith(("policy", "mix", "no-flip")), option


@pytest.mark.slow
def test_a_run_gives_records_and_intervals_as_json() -> None:
    result = bench("run", "--aug", "none", "--aug", "cutout", "--seeds", "2", *SMALL, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["records"]) == 4
    needed = "augmentation model data seed accuracy accuracy_median10 accuracy_best_validation"
    for record in found["records"]:
        assert set(needed.split()) | {"epochs", "seconds_per_epoch"} <= set(record)
    by_name = {interval["augmentation"]: interval for interval in found["intervals"]}
    assert set(by_name) == {"none", "cutout"}
    assert {"n", "mean", "std", "low", "high", "model", "data"} <= set(by_name["none"])
    ours = {"difference", "difference_low", "difference_high", "p", "p_holm"}
    assert ours <= set(by_name["cutout"])
    accuracies = [r["accuracy"] for r in found["records"] if r["augmentation"] == "cutout"]
    assert by_name["cutout"]["mean"] == pytest.approx(sum(accuracies) / 2)


def test_what_is_done_is_reused_and_fresh_runs_it_anew() -> None:
    first = bench("run", "--aug", "cutout", "--seeds", "1", *SMALL, "--json")
    start = [*SMALL[:-1], "--json"]
    again = bench("run", "--aug", "cutout", "--seeds", "1", *start)
    assert "1 of 1 runs already had results" in again.stderr
    assert json.loads(again.stdout)["records"] == json.loads(first.stdout)["records"]
    fresh = json.loads(bench("run", "--aug", "cutout", "--seeds", "1", *start, "--fresh").stdout)
    assert fresh["records"][0]["accuracy"] == json.loads(first.stdout)["records"][0]["accuracy"]
    assert fresh["records"][0]["seconds"] != json.loads(first.stdout)["records"][0]["seconds"]


def test_a_dry_run_shows_the_grid_and_does_nothing(tmp_path: Path) -> None:
    bench("run", "--aug", "none", "--seeds", "1", *SMALL)
    result = bench("run", "--aug", "none", "--aug", "has", "--seeds", "1", *SMALL, "--dry-run")
    assert result.exit_code == 0
    assert "done    none  resnet8  digits(train=100)  seed 0, 1 epochs" in result.stdout
    assert "to run  has" in result.stdout
    assert "1 of 2 runs are done" in result.stdout
    assert len((tmp_path / "results/records.jsonl").read_text().splitlines()) == 1


def test_several_guides_are_compared_in_one_command() -> None:
    asked = ["run", "--aug", "none", "--aug", "advmask", "--seeds", "1", *SMALL]
    guides = ["--guide", "attack", "--guide", "random"]
    assert bench(*asked, *guides, "--dry-run").stdout.splitlines() == [
        "to run  none  resnet8  digits(train=100)  seed 0, 1 epochs",
        "to run  advmask(length=(1, 4))  resnet8  digits(train=100)  seed 0, 1 epochs",
        "to run  advmask(length=(1, 4)) + random  resnet8  digits(train=100)  seed 0, 1 epochs",
        "0 of 3 runs are done",
    ]
    jobs = json.loads(bench(*asked, *guides, "--dry-run", "--json").stdout)["jobs"]
    assert [job["guide"] for job in jobs] == [None, None, "random"]


def test_failed_seeds_are_reported_and_stay_in_the_table() -> None:
    result = bench("run", "--aug", "none", "--seeds", "1", *SMALL, "--learning-rate", "1e30")
    assert result.exit_code == 3
    assert "1 of 1 runs failed: the loss is nan" in result.stderr
    assert "failed" in result.stdout


@pytest.mark.slow
def test_tables_and_figures_come_from_the_records(tmp_path: Path) -> None:
    bench("run", "--aug", "none", "--aug", "cutout", "--seeds", "2", *SMALL)
    assert "method     digits(train=100)" in bench("tables").stdout
    latex = bench("tables", "--format", "latex")
    assert latex.exit_code == 0
    assert r"\toprule" in latex.stdout
    markdown = bench("tables", "--format", "markdown")
    assert "| cutout" in markdown.stdout
    assert len(json.loads(bench("tables", "--format", "json").stdout)) == 2
    differences = bench("tables", "differences", "--format", "text")
    assert "minus that of none with the same seed" in differences.stdout
    lacking = bench("tables", "differences", "--baseline", "has")
    assert lacking.exit_code == 2
    assert "no run is called 'has': bench run --aug has adds one" in lacking.stderr
    assert bench("figures", "differences").exit_code == 0
    drawn = json.loads((tmp_path / "results/figures/differences.json").read_text())
    (line,) = drawn["numbers"]
    assert line["row"] == "cutout"
    assert len(line["gained"]) == 2
    assert "minus that of none with the same seed" in drawn["caption"]
    assert (tmp_path / "results/figures/differences.png").stat().st_size > 0
    assert bench("figures", "differences", "--baseline", "has").exit_code == 2


def test_a_missing_cell_is_named_with_the_command_that_fills_it(tmp_path: Path) -> None:
    for seed in range(2):
        for recipe in (
            Recipe(data="digits", model="resnet8", epochs=7),
            Recipe(data="photos", model="resnet8", epochs=7),
            Recipe(
                data="photos",
                model="resnet8",
                epochs=7,
                augmentation=registry.build("augmentations", "advmask", data="photos", side=32),
                guide="random",
            ),
        ):
            record = Record(
                kind="run",
                key=recipe.key,
                seed=seed,
                labels=labels(recipe, facts(recipe.data).side),
                metrics={"accuracy": 0.5},
                job=recipe.to_json(),
            )
            Store(tmp_path / "results").add(record)
    told = bench("tables").stderr
    (line,) = [line for line in told.splitlines() if line.startswith("missing: ")]
    _, _, command = line.partition("resnet8: ")
    assert command.startswith(
        "bench run --aug advmask --model resnet8 --data digits --guide random"
    )
    planned = bench(*shlex.split(command)[1:], "--dry-run").stdout
    assert planned.count("to run") == 2
    assert "7 epochs" in planned


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["run", "--aug", "cutuot"], "did you mean 'cutout'?", 2),
        (["run", "--aug", "cutout(lenght=8)"], "cutout has no option 'lenght'", 2),
        (["run", "--aug", "cutout(length=-1)"], "length is -1", 2),
        (["run", "--aug", "cutout(length='x')"], "option length is 'x'", 2),
        (["run", "--model", "resnet19"], "did you mean resnet", 2),
        (
            ["run", "table1", "--epochs", "3", "--aug", "none"],
            "--aug, --model, --epochs have no effect on table1, whose settings come from --scale",
            2,
        ),
        (
            ["run", "--scale", "paper"],
            "--scale has no effect on runs that are no experiment",
            2,
        ),
        (["tables", "--eps", "8/255"], "--eps has no effect on runs; remove it", 2),
        (
            ["attack-eval", "--eps", "1e-9"],
            "1e-9 is 1/1000000000: records hold at most nine digits above and below the line",
            2,
        ),
        (
            ["tables", "attacks", "--baseline", "has"],
            "--baseline has no effect on attacks",
            2,
        ),
        (
            ["tables", "table1", "--model", "resnet20", "--eps", "1"],
            "--model, --eps have no effect on table1; remove them",
            2,
        ),
        (
            ["figures", "attacks", "--scale", "paper"],
            "--scale has no effect on attacks; remove it",
            2,
        ),
        (
            ["figures", "figure8", "--unit", "pixels"],
            "--unit has no effect on figure8",
            2,
        ),
        (["run", "--seeds", "0"], "0 is not in the range 1<=x<=10000", 2),
        (["run", "--seeds", "-3"], "-3 is not in the range 1<=x<=10000", 2),
        (["run", "--seeds", "9" * 9, "--dry-run"], "999999999 is not in the range", 2),
        (["search", "--seeds", "9" * 9], "999999999 is not in the range", 2),
        (["train-robust", "--seeds", "9" * 9], "999999999 is not in the range", 2),
        (["attack-eval", "--seeds", "9" * 9], "999999999 is not in the range", 2),
        (["plan", "--calibrate", "--max-seeds", "9" * 9], "999999999 is not in the range", 2),
        (["run", "--seeds", "1.5"], "'1.5' is not a valid integer.", 2),
        (["run", "--deadline", "nan"], "nan is not a finite number", 2),
        (["search", "--budget", "inf"], "inf is not a finite number", 2),
        (["run", "--threads", "100000"], "threads is 100000: it must be at most 4096", 2),
        (["run", "--seeds", "two"], "'two' is not a valid integer", 2),
        (["run", "--seed-list", "1,x"], "'1,x' is not a list of seeds; write it as 0,3,7", 2),
        (
            ["run", "--seed-list", "1,1"],
            "is not a list of seeds: give integers from 0 to",
            2,
        ),
        (["run", "--epochs", "0"], "epochs is 0: it must be at least 1", 2),
        (["run", "--batch-size", "0"], "batch_size is 0", 2),
        (
            ["run", "--data", "digits", "--no-flip"],
            "the images of digits are never mirrored: remove --no-flip",
            2,
        ),
        (["run", "--learning-rate", "-1"], "learning_rate is -1.0", 2),
        (["run", "--guide", "nowhere"], "there is no guide 'nowhere'", 2),
        (["run", "--data", "nowhere"], "nowhere", 2),
        (["run", "--device", "cuda:99"], "device 'cuda:99' is not available", 2),
        (["run", "--jobs", "2"], "--jobs 2 needs --executor processes, ray or slurm", 2),
        (["run", "--sedes", "3"], "Did you mean", 2),
        (["run", "tabel1"], "there is no experiment 'tabel1': did you mean 'table1'?", 2),
        (["rum"], "Did you mean 'run'?", 2),
        (["tables"], "there is no results folder", 2),
        (["figures"], "Missing argument 'WHAT'. Choose from: figure2, figure3,", 2),
        (["figures", "bogus"], "there is no figure 'bogus': there are: figure2, figure3,", 2),
        (["list", "methods"], "there is no list of 'methods': did you mean 'models'?", 2),
        (["speed", "mask"], "there is no benchmark 'mask': did you mean 'masks'?", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_clear_line(arguments: list[str], message: str, code: int) -> None:
    small = SMALL if arguments[0] == "run" and "--model" not in arguments else []
    given = {word for word in arguments if word.startswith("--")}
    pairs = zip(small[:-2:2], small[1:-2:2], strict=True)
    extra = [word for name, value in pairs if name not in given for word in (name, value)]
    result = bench(*arguments, *extra)
    assert message in result.stderr
    assert result.exit_code == code
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_missing_data_says_what_to_place_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    result = bench("run", "--aug", "none", *SMALL, "--data", "cifar100")
    assert result.exit_code == 4
    assert "cifar100 is not there: place" in result.stderr


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half/train/cat").mkdir(parents=True)
    for part in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / "bad" / part).mkdir(parents=True)
        (tmp_path / "bad" / part / "1.png").write_bytes(b"no image")
    for name, message in (("empty", "empty"), ("half", "half"), ("bad", "1.png")):
        result = bench("run", "--aug", "none", *SMALL, "--data", str(tmp_path / name))
        assert result.exit_code in (2, 4), result.output
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_results_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = bench("run", "--aug", "none", *SMALL, "--results", str(tmp_path / "file/results"))
    assert result.exit_code == 2
    assert "cannot write to the results folder" in result.stderr
    assert "choose another with --results" in result.stderr


def test_a_full_disk_is_one_line_and_keeps_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert bench("run", "--aug", "none", "--seeds", "1", *SMALL).exit_code == 0
    before = (tmp_path / "results/records.jsonl").read_bytes()

    def full(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("bench.files.atomic.write", full)
    result = bench("run", "--aug", "cutout", "--seeds", "1", *SMALL)
    assert result.exit_code == 3
    assert "no space left on the disk of" in result.stderr
    assert (tmp_path / "results/records.jsonl").read_bytes() == before


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_is_finished_and_continues(tmp_path: Path) -> None:
    """By Ctrl-C; SIGTERM at several moments is among the interruptions."""
    command = [sys.executable, "-m", "bench", "run", "--aug", "none", "--model", "resnet8"]
    command += ["--seeds", "9", "--epochs", "3", "--no-tracking", "--threads", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    records = tmp_path / "results/records.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (records.exists() and records.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping after the current step" in stderr
    assert "the same command continues" in stderr
    done = len(records.read_text().splitlines())
    assert 1 <= done < 9
    result = bench("run", "--aug", "none", "--model", "resnet8", "--seeds", str(done), "--epochs",
                   "3", "--no-tracking")  # fmt: skip
    assert f"{done} of {done} runs already had results" in result.stderr


def test_list_names_everything() -> None:
    import attacks
    import augmentations

    for what, names in {
        "augmentations": list(augmentations.BUILTIN),
        "attacks": list(attacks.BUILTIN),
        "data": ["digits", "photos", "cifar10"],
        "models": ["resnet18", "wrn-28-10"],
        "guides": ["attack", "everywhere"],
        "experiments": ["table1", "figure8"],
    }.items():
        rows = json.loads(bench("list", what, "--json").stdout)
        assert set(names) <= {row["name"] for row in rows}
        assert bench("list", what).stdout.count("\n") >= len(names)


@pytest.mark.slow
def test_the_tracker_shows_parents_and_children(tmp_path: Path) -> None:
    small = [word for word in SMALL if word != "--no-tracking"]
    result = bench("run", "--aug", "none", "--aug", "cutout", "--seeds", "2", *small)
    assert result.exit_code == 0, result.output
    import sqlite3

    with sqlite3.connect(tmp_path / "results/mlflow.db") as database:
        kinds = database.execute(
            "select value, count(*) from tags where key = 'bench.kind' group by value"
        ).fetchall()
        metrics = {row[0] for row in database.execute("select distinct key from latest_metrics")}
    assert dict(kinds) == {"cell": 2, "seed": 4}
    assert {"accuracy_mean", "accuracy_low", "accuracy_high", "accuracy"} <= metrics
