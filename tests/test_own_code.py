"""Networks, augmentations and attacks of a user's own, from files and packages."""

import json
import os
import pickle
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

import bench
from bench import registry
from bench.cli import main
from bench.errors import Missing
from bench.files import code
from bench.models import networks, weight_files
from bench.studies.designs import Design

NETWORK = """
from torch import nn

def make(classes, channels=3):
    first = nn.Conv2d(channels, 4, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3),
                         nn.Linear(16, classes))

def plain(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def none(classes):
    return None

def narrow(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def broken(classes):
    return nn.Linear(5, classes)

def nothing():
    return nn.Identity()

number = 3
"""

METHODS = """
import torch
from dataclasses import dataclass
from typing import ClassVar
from attacks import BaseAttack
from augmentations import Ramp

@dataclass(frozen=True)
class Left:
    wants: ClassVar[str | None] = None
    columns: int = 2
    share: Ramp = Ramp(1.0)
    fill: str = "mean"

    @classmethod
    def preset(cls, data, side):
        return cls(columns=side // 4)

    def mask(self, images, generator, guide=None):
        b, _, h, w = images.shape
        return (torch.arange(w) < self.columns).view(1, 1, 1, w).expand(b, 1, h, w)

@dataclass(frozen=True)
class Needy:
    columns: int
    def mask(self, images, generator, guide=None):
        return images

@dataclass(frozen=True)
class Grey(BaseAttack):
    unit: ClassVar[str] = "pixels"
    eps: float | None = 8 / 255
    def passes(self, shape):
        return 1
    def _attack(self, model, images, goal, generators):
        grey = images + (0.5 - images).clamp(-(self.eps or 1), self.eps or 1)
        return torch.where(goal.reached(model(images))[:, None, None, None], images, grey)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two files of a user's own."""
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "mine.py").write_text(METHODS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    monkeypatch.setattr(code, "_objects", {})
    monkeypatch.setattr(code, "_sources", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


SMALL = ("--data", "digits(train=80, test=20)", "--epochs", "1", "--no-tracking", "--quiet")


@pytest.mark.slow
def test_a_run_takes_a_network_and_an_augmentation_from_files(folder: Path) -> None:
    words = ["run", "--model", "net.py:make", "--aug", "mine.py:Left(columns=3)", "--seeds", "2"]
    done = typed(*words, *SMALL)
    assert done.exit_code == 0, done.output
    lines = (folder / "results/records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    network, method = networks.admit("net.py:make"), code.admit("mine.py:Left")
    assert [record["model"] for record in records] == [network] * 2
    assert records[0]["hyperparameters"] == f"{method}(columns=3)"
    assert records[0]["job"]["model"] == network
    assert str(folder) not in "".join(lines)
    again = typed(*words, *SMALL[:-1])
    assert "2 of 2 runs already had results" in again.output
    (folder / "net.py").write_text(NETWORK + "# changed\n")
    planned = typed(*words, *SMALL, "--dry-run")
    assert "0 of 2 runs are done" in planned.output
    assert networks.admit("net.py:make") != network
    for words in (["tables", "--format", "text"], ["tables", "coverage"], ["list", "runs"]):
        shown = typed(*words)
        assert shown.exit_code == 0, shown.output
        assert "net.py:make" in shown.output


@pytest.mark.slow
def test_other_processes_find_what_a_user_named(folder: Path) -> None:
    words = ["run", "--model", "net.py:make", "--aug", "mine.py:Left", "--seeds", "2", *SMALL]
    here = typed(*words)
    there = typed(*words, "--executor", "processes", "--jobs", "1", "--threads", "1",
                  "--results", "other")  # fmt: skip
    assert here.exit_code == there.exit_code == 0, there.output
    found = []
    for name in ("results", "other"):
        lines = (folder / name / "records.jsonl").read_text().splitlines()
        found.append(sorted((r["key"], r["seed"], r["accuracy"]) for r in map(json.loads, lines)))
    assert found[0] == found[1]


@pytest.mark.slow
def test_dropout_of_ones_own_network_repeats_itself(folder: Path) -> None:
    state = torch.get_rng_state()
    found = [
        bench.compare(
            "none", data="digits(train=80, test=20)", model="net.py:make", seeds=1, epochs=2,
            results=folder / name, quiet=True, tracking=bench.TrackingOptions(no_tracking=True),
        ).records[0]
        for name in ("one", "two")
    ]  # fmt: skip
    curves = [[entry["loss"] for entry in record.curve or []] for record in found]
    assert curves[0] == curves[1]
    assert torch.equal(torch.get_rng_state(), state)


def attacked(folder: Path, *words: str) -> Result:
    """An attack on images of two classes of one colour each, which a linear network tells apart."""
    for part in ("train", "test"):
        for kind, shade in (("dark", 122), ("light", 130)):
            (folder / "images" / part / kind).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                image = Image.new("L", (8, 8), shade + number)
                image.save(folder / "images" / part / kind / f"{number}.png")
    return typed("attack-eval", "--data", "images", "--images", "4", "--no-tracking", *words)


VICTIM = """
import torch
from torch import nn

def trained(classes):
    assert classes == 2
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([-1.0, 1.0])[:, None].expand(2, 192))
        network[1].bias.copy_(torch.tensor([96.0, -96.0]))
    return network

def drifting(classes):
    import random
    network = trained(classes)
    with torch.no_grad():
        network[1].bias.fill_(random.random())
    return network
"""


@pytest.mark.slow
def test_an_attack_takes_a_network_of_ones_own_and_an_attack_too(folder: Path) -> None:
    (folder / "victim.py").write_text(VICTIM)
    done = attacked(folder, "--victim", "victim.py:trained", "--attack", "sigma-zero",
                    "--attack", "mine.py:Grey", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)["records"]
    assert [record["correct"] for record in records] == [1.0, 1.0]
    assert [record["success"] > 0 for record in records] == [True, False]
    victim = records[0]["victim"]
    assert victim.startswith("victim.py:trained@")
    weights = networks.build(victim.split()[0], classes=2, channels=3, side=8, mean=[0.0] * 3,
                             std=[1.0] * 3, seed=0)  # fmt: skip
    assert len(victim.split()[1]) == 12
    torch.save({"state_dict": weights.network.state_dict()}, folder / "weights.pt")
    (folder / "arch.py").write_text(VICTIM.replace("96.0", "1.0"))
    again = attacked(folder, "--victim", "weights.pt", "--model", "arch.py:trained", "--attack",
                     "sigma-zero", "--json")  # fmt: skip
    assert again.exit_code == 0, again.output
    record = json.loads(again.stdout)["records"][0]
    assert record["success"] == records[0]["success"]
    assert record["l0_pixels_mean"] == records[0]["l0_pixels_mean"]


def test_weights_that_a_factory_draws_anew_are_refused(folder: Path) -> None:
    (folder / "victim.py").write_text(VICTIM)
    done = attacked(folder, "--victim", "victim.py:drifting", "--attack", "sigma-zero")
    assert done.exit_code == 2
    assert "gives other weights each time: let it load them from a file, or seed" in done.output


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        ("run --model gone.py:make", 4, "there is no file gone.py\n"),
        ("run --model gone_package:make", 4, "there is no package 'gone_package' here: install"),
        ("run --model net.py:made", 2, "net.py has no 'made'; it has: nn, make, plain"),
        ("run --model net.py:number", 2, "is not a factory: it is called with classes=10"),
        ("run --model net.py:none", 2, "gave a NoneType: it must give an nn.Module"),
        ("run --model net.py:narrow", 2, "gave (2, 3) for 2 images: it must give logits of shape"),
        ("run --model net.py:broken", 2, "failed on images of shape (2, 1, 8, 8): RuntimeError"),
        ("run --model net.py:nothing", 2, "failed when it was called with classes=10: TypeError"),
        ("run --model net.py:make@00000000", 2, "net.py has changed: its content is"),
        (
            "run --aug net.py:make",
            2,
            "is not an augmentation: it must be a dataclass with a method",
        ),
        ("run --aug mine.py:Needy", 2, "give each of its fields a default"),
        ("run --aug mine.py:Left(rows=2)", 2, "has no option 'rows'; it has: columns, fill, share"),
        ("run --aug wrong.py:Left", 2, "wrong.py cannot be loaded: SyntaxError"),
        ("run --model broken.nets:make", 2, "broken.nets cannot be loaded: RuntimeError: no GPU"),
        ("attack-eval --attack mine.py:Left", 2, "is not an attack: it must be a dataclass with"),
        ("attack-eval --victim net.py:plain --mean 0.5", 2, "normalises them itself; remove them"),
        ("attack-eval --victim net.py:plain --model resnet8", 2, "--model resnet8 has no effect"),
        ("attack-eval --victim timm:resnet999", 2, "no network is called 'timm:resnet999'"),
    ],
)
def test_what_is_wrong_with_own_code_is_one_line(
    folder: Path, words: str, exit_code: int, text: str
) -> None:
    (folder / "wrong.py").write_text("class Left:\n  def mask(\n")
    (folder / "broken").mkdir()
    (folder / "broken" / "__init__.py").write_text("raise RuntimeError('no GPU')\n")
    command, option, *values = words.split()
    options = [option, " ".join(values[:1]), *values[1:]]
    done = typed(command, *options, *SMALL[:2], "--no-tracking", "--quiet")
    assert text in done.output
    assert done.exit_code == exit_code
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ('fill: str = "mean"', 'fill: str = "blue"', "Left: fill is 'blue': choose 'mean' or"),
        (
            "share: Ramp = Ramp(1.0)",
            "share: float = 1.0",
            "Left: share is 1.0: write it as Ramp(1.0)",
        ),
        (
            "expand(b, 1, h, w)",
            "expand(b, 3, h, w)",
            "Left: its mask is torch.bool of shape (70, 3, 8, 8): return torch.bool of shape (70, ",
        ),
        (
            "expand(b, 1, h, w)",
            "expand(b, 1, h, w).float()",
            "Left: its mask is torch.float32 of shape (70, 1, 8, 8): return torch.bool of shape",
        ),
        (
            "return (torch",
            "return None and (torch",
            "Left: its mask is NoneType: return torch.bool",
        ),
    ],
)
@pytest.mark.parametrize("wants", ["None", '"saliency"'])
def test_what_draws_no_masks_is_refused_in_one_line(
    folder: Path, before: str, after: str, text: str, wants: str
) -> None:
    assert before in METHODS
    methods = METHODS.replace(before, after)
    if wants != "None":  # then masks are drawn in the training loop, batch by batch
        methods = methods.replace("wants: ClassVar[str | None] = None", f"wants = {wants}")
        text = text.replace("(70, ", "(64, ")
    (folder / "mine.py").write_text(methods)
    done = typed("run", "--aug", "mine.py:Left", "--model", "net.py:make", *SMALL)
    assert text in done.output
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_an_augmentation_without_a_fill_is_refused_in_one_line(folder: Path) -> None:
    (folder / "mine.py").write_text(METHODS.replace('    fill: str = "mean"\n', ""))
    words = ["run", "--aug", "mine.py:Left", "--model", "net.py:make", *SMALL]
    run = subprocess.run(  # without the type checks of the tests
        [sys.executable, "-m", "bench", *words],
        env=os.environ | {"PYTHONPATH": str(Path(bench.__file__).parents[1])},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr == "Error: Left has no fill: give it a field fill: str = 'mean', or 'noise'\n"


def test_a_package_beside_the_user_is_found_and_named_with_its_content(folder: Path) -> None:
    (folder / "my_nets_7").mkdir()
    (folder / "my_nets_7/__init__.py").write_text("")
    (folder / "my_nets_7/small.py").write_text(NETWORK)
    name = networks.admit("my_nets_7.small:make")
    assert name == f"my_nets_7.small:make@{networks.admit('net.py:make').partition('@')[2]}"
    assert networks.admit(name) == name


def test_a_name_in_a_record_is_never_imported(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('executed')")
    for name in ("evil.py:make", "evil:make", "evil.py:make@12345678"):
        with pytest.raises(ValueError, match="no network is called"):
            networks.check(name)
        with pytest.raises(ValueError, match="there is no augmentation"):
            registry.build("augmentations", f"{name}(width=2)")
    assert "evil" not in sys.modules


def test_an_object_of_a_file_travels_as_a_pickle_once_its_file_is_adopted(folder: Path) -> None:
    text = registry.admit("augmentations", "mine.py:Left(columns=1)")
    method = registry.build("augmentations", text)
    assert registry.express(method) == text
    assert pickle.loads(pickle.dumps(method)) == method
    (source,) = code.sources()
    code._objects.clear()
    code.adopt([source])
    assert code.find(source.text) is type(method)
    (folder / "mine.py").write_text(METHODS + "#")
    code._objects.clear()
    with pytest.raises(ValueError, match=r"mine\.py has changed"):
        code.adopt([source])
    (folder / "mine.py").unlink()
    with pytest.raises(Missing):
        code.adopt([source])


def test_the_hyperparameters_of_a_dataset_are_those_of_its_preset(folder: Path) -> None:
    design = Design(augmentations=("mine.py:Left",), data="digits", models=("net.py:make",))
    assert registry.build("augmentations", str(design.augmentations[0]), data="x", side=32) == (
        registry.build("augmentations", f"{design.augmentations[0]}(columns=8)")
    )


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "parallel"])
def test_a_state_dict_is_read_however_it_was_saved(tmp_path: Path, wrap: str) -> None:
    own = Weights().state_dict()
    saved: dict[str, Any] = {
        "plain": own,
        "parallel": {f"module.{name}": each for name, each in own.items()},
    }.get(wrap, {wrap: own, "epoch": 3})
    torch.save(saved, tmp_path / "weights.pt")
    found = weight_files.state_dict(tmp_path / "weights.pt")
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_nothing_in_a_file_of_weights_is_executed(tmp_path: Path) -> None:
    torch.save(Weights(), tmp_path / "whole.pt")  # a pickle of a class
    with pytest.raises(ValueError, match=r"save them with torch\.save\(model\.state_dict") as error:
        weight_files.state_dict(tmp_path / "whole.pt")
    assert "\n" not in str(error.value)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no plain weights"):
        weight_files.state_dict(tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match="holds no plain weights"):
        weight_files.state_dict(tmp_path / "text.pt")


