"""`bench attack-eval`, `bench tables attacks` and `bench figures attacks` as a user sees them."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

import attacks
from attacks import Goal
from attacks.base import Streams
from bench.cli import main
from bench.data import catalog
from bench.models import networks, weight_files
from bench.records.store import Store
from bench.training import victims

pytestmark = pytest.mark.slow

TWO = ("--attack", "sigma-zero(steps=20)", "--attack", "pgd(steps=5)")


class Weighted(nn.Module):
    """Digits by a linear rule that was fitted in closed form."""

    def __init__(self) -> None:
        super().__init__()
        train = catalog.load("digits").train
        images = train.images.float().flatten(1) / 255
        design = torch.cat([images, torch.ones(len(images), 1)], 1).double()
        answers = nn.functional.one_hot(train.labels).double()
        gram = design.T @ design + 0.1 * torch.eye(design.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, design.T @ answers).float()
        self.linear = nn.Linear(weights.shape[0] - 1, weights.shape[1])
        self.linear.load_state_dict({"weight": weights[:-1].T, "bias": weights[-1]})

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits


@dataclass(frozen=True)
class Aimless:
    """Cannot aim; leaves everything as it is."""

    eps: float | None = 8 / 255
    calls: ClassVar[list[int]] = []

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        if goal.targeted:
            raise ValueError("there is no targeted form: choose --untargeted")
        self.calls.append(len(images))
        return images.clone()


@dataclass(frozen=True)
class Free(Aimless):
    """Has no eps: blackens the image where that helps."""

    @property
    def bounded(self) -> bool:
        return False

    def __call__(self, model: nn.Module, images: Tensor, goal: Goal, generator: Streams) -> Tensor:
        return torch.zeros_like(images)


@pytest.fixture(autouse=True)
def _few_attacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    network = Weighted().eval()
    monkeypatch.setattr(victims, "obtain", lambda *_: network)
    few = {name: attacks.BUILTIN[name] for name in ("sigma-zero", "pgd", "noise", "jsma")}
    before = dict(attacks.BUILTIN)
    attacks.BUILTIN.clear()
    attacks.BUILTIN.update(few, aimless=Aimless, free=Free)
    Aimless.calls.clear()
    yield
    attacks.BUILTIN.clear()
    attacks.BUILTIN.update(before)


def bench(results: Path, *arguments: str) -> Result:
    command, *rest = arguments
    tracked = ("--no-tracking", "--data", "digits") if command == "attack-eval" else ()
    if "--data" in rest:
        tracked = tracked[:1]
    return CliRunner().invoke(main, [command, *rest, *tracked, "--results", str(results)])


def objects(result: Result) -> dict[str, list[dict[str, object]]]:
    assert result.exit_code == 0, result.output
    found: dict[str, list[dict[str, object]]] = json.loads(result.stdout)
    return found


def test_the_table_and_the_records_agree(tmp_path: Path) -> None:
    whole = objects(
        bench(tmp_path, "attack-eval", *TWO, "--images", "20", "--eps", "0.2", "--json")
    )
    assert [record["attack"] for record in whole["records"]] == [
        "sigma-zero(steps=20)",
        "pgd(steps=5)",
    ]
    stored = {record.labels["attack"]: record for record in Store(tmp_path).all()}
    for entry in whole["table"]:
        record = stored[str(entry["attack"])]
        success = entry["success"]
        assert isinstance(success, dict)
        assert success["mean"] == record.metrics["success"]
        assert success["low"] == record.metrics["success_low"]
        assert record.labels["eps"] == "1/5"
        assert record.metrics["linf_max"] <= 0.2 + 1e-6
    assert stored["pgd(steps=5)"].labels["role"] == "ceiling"
    assert stored["sigma-zero(steps=20)"].metrics["success"] > 0.2


def test_a_second_run_attacks_nothing_and_says_so(tmp_path: Path) -> None:
    asked = ("attack-eval", "--attack", "aimless", "--untargeted", "--images", "10")
    first, second = bench(tmp_path, *asked), bench(tmp_path, *asked)
    assert Aimless.calls == [1, 10, 1]  # one image each asks whether the attack applies
    assert "stored before" in second.stderr
    assert first.stdout == second.stdout
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1
    bench(tmp_path, *asked, "--fresh")
    assert Aimless.calls[3:] == [1, 10]


def test_all_attacks_run_and_those_that_cannot_are_said(tmp_path: Path) -> None:
    result = bench(tmp_path, "attack-eval", "--images", "8", "--eps", "0.3", "--target", "next")
    assert result.exit_code == 0, result.output
    assert "Not applicable: aimless: there is no targeted form" in result.stderr
    for name in ("sigma-zero", "jsma", "pgd", "noise", "free (ignores eps)"):
        assert name in result.stdout
    free = next(r for r in Store(tmp_path).all() if r.labels["attack"] == "free")
    assert free.labels["bounded"] == "no"
    assert "optimality" not in free.metrics


def test_images_lie_beside_the_blocks(tmp_path: Path) -> None:
    bench(tmp_path, "attack-eval", *TWO[:2], "--images", "9")
    (grid,) = (tmp_path / "attacks").glob("*/images.png")
    assert grid.read_bytes().startswith(b"\x89PNG")


def test_several_eps_and_seeds_give_intervals(tmp_path: Path) -> None:
    asked = ("--eps", "0.1", "--eps", "0.3", "--seeds", "3", "--images", "12")
    whole = objects(bench(tmp_path, "attack-eval", *TWO[:2], *asked, "--json"))
    assert len(whole["records"]) == 6
    assert [entry["eps"] for entry in whole["table"]] == ["1/10", "3/10"]
    success = whole["table"][1]["success"]
    assert isinstance(success, dict)
    assert success["n"] == 3
    text = bench(tmp_path, "attack-eval", *TWO[:2], *asked)
    assert "95 % t-interval over n = 3 seeds" in " ".join(text.stdout.split())


def test_each_seed_has_a_victim_of_its_own_where_it_is_trained_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    network = Weighted().eval()

    def obtain(
        recipe: object, workspace: object, progress: object, stop: object, seed: int
    ) -> object:
        trained.append(seed)
        return network

    monkeypatch.setattr(victims, "obtain", obtain)
    asked = ("attack-eval", "--attack", "pgd(steps=5)", "--images", "6")
    assert bench(tmp_path, *asked, "--seeds", "2").exit_code == 0
    assert trained == [0, 1]
    file = weights(tmp_path / "theirs.safetensors")
    theirs = ("--victim", str(file), "--model", "resnet8", "--images", "4", "--seeds", "2")
    assert bench(tmp_path, *asked[:3], *theirs).exit_code == 0
    assert trained == [0, 1]


def test_a_dry_run_does_nothing(tmp_path: Path) -> None:
    jobs = objects(bench(tmp_path, "attack-eval", *TWO, "--dry-run", "--json"))["jobs"]
    assert [job["done"] for job in jobs] == [False, False]
    assert not (tmp_path / "attacks").exists()
    assert "0 of 2 attacks are done" in bench(tmp_path, "attack-eval", *TWO, "--dry-run").stdout


def test_a_dry_run_says_when_nothing_is_missing(tmp_path: Path) -> None:
    asked = ("attack-eval", "--images", "4", "--eps", "0.3", "--targeted")  # aimless cannot
    assert bench(tmp_path, *asked).exit_code == 0
    assert bench(tmp_path, *asked, "--dry-run").stdout.endswith("5 of 5 attacks are done\n")


def test_a_dry_run_says_which_attacks_a_run_repeats_for_their_images(tmp_path: Path) -> None:
    assert bench(tmp_path, "attack-eval", *TWO).exit_code == 0
    shutil.rmtree(next((tmp_path / "attacks").iterdir()))
    said = bench(tmp_path, "attack-eval", *TWO, "--dry-run").stdout
    assert f"the images of 1 of them are not in {tmp_path}: a run repeats them" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attack", "jsam"), "there is no attack 'jsam': did you mean 'jsma'?"),
        (("--attack", "pgd(step_count=3)"), "pgd has no option 'step_count'; it has:"),
        (("--attack", "pgd(eps=0.5)"), "the eps of pgd(eps=0.5) differs from --eps 8/255"),
        (
            ("--attack", "aimless", "--targeted"),
            "aimless: there is no targeted form: choose --untargeted",
        ),
        (
            ("--attack", "pgd", "--images", "100000"),
            "test images correctly; lower --images from 100000",
        ),
        (
            ("--victim", "timm:vgg11", "--model", "resnet8"),
            "--model resnet8 has no effect on --victim timm:vgg11; remove it",
        ),
        (("--mean", "0.5"), "--mean and --std need --victim"),
        (("--mean", "a,b"), "'a,b' is not a list of numbers; write it as 0.485,0.456,0.406"),
        (("--untargeted", "--target", "next"), "--target next contradicts --untargeted"),
        (("--eps", "8"), "8 is above 1; did you mean 8/255?"),
        (("--eps", "300/255"), "300/255 is above 1 (see"),
        (("--query-cap", "0"), "0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = bench(tmp_path, "attack-eval", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


def weights(path: Path, **options: int) -> Path:
    given = {"classes": 10, "channels": 1, "side": 8} | options
    mean = [0.5] * given["channels"]
    weight_files.save_weights(networks.build("resnet8", mean=mean, std=mean, seed=0, **given), path)  # type: ignore[arg-type]
    return path


def test_weights_of_others_are_attacked(tmp_path: Path) -> None:
    file = weights(tmp_path / "theirs.safetensors")
    asked = ("--victim", str(file), "--model", "resnet8", "--images", "4", "--attack", "aimless")
    result = bench(tmp_path, "attack-eval", *asked, "--mean", "0.1", "--std", "0.2", "--untargeted")
    assert result.exit_code == 0, result.output
    (record,) = Store(tmp_path).all()
    assert record.labels["victim"].startswith("resnet8 theirs.safetensors ")
    assert record.labels["victim"].endswith(" mean=0.1 std=0.2")
    assert str(tmp_path) not in json.dumps(record.to_json())


@pytest.mark.slow
def test_processes_give_the_same_records(tmp_path: Path) -> None:
    file = weights(tmp_path / "theirs.safetensors")
    asked = ("--victim", str(file), "--model", "resnet8", "--images", "4", *TWO, "--threads", "1")
    found = []
    for name, where in (("here", ()), ("there", ("--executor", "processes", "--jobs", "1"))):
        result = bench(tmp_path / name, "attack-eval", *asked, *where)
        assert result.exit_code == 0, result.output
        found.append(Store(tmp_path / name).all())
    timed = {"seconds_per_image", "pass_ratio", "peak_memory_mb"}
    here, there = (
        [{n: v for n, v in record.metrics.items() if n not in timed} for record in records]
        for records in found
    )
    assert here == there
    assert [record.name for record in found[0]] == [record.name for record in found[1]]


def test_a_file_of_weights_needs_the_name_of_its_network(tmp_path: Path) -> None:
    file = weights(tmp_path / "theirs.safetensors")
    result = bench(tmp_path, "attack-eval", "--victim", str(file), "--dry-run")
    assert result.exit_code == 2
    assert f"--victim {file} needs --model" in result.stderr


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file = weights(tmp_path / "theirs.safetensors", classes=7)
    asked = ("--victim", str(file), "--model", "resnet8", "--attack", "aimless")
    result = bench(tmp_path, "attack-eval", *asked)
    assert result.exit_code == 2
    assert "linear.weight (7, 64) for (10, 64)" in result.stderr


def test_weights_that_are_not_there_are_missing(tmp_path: Path) -> None:
    result = bench(tmp_path, "attack-eval", "--victim", "no.safetensors", "--model", "resnet8")
    assert result.exit_code == 4
    assert "there is no file of weights no.safetensors" in result.stderr


def test_a_timm_network_with_other_classes_is_refused(tmp_path: Path) -> None:
    result = bench(tmp_path, "attack-eval", "--victim", "timm:resnet18.a1_in1k")
    assert result.exit_code == 2
    assert "tells 1000 classes apart, digits has 10" in result.stderr


def test_published_numbers_of_targeted_attacks_stand_beside_no_untargeted_ones(
    tmp_path: Path,
) -> None:
    two = ("attack-eval", "--attack", "jsma.official", "--attack", "free", "--images", "8")
    bench(tmp_path, *two)
    shown = bench(tmp_path, "tables", "attacks", "--format", "markdown").stdout
    assert "**eps 8/255**" in shown
    assert "free (ignores eps)" in shown
    assert "published" not in shown
    assert "440.8" not in shown
    bench(tmp_path / "targeted", *two, "--targeted")
    aimed = bench(tmp_path / "targeted", "tables", "attacks", "--format", "markdown").stdout
    assert "published, other setting / ASR" in aimed
    assert "440.8" in aimed
    assert "not comparable" in aimed
    entries = json.loads(bench(tmp_path, "tables", "attacks", "--format", "json").stdout)
    assert {entry["attack"] for entry in entries} == {"jsma.official", "free"}
    assert "there are no runs for such a table yet" in bench(tmp_path, "tables").stderr


def test_one_metric_is_shown_over_all_victims_goals_and_eps(tmp_path: Path) -> None:
    for eps, aim in (("0.3", "--untargeted"), ("0.2", "--untargeted"), ("0.3", "--targeted")):
        bench(tmp_path, "attack-eval", *TWO, "--images", "6", "--eps", eps, aim)
    asked = ("tables", "attacks", "--metric", "l0_pixels_mean", "--format")
    shown = bench(tmp_path, *asked, "markdown").stdout.partition("\n")[0]
    head = ["untargeted / eps 1/5", "untargeted / eps 3/10", "targeted (random) / eps 3/10"]
    places = [shown.index(f"resnet8, {name}") for name in head]
    assert places == sorted(places)
    latex = bench(tmp_path, *asked, "latex").stdout
    assert r"\toprule" in latex
    assert "Pixels, mean, over the successes among 6 images" in latex
    one = bench(tmp_path, *asked, "markdown", "--eps", "1/5").stdout
    assert one.startswith("| attack               |  resnet8  |\n")
    assert "Pixels, mean, untargeted, eps 1/5, over the successes" in one
    assert "3/10" not in one
    wrong = bench(tmp_path, "tables", "attacks", "--metric", "l0_pixels")
    assert wrong.exit_code == 2
    assert "attacks have no metric 'l0_pixels': did you mean 'l0_pixels_" in wrong.stderr


def test_columns_over_unlike_many_images_say_how_many(tmp_path: Path) -> None:
    for images in ("4", "6"):
        bench(tmp_path, "attack-eval", *TWO, "--images", images, "--eps", "0.3")
    lines = csv.DictReader(
        bench(tmp_path, "tables", "attacks", "--format", "csv").stdout.splitlines()
    )
    named = {(line["table"].split(", ")[-2], line["row"]) for line in lines}
    assert named >= {("4 images", "sigma-zero(steps=20)"), ("6 images", "sigma-zero(steps=20)")}
    paper = bench(tmp_path, "tables", "attacks", "--format", "markdown").stdout
    assert paper.count("resnet8, digits, untargeted, 4 images, eps 3/10: ASR in percent") == 1
    drawn = bench(tmp_path, "figures", "attacks").stdout.splitlines()
    assert sum("untargeted-4-images" in line for line in drawn) == 2  # a PDF and a PNG
    assert sum("untargeted-6-images" in line for line in drawn) == 2
    asked = ("tables", "attacks", "--format", "markdown", "--metric")
    shown = bench(tmp_path, *asked, "success").stdout
    assert "|  resnet8, 4 images  |  resnet8, 6 images  |" in shown
    assert "Success, %, untargeted, eps 3/10, over the images" in shown
    assert "over the successes among the images" in bench(tmp_path, *asked, "l2").stdout


def test_the_figure_is_written_beside_its_records(tmp_path: Path) -> None:
    bench(tmp_path, "attack-eval", *TWO, "--images", "12", "--eps", "0.3")
    result = bench(tmp_path, "figures", "attacks")
    assert result.exit_code == 0, result.output
    written = (path.suffix for path in (tmp_path / "figures").iterdir())
    assert {".jsonl", ".pdf", ".png"} <= set(written)
    (caption,) = (tmp_path / "figures").glob("*.txt")
    assert "Share of 12 images of digits" in caption.read_text()
    assert "a single seed; bands: Wilson's 95 % interval" in caption.read_text()
    (tmp_path / "empty").mkdir()
    nothing = bench(tmp_path / "empty", "figures", "attacks")
    assert nothing.exit_code == 2
    assert "bench attack-eval makes them" in nothing.stderr


def test_every_pair_is_tested_in_pixels_and_in_elements(tmp_path: Path) -> None:
    attacks.BUILTIN["advmask"] = attacks.AdvMask
    made = ("attack-eval", "--images", "12", "--eps", "0.5", "--attack", "jsma")
    ours = ("--attack", "sigma-zero(steps=20)", "--attack", "advmask(steps=20, unit='elements')")
    whole = objects(bench(tmp_path, *made, *ours, "--json"))
    names = ("jsma", "sigma-zero(steps=20)", "advmask(steps=20, unit='elements')")
    both = {frozenset(pair) for pair in itertools.combinations(names, 2)}
    for unit in ("pixels", "elements"):
        pairs = [pair for pair in whole["pairs"] if pair["unit"] == unit]
        assert {frozenset([str(pair["attack"]), str(pair["other"])]) for pair in pairs} == both
        tested = [pair for pair in pairs if pair["p"] is not None]
        assert all(pair["p_holm"] >= pair["p"] for pair in tested)  # type: ignore[operator]
    shown = bench(tmp_path, *made, *ours)
    assert "advmask(steps=20, unit='elements') needs" in shown.stdout
    assert " elements as " in shown.stdout or " elements than " in shown.stdout


def test_budgets_are_shown_as_tables_and_as_a_figure(tmp_path: Path) -> None:
    made = ("attack-eval", "--images", "8", "--eps", "1", "--attack", "jsma")
    assert bench(tmp_path, *made, "--attack", "sigma-zero(steps=30)").exit_code == 0

    def shown(*arguments: str) -> str:
        result = bench(tmp_path, *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "k=50" in shown("tables", "changes", "--format", "markdown")
    elements = shown("tables", "passes", "--unit", "elements", "--format", "text")
    assert "median of the fewest changed elements" in elements
    assert "Untargeted, no bound, after 100 forward" in shown("tables", "passes", "--passes", "100")
    for path in shown("figures", "passes").split():
        assert Path(path).stat().st_size > 1000


RAISING = """
from dataclasses import dataclass
from attacks.base import BaseAttack

