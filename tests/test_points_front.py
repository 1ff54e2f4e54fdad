"""Ways to make points are compared on images that no estimator has seen, cost for cost."""

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from test_fast_points import FEW, Ridge, few

from attacks.advmask_published import PublishedAdvMask
from bench.cli import main
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.points import blocks, fast, front
from bench.points.find import Search
from bench.points.front import Entry, Front
from bench.points.predicting import Fast
from bench.reporting import image_grid, plots, points_front


def entry(label: str, passes: float, found: float) -> Entry:
    return Entry(
        label=label, passes=float(passes), seconds=0.001, points=8.0, found=found, near=1.0,
        right=found, chance=0.1, broken={"4/255": 0.5, "8/255": 1.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Front, Path]:
    place, data = tmp_path_factory.mktemp("front"), few()
    workspace = Workspace(results=place)
    workspace.adopt(data)
    search = Search.of(data, workspace, Ridge(), FEW)
    return front.measure(search, data, workspace, Silent(), 20), place


def test_the_front_is_what_nothing_beats() -> None:
    entries = [
        entry("exact", 900, 1.0),
        entry("dear", 900, 0.5),
        entry("good", 50, 0.5),
        entry("cheap", 2, 0.3),
        entry("worse", 2, 0.2),
        entry("between", 10, 0.3),
        entry("free", 0, 0.1),
    ]
    best = {each.label for each in front.marked(entries) if each.best}
    assert best == {"good", "cheap", "free"}


def test_every_way_is_measured_on_the_same_images(measured: tuple[Front, Path]) -> None:
    found = {each.label: each for each in measured[0].entries}
    assert found["exact"].found == found["exact"].right == 1
    assert found["exact"].passes >= 883 + 2
    assert found["exact in 20 steps"].passes < found["exact in 100 steps"].passes < 885
    assert found["random"].passes == found["corners"].passes == 0
    assert found["one gradient"].passes == 2
    assert found["3 gradients"].passes == 6
    assert found["predicted"].passes > found["predicted"].training_passes + 7
    # the exact points are among eight pixels of 64, which the victim model's gradient shows
    assert found["one gradient"].found > 0.4 > 0.3 > found["random"].found
    assert found["saliency"].broken["8/255"] >= found["random"].broken["8/255"]
    for each in found.values():
        assert each.broken["8/255"] >= each.broken["4/255"]


def test_a_step_breaks_an_image_where_its_points_are_and_nowhere_else() -> None:
    """The score of `Ridge` is at most 8·(136/255 - 1/2), and a step lowers it by eps per point."""
    data, ids = few(), torch.arange(40)
    judge = front.Judge(Ridge(), data, ids, "cpu")
    nowhere = torch.zeros(40, 8, 8, dtype=torch.bool)
    assert judge.broken(nowhere) == {"4/255": 0.0, "8/255": 0.0}
    everywhere = ~nowhere
    logits = Ridge()(data.train.images[ids].float() / 255)[:, 0].abs()
    expected = {f"{n}/255": float((logits < 8 * n / 255).double().mean()) for n in (4, 8)}
    assert judge.broken(everywhere) == pytest.approx(expected, abs=1e-6)


def test_a_finished_comparison_attacks_nothing_again(
    measured: tuple[Front, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, place = measured
    data, workspace = few(), Workspace(results=place)
    workspace.adopt(data)
    monkeypatch.setattr(blocks, "attack_images", lambda *given: pytest.fail("attacked again"))
    search = Search.of(data, workspace, Ridge(), FEW)
    again = front.measure(search, data, workspace, Silent(), 20)
    for one, other in zip(first.entries, again.entries, strict=True):
        assert dataclasses.replace(one, seconds=0.0) == dataclasses.replace(other, seconds=0.0)


def test_no_image_was_seen_by_the_estimator() -> None:
    data, how = few(), Fast.read(FEW)
    seen = torch.cat(fast.examples(data, how)).tolist()
    ids = front.unseen(data, how, 20).tolist()
    assert len(set(seen)) == 32
    assert len(set(ids)) == 20
    assert not set(ids) & set(seen)
    with pytest.raises(ValueError, match=r"has seen all 96 images of few: give fewer --examples"):
        front.unseen(data, Fast(examples=1000, check=8), 20)


def test_the_table_and_the_figure_show_every_way(measured: tuple[Front, Path]) -> None:
    table = points_front.table(measured[0])
    assert [row.label for row in table.rows] == [each.label for each in measured[0].entries]
    panel = points_front.panel(measured[0])
    assert {line.label for line in panel.lines} > {"predicted", "random", "Pareto front"}
    assert all(place >= 1 for line in panel.lines for place, _ in line.points)
    assert plots.draw([panel], "png").startswith(b"\x89PNG")


def test_the_gallery_has_a_column_for_each_way(measured: tuple[Front, Path]) -> None:
    shown = image_grid.front_images(few(), measured[0], 5)
    assert len(shown) == 1 + len(measured[0].entries)
    assert {len(column) for column in shown.values()} == {5}
    exact = measured[0].masks["exact"][:5]
    assert torch.equal(shown["exact"][:, 0] == 1.0, exact)
    assert exact.any()


def test_a_figure_of_an_unknown_kind_is_refused_before_anything_is_attacked(tmp_path: Path) -> None:
    options = ["--data", "digits", "--output", str(tmp_path / "front.jpeg")]
    done = CliRunner().invoke(
        main, ["points", "compare", *options, "--results", str(tmp_path / "r")]
    )
    assert done.exit_code == 2
    assert "end its name with .png, .pdf or .svg" in done.stderr
    assert not (tmp_path / "r").exists()


def test_the_gallery_marks_the_points_of_the_exact_attack() -> None:
    data, attack = few(), PublishedAdvMask()
    shown = image_grid.exact_images(data, Ridge(), attack, 3)
    ids = torch.tensor([0, 47, 95])  # at even distances
    exact = blocks.attack_images(Ridge(), data, ids, attack, "cpu").guide()[:, 0]
    assert exact.any()
    assert torch.equal(shown[:, 0] == 1.0, exact)  # red; an image at half its brightness is not
