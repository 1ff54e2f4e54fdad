"""JSMA beside other libraries' on the same pictures, in one run: ``nox -s peers``.

The peers are installed into a folder of their own. Prints, for each: seconds per picture, success,
changed elements, and how many times as long as ours it takes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
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
from bench.models import networks
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
        weights.load_weights(network, weights)
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
    """Run an attack and print its line; returns the seconds per picture."""
    start = time.perf_counter()
    adversarial = attack().to(images)
    seconds = (time.perf_counter() - start) / len(images)
    with torch.no_grad():
        reached = goal.reached(network(adversarial))
    changed = l0_elements(adversarial - images)[reached].float()
    ratio = f"{seconds / ours:8.1f}" if ours else f"{'1.0':>8}"
    print(
        f"{name:44} {1000 * seconds:10.1f} {100 * reached.float().mean():8.0f} "
        f"{changed.mean():9.1f} {ratio}",
        flush=True,
    )
    return seconds


def main() -> None:
    """Compare on the first pictures that the victim classifies correctly."""
    torch.set_num_threads(1)
    network, data = victim()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    chosen = correct_images(network, data.test, count, "cpu")
    images = chosen.images
    labels = chosen.logits.argmax(1)
    shift = torch.randint(1, 10, (count,), generator=seeds.generator(0, "targets"))
    goal = Goal((labels + shift) % 10, targeted=True)

    def ours(name: str, some: slice, **options: Any) -> Callable[[], Tensor]:
        method = BUILTIN[name](**options)
        part = Goal(goal.labels[some], True)
        return lambda: method(network, images[some], part, seeds.generator(0, "attack"))

    print(f"{'targeted, no bound, one thread':44} {'ms/picture':>10} {'success':>8} "
          f"{'elements':>9} {'times':>8}")  # fmt: skip
    every = slice(0, count)
    base = show("bench jsma", ours("jsma", every, eps=None), network, images, goal, None)
    upwards = ours("jsma", every, eps=None, direction="increase")
    show("bench jsma, one direction as the peers", upwards, network, images, goal, base)
    from art.attacks.evasion import SaliencyMapMethod
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0, 1)
    )
    targets = torch.nn.functional.one_hot(goal.labels, 10).numpy()
    for theta in (1.0, 0.1):
        method = SaliencyMapMethod(classifier, theta=theta, gamma=1.0, verbose=False)
        show(
            f"adversarial-robustness-toolbox, theta {theta}",
            lambda method=method: torch.from_numpy(method.generate(images.numpy(), y=targets)),
            network, images, goal, base,
        )  # fmt: skip
    import torchattacks

    few = slice(0, max(2, count // 8))
    peer = torchattacks.JSMA(network, theta=1.0, gamma=0.1)
    peer.set_mode_targeted_by_label(quiet=True)
    show(
        "torchattacks, theta 1, fewer pictures",
        lambda: peer(images[few].contiguous(), goal.labels[few]),
        network, images[few], Goal(goal.labels[few], True), base,
    )  # fmt: skip
    print(f"{'greedyfool, eps 8/255':44}")
    whole = show("bench, in a batch", ours("greedyfool", every), network, images, goal, None)

    def singly() -> Tensor:
        one = [ours("greedyfool", slice(i, i + 1), scan="all")() for i in range(count)]
        return torch.cat(one)

    show("released order, one picture at a time", singly, network, images, goal, whole)


if __name__ == "__main__":
    main()
