"""What ``bench speed`` prints beside what."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench.cli import main
from bench.data import catalog
from bench.models import networks, weight_files


@pytest.mark.slow
def test_attacks_stand_beside_their_passes_and_beside_the_first(tmp_path: Path) -> None:
    data, weights = catalog.load("digits"), tmp_path / "victim.safetensors"
    network = networks.build(
        "resnet8", classes=10, channels=1, side=8, mean=data.mean, std=data.std, seed=0
    )
    weight_files.save_weights(network, weights, {})
    given = ["speed", "attacks", "--json", "--quiet", "--results", str(tmp_path), "--images", "3"]
    given += ["--victim", str(weights), "--rounds", "2"]
    given += ["--attack", "sigma-zero(steps=3)", "--attack", "advmask(steps=3)"]
    printed = CliRunner().invoke(main, given, catch_exceptions=False).stdout
    whole, steps = json.loads(printed).values()
    names = ["sigma-zero(steps=3)", "advmask(steps=3)"]
    assert [rate["name"] for rate in whole] == [rate["name"] for rate in steps] == names
    assert all(rate["ratio"] > 1 for rate in whole)  # an attack takes longer than its passes
    assert steps[0]["ratio"] == pytest.approx(1)
    # three backward passes of an image: the same time, told in thousands
    assert steps[0]["per_second"] == pytest.approx(3 * whole[0]["per_second"] / 1000)


def test_the_limit_of_an_epoch_has_the_multiplications_of_a_training_step() -> None:
    from bench.speed import epochs

    network = networks.build(
        "resnet8", classes=10, channels=3, side=16, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0
    )
    images = torch.rand(4, 3, 16, 16)
    with FlopCounterMode(display=False) as step:
        functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 3])).backward()
    limit = epochs.products(network, images, torch.float32, 3)
    with FlopCounterMode(display=False) as alone:
        limit(0)
    assert alone.get_total_flops() == 3 * step.get_total_flops()
