"""Coverage is evidence: what masks really delete is measured, recorded and shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from some_points import small, some
from torch import Generator, Tensor, nn

from augmentations import BUILTIN, AdvMask, Cutout, Ramp
from bench.cli import main
from bench.data import catalog, masks
from bench.data.dataset import Dataset
from bench.data.loader import Loader
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.models import networks
from bench.paper import tables
from bench.points import blocks, coverage, find
from bench.points.store import stored
from bench.records import coverage as names
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import coverage as reported
from bench.reporting import formats, run_tables
from bench.reporting.table import Table
from bench.training import victims


@pytest.fixture
def data() -> Dataset:
    return catalog.load("digits")


@dataclasses.dataclass(frozen=True)
class Fixed(AdvMask):
    """Deletes a known number of pixels of each image: the first ``areas[i]`` of image i."""

    areas: tuple[int, ...] = ()
    ratio: tuple[float, float] = (0.25, 0.5)
    length: tuple[int, int] = (2, 4)
    share: Ramp = Ramp(1.0)  # noqa: RUF009
    wants: ClassVar[str | None] = None

    @classmethod
    def preset(cls, data: str, side: int) -> Fixed:
        return cls()

    def mask(self, images: Tensor, generator: Generator, guide: Tensor | None = None) -> Tensor:
        b, _, h, w = images.shape
        mask = torch.arange(h * w)[None] < torch.tensor(self.areas)[:b, None]
        return mask.view(b, 1, h, w)


# ------------------------------------------------------------------------------ what masks delete


def test_masks_of_known_area_have_their_share_and_miss_their_bounds_as_counted() -> None:
    # of 64 pixels: 16 is the minimum, 32 the maximum, a square of 2x2 fits in up to 28
    areas = (0, 15, 16, 28, 29, 32)
    found = coverage.measure(Fixed(areas=areas), len(areas), (8, 8))
    assert found.deleted.tolist() == list(areas)
    assert found.metrics == {
        "deleted_share": pytest.approx(sum(areas) / 6 / 64),
        "masks_below_minimum": pytest.approx(2 / 6),
        "masks_at_maximum": pytest.approx(2 / 6),
    }
    assert "delete 31.2% of an image on average; 33.3% of them delete less" in str(found)


def test_an_augmentation_without_bounds_has_a_deleted_share_alone() -> None:
    # a square of 4x4 anywhere in 8x8, clipped: each axis keeps (2 + 3 + 4 * 5 + 3) / 8 = 3.5
    found = coverage.measure(Cutout(4), 4000, (8, 8))
    assert found.metrics.keys() == {"deleted_share"}
    assert found.metrics["deleted_share"] == pytest.approx((3.5 / 8) ** 2, abs=0.01)
    assert coverage.measure(Cutout(4), 4000, (8, 8)).deleted.equal(found.deleted)


def test_points_everywhere_fill_the_bounds_and_no_points_delete_nothing() -> None:
    everywhere, nowhere = torch.ones(50, 1, 32, 32), torch.zeros(50, 1, 32, 32)
    full = coverage.measure(AdvMask(), 50, (32, 32), everywhere)
    assert full.metrics["masks_below_minimum"] == 0
    assert full.warning is None
    empty = coverage.measure(AdvMask(), 50, (32, 32), nowhere)
    assert empty.metrics == {
        "deleted_share": 0,
        "masks_below_minimum": 1,
        "masks_at_maximum": 0,
    }
    assert empty.warning is not None
    assert empty.warning.startswith(
        "100 % of the masks of AdvMask delete less than its lower bound of 20 %: there are too few "
        "points, or"
    )


def test_too_many_masks_below_the_minimum_are_one_line_and_a_tenth_is_not() -> None:
    tenth = coverage.measure(Fixed(areas=(0, *[20] * 9)), 10, (8, 8))
    assert tenth.warning is None
    more = coverage.measure(Fixed(areas=(0, 0, *[20] * 8)), 10, (8, 8))
    assert more.warning is not None
    assert "\n" not in more.warning


def test_a_guide_of_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 1, 8, 8\), not \(4, 1, 8, 8\)"):
        coverage.measure(AdvMask(), 4, (8, 8), torch.ones(3, 1, 8, 8))


def test_a_guide_of_known_points_has_their_statistics() -> None:
    guide = torch.zeros(4, 1, 3, 3, dtype=torch.bool)
    guide[0], guide[1, 0, 0], guide[2, 0, 1, 1] = True, True, True
    assert coverage.of_guide(guide) == {
        "points_mean": 13 / 4,
        "points_median": 1,
        "points_least": 0,
        "points_most": 9,
        "images_without_points": 1 / 4,
    }


# --------------------------------------------------------------------------------- points carry it


class Blind(nn.Module):
    """Sees class 0 in every image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 10)
        logits[:, 0] = 1
        return logits * self.weight + 0 * images.sum()


