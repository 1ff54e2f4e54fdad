"""Occlusion hides what it says, the same for every network, and is tested once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.data import catalog
from bench.data.splits import Split
from bench.models import networks
from bench.models.weight_files import save_weights
from bench.records.record import Record
from bench.robustness import occlusion
from bench.training import trained
from bench.training.recipes import Recipe

GREY = torch.tensor([0.5])


class Bright(nn.Module):
    """Class 1 where the sum of the pixels, counted with weights, exceeds a limit."""

    def __init__(self, weights: Tensor, limit: float) -> None:
        super().__init__()
        self.weights, self.limit = weights, limit

    def forward(self, images: Tensor) -> Tensor:
        total = (images * self.weights).sum((1, 2, 3))
        return torch.stack([self.limit - total, total - self.limit], 1)


def split(count: int = 40, side: int = 16) -> Split:
    """White images of class 1."""
    return Split(
        torch.full((count, 1, side, side), 255, dtype=torch.uint8),
        torch.ones(count, dtype=torch.int64),
    )


@pytest.mark.parametrize(("h", "w"), [(8, 8), (32, 32), (64, 64), (28, 28)])
@pytest.mark.parametrize("share", occlusion.SHARES)
def test_cells_cover_the_share(h: int, w: int, share: float) -> None:
    mask = occlusion.cells(torch.arange(30), share, h, w).float()
    even = h % 8 == 0
    assert mask.shape == (30, 1, h, w)
    assert float(mask.mean()) == pytest.approx(share, abs=0.5 / 64 if even else 0.03)


def test_cells_are_squares_of_4_pixels_where_the_side_is_32() -> None:
    mask = occlusion.cells(torch.arange(5), 0.3, 32, 32).float()
    means = nn.functional.avg_pool2d(mask, 4)
    assert set(means.unique().tolist()) == {0.0, 1.0}


def test_masks_grow_and_depend_on_the_image_alone() -> None:
    ids = torch.arange(20)
    small, large = (occlusion.cells(ids, share, 16, 16) for share in (0.2, 0.5))
    assert not bool((small & ~large).any())
    assert torch.equal(occlusion.cells(ids.flip(0), 0.2, 16, 16).flip(0), small)
    assert not torch.equal(small[0], small[1])


def test_the_most_important_pixels_are_those_with_the_highest_scores() -> None:
    scores = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = occlusion.most_important(scores, 0.25)
    assert mask.flatten(1).sum(1).tolist() == [16] * 6
    for score, hidden in zip(scores, mask, strict=True):
        assert float(score[hidden].min()) >= float(score[~hidden].max())


def test_a_network_that_counts_pixels_fails_where_the_count_says() -> None:
    # white is 1 and the fill 0.5, so a share s leaves 256 (1 - s / 2); it fails below 256 * 0.77
    network = Bright(torch.ones(1, 16, 16), 256 * 0.77).eval()
    curve = occlusion.curve(network, split(), mean=GREY)
    assert [entry["share"] for entry in curve] == list(occlusion.SHARES)
    assert [entry["random"] for entry in curve] == [1.0] * 5 + [0.0] * 4
    assert [entry["important"] for entry in curve] == [1.0] * 5 + [0.0] * 4


def test_hiding_what_matters_hurts_more_than_hiding_at_random() -> None:
    weights = torch.zeros(1, 16, 16)
    weights[:, :4, :4] = 1.0  # one sixteenth of the image decides
    curve = occlusion.curve(Bright(weights, 15.9).eval(), split(200), mean=GREY)
    random = [entry["random"] for entry in curve]
    # four cells of 64 decide, and the network fails as soon as one of them is hidden
    assert curve[1]["important"] == 0.0
    assert random[0] == 1.0
    assert random == sorted(random, reverse=True)
    assert random[1] == pytest.approx(0.65, abs=0.1)


def test_the_area_is_the_mean_accuracy() -> None:
    curve = [{"share": 0.0, "random": 1.0}, {"share": 0.5, "random": 0.2}]
    assert occlusion.area(curve, "random") == pytest.approx(0.6)


def stored(results: Path, seed: int = 0) -> Record:
    """A record of an untrained network whose weights lie where a run leaves them."""
    data = catalog.load("digits")
    recipe = Recipe(data="digits", model="resnet8")
    record = Record(
        kind="run", key=recipe.key, seed=seed, labels={"data": "digits", "model": "resnet8"},
        metrics={"accuracy": 0.1}, job=recipe.to_json(),
    )  # fmt: skip
    network = networks.build(
        "resnet8", classes=10, channels=1, side=8, mean=data.mean, std=data.std, seed=5 + seed
    )
    save_weights(network, trained.path(record, results), {"data": data.digest})
    return record


@pytest.mark.slow
def test_a_stored_network_is_tested_once_and_again_when_its_weights_change(tmp_path: Path) -> None:
    data = catalog.load("digits")
    record = stored(tmp_path)
    assert occlusion.stored_curve(record, tmp_path) == []
    first, before = occlusion.evaluate(record, data, tmp_path)
    assert not before
    assert len(first) == len(occlusion.SHARES)
    assert occlusion.stored_curve(record, tmp_path) == first
    assert occlusion.evaluate(record, data, tmp_path) == (first, True)
    weights = trained.path(record, tmp_path)
    weights.write_bytes(trained.path(stored(tmp_path, 1), tmp_path).read_bytes())
    second, before = occlusion.evaluate(record, data, tmp_path)
    assert not before
    assert second != first


def test_a_kept_file_that_cannot_be_right_is_passed_over(tmp_path: Path) -> None:
    record = stored(tmp_path)
    file = trained.path(record, tmp_path).with_suffix(".occlusion.json")
    whole = {"version": 1, "curve": [{"share": 0.0, "random": 7.0, "important": 0.5}]}
    for content in ("{", "[]", '{"curve": 3}', json.dumps(whole)):
        file.write_text(content)
        assert occlusion.stored_curve(record, tmp_path) == []


def test_weights_of_other_images_are_refused(tmp_path: Path) -> None:
    data = catalog.load("digits")
    record = stored(tmp_path)
    network = trained.load(record, data, tmp_path)
    assert not network.training
    save_weights(network, trained.path(record, tmp_path), {"data": "other"})
    with pytest.raises(ValueError, match="was trained on other, but digits is now"):
        trained.load(record, data, tmp_path)
