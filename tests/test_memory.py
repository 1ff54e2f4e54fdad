"""The memory of a training is said before it starts, and held."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from augmentations import Cutout
from bench.data import catalog
from bench.data.dataset import from_arrays
from bench.execution import machine
from bench.training import memory
from bench.training.recipes import Recipe

FACTORY = """
from torch import nn

def make(classes=10):
    return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * 16 * 16, classes, bias=False))
"""


def test_the_network_is_counted_as_by_hand(tmp_path: Path) -> None:
    from bench.models import networks

    (tmp_path / "net.py").write_text(FACTORY)
    images = torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8).numpy()
    labels = [0, 1] * 32
    data = from_arrays("own", images, labels, images, labels)
    model = networks.admit(f"{tmp_path / 'net.py'}:make")
    recipe = Recipe(data="own", model=model, batch_size=8, padding=0)
    pixels, weights = 16 * 16, 3 * 4 + 4 * 16 * 16 * 2
    # the normalised image, the output of ReLU, its flattened copy (it has its channels last), the
    # log-probabilities and the label
    kept = 4 * 3 * pixels + 2 * 4 * 4 * pixels + 4 * 2 + 8
    total = 3 * 4 * weights + 8 * (1.5 * kept + 4 * 4 * 4 * pixels)
    assert memory.of_network(recipe, data) == pytest.approx(total, rel=1e-3)
    adamw = replace(recipe, optimizer="adamw")  # one more copy of the weights
    assert memory.of_network(adamw, data) - memory.of_network(recipe, data) == 4 * weights


def test_bfloat16_is_unpacked_where_the_processor_has_no_convolutions_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = catalog.load("digits(train=100)")
    found = {}
    for able in (True, False):
        monkeypatch.setattr(machine, "convolves_bfloat16", lambda able=able: able)
        for precision in ("float32", "bfloat16"):
            recipe = Recipe(data=data.name, model="resnet8", batch_size=20, precision=precision)
            found[precision, able] = memory.of_network(recipe, data)
    assert found["float32", True] == found["float32", False]
    # twice, in bytes: 3x3 windows of 16 channels at each of 8x8 pixels of 20 images, two bytes each
    unpacked = 2 * 9 * 16 * 8 * 8 * 20 * 2
    assert found["bfloat16", False] - found["bfloat16", True] == unpacked


def test_it_grows_with_the_batch_and_no_further_than_the_dataset() -> None:
    data = catalog.load("digits(train=100)")

    def need(size: int) -> int:
        return memory.of_network(Recipe(data=data.name, model="resnet8", batch_size=size), data)

    assert need(40) - need(20) == pytest.approx(need(60) - need(40), rel=1e-6)
    assert need(1000) == need(100)


def test_small_images_are_not_worth_a_line() -> None:
    data = catalog.load("digits(train=100)")
    assert memory.said(Recipe(data=data.name, model="resnet8", padding=1), data) is None


PEAK = """
import re, sys
from pathlib import Path
import torch
from bench.data import catalog
from bench.training import loop, memory
from bench.training.recipes import Recipe
torch.set_num_threads(1)
def status(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def recipe(data, size):
    return Recipe(data=data.name, model="resnet8", batch_size=size, epochs=1, validation=0.0,
                  precision=sys.argv[1])
small = catalog.load("photos(train=16, test=16)")
loop.train(recipe(small, 8), 0, small)
data = catalog.load("photos(train=24, test=4, side=192)")
stated = memory.of_network(recipe(data, 24), data) + memory.of_images(recipe(data, 24), data)
print(memory.said(recipe(data, 128), data))
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
loop.train(recipe(data, 24), 0, data)
print(status("VmHWM") - before, stated)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_stays_below_what_was_said(precision: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PEAK, precision],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    line, numbers = found.stdout.splitlines()
    assert re.fullmatch(
        r"memory: at most \d\.\d\d GB for images and masks and \d\.\d\d GB for the network, "
        r"beside Python and its libraries \(about 1 GB\)",
        line,
    )
    peak, stated = map(int, numbers.split())
    assert stated / 3 < peak < stated


def test_masks_that_are_moved_need_memory_for_their_places() -> None:
    data = catalog.load("digits(train=100, test=20)")
    recipe = Recipe(data=data.name, augmentation=Cutout(4))
    moved = replace(recipe, augmentation=Cutout(4, points="seek"))
    more = memory.of_images(moved, data) - memory.of_images(recipe, data)
    assert more == 65 * 100 * 8 * 8
