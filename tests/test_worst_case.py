"""The worst case over several attacks, and verdicts that need evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planes import plane, some_images
from torch import nn

import bench
from attacks import JSMA, GreedyFool, SigmaZero
from bench.records.statistics import paired_images
from bench.reporting import formats
from bench.robustness.results import comparison_line
from bench.robustness.worst_case import _shares


@pytest.fixture(scope="module")
def study() -> bench.AttackStudy:
    model, images = plane((3, 6, 7), 3).float(), some_images((3, 6, 7), 12, seed=2, spread=0.1)
    labels = model(images.float()).argmax(1)
    attacks = [JSMA(), GreedyFool(), SigmaZero()]
    return bench.evaluate_attacks(
        attacks, model=model, images=images.float(), labels=labels, eps=0.1
    )


def test_the_last_row_is_the_worst_case_of_the_sparse_attacks(study: bench.AttackStudy) -> None:
    (worst,) = study.worst
    assert list(study.table().rows)[-1].label == "worst case"
    means = [record.metrics["l0_pixels_mean"] for record in study.records]
    assert worst.record.metrics["success"] == 1
    assert worst.record.metrics["l0_pixels_mean"] <= min(means)
    for name in ("forwards", "backwards"):
        total = sum(record.metrics[name] for record in study.records)
        assert worst.record.metrics[name] == pytest.approx(total)
    assert sum(worst.shares.values()) == pytest.approx(1)
    assert str(worst).startswith("Fewest pixels of the broken images, ties shared: ")
    lines = [line for line in formats.text(study.table()).splitlines() if line.strip()]
    last = next(line for line in reversed(lines) if "sigma-zero" in line or "worst" in line)
    assert "worst case" in last


def test_the_worst_case_is_image_by_image_and_ties_are_shared() -> None:
    pixels = np.array([[3, 1, np.inf, np.inf], [3, 2, 5, np.inf], [4, 9, 6, np.inf]])
    shares = _shares(["a", "b", "c"], pixels)
    assert shares == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert _shares(["a"], np.full((1, 2), np.inf)) == {}


class Stubborn(nn.Module):
    """Always answers class 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]) + 0 * images.flatten(1)[:, :1]


def test_without_a_success_nothing_is_bold_and_no_sentence_ranks() -> None:
    images = some_images((1, 4, 4), 3, seed=1).float()
    labels = torch.zeros(3, dtype=torch.long)
    study = bench.evaluate_attacks(
        [JSMA(), GreedyFool()], model=Stubborn(), images=images, labels=labels, eps=0.1
    )
    assert str(study.worst[0]) == ""
    assert "**" not in formats.markdown(study.table())
    assert comparison_line(study.pairs, "jsma") == ""


def test_attacks_that_never_differ_are_not_compared() -> None:
    same = paired_images(np.array([2.0, 3.0]), np.array([2.0, 3.0]))
    pairs = [{"attack": "advmask", "other": "cw-l0", **vars(same)}]
    assert comparison_line(pairs, "advmask") == ""


def test_a_single_attack_has_no_worst_case() -> None:
    model, images = plane((3, 6, 7), 3).float(), some_images((3, 6, 7), 2, seed=2).float()
    labels = model(images).argmax(1)
    study = bench.evaluate_attacks(
        [SigmaZero(steps=5)], model=model, images=images, labels=labels, eps=0.1
    )
    assert study.worst == ()
    assert [row.label for row in study.table().rows] == ["sigma-zero(steps=5)"]
