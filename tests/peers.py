"""Attacks beside other libraries' on the same images, in one run: ``nox -s peers``.

The peers are installed into a folder of their own. Prints, for each: milliseconds per image,
success, changed elements, and how many times as long as ours it takes. adversarial-library is not
on the package index: ``nox -s peers -- --adversarial-library FOLDER`` takes a checkout of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

warnings.filterwarnings("ignore")

import torch
from torch import Tensor, nn

from attacks import BUILTIN, Goal
from attacks.norms import l0_elements
from bench.data import catalog, seeds
from bench.data.dataset import Dataset
from bench.execution.progress import Silent
from bench.execution.workspace import Workspace
from bench.models import networks, weight_files
from bench.robustness.judge import correct_images
from bench.training import victims


def victim() -> tuple[nn.Module, Dataset]:
    """Public weights where there are some, else a network trained on the embedded photos."""
    folder = os.environ.get("BENCH_DATA")
    weights = Path(folder).parent / "models/cifar10-resnet20.safetensors" if folder else None
    if weights is not None and weights.exists():
        data = catalog.load("cifar10-jpeg")
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        network = networks.build("resnet20", classes=10, mean=mean, std=std, seed=0)
        weight_files.take(network, weight_files.read(weights), weights)
        return network.eval(), data
    with tempfile.TemporaryDirectory() as results:
        workspace = Workspace(results=Path(results), data="photos")
        data = workspace.dataset("photos")
        recipe = victims.usual_victim(data.name, data.digest, 32, model="resnet8")
        return victims.obtain(recipe, workspace, Silent()), data


def show(
    name: str,
    attack: Callable[[], Tensor],
    network: nn.Module,
    images: Tensor,
    goal: Goal,
    ours: float | None,
) -> float:
    """Run an attack and print its line; returns the seconds per image."""
    start = time.perf_counter()
    adversarial = attack().to(images)
    seconds = (time.perf_counter() - start) / len(images)
    with torch.no_grad():
        reached = goal.reached(network(adversarial))
    changed = l0_elements(adversarial - images)[reached].float()
    ratio = f"{seconds / ours:8.1f}" if ours else f"{'1.0':>8}"
    mean = f"{changed.mean():9.1f}" if reached.any() else f"{'-':>9}"
    print(
        f"{name:44} {1000 * seconds:10.1f} {100 * reached.float().mean():8.0f} {mean} {ratio}",
        flush=True,
    )
    return seconds


class Images:
    """The first test images that the victim model classifies correctly, and their random targets.

    Attributes:
        network: The victim model.
        images: In [0, 1], shape (b, c, h, w).
        labels: True classes.
        targets: Other classes, drawn by the seed.
    """

    def __init__(self, count: int) -> None:
        self.network, data = victim()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        chosen = correct_images(self.network, data.test, count, "cpu")
        self.images = chosen.images
        self.labels = chosen.logits.argmax(1)
        shift = torch.randint(1, 10, (count,), generator=seeds.generator(0, "targets"))
        self.targets = (self.labels + shift) % 10

    def __len__(self) -> int:
        return len(self.images)

    def goal(self, targeted: bool) -> Goal:
        """What the attacks are asked for."""
        return Goal(self.targets if targeted else self.labels, targeted)

    def ours(self, name: str, targeted: bool, some: slice, **options: Any) -> Callable[[], Tensor]:
        """An attack of this project on some of the images."""
        goal = self.goal(targeted)
        part = Goal(goal.labels[some], targeted)
        method = BUILTIN[name](**options)
        return lambda: method(self.network, self.images[some], part, seeds.generator(0, "attack"))

    def show(
        self,
        name: str,
        attack: Callable[[], Tensor],
        targeted: bool,
        ours: float | None = None,
        some: slice = slice(None),
    ) -> float:
        """Run an attack on some of the images and print its line, as `show` does."""
        goal = self.goal(targeted)
        part = Goal(goal.labels[some], targeted)
        return show(name, attack, self.network, self.images[some], part, ours)


def jsma(images: Images) -> None:
    """JSMA and GreedyFool, targeted, beside two libraries and one image at a time."""
    every, few = slice(0, len(images)), slice(0, max(2, len(images) // 8))
    heading("targeted, no bound, one thread")
    base = images.show("bench jsma", images.ours("jsma", True, every, eps=None), True)
    upwards = images.ours("jsma", True, every, eps=None, direction="increase")
    images.show("bench jsma, one direction as the peers", upwards, True, base)
    from art.attacks.evasion import SaliencyMapMethod
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        images.network,
        nn.CrossEntropyLoss(),
        tuple(images.images.shape[1:]),
        10,
        clip_values=(0, 1),
    )
    targets = torch.nn.functional.one_hot(images.targets, 10).numpy()
    arrays = images.images.numpy()
    for theta in (1.0, 0.1):
        method = SaliencyMapMethod(classifier, theta=theta, gamma=1.0, verbose=False)
        images.show(
            f"adversarial-robustness-toolbox, theta {theta}",
            lambda method=method: torch.from_numpy(method.generate(arrays, y=targets)),
            True,
            base,
        )
    import torchattacks

    peer = torchattacks.JSMA(images.network, theta=1.0, gamma=0.1)
    peer.set_mode_targeted_by_label(quiet=True)
    images.show(
        "torchattacks, theta 1, fewer images",
        lambda: peer(images.images[few].contiguous(), images.targets[few]),
        True,
        base,
        few,
    )
    print("greedyfool, eps 8/255")
    whole = images.show("bench, in a batch", images.ours("greedyfool", True, every), True)

    def singly() -> Tensor:
        parts = [slice(i, i + 1) for i in range(len(images))]
        return torch.cat([images.ours("greedyfool", True, i, scan="all")() for i in parts])

    images.show("released order, one image at a time", singly, True, whole)


def adversarial_library(images: Images, folder: Path) -> None:
    """The attacks that adversarial-library has too, with equally many steps, both goals.

    Args:
        images: What is attacked.
        folder: A checkout of the library, whose package is ``adv_lib``.
    """
    sys.path.insert(0, str(folder))
    # its package imports a dashboard that no attack needs
    sys.modules.setdefault("visdom", ModuleType("visdom"))
    from adv_lib.attacks import fmn, sigma_zero, vfga

    for targeted in (False, True):
        heading("targeted" * targeted or "untargeted")
        goal = images.goal(targeted)
        given = (images.network, images.images, goal.labels)
        pairs: list[tuple[str, dict[str, Any], Callable[[], Tensor]]] = [
            (
                "sigma-zero",
                {"steps": n},
                partial(sigma_zero, *given, num_steps=n, targeted=targeted),
            )
            for n in (100, 300, 1000)
        ]
        pairs += [
            ("fmn-l0", {"steps": n}, partial(fmn, *given, norm=0, steps=n, targeted=targeted))
            for n in (300, 1000)
        ]
        pairs.append(("vfga", {}, partial(vfga, *given, targeted=targeted)))
        for name, options, theirs in pairs:
            text = name + "".join(f", {key} {value}" for key, value in options.items())
            mine = images.ours(name, targeted, slice(None), eps=None, **options)
            base = images.show(f"bench {text}", mine, targeted)
            if targeted and name == "sigma-zero":
                continue  # the library's is untargeted only and gives the images back
            images.show(f"adversarial-library, {text}", theirs, targeted, base)


def heading(text: str) -> None:
    """Print the names of the columns, behind what was asked for."""
    print(f"{text:44} {'ms/image':>10} {'success':>8} {'elements':>9} {'times':>8}")


def main() -> None:
    """Compare on the first images that the victim model classifies correctly."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("count", nargs="?", type=int, default=64, help="Number of images.")
    options.add_argument("--adversarial-library", type=Path, metavar="FOLDER", help="A checkout.")
    asked = options.parse_args()
    torch.set_num_threads(1)
    images = Images(asked.count)
    if asked.adversarial_library is None:
        jsma(images)
    else:
        adversarial_library(images, asked.adversarial_library)


if __name__ == "__main__":
    main()
