"""What else a network is measured by: calibration, occluded and corrupted images."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.data import catalog
from bench.records.record import Record
from bench.reporting import quality_table, run_tables
from bench.reporting.cells import Row
from bench.reporting.figures import quality_figure
from bench.robustness import quality
from bench.robustness.corruptions import OPERATIONS, corrupt
from bench.robustness.occlusion import SHARES, cells
from bench.robustness.quality import calibration_error
from bench.studies.tracking import TrackingOptions


def logits_of(probabilities: list[float]) -> Tensor:
    """Logits of two classes with these probabilities of class 0."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def test_a_network_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    labels = torch.tensor([0] * 7 + [1] * 3)
    assert calibration_error(logits_of([0.7] * 10), labels) == pytest.approx(0.0)


def test_the_calibration_error_is_that_of_the_definition() -> None:
    """Two bins by hand: 0.9 with one of two right, 0.6 with both right."""
    labels = torch.tensor([0, 1, 0, 0])
    found = calibration_error(logits_of([0.9, 0.9, 0.6, 0.6]), labels)
    assert found == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_the_calibration_error_agrees_with_a_loop_over_bins() -> None:
    stream = torch.Generator().manual_seed(3)
    logits = torch.randn(500, 4, generator=stream, dtype=torch.float64)
    labels = torch.randint(4, (500,), generator=stream)
    confidence, predicted = logits.softmax(1).max(1)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            right = (predicted == labels)[inside].double().mean()
            gap = abs(float(right - confidence[inside].mean()))
            expected += float(inside.double().mean()) * gap
    assert calibration_error(logits, labels) == pytest.approx(expected)


class Blind(nn.Module):
    """Always says the same."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 10).index_fill_(1, torch.tensor([3]), 2.0)


def test_a_blind_network_has_the_closed_forms() -> None:
    data = catalog.load("digits(train=20, test=60)")
    found = quality.measure(Blind(), data)
    share = float((data.test.labels == 3).double().mean())
    assert found["accuracy_occlusion"] == found["accuracy_corruption"] == pytest.approx(share)
    norm = math.log(9 + math.exp(2))
    assert found["nll"] == pytest.approx(norm - 2 * share, rel=1e-5)
    assert found["ece"] == pytest.approx(abs(share - math.exp(2 - norm)), rel=1e-5)


def test_cells_take_a_share_for_each_image() -> None:
    ids = torch.arange(4)
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0])
    mixed = cells(ids, shares, 16, 16)
    assert mixed.flatten(1).double().mean(1).tolist() == shares.tolist()
    for row, share in enumerate(shares.tolist()):
        assert torch.equal(mixed[row], cells(ids, share, 16, 16)[row])


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_each_image_is_corrupted_by_its_index_alone(channels: int, side: int) -> None:
    stream = torch.Generator().manual_seed(0)
    size = (len(OPERATIONS), channels, side, side)
    images = torch.randint(40, 216, size, generator=stream, dtype=torch.uint8)
    ids = torch.arange(len(OPERATIONS)) + 30
    whole = corrupt(images, ids)
    assert whole.shape == images.shape
    order = torch.randperm(len(ids), generator=stream)
    assert torch.equal(corrupt(images[order], ids[order]), whole[order])
    # all kinds change something, and the same kind in another image has other random numbers
    assert (whole != images).flatten(1).any(1).all()
    later = corrupt(images, ids + len(OPERATIONS))
    noise = OPERATIONS.index("gaussian noise")
    assert not torch.equal(later[noise], whole[noise])


def test_corrupted_images_keep_their_subject() -> None:
    """No kind is so strong that an image is nearer to another than to itself."""
    data = catalog.load("photos(train=20, test=60)")
    images = data.test.images[:60]
    found = corrupt(images, torch.arange(60))

    def centred(batch: Tensor) -> Tensor:
        flat = batch.double().flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-9)

    nearest = (centred(found) @ centred(images).T).argmax(1)
    assert (nearest == torch.arange(60)).double().mean() > 0.8


@pytest.mark.slow
def test_every_run_records_what_deletion_is_said_to_buy(tmp_path) -> None:  # type: ignore[no-untyped-def]
    study = bench.compare(
        ["none"],
        data="digits(train=60, test=40)",
        model="resnet8",
        seeds=1,
        epochs=1,
        results=tmp_path,
        tracking=TrackingOptions(no_tracking=True),
        quiet=True,
    )
    metrics = study.records[0].metrics
    for name in ("accuracy_occlusion", "accuracy_corruption", "ece"):
        assert 0 <= metrics[name] <= 1
    assert metrics["nll"] > 0
    assert study.table("accuracy_occlusion").columns[0].percent
    assert len(SHARES) == 9


def made(augmentation: str, seed: int, shift: float) -> Record:
    """A finished run whose metrics follow from the seed."""
    metrics = {name: 0.5 + shift + seed / 100 for name in quality_table.NAMES}
    return Record(
        kind="run",
        key=augmentation,
        seed=seed,
        labels={"augmentation": augmentation, "model": "resnet8", "data": "digits"},
        metrics=metrics,
        job={},
        machine={},
    )


RUNS = [made("none", seed, 0.0) for seed in range(3)]
RUNS += [made("cutout", seed, [0.02, 0.021, 0.019][seed]) for seed in range(3)]


def test_the_table_has_every_metric_with_its_own_test() -> None:
    table = quality_table.quality(RUNS)
    assert [column.name for column in table.columns] == list(quality_table.NAMES.values())
    found = {column.name: table.cell(Row("cutout"), column) for column in table.columns}
    alone = run_tables.grid(RUNS, "nll")
    assert found["cross-entropy"] == alone.cell(Row("cutout"), alone.columns[0])
    assert len(table.comparisons) == len(quality_table.NAMES)


def test_the_figure_shows_what_is_gained_on_clean_occluded_and_corrupted_images() -> None:
    figure = quality_figure(RUNS)
    numbers = json.loads(json.dumps(figure.numbers))["numbers"]
    assert [each["metric"] for each in numbers] == list(quality_table.ACCURACIES)
    assert numbers[0]["gained"] == pytest.approx([0.02, 0.021, 0.019])
    assert "n = 3 seeds" in figure.caption


def test_records_without_the_metrics_are_refused_in_one_line() -> None:
    old = [replace(each, metrics={"accuracy": 0.9}) for each in RUNS]
    with pytest.raises(ValueError, match="no run was measured on occluded and corrupted images"):
        quality_table.quality(old)