def test_points_say_how_much_of_the_training_images_the_victim_knows(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The victim is right on the zeros alone; the images are in several blocks."""
    changed = torch.zeros(blocks.BLOCK, 8, 8, dtype=torch.bool)
    changed[:, 2, 2:5] = True

    class Paint:
        def __call__(self, model: Any, images: Tensor, goal: Any, generator: Any) -> Tensor:
            painted = images.clone()
            painted[:, :, 2, 2:5] += 0.5
            return painted

    monkeypatch.setattr(blocks.registry, "build", lambda *args, **fields: Paint())
    monkeypatch.setattr(find, "chosen_attack", lambda *args: "paint")
    monkeypatch.setattr(blocks.Goal, "reached", lambda goal, logits: torch.ones(len(logits)) > 0)
    workspace = Workspace(results=tmp_path)
    workspace.adopt(data)
    found = find.adversarial(data, workspace, Silent(), victim=Blind())
    zeros = float((data.train.labels == 0).double().mean())
    assert found.about["victim_accuracy"] == pytest.approx(zeros)
    summary = found.summary()
    assert summary["victim_accuracy"] == pytest.approx(zeros)
    assert (summary["points_least"], summary["points_most"], summary["success"]) == (3, 3, 1)
    assert coverage.of_search(found) == {
        "images_broken": 1,
        "victim_accuracy": summary["victim_accuracy"],
    }
    assert list(stored(tmp_path, data)) == ["paint"]


def test_points_of_version_0_1_have_no_victim_accuracy(data: Dataset) -> None:
    assert "victim_accuracy" not in some(data).summary()
    assert coverage.of_search(some(data)).keys() == {"images_broken"}


def test_points_show_their_coverage_and_say_when_it_is_too_small(
    data: Dataset, tmp_path: Path
) -> None:
    few = np.zeros((len(data.train.labels), 8, 8), dtype=bool)
    few[::2, 3, 3] = True
    np.savez(tmp_path / "few.npz", masks=few)
    arguments = ["points", "import", str(tmp_path / "few.npz"), "--name", "few"]
    result = CliRunner().invoke(main, [*arguments, "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "0.5 points each (median 0, from 0 to 1)" in result.stdout
    assert "masks of AdvMask delete" in result.stdout
    assert "% of the masks of AdvMask delete less than its lower bound of 20 %" in result.stderr


# ------------------------------------------------------------------------------- records carry it


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_loader_says_which_images_were_due_whether_or_not_their_mask_is_empty(
    share: float,
) -> None:
    data = small()
    loader = Loader(
        data.train, batch_size=60, seed=0, padding=0, flip=False, device="cpu",
        augmentation=Fixed(areas=(0,) * 60, share=Ramp(share)),
    )  # fmt: skip
    (batch,) = loader.epoch(0, 1.0)
    assert batch.due is not None
    assert batch.mask is not None
    assert not batch.mask.any()
    expected = {0.0: (0, 0), 0.5: (15, 45), 1.0: (60, 60)}[share]
    assert expected[0] <= int(batch.due.sum()) <= expected[1]


def run(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    common = ["--data", "digits(train=60, test=20)", "--model", "resnet8", "--seeds", "1"]
    common += ["--epochs", "2", "--results", str(tmp_path), "--no-tracking", "--json"]
    result = CliRunner().invoke(main, ["run", *arguments, *common])
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["records"]
    return found


@pytest.mark.slow
def test_a_record_has_the_coverage_of_the_masks_of_its_last_epoch(tmp_path: Path) -> None:
    points = some(small(), 0.5)
    points.save(tmp_path / "points" / "mine.safetensors")
    arguments = ["--aug", "none", "--aug", "cutout(length=8)", "--aug", "keepaugment"]
    found = run(tmp_path, *arguments, "--aug", "advmask", "--guide", "mine")
    by_name = {(each["augmentation"], each.get("guide")): each for each in found}
    assert not set(masks.NAMES) & set(by_name["none", None])
    # a square of 8x8 with its centre anywhere in 8x8: each axis keeps (4+5+6+7+8+7+6+5)/8 = 6
    assert by_name["cutout(length=8)", None]["deleted_share"] == pytest.approx(36 / 64, abs=0.1)
    advmask = by_name["advmask", "mine"]
    assert 0.1 < advmask["deleted_share"] < 0.4
    assert advmask.keys() >= {"masks_below_minimum", "masks_at_maximum"}
    counts = points.counts.double()
    assert advmask["points_mean"] == pytest.approx(float(counts.mean()))
    assert advmask["points_least"] == counts.min()
    assert advmask["points_most"] == counts.max()
    assert advmask["images_without_points"] == 0
    assert advmask["images_broken"] == 1
    for (name, _), each in by_name.items():
        if name != "advmask":
            assert "points_mean" not in each or each.get("guide") == "mine"


@pytest.mark.slow
def test_live_masks_are_counted_as_they_are_drawn(tmp_path: Path) -> None:
    (found,) = run(tmp_path, "--aug", "keepaugment(share=0.5, length=2)")
    # masks of 2x2, clipped at a border at most to 1x1; those that are not due are not counted
    assert 1 / 64 <= found["deleted_share"] <= 4 / 64
    assert found["deleted_share"] > 3 / 64
    assert "points_mean" not in found


@pytest.mark.slow
def test_a_run_below_the_minimum_says_so_once(tmp_path: Path) -> None:
    some(small(), 0.01).save(tmp_path / "points" / "few.safetensors")
    common = ["--data", "digits(train=60, test=20)", "--model", "resnet8", "--seeds", "2"]
    common += ["--epochs", "1", "--results", str(tmp_path), "--no-tracking"]
    arguments = ["run", "--aug", "advmask(share=1.0)", "--guide", "few", *common]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("of the masks of AdvMask delete less than its lower bound") == 1


# ----------------------------------------------------------------------- tables and figures show it


def record(seed: int, augmentation: str = "advmask", **metrics: float) -> Record:
    labels = {"augmentation": augmentation, "model": "resnet8", "data": "digits"}
    return Record(
        kind="run", key=augmentation, seed=seed, labels=labels, metrics={"accuracy": 0.9} | metrics
    )


def covered(seed: int, share: float) -> Record:
    return record(
        seed, deleted_share=share, masks_below_minimum=0.5, masks_at_maximum=0.25, points_mean=14
    )


def ask(*arguments: str) -> Any:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def test_records_name_what_is_measured() -> None:
    assert names.OF_MASKS == masks.NAMES


def test_a_table_has_the_mean_coverage_of_each_column_and_method(tmp_path: Path) -> None:
    for each in (covered(0, 0.2), covered(1, 0.3), record(0, "none"), record(0, "cutout")):
        Store(tmp_path).add(each)
    arguments = ["tables", "coverage", "--results", str(tmp_path), "--format"]
    (entry,) = json.loads(ask(*arguments, "json").stdout)
    assert entry == {
        "augmentation": "advmask",
        "model": "resnet8",
        "data": "digits",
        "key": "advmask",
        "source": "records",
        "n": 2,
        "deleted_share": pytest.approx(0.25),
        "masks_below_minimum": 0.5,
        "masks_at_maximum": 0.25,
        "points_mean": 14,
    }
    shown = ask(*arguments, "markdown").stdout
    assert shown.startswith("**digits / resnet8**\n")
    assert "|  below minimum  |" in shown
    assert "| advmask  |" in shown
    assert "50.00 ± 0.00" in shown
    assert "cutout" not in shown


def test_every_table_has_the_coverage_of_records_that_have_it_and_old_ones_stay() -> None:
    old = [record(seed, name) for seed in (0, 1) for name in ("none", "advmask")]
    new = [record(0, "none"), record(1, "none"), covered(0, 0.2), covered(1, 0.3)]
    for found in (run_tables.intervals(new), cells(run_tables.grid(new))):
        none, advmask = found
        assert advmask["deleted_share"] == pytest.approx(0.25)
        assert advmask["points_mean"] == 14
        assert not set(names.NAMES) & set(none)
    assert cells(run_tables.differences(new))[0]["deleted_share"] == pytest.approx(0.25)
    for found in (run_tables.intervals(old), cells(run_tables.grid(old))):
        assert not any(set(names.NAMES) & set(each) for each in found)


def cells(table: Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(formats.json(table))["cells"]
    return found


def test_a_table_of_the_paper_has_the_coverage_of_its_cells() -> None:
    experiment = tables.experiment("table1", "smoke")
    records = [
        Record(kind="run", key=recipe.key, seed=seed, labels={}, metrics=metrics)
        for recipe in experiment.cells.values()
        for seed, metrics in ((0, {"accuracy": 0.5, "deleted_share": 0.2}), (1, {"accuracy": 0.5}))
    ]
    for cell in cells(experiment.table(records)):
        assert cell["deleted_share"] == pytest.approx(0.2)


def test_without_runs_the_masks_of_every_augmentation_are_measured_on_a_dataset(
    tmp_path: Path,
) -> None:
    data = small()
    some(data, 0.4).save(tmp_path / "points" / "mine.safetensors")
    arguments = ["tables", "coverage", "--data", data.name, "--results", str(tmp_path)]
    result = ask(*arguments, "--format", "json")
    found = {entry["augmentation"]: entry for entry in json.loads(result.stdout)}
    expected = set(BUILTIN) - {"none", "keepaugment"}
    assert {name.partition(" ")[0] for name in found} == expected
    assert "keepaugment is left out: no victim model" in result.stderr
    assert {entry["n"] for entry in found.values()} == {60}
    advmask = found["advmask [mine]"]
    points = some(data, 0.4).counts.double()
    assert advmask["points_mean"] == pytest.approx(float(points.mean()))
    assert advmask["masks_below_minimum"] == 0
    assert 0.2 <= advmask["deleted_share"] <= 0.4
    # a square of 4x4 anywhere in 8x8, clipped
    assert found["cutout"]["deleted_share"] == pytest.approx((3.5 / 8) ** 2, abs=0.03)
    assert "advmask [mine]" in ask(*arguments, "--format", "text").stdout


def test_without_points_the_methods_that_want_them_are_named(tmp_path: Path) -> None:
    arguments = ["tables", "coverage", "--data", "digits(train=60, test=20)"]
    result = ask(*arguments, "--results", str(tmp_path), "--format", "json")
    assert "advmask is left out: no points of digits" in result.stderr
    assert {each["augmentation"] for each in json.loads(result.stdout)} >= {"cutout", "gridmask"}


def test_no_record_and_no_dataset_is_one_line(tmp_path: Path) -> None:
    Store(tmp_path).add(record(0))
    result = CliRunner().invoke(main, ["tables", "coverage", "--results", str(tmp_path)])
    assert result.exit_code == 2
    assert "no run says yet what its masks delete" in result.stderr


@pytest.mark.slow
def test_the_saliency_of_a_stored_victim_guides_keepaugment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, workspace = small(), Workspace(results=tmp_path)
    network = networks.build_for(data, "resnet8", seed=0).eval()
    recipe = find.points_victim(data).recipe
    assert recipe is not None
    path = victims.place(recipe, data, workspace)
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(victims, "obtain", lambda *arguments: network)
    found, _ = reported.measure(data, workspace)
    (keep,) = [each for each in found if each.name == "keepaugment"]
    assert keep.guide == "saliency"
    assert 4 / 64 <= keep.metrics["deleted_share"] <= 16 / 64


@pytest.mark.slow
def test_the_figure_shows_the_distribution_of_every_augmentation(tmp_path: Path) -> None:
    data = small()
    some(data, 0.4).save(tmp_path / "points" / "mine.safetensors")
    arguments = ["figures", "coverage", "--data", data.name, "--results", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3  # keepaugment has no saliency
    (drawn,) = (tmp_path / "figures").glob("coverage-*.json")
    whole = json.loads(drawn.read_text())
    assert "one mask on each of 60 training images" in whole["caption"]
    for each in whole["numbers"]:
        quantiles = each["quantiles"]
        assert len(quantiles) == 21
        assert quantiles == sorted(quantiles)
        assert quantiles[0] <= each["deleted_share"] <= quantiles[-1]
    assert drawn.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_a_fixed_share_is_reached_as_near_as_whole_pixels_allow() -> None:
    everywhere = torch.ones(50, 1, 32, 32)
    exact = coverage.measure(
        AdvMask(length=(1, 1), ratio=(0.2, 0.2)), 50, (32, 32), everywhere
    )  # 204.8 pixels
    assert set(exact.deleted.tolist()) == {204}
    assert exact.metrics["masks_below_minimum"] == 0
    narrow = coverage.measure(AdvMask(ratio=(0.25, 0.25)), 50, (32, 32), everywhere)
    assert narrow.warning is not None
    assert "or the option ratio is too narrow a range for its squares" in narrow.warning


def test_a_ratio_that_is_no_range_of_deleted_shares_is_left_alone() -> None:
    """As torchvision's Random Erasing has one: of the sides of its rectangle."""
    sides = dataclasses.make_dataclass(
        "Sides", [("ratio", tuple, (0.3, 3.3)), ("length", int, 4)], bases=(Cutout,), frozen=True
    )
    found = coverage.measure(sides(), 20, (8, 8))
    assert found.metrics.keys() == {"deleted_share"}
    assert found.warning is None