def test_a_package_can_add_a_network(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "added_nets_3.py").write_text(NETWORK.replace("def plain", "def plain_"))
    monkeypatch.syspath_prepend(folder)
    entry = EntryPoint("mine", "added_nets_3:make", "bench.models")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] * (group == entry.group))
    assert "mine" in networks.names()
    networks.check("mine")
    made = networks.build("mine", classes=3, channels=1, side=8, mean=[0.5], std=[2.0], seed=0)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(made.eval()(images), made.network(images))  # it normalises by itself
    monkeypatch.setitem(networks.NETWORKS, "mine", networks.NETWORKS["resnet8"])
    with pytest.raises(
        ValueError, match=r"^two models are named 'mine': added_nets_3:make and another; rename"
    ):
        networks.names()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("group", ["augmentations", "attacks", "models"])
def test_a_plug_in_that_fails_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, group: str, folder: Path
) -> None:
    entry = EntryPoint("lost", f"no_such_package_{group}:Lost", f"bench.{group}")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] * (group == entry.group))
    done = typed("list", group)
    assert done.exit_code == 0
    (line,) = [line for line in done.stderr.splitlines() if "no_such_package" in line]
    assert re.match(f"Warning: the plug-in 'lost' .*bench.{group}.* is left out", line)


@pytest.mark.slow
def test_a_plug_in_that_fails_is_named_in_one_line_of_the_command(tmp_path: Path) -> None:
    about = tmp_path / "lost_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lost-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bench.augmentations]\nlost = lost_plugin:Lost\n")
    run = subprocess.run(
        [sys.executable, "-m", "bench", "list", "augmentations"],
        env={"PYTHONPATH": f"{Path(bench.__file__).parents[1]}:{tmp_path}", "PATH": ""},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "cutout" in run.stdout
    (line,) = run.stderr.splitlines()
    assert line.startswith("Warning: the plug-in 'lost' (lost_plugin:Lost, in the group bench.aug")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["augmentations", "attacks"])
def test_a_folder_of_the_same_name_is_said_to_be_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    run = subprocess.run(
        [sys.executable, "-m", "bench", "list", "augmentations"],
        env={"PYTHONPATH": str(Path(bench.__file__).parents[1]), "PATH": ""},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith(
        f"Error: {tmp_path / name} is in the way of bench's own package '{name}'"
    )
