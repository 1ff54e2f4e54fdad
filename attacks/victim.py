"""The model under attack: held still while it is attacked, and its answers checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class NotFinite(ValueError):
    """The model returned NaN."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with constant parameters; mode and flags are restored at the end.

    Args:
        model: Any module. Its buffers and parameters keep their values. Parameters that were made
            in ``torch.inference_mode`` have no gradient anyway, and a flag that cannot be restored.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(each, each.requires_grad) for each in model.parameters() if not each.is_inference()]
    model.eval()
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def images_kept(model: nn.Module) -> Iterator[None]:
    """Refuse a model that writes into the images that it is given; the caller's stay as they were.

    The first forward pass inside the block gets a copy, and PyTorch counts what is written into it.

    Args:
        model: The model under attack.

    Raises:
        ValueError: The model changes its images in place, so that an attack would go on from others
            than those that it made.
    """
    seen: list[tuple[Tensor, int]] = []

    def copy(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        before.remove()
        images = inputs[0].clone()
        if not images.is_inference():  # those are not counted
            seen.append((images, images._version))
        return (images, *inputs[1:])

    def look(module: nn.Module, inputs: tuple[Any, ...], answer: Any) -> None:
        after.remove()
        for images, version in seen:
            if images._version != version:
                raise ValueError(
                    "the model changes the images that it is given in place: let it change a copy, "
                    "such as x = x.clone(), or use inplace=False"
                )
        seen.clear()

    before = model.register_forward_pre_hook(copy)
    after = model.register_forward_hook(look)
    with _removed(before, after):
        yield


@contextmanager
def first_answer_checked(model: nn.Module, labels: Tensor) -> Iterator[None]:
    """Apply `check_logits` to the first forward pass inside the block, which costs no pass.

    Args:
        model: The model under attack.
        labels: Classes of the goal, of shape (b,).

    Raises:
        ValueError: See `check_logits`.
    """

    def look(module: nn.Module, inputs: tuple[Any, ...], answer: Any) -> None:
        hook.remove()
        check_logits(answer, len(inputs[0]), labels)

    hook = model.register_forward_hook(look)
    with _removed(hook):
        yield


@contextmanager
def _removed(*hooks: RemovableHandle) -> Iterator[None]:
    """Remove hooks at the end, also those that have removed themselves."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def first_gradient_checked(model: nn.Module) -> Iterator[None]:
    """Refuse a model without a gradient at the first forward pass that is made for one.

    Such a pass gets images that require a gradient, while gradients are switched on. An attack that
    makes none works on any model.

    Args:
        model: The model under attack.

    Raises:
        ValueError: The logits do not depend on the images in a way that autograd sees, or the model
            was built in ``torch.inference_mode``.
    """

    def wanted(inputs: tuple[Any, ...]) -> bool:
        return torch.is_grad_enabled() and inputs[0].requires_grad

    def look_at_weights(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not wanted(inputs):
            return
        before.remove()
        if any(each.is_inference() for each in chain(module.parameters(), module.buffers())):
            raise ValueError(
                "the model was built or loaded in torch.inference_mode(), so it has no gradient: "
                "build it outside, or choose an attack without gradients, such as sparse-rs"
            )

    def look_at_logits(module: nn.Module, inputs: tuple[Any, ...], answer: Tensor) -> None:
        if not wanted(inputs):
            return
        after.remove()
        if not answer.requires_grad:
            raise ValueError(
                "the model's logits have no gradient with respect to its images: leave detach(), "
                "torch.no_grad() and torch.inference_mode() out of its forward pass, or choose an "
                "attack without gradients, such as sparse-rs"
            )

    before = model.register_forward_pre_hook(look_at_weights)
    after = model.register_forward_hook(look_at_logits)
    with _removed(before, after):
        yield


def check_logits(answer: Any, count: int, labels: Tensor | None = None) -> None:
    """Refuse what a model returned for ``count`` images unless it is logits.

    Args:
        answer: What the model returned; logits are floats of shape (count, classes).
        count: Number of images that the model was given.
        labels: Classes that have to be among the model's, of shape (n,).

    Raises:
        NotFinite: It holds NaN.
        ValueError: It isn't such a tensor, it has a single class, or a label is none of its
            classes.
    """
    check_form(answer, count)
    classes = answer.shape[1]
    broken = int(answer.detach().isnan().any(1).sum())
    if broken:
        raise NotFinite(
            f"the model returned NaN for {broken} of {count} images: check its weights and the "
            "range of the images"
        )
    if labels is not None and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"the labels hold class {low if low < 0 else high}, but the model has {classes} "
                f"classes: give labels from 0 to {classes - 1}"
            )


def check_form(answer: Any, count: int) -> None:
    """Refuse what has not the form of logits for ``count`` images of at least two classes.

    Args:
        answer: What the model returned.
        count: Number of images that the model was given.

    Raises:
        ValueError: It isn't a tensor of floats of shape (count, classes), or has a single class.
    """
    if not isinstance(answer, Tensor):
        raise ValueError(
            f"the model returned a {type(answer).__name__}: it must return a tensor of logits"
        )
    if answer.ndim != 2 or len(answer) != count or not answer.is_floating_point():
        raise ValueError(
            f"the model returned {answer.dtype} of shape {tuple(answer.shape)} for {count} images: "
            f"it must return float logits of shape ({count}, classes)"
        )
    if answer.shape[1] < 2:
        raise ValueError(
            f"the model has {answer.shape[1]} class: an attack needs at least 2; a model with one "
            "output can be wrapped to return (-z/2, z/2)"
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a GPU or of this machine, was short.

    >>> out_of_memory(MemoryError()), out_of_memory(ValueError("no such class"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # the CPU allocator of PyTorch raises a plain RuntimeError
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
