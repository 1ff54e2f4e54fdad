"""The state of a training that is under way, on disk, so that it can continue bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from bench import records
from bench.records import Number


def save(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    curve: list[dict[str, Number]],
) -> None:
    """Write the state after an epoch, whole or not at all; the previous one stays until then."""
    buffer = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict()}, buffer)
    state = buffer.getvalue()
    name = f"epoch-{len(curve)}.pt"
    records.write(folder / name, state)
    about = {"state": name, "sha256": hashlib.sha256(state).hexdigest(), "curve": curve}
    records.write(folder / "checkpoint.json", json.dumps(about))
    for old in folder.glob("epoch-*.pt"):
        if old.name != name:
            old.unlink(missing_ok=True)


def resume(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer
) -> list[dict[str, Number]]:
    """Load the state that `save` wrote; returns the curve so far, empty where there is none.

    A checkpoint that is damaged is left out with a warning: the run starts anew. Nothing in it is
    executed: the state is read with ``weights_only``.
    """
    try:
        about = json.loads((folder / "checkpoint.json").read_text())
        state = (folder / os.path.basename(about["state"])).read_bytes()
        if hashlib.sha256(state).hexdigest() != about["sha256"]:
            raise ValueError("its checksum differs")
        loaded = torch.load(io.BytesIO(state), weights_only=True)
        curve: list[dict[str, Number]] = about["curve"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"{folder}: cannot continue from it ({reason}); starting anew", stacklevel=2)
        return []
    network.load_state_dict(loaded["network"])
    optimiser.load_state_dict(loaded["optimiser"])
    return curve


def discard(folder: Path) -> None:
    """Remove the checkpoint of a run that is finished."""
    for file in folder.glob("*"):
        file.unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()
