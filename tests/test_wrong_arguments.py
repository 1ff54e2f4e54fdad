"""What is typed wrong, from Python and at a terminal: one line that says what to give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from augmentations import AdvMask
from bench.cli import main
from bench.errors import Missing
from bench.execution.workspace import Workspace
from bench.models import pretrained
from bench.records.record import Record
from bench.records.store import Store
from bench.studies import estimates
from bench.studies.jobs import Job
from bench.studies.jobs import weights as weights_of
from bench.training.recipes import Recipe


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


REFUSED = {
    "bench.compare([Cutout])": "Cutout is a class: give an object, such as Cutout(), or a name",
    "bench.compare(Cutout)": "Cutout is a class: give an object, such as Cutout(), or a name",
    "bench.compare([5])": "5 is no augmentation: give a name, such as 'cutout', or an object",
    "bench.compare('none', model=nn.Linear(2, 2))": "model is an object of Linear: give the name",
    "bench.compare('none', model=[nn.Flatten()])": "model is an object of Flatten: give the name",
    "bench.compare('none', data=nn.Flatten())": "data is an object of Flatten: give its images",
    "bench.compare('none', seeds=2.5)": "seeds is 2.5: give a number of seeds, such as 5, or a",
    "bench.compare('none', seeds=[0.5])": "seeds is [0.5]: give a number of seeds, such as 5, or",
    "bench.compare('advmask', guides='randm')": "there is no guide 'randm': did you mean 'random'?",
    "bench.compare('none', seeds=-1)": "seeds is -1: give a number of seeds, such as 5, or a",
    "bench.compare('none', seeds=10**12)": "there are more than 10000 seeds: give fewer",
    "bench.compare('none', seeds=range(10**12))": "there are more than 10000 seeds: give fewer",
    "bench.compare('none', threads=0)": "threads is 0: it must be at least 1",
    "bench.compare('none', epochs=1.5)": "epochs is 1.5: it must be a whole number",
    "bench.compare('none', epochs='1')": "epochs is '1': it must be a whole number",
    "bench.compare('advmask', guides=3)": "guides is an object of int: give the name of a guide",
    "bench.compare('none', points=JSMA())": "points is an object of JSMA: give the name of an",
    "bench.compare('none', training={'epochs': 1})": "give an object of bench.TrainingOptions",
    "bench.compare('none', execution='ray')": "give an object of bench.ExecutionOptions",
    "bench.find_points(None, 'digits', execution='ray')": "an object of bench.ExecutionOptions",
    "bench.find_points(None, 'digits', attack=JSMA)": "JSMA is a class: give an object, JSMA()",
    "bench.find_points(None, 'digits', attack=3)": "int is not an attack: it must be a dataclass",
    "bench.find_points(None, 'digits', eps='1/2')": "eps is '1/2': it must be a number, such as",
    "bench.evaluate_attacks('jsma', execution='ray')": "an object of bench.ExecutionOptions",
    "bench.evaluate_attacks('jsma', seeds='3')": "seeds is '3': give a number of seeds, such as",
    "bench.evaluate_attacks('jsma', seeds=10**12)": "there are more than 10000 seeds: give fewer",
    "bench.evaluate_attacks('jsma', batch_size='3')": "batch_size is '3': it must be a whole",
    "bench.evaluate_attacks('jsma', batch_size=1.5)": "batch_size is 1.5: it must be a whole",
    "bench.evaluate_attacks('jsma', query_cap='a')": "query_cap is 'a': it must be a whole",
    "bench.evaluate_attacks('jsma', model=nn.Flatten(), images=np.ones(3), labels=torch.ones(1))": (
        "images are a ndarray: give a tensor"
    ),
    "bench.evaluate_attacks('jsma', model=nn.Flatten(), images=torch.ones(1), labels=[0])": (
        "labels are a list: give a tensor"
    ),
    "bench.TrainingOptions(learning_rate='x')": "learning_rate is 'x': it must be a number",
    "bench.ExecutionOptions(jobs=-1)": "jobs is -1: it must be at least 1",
    "bench.ExecutionOptions(executor='processes', jobs=0)": "jobs is 0: it must be at least 1",
    "bench.ExecutionOptions(workers=0)": "workers is 0: it must be at least 1",
    "bench.ExecutionOptions(executor='ray', gpus=-1.0)": "gpus is -1.0: it must be at least 0",
    "bench.ExecutionOptions(executor='ray', gpus=np.nan)": "gpus is nan: it must be at least 0",
    "bench.ExecutionOptions(executor='ray', deadline=np.nan)": "deadline is nan: it must be above",
    "bench.ExecutionOptions(executor='ray', deadline=0)": "deadline is 0: it must be above 0",
    "JSMA()(nn.Flatten(), [[[[0.5]]]], None)": "images are no tensor: give a float tensor of shape",
    "JSMA()(nn.Flatten(), torch.ones(3, 8, 8), None)": "images are of shape (3, 8, 8): give a",
    "JSMA()(nn.Flatten(), torch.ones(1, 1, 2, 2), [0])": "labels are a list: give a tensor of",
    "JSMA(eps='8/255')": "eps is '8/255': it must be a number, such as 8 / 255",
    "bench.ExecutionOptions(executor='proceses')": "no executor 'proceses': did you mean 'process",
}


def without_type_checks(code: str, folder: Path) -> str:
    """What a program prints; unlike in this process, its arguments are not checked by their types.

    Args:
        code: The program after the imports.
        folder: Where it runs.
    """
    start = (
        "import bench, numpy as np, torch; from torch import nn\n"
        "from attacks import JSMA; from augmentations import Cutout\n"
    )
    words = [sys.executable, "-c", start + code]
    return subprocess.run(words, check=True, cwd=folder, capture_output=True, text=True).stdout


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    code = (
        f"for each in {list(REFUSED)}:\n"
        "    try: eval(each); print('accepted')\n"
        "    except ValueError as error: print(error)\n"
        "    except Exception as error: print(repr(error))\n"
    )
    for line, (asked, text) in zip(
        without_type_checks(code, tmp_path).splitlines(), REFUSED.items(), strict=True
    ):
        assert text in line, asked


@pytest.mark.slow
def test_integers_of_numpy_are_integers_and_a_guide_may_stand_alone(tmp_path: Path) -> None:
    code = (
        "common = dict(data='digits(train=40, test=20)', model='resnet8', epochs=np.int64(1),\n"
        "    threads=np.int32(1), quiet=True, tracking=bench.TrackingOptions(no_tracking=True))\n"
        "one = bench.compare('none', seeds=np.int64(1), **common)\n"
        "two = bench.compare('none', seeds=[np.int64(0), np.int64(7)], **common)\n"
        "alone = bench.compare('advmask', seeds=1, guides='everywhere', **common)\n"
        "print([r.seed for s in (one, two, alone) for r in s.records])\n"
    )
    assert without_type_checks(code, tmp_path) == "[0, 0, 7, 0]\n"


def test_a_file_of_weights_that_is_not_there_is_told_with_what_is_accepted(tmp_path: Path) -> None:
    for name in ("net.py:make", "gone.safetensors"):
        with pytest.raises(Missing, match=r"there is no file of weights .*--pretrained also takes"):
            pretrained.check(tmp_path / name)


@pytest.mark.parametrize("name", ["whole.pt", "text.safetensors", "empty.pt", "folder"])
def test_what_is_no_file_of_weights_is_refused_by_a_dry_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    path = str(tmp_path / name)
    text = {
        "whole.pt": "holds no plain weights: save them with torch.save(model.state_dict(), FILE)",
        "text.safetensors": "is not a safetensors file",
        "empty.pt": "is empty: give a safetensors or .pt file of weights",
        "folder": "is a folder: give a safetensors or .pt file of weights",
    }[name]
    network = ("--model", "resnet8")
    for words in (
        ("run", "--aug", "none", *network, "--pretrained", path),
        ("attack-eval", "--data", "digits", "--victim", path),  # before the model is asked for
        ("attack-eval", "--data", "digits", "--victim", path, *network),
        ("points", "build", "--victim", path, *network),
    ):
        done = typed(*words, "--dry-run", "--results", str(tmp_path / "r"))
        assert done.exit_code == 2
        assert done.stderr.startswith(f"Error: {path} {text}")
        assert len(done.stderr.splitlines()) == 1
        assert "weights_only" not in done.stderr  # torch's advice is to load it in spite of all


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("plan", "--methods", "3", "--output", "x.gif"),
            "--methods, --output need --calibrate: add it, or remove --methods, --output (see",
        ),
        (("plan", "--results", "folder"), "folder has no runs; start a pilot"),
        (("tables", "--results", "net.py"), "net.py is a file: give the folder of results"),
        (
            ("run", "--data", "digits(train=nan)"),
            "cannot read 'digits(train=nan)': 'nan' is not a value",
        ),
        (
            ("run", "--data", "my digits (2)(train=1, train=2)"),
            "'my digits (2)(train=1, train=2)' gives train twice",
        ),
        (("run", "--data", "/dev/null"), "/dev/null is neither a folder nor a zip: give"),
        (("run", "--data", "empty.zip"), "empty.zip is empty: give a zip archive"),
        (("run", "--data", "text.zip"), "text.zip is not a zip archive\n"),
        (("run", "--data", "hf:"), "--data hf: has no name: write it as hf:NAME or wds:PATTERN"),
        (("run", "--data", "wds:"), "--data wds: has no name: write it as hf:NAME or wds:PATTERN"),
        (("run", "--model", "net.py"), "'net.py': write net.py:FACTORY, with the function that"),
        (("run", "--model", "folder"), "timm:NAME and FILE.py:FACTORY\n"),
        (("run", "--model", "timm:"), "'timm:': name one of timm.list_models()"),
        (("run", "--model", "timm:zzz"), "'timm:zzz': name one of timm.list_models()"),
        (("run", "--model", "timm:resnet19"), "did you mean timm:resnet1"),
        (("run", "--mix", "cutmix(alpha=-1)"), "no options: write cutmix for cutmix(alpha=-1)"),
        (("run", "--aug", "has(share='a')"), "option share is 'a': it must be a number or Ramp("),
        (("run", "--aug", "advmask(length=3)"), "option length is 3: it must be several values"),
        (("run", "--aug", "cutout(points='sek')"), "points is 'sek': it must be 'ignore'"),
        (("run", "--aug", "gridmask(ratio=0)"), "ratio is 0.0: it must be above 0 and below 1"),
        (
            ("points", "import", "net.py", "--name", "random"),
            "--name random is a built-in guide: choose another name",
        ),
        (
            ("points", "import", "net.py", "--name", "a b"),
            "--name 'a b' is no name: take up to 64 of A-Z a-z 0-9 - _ ., a letter or digit first",
        ),
        (
            ("attack-eval", "--data", "digits", "--targeted", "--attack", "sparsefool"),
            "sparsefool: it is untargeted: leave SparseFool or the target out",
        ),
        (("judge", "missing"), "there is no folder missing of adversarial images: --prepare makes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_refusal_is_about_what_was_typed(
    words: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty.zip").touch()
    for name in ("text.zip", "net.py"):
        Path(name).write_text("make = 3")
    done = typed(*words)
    assert text in done.stderr
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_baseline_without_runs_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    stored(tmp_path)
    done = typed("plan", "--baseline", "bogus", "--results", str(tmp_path))
    assert done.exit_code == 2
    assert "no run is called 'bogus': there are: none" in done.stderr


def test_an_archive_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    stored(tmp_path / "results")
    done = typed("export", "/proc/x.zip", "--results", str(tmp_path / "results"))
    assert done.stderr == "Error: No such file or directory: /proc/x.zip\n"


def test_the_cost_names_what_comes_before_runs_with_points() -> None:
    job = Job(Recipe(data="digits", model="resnet8", epochs=1, augmentation=AdvMask()), 0)
    said = estimates.cost([job], [], "cpu")
    assert "the training of the victim model and the search for adversarial points not" in said


@pytest.mark.parametrize(
    "words", [("--tracking-uri", "sqlite:///x.db"), ("--log-weights",), ("--system-metrics",)]
)
def test_tracking_options_without_tracking_are_refused(words: tuple[str, ...]) -> None:
    done = typed("run", "--no-tracking", "--dry-run", *words)
    assert done.exit_code == 2
    assert f"{words[0]} has no effect on --no-tracking; remove it" in done.stderr


def stored(folder: Path) -> None:
    """The record of a run on Fashion-MNIST, and a file for its weights."""
    recipe = Recipe(data="fashion-mnist", model="resnet8", epochs=1)
    record = Record(
        kind="run", key=recipe.key, seed=0, metrics={"accuracy": 0.5}, job=recipe.to_json(),
        labels={"augmentation": "none", "model": "resnet8", "data": "fashion-mnist"},
    )  # fmt: skip
    Store(folder).add(record)
    path = weights_of(record, Workspace(results=folder))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")


@pytest.mark.parametrize("chosen", [("--data", "digits"), ("--model", "resnet18")])
def test_what_is_there_is_named_where_nothing_fits(chosen: tuple[str, str], tmp_path: Path) -> None:
    stored(tmp_path)
    for words, text in (
        (("occlusion",), "there is no trained network of"),
        (("plan", "--difference", "1"), "has no runs of"),
    ):
        done = typed(*words, *chosen, "--results", str(tmp_path))
        assert done.exit_code == 2
        assert text in done.stderr
        assert f"{chosen[1]}: there are fashion-mnist / resnet8" in done.stderr


@pytest.mark.parametrize("command", ["figures", "occlusion"])
def test_help_says_what_is_taken_without_a_dataset(command: str) -> None:
    shown = " ".join(typed(command, "--help").output.split())
    assert "[default: every dataset with records]" in shown
