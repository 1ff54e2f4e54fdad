"""The stages of a network: where its features can be read or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def stage(network: nn.Module, number: int, wanted_by: str) -> nn.Module:
    """Return the module whose output is that of a stage.

    Args:
        network: The network, also behind its normalisation. Its stages are ``layer1``, ``layer2``,
            …, or lie in ``stages`` or ``blocks``, a third of which counts as one stage.
        number: Number of the stage, from 1.
        wanted_by: What needs it, for the error.

    Raises:
        ValueError: The stages of the network are unknown.
    """
    network = getattr(network, "network", network)
    found = getattr(network, f"layer{number}", None)
    if isinstance(found, nn.Module):
        return found
    for name in ("stages", "blocks"):
        found = getattr(network, name, None)
        if isinstance(found, nn.Sequential | nn.ModuleList):
            return found[max(number, number * len(found) // 3) - 1]
    raise ValueError(
        f"stage {number} of {type(network).__name__} is unknown, which {wanted_by} needs: "
        "choose another network, such as resnet18"
    )


@contextmanager
def changed(
    network: nn.Module, number: int, change: Callable[[Tensor], Tensor], wanted_by: str
) -> Iterator[None]:
    """Change the output of a stage in every pass within the context; arguments as of `stage`."""
    hook = stage(network, number, wanted_by).register_forward_hook(
        lambda module, given, features: change(features)
    )
    try:
        yield
    finally:
        hook.remove()