@dataclass(frozen=True)
class Raising(BaseAttack):
    eps: float | None = 0.5

    def passes(self, shape):
        return 1

    def _attack(self, model, images, goal, generators):
        raise RuntimeError("boom")

@dataclass(frozen=True)
class Idle(Raising):
    def _attack(self, model, images, goal, generators):
        return images.clone()
"""


def test_an_attack_that_raises_is_told_with_a_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(RAISING)
    asked = ("attack-eval", "--images", "2", "--eps", "0.5", "--attack")
    for more in ((), ("--json",)):
        result = bench(tmp_path, *asked, f"{tmp_path}/own.py:Raising", "--quiet", *more)
        assert result.exit_code == 3
        assert "raised; RuntimeError: boom" in result.stderr or "boom" in result.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [("Raising", "failed: RuntimeError: boom"), ("Idle", "makes no pass, of which its time could")],
)
def test_the_speed_of_an_attack_that_cannot_be_measured_is_one_line(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(RAISING)
    asked = ("speed", "attacks", "--images", "2", "--rounds", "1", "--quiet", "--model", "resnet8")
    result = bench(
        tmp_path,
        *asked,
        "--attack",
        f"{tmp_path}/own.py:{name}",
        "--data",
        "digits(train=60, test=20)",
    )
    assert result.exit_code == 2
    assert text in result.stderr
