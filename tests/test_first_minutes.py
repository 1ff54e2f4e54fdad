"""What a newcomer types first, and what goes wrong: one line, the value, the remedy."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from bench import registry
from bench.cli import main
from bench.execution import machine
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.points import find
from bench.records.record import Record
from bench.records.store import Store
from bench.registry import express
from bench.reporting import commands
from bench.studies import comparison, estimates, status
from bench.studies.designs import Design, TrainingOptions
from bench.studies.jobs import Job, describe
from bench.training import victims
from bench.training.recipes import Precision, Recipe


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "--gpus", "1"], "--gpus 1.0 has no effect on --executor local; remove it, or add"),
        (["run", "--address", "a:1"], "--address a:1 has no effect on --executor local"),
        (
            ["status", "--results", "gone"],
            "there is no results folder gone; bench run",
        ),
        (
            ["plan", "--difference", "1", "--results", "gone"],
            "there is no results folder gone; bench run",
        ),
        (["list", "runs"], "there is no results folder results; bench run and bench.compare"),
        (["plan", "--difference", "0"], "0 is not a number of percentage points above 0 and below"),
        (["run", "--within", "nan"], "nan is not a number of percentage points above 0 and below"),
        (["run", "--points", "seek"], "no option --points: what a method does with adversarial"),
        (["run", "--epochs", "0"], "epochs is 0: it must be at least 1"),
        (["speed", "masks", "--rounds", "9"], "--rounds has no effect on speed masks; remove it"),
        (["status", "--no-tracking"], "--no-tracking has no effect on status without --reap"),
        (["status", "--reap", "--no-tracking"], "--no-tracking has no effect on status --reap"),
        (["run", "--aug", "cutout", "--guide", "random"], "--guide random has no effect on what"),
        (["run", "--aug", "cutout", "--points-from", "jsma"], "--points-from jsma has no effect"),
        (["run", "--seeds", "3", "--seed-list", "1,2"], "--seeds has no effect on --seed-list"),
        (["attack-eval", "--seeds", "2", "--seed", "3"], "--seeds has no effect on --seed; remove"),
        (["speed", "start", "--device", "cuda:9"], "--device has no effect on speed start"),
        (["speed", "growth", "--threads", "7"], "--threads has no effect on speed growth"),
        (["speed", "masks", "--data", "cifar100"], "--data has no effect on speed masks; remove"),
        (["run", "--data", ""], "--data is empty: give the name or the path of a dataset"),
        (["occlusion", "--results", "gone"], "there is no results folder gone; bench run"),
        (["figures", "differences", "--results", "gone"], "there is no results folder gone; bench"),
        (["figures", "figure8", "--results", "gone"], "there is no results folder gone; bench run"),
    ],
)
def test_an_option_without_effect_and_a_missing_folder_are_refused(
    words: list[str], text: str, tmp_path: Path
) -> None:
    done = typed(*words)
    assert done.exit_code == 2
    assert text in done.output
    assert len(done.output.splitlines()) == 1
    if words[0] in ("status", "list", "plan"):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bad_numbers_are_refused_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from bench.cli import main; "
        "assert CliRunner().invoke(main, ['run', '--epochs', '0']).exit_code == 2; "
        "assert not {'torch', 'mlflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["list", "runs"], ["tables"], ["export", "x.zip"]])
def test_who_only_reads_records_does_without_torch(words: list[str], tmp_path: Path) -> None:
    """Its import takes seconds and 500 MB."""
    one = Record(
        kind="run", key="0" * 12, seed=0, metrics={"accuracy": 0.5}, job={},
        labels={"augmentation": "none", "model": "resnet8", "data": "digits"},
    )  # fmt: skip
    Store(tmp_path).add(one)
    code = (
        "import sys; from click.testing import CliRunner; from bench.cli import main; "
        f"done = CliRunner().invoke(main, {[*words, '--results', str(tmp_path)]!r}); "
        "assert done.exit_code == 0, done.output; "
        "assert not {'torch', 'mlflow', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SMALL = ("--model", "resnet8", "--data", "digits(train=60, test=20)", "--no-tracking")


@pytest.mark.slow
def test_runs_say_their_cost_and_method_and_tables_refuse_other_baselines() -> None:
    run = ["run", "--aug", "cutout", "--seeds", "1", "--epochs", "1", *SMALL]
    planned = typed(*run, "--dry-run")
    assert "1 runs, 0 done, 1 to run: about" in planned.stderr
    done = typed(*run)
    assert "1 runs, 0 done, 1 to run: about" in done.stderr
    assert "1 runs, 1 done, 0 to run: about 0 s on cpu" in typed(*run, "--dry-run").stderr
    search = "the search for adversarial points not counted"
    assert search not in planned.stderr
    guided = typed("run", "--aug", "advmask", "--data", "digits(train=60)", "--dry-run")
    assert search in guided.stderr
    for words in (["tables"], ["tables", "differences"], ["tables", "quality"]):
        refused = typed(*words, "--baseline", "cutuot")
        assert refused.exit_code == 2
        assert "no run is called 'cutuot': did you mean 'cutout" in refused.output


def test_a_failed_run_is_still_to_be_done(tmp_path: Path) -> None:
    job = Job(Recipe(data="digits(train=60, test=20)", model="resnet8", epochs=1), 0)
    record = describe(job, Workspace(results=tmp_path))
    for status_, count in (("failed", 0), ("finished", 1)):
        made = replace(record, status=status_, metrics={"seconds": 1.0, "epochs": 1})
        text = estimates.cost([job], [made], "cpu")
        assert f"1 runs, {count} done, {1 - count} to run" in text


def test_an_interrupted_training_names_the_command_that_continues_it(tmp_path: Path) -> None:
    workspace = Workspace(results=tmp_path / "results")
    design = Design(
        augmentations=("cutout",), data="digits", models=("resnet8",), seeds=(3,),
        training=TrainingOptions(epochs=7),
    )  # fmt: skip
    (job,) = design.jobs(workspace)
    folder = workspace.cache / "checkpoints" / f"{job.recipe.key}-3"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")
    assert "the same command continues it" in str(status.status_of(workspace.results))
    about = {"recipe": job.recipe.to_json(), "seed": 3}
    (folder / "job.json").write_text(json.dumps(about))
    command = commands.run(job.recipe, [3])
    assert "--epochs 7 --seed-list 3" in command
    entry = {"epoch": 1, "loss": 2.0, "test_accuracy": 0.5, "seconds": 1.0, "test_seconds": 1.0}
    for curve, done in (({}, 0), ({"curve": [entry, entry | {"epoch": 2}]}, 2)):
        (folder / "checkpoint.json").write_text(json.dumps(curve))
        assert (
            f"interrupted: cutout, resnet8, digits, seed 3: {done} of 7 epochs done; "
            f"this continues it: {command}"
        ) in str(status.status_of(workspace.results)).splitlines()
    with FileLock(workspace.cache / "locks" / f"{folder.name}.lock"):
        found = status.status_of(workspace.results)
    assert "running: cutout, resnet8, digits, seed 3: 2 of 7 epochs done" in str(found).splitlines()
    assert found.to_json()["running"] == [folder.name]


def test_the_command_for_an_empty_cell_has_the_points_and_the_training_of_its_row(
    tmp_path: Path,
) -> None:
    def record(**fields: Any) -> Record:
        recipe = Recipe(**({"data": "digits", "model": "resnet8", "padding": 1} | fields))
        return describe(Job(recipe, 0), Workspace(results=tmp_path))

    advmask = registry.build("augmentations", "advmask", data="digits", side=8)
    own = find.chosen_attack("digits")
    elsewhere = [record(model="resnet20")]
    usual = commands.fill(record(augmentation=advmask, points=own), elsewhere)
    assert "--aug advmask --model resnet20" in usual
    assert "--points-from" not in usual
    sparse = commands.fill(record(augmentation=advmask, points="jsma"), elsewhere)
    assert "--points-from jsma" in sparse
    robust = commands.fill(record(robust="sparse-at(k=2)"), elsewhere)
    assert robust.startswith("bench train-robust --method 'sparse-at(k=2)' --model resnet20")
    # points that are their dataset's own become the other dataset's own
    other = commands.moved(record(augmentation=advmask, points=own), [record(data="photos")])
    assert other.points == find.chosen_attack("photos") != own


def test_an_estimate_is_from_runs_of_the_same_kind(tmp_path: Path) -> None:
    workspace = Workspace(results=tmp_path)

    def made(seconds: float, device: str = "cpu", **fields: Any) -> Record:
        recipe = Recipe(**({"data": "digits", "model": "resnet8", "epochs": 2} | fields))
        found = describe(Job(recipe, 0), workspace)
        machine = {**found.machine, "device": device}
        return replace(found, metrics={"seconds": seconds, "epochs": 2}, machine=machine)

    plain = made(4.0)
    others = [
        made(400.0, robust="sparse-at"),
        made(0.1, device="NVIDIA H100"),
        made(90.0, precision="bfloat16"),
    ]
    wanted = [Job(Recipe(data="digits", model="resnet8", epochs=2), seed) for seed in (1, 2)]
    assert estimates.seconds(wanted, [plain, *others], "cpu") == 8.0
    assert estimates.seconds(wanted, [*others, plain], "cuda") == pytest.approx(0.2)
    assert ", one after the other" in estimates.cost(wanted, [plain], "cpu")
    assert "one after" not in estimates.cost(wanted[:1], [plain], "cpu")


def test_the_estimate_of_an_adversarial_training_counts_the_steps_of_its_attack() -> None:
    plain = Recipe(data="digits(train=600, test=300)", model="resnet8", epochs=2)
    attacked = replace(plain, robust="linf-at(steps=3)")
    image = estimates.operations_per_image("resnet8", plain.data)
    more = estimates.operations(Job(attacked, 0)) - estimates.operations(Job(plain, 0))
    # three steps an image and epoch, and four times as many for each test image at the end
    assert more == pytest.approx(image * (2 * 3 * 600 + 4 * 3 * 300))


def test_what_is_asked_for_anew_is_planned_as_to_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for seed in (0, 1):
        job = Job(Recipe(data="digits", model="resnet8", epochs=1, padding=1), seed)
        store.add(replace(describe(job, Workspace(results=tmp_path)), metrics={"accuracy": 0.5}))
    asked = ["run", "--aug", "none", "--model", "resnet8", "--epochs", "1", "--seeds", "2"]
    done = typed(*asked, "--dry-run")
    again = typed(*asked, "--fresh", "--dry-run")
    assert "0 of 2 runs are done" in again.stdout
    assert again.stdout.count("to run") == 2
    assert done.exit_code == again.exit_code == 0


@pytest.mark.slow
def test_no_advice_is_given_whose_runs_are_done_already() -> None:
    typed("run", "--aug", "none", "--seeds", "1", "--epochs", "1", *SMALL, "--quiet")
    typed("run", "--aug", "none", "--aug", "cutout", "--seeds", "1", "--epochs", "2", *SMALL,
          "--quiet")  # fmt: skip
    typed("run", "--aug", "cutout", "--seeds", "1", "--epochs", "2", "--model", "resnet8",
          "--data", "digits(train=80, test=20)", "--no-tracking", "--quiet")  # fmt: skip
    shown = typed("tables", "--format", "text")
    missing = [line for line in shown.output.splitlines() if line.startswith("missing: ")]
    assert missing
    for line in missing:
        if "bench run" in line:
            words = line.partition("bench run ")[2]
            planned = typed("run", *shlex.split(words), "--dry-run", "--no-tracking")
            assert "1 runs, 0 done" in planned.stderr, line


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


FASTER, SLOW = "--precision bfloat16 trains 1.3", "--precision float32 trains several times"


@pytest.mark.parametrize(
    ("epochs", "precision", "convolves", "computes", "named"),
    [
        (2000, "float32", True, True, [FASTER]),
        (2000, "float32", True, False, []),
        (2000, "bfloat16", False, False, [SLOW]),
        (2000, "bfloat16", True, False, []),
        (2, "float32", True, True, []),
        (2, "bfloat16", False, False, []),
    ],
)
def test_a_faster_number_format_is_named_where_time_matters(
    epochs: int, precision: Precision, convolves: bool, computes: bool, named: list[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "convolves_bfloat16", lambda: convolves)
    monkeypatch.setattr(machine, "computes_bfloat16", lambda: computes)
    recipe = Recipe(data="digits", model="resnet8", epochs=epochs, padding=1, precision=precision)
    told = Told()
    comparison.describe([Job(recipe, 0)], Workspace(results=tmp_path, device="cpu"), told)
    assert [each for each in (FASTER, SLOW) if each in "".join(told.lines)] == named


def test_progress_and_lists_name_all_of_a_method_as_tables_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(victims, "PASSES", 2000)  # a victim model that is soon trained will do
    around = ["--mix", "cutmix", "--policy", "trivialaugment"]
    small = ["--data", "digits(train=60, test=20)", "--model", "resnet8", "--seeds", "1"]
    once = [*small, "--epochs", "1", "--no-tracking", "--threads", "1"]
    for words, name in (
        (["cutout", *around], "cutout + trivialaugment + cutmix"),
        (["none", *around], "trivialaugment + cutmix"),
        (["advmask + random"], "advmask + random"),
    ):
        said = typed("run", "--aug", *words, *once).stderr
        assert re.search(rf"^{re.escape(name)}, resnet8, seed 0: \d+\.\d\d%", said, re.MULTILINE)
        told = typed("list", "runs").output.splitlines()[-1]
        about = f"  {name}, resnet8, digits(train=60, test=20), seed 0: accuracy "
        assert re.search(rf"^\w+-0{re.escape(about)}\d+\.\d\d%$", told)
        row = typed("tables", "--format", "csv").output
        assert name in row


def test_a_list_of_runs_tells_attacks_apart_and_says_why_a_run_failed(tmp_path: Path) -> None:
    job = Job(Recipe(data="digits(train=60, test=20)", model="resnet8", epochs=1), 4)
    record = describe(job, Workspace(results=tmp_path))
    store = Store(tmp_path / "results")
    store.add(replace(record, status="failed", message="the loss is not finite"))
    attacked = {
        **{"attack": "jsma", "victim": "resnet8 0f3a", "model": "resnet8", "data": "digits"},
        **{"goal": "random", "eps": "8/255", "bounded": "yes", "role": "sparse"},
    }
    job_of_attack = {"images": 8}
    store.add(
        replace(
            record,
            kind="attack",
            seed=1,
            labels=attacked,
            metrics={"success": 0.125},
            job=job_of_attack,
        )
    )
    assert [line.split("  ", 1)[1] for line in typed("list", "runs").output.splitlines()] == [
        "none, resnet8, digits(train=60, test=20), seed 4: failed, the loss is not finite",
        "jsma, eps 8/255, targeted (random), resnet8 0f3a, 8 images of digits, seed 1: "
        "success 12.50%",
    ]


def test_a_guide_named_with_an_augmentation_is_its_own_alone(tmp_path: Path) -> None:
    """What a table calls "advmask + random" can be typed, beside methods with other guides."""
    workspace = Workspace(results=tmp_path)
    wanted = (
        "none",
        "keepaugment",
        "advmask",
        "advmask + random",
        "advmask(length=(2, 4))  +  saliency",
    )
    for guides, usual in (((), None), (("corners",), "corners")):
        design = Design(augmentations=wanted, data="digits(train=60)", guides=guides)
        found = [
            (express(each.augmentation).split("(")[0], each.guide)
            for each in design.recipes(workspace)
        ]
        assert found == [
            ("none", None),
            ("keepaugment", usual),
            ("advmask", usual),
            ("advmask", "random"),
            ("advmask", "saliency"),
        ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cutout + random", "cutout(length=4) uses no guide: leave out + random"),
        ("advmask + rndom", "there is no guide 'rndom': did you mean 'random'?"),
        ("advmsk + random", "there is no augmentation 'advmsk': did you mean 'advmask'?"),
    ],
)
def test_a_wrong_guide_of_an_augmentation_is_refused(name: str, text: str) -> None:
    done = typed("run", "--aug", "none", "--aug", name, "--data", "digits(train=60)")
    assert done.exit_code == 2
    assert text in done.output
    assert len(done.output.splitlines()) == 1
