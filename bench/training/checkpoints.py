"""Checkpoints of a training in progress, from which it continues bit for bit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from bench.errors import reason
from bench.files import atomic, checksums, json_text, plain, tensor_files
from bench.records.record import Number
from bench.records.validation import check_curve

WRITTEN = {"momentum_buffer": "momentum"}
"""Names in the file of what an optimizer keeps, where they are not torch's."""

STEP = "step"
"""The number of steps that AdamW keeps for each parameter; a single number, unlike the rest."""

ENTRY = {"epoch", "loss", "test_accuracy", "seconds", "test_seconds"}
"""Fields of the curve that every epoch has."""


def save(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    curve: list[dict[str, Number]],
) -> None:
    """Write the state after an epoch atomically; the previous checkpoint exists until then.

    The state consists of tensors only: the weights, and what the optimizer keeps of each parameter,
    such as its momentum.

    Args:
        folder: Folder of the checkpoint.
        network: The network.
        optimiser: Its optimiser.
        curve: One entry per finished epoch; see `ENTRY`.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for place, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{WRITTEN.get(name, name)}.{place}"] = value
    content = tensor_files.pack(tensors, {})
    name = f"epoch-{len(curve)}.safetensors"
    atomic.write(folder / name, content)
    about = {"state": name, "sha256": checksums.of_bytes(content), "curve": curve}
    atomic.write(folder / "checkpoint.json", json.dumps(about))
    for old in folder.glob("epoch-*"):
        if old.name != name:
            old.unlink(missing_ok=True)


def resume(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer
) -> list[dict[str, Number]]:
    """Load the checkpoint that `save` wrote into a network and its optimiser.

    A checkpoint that is damaged or belongs to another network is ignored with a warning: the
    training starts from the beginning, with network and optimiser unchanged.

    Args:
        folder: Folder of the checkpoint.
        network: The network.
        optimiser: Its optimiser.

    Returns:
        The curve of the finished epochs; empty if there is no checkpoint.
    """
    own = network.state_dict()
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    try:
        about = json_text.parse(plain.read(folder / "checkpoint.json", folder))
        curve = check_curve(about["curve"])
        content = plain.read(folder / Path(about["state"]).name, folder, 1 << 40)
        if checksums.of_bytes(content) != about["sha256"]:
            raise ValueError("its checksum differs")
        loaded = load(content)
        weights = {name: loaded.pop(f"network.{name}") for name in own}
        kept = {name: _kept(name) for name in loaded}
        pairs = [(weights[name], own[name]) for name in own]
        pairs += [
            (loaded[name], parameters[place])
            for name, (what, place) in kept.items()
            if what != STEP
        ]
        if {what for what, _ in kept.values()} - _keeps(optimiser):
            raise ValueError("it belongs to another optimizer")
        if any((one.shape, one.dtype) != (other.shape, other.dtype) for one, other in pairs):
            raise ValueError("it belongs to another network")
        epochs = [entry["epoch"] for entry in curve if set(entry) >= ENTRY]
        if not curve or epochs != list(range(1, len(curve) + 1)):
            raise ValueError("epochs are missing from its curve")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        warnings.warn(
            f"cannot continue from {folder} ({reason(error)}); the training starts again",
            stacklevel=2,
        )
        return []
    network.load_state_dict(weights)
    state: dict[int, dict[str, Tensor]] = {}
    for name, (what, place) in kept.items():
        # in the memory layout of the parameter: optimizer steps would be slower otherwise
        like = loaded[name] if what == STEP else parameters[place]
        state.setdefault(place, {})[what] = torch.empty_like(like).copy_(loaded[name])
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return curve


def _kept(name: str) -> tuple[str, int]:
    """What a tensor of a checkpoint is to the optimizer, in torch's words, and of which parameter.

    >>> _kept("momentum.3"), _kept("exp_avg.0")
    (('momentum_buffer', 3), ('exp_avg', 0))
    """
    what, _, place = name.rpartition(".")
    return {written: own for own, written in WRITTEN.items()}.get(what, what), int(place)


def _keeps(optimiser: torch.optim.Optimizer) -> set[str]:
    """What an optimizer keeps of a parameter."""
    if isinstance(optimiser, torch.optim.SGD):
        return {"momentum_buffer"}
    return {STEP, "exp_avg", "exp_avg_sq"}


def belongs(folder: Path, curve: Sequence[Mapping[str, Number]]) -> bool:
    """Return whether a checkpoint is the last one of the training that gave a curve."""
    try:
        about = json_text.parse((folder / "checkpoint.json").read_bytes())
        return bool(about["curve"] == list(map(dict, curve)))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def discard(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    for file in folder.glob("*"):
        file.unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()
