"""Fine-tuning: the weights a training starts from, by a name that any process can find again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from bench.data.dataset import Dataset
from bench.execution.workspace import Workspace
from bench.models import networks, pretrained, published, weight_files
from bench.models.networks import Normalised
from bench.training.recipes import Recipe


def identify(text: str, model: str) -> str:
    """The name under which recipes hold weights.

    Args:
        text: Published weights as `published.resolve` takes them, or a safetensors file.
        model: The name of the network that starts from them.

    Returns:
        ``SOURCE:ARCHITECTURE.TAG``, or the name of the file and the first twelve hexadecimal digits
        of its sha256.

    Raises:
        ValueError: There are no such weights for the network.
        Missing: There is no such file.
    """
    if published.is_name(text):
        name = published.resolve(text, model)
        if published.tagged(model) and name != model:
            raise ValueError(f"{model} names weights already: remove --pretrained {text}")
        return name
    if published.tagged(model):
        raise ValueError(f"{model} names weights already: remove --pretrained {text}")
    path = Path(text).expanduser()
    return f"{path.name} {pretrained.check(path)}"


def remember(workspace: Workspace, text: str | None) -> Workspace:
    """A workspace that also knows where a file of weights lies, by its name in recipes."""
    if text is None or published.is_name(text):
        return workspace
    path = Path(text).expanduser().resolve()
    known = (f"{path.name} {pretrained.check(path)}", str(path))
    return replace(workspace, paths=(*workspace.paths, known))


def of(recipe: Recipe, workspace: Workspace) -> Path | None:
    """The file of the weights that a recipe starts from; None if it starts from none.

    Raises:
        Missing: It is not on this machine.
        ValueError: It has changed.
    """
    name = recipe.pretrained
    if name is None:
        return None
    if published.is_name(name):
        return published.locate(name, download=workspace.download)
    file, _, digest = name.rpartition(" ")
    path = Path(dict(workspace.paths).get(name, file))
    if pretrained.check(path) != digest:
        raise ValueError(f"{path} has changed: these are not the weights {name}")
    return path


def start(data: Dataset, model: str, name: str, path: Path, seed: int) -> Normalised:
    """A network with weights to start from.

    All weights are taken over but the classifier of another number of classes, which is drawn from
    the seed. ``resnet18`` and its like get the stem that the weights have, for any side of the
    images. Images are normalised by the statistics of the dataset, as in section 4.1 of the paper.

    Args:
        data: The dataset; its classes and images determine the network.
        model: The name of the network.
        name: The name of the weights, as `identify` gives it.
        path: Their file.
        seed: Draws a new classifier.

    Raises:
        ValueError: The file is damaged, or its weights are those of another network.
    """
    if name.startswith("timm:"):
        return networks.build_for(data, name, seed=seed, weights=path)
    weights = published.read(path) if published.is_name(name) else weight_files.read(path)
    network = networks.build_for(data, model, seed=seed, stem=weight_files.stem(weights))
    own, last = network.network.state_dict(), _classifier(network.network)
    heads = set() if last is None else {f"{last}.weight", f"{last}.bias"}
    for key in heads & own.keys() & weights.keys():
        if len(weights[key]) != len(own[key]) and weights[key][0].shape == own[key][0].shape:
            weights[key] = own[key]
    weight_files.take(network, weights, path)
    return network


def _classifier(network: nn.Module) -> str | None:
    """The name of the last linear layer; None without any."""
    names: list[str] = [
        name for name, each in network.named_modules() if isinstance(each, nn.Linear)
    ]
    return names[-1] if names else None
