"""One step of a training: the loss, its gradients, and the update of the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.victim import NotFinite
from bench.data import seeds
from bench.models import networks
from bench.training import live_saliency, robust
from bench.training.memory import LARGE
from bench.training.recipes import Precision, Recipe

StepId = tuple[int, int, int]
"""Seed of the training, epoch, and number of the step: what a draw depends on."""


class Diverged(ValueError):
    """The loss or some logits are infinite or not a number."""


@contextmanager
def diverging(guide: Tensor, epoch: int) -> Iterator[None]:
    """Refuse a saliency that is not finite as the end of this training, not of all that follow.

    Args:
        guide: The saliency that masks follow.
        epoch: Number of the epoch, from 0.

    Raises:
        Diverged: Something in the context refuses the saliency, and it is not finite.
    """
    try:
        yield
    except ValueError:
        if guide.isfinite().all():
            raise
        raise Diverged(
            f"the saliency is not finite in epoch {epoch + 1}; try a smaller --learning-rate"
        ) from None


@dataclass(frozen=True, eq=False)
class Recorded:
    """A computation that a CUDA device repeats whole, and the tensors that it reads and writes.

    Attributes:
        graph: The computation.
        images: Read; shape (b, c, h, w).
        targets: Read; shape (b,) or (b, k).
        result: Written.
    """

    graph: torch.cuda.CUDAGraph
    images: Tensor
    targets: Tensor
    result: Tensor

    def repeat(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the same of another batch; the next call overwrites the result."""
        self.images.copy_(images)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.result


class Repeated:
    """Computes something of many batches: recorded once for each shape, and then repeated whole.

    Launching the hundreds of kernels of a small network takes longer than a CUDA device takes to
    compute them. So the first batch of a shape is computed as usual, the second is recorded as a
    CUDA graph, and all from the second on repeat it: the same kernels with the same results,
    launched at once.

    Args:
        compute: Takes images, shape (b, c, h, w), and targets; gives a tensor. It must launch the
            same kernels each time, on nothing else that changes but what it keeps in place.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.compute = compute
        self._recorded: dict[tuple[torch.Size, torch.Size], Recorded | None] = {}

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return what ``compute`` gives, valid until the next call."""
        shapes = images.shape, targets.shape
        if shapes not in self._recorded:
            # libraries prepare themselves for a shape, and optimisers their state
            self._recorded[shapes] = None
            return self.compute(images, targets)
        recorded = self._recorded[shapes] or self._record(images, targets)
        self._recorded[shapes] = recorded
        return recorded.repeat(images, targets)

    def _record(self, images: Tensor, targets: Tensor) -> Recorded:
        """Record the computation; nothing is computed."""
        images, targets, graph = images.clone(), targets.clone(), torch.cuda.CUDAGraph()
        # the device of the images need not be the current one; other threads, which draw masks,
        # may go on
        own = torch.cuda.Stream(images.device)
        with (
            torch.cuda.device(images.device),
            torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local"),
        ):
            result = self.compute(images, targets)
        return Recorded(graph, images, targets, result)


class Step:
    """Takes the steps of one training, `Repeated` where they are `repeatable`.

    Args:
        recipe: How the network is trained.
        network: The network; changed in place.
        optimiser: Its optimiser, as `optimizers.build` makes it.
        repeats: Whether steps may be repeated; False launches every kernel, for comparison.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        repeats: bool = True,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.optimiser = optimiser
        self.repeats = repeats
        self._saliency = functools.partial(
            live_saliency.saliency, live_saliency.kind(recipe), network
        )
        self._repeated_saliency = Repeated(self._saliency)
        self._repeated = Repeated(self._plain)

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        labels: Tensor,
        inside: AbstractContextManager[None],
        step: StepId,
    ) -> Tensor:
        """Take a step.

        Args:
            images: Images in [0, 1], shape (b, c, h, w), after everything else.
            targets: Classes, shape (b,), or shares of classes, shape (b, k).
            labels: Classes, shape (b,).
            inside: What mixes features inside the network, if anything does.
            step: Seed, epoch and number of the step.

        Returns:
            The mean loss over the batch, valid until the next step.

        Raises:
            Diverged: The network that is to be attacked returns NaN.
        """
        unmixed = isinstance(inside, nullcontext)
        if unmixed and self._repeats(images):
            return self._repeated(images, targets)
        with networks.reseeded(self.network, seeds.derive(step[0], "network", *step[1:])):
            if self.recipe.robust is not None:
                return self._update(self._adversarial(self.recipe.robust, images, labels, step))
            with inside:
                loss = self._cross_entropy(images, targets)
            head = getattr(self.network, "early_head", None)
            if head is not None:  # it sees features before they are blended
                with autocast(self.recipe.precision, images.device):
                    loss = loss + head.loss(targets if unmixed else labels)
        return self._update(loss)

    def saliency(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the saliency that masks follow, shape (b, 1, h, w), valid until the next call.

        Args:
            images: Images in [0, 1], shape (b, c, h, w).
            labels: Classes, shape (b,).
        """
        saliency = self._repeated_saliency if self._repeats(images) else self._saliency
        return saliency(images, labels)

    def _repeats(self, images: Tensor) -> bool:
        return self.repeats and repeatable(self.recipe, self.network, images)

    def _plain(self, images: Tensor, targets: Tensor) -> Tensor:
        """A step of a network that draws nothing."""
        return self._update(self._cross_entropy(images, targets))

    def _cross_entropy(self, images: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of a batch; NaN where a logit is infinite."""
        with autocast(self.recipe.precision, images.device):
            logits = self.network(images.contiguous(memory_format=torch.channels_last))
            # 0, or nan where a logit is infinite, which the loss alone may hide
            finite: Tensor = (0 * logits.detach()).sum()
            return functional.cross_entropy(logits, targets) + finite

    def _adversarial(self, text: str, images: Tensor, labels: Tensor, step: StepId) -> Tensor:
        """The loss of adversarial training."""
        method = robust.build(text)
        stream = seeds.generator(step[0], "adversarial", *step[1:])
        try:
            attacked = method.attacked(self.network, images, labels, stream)
        except NotFinite:
            raise Diverged(
                f"the logits are NaN in epoch {step[1] + 1}; try a smaller --learning-rate"
            ) from None
        with autocast(self.recipe.precision, images.device):
            return method.loss(self.network, images, attacked, labels)

    def _update(self, loss: Tensor) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def repeatable(recipe: Recipe, network: nn.Module, images: Tensor) -> bool:
    """Return whether a step can be recorded, and is the same for every batch.

    It is on a CUDA device, with batches so small that the memory which a recording keeps does not
    matter, without attacks in training, in a network of this project that draws nothing.

    Args:
        recipe: How the network is trained.
        network: The network.
        images: A batch, shape (b, c, h, w).
    """
    return (
        images.is_cuda
        and images[:, 0].numel() < LARGE
        and recipe.robust is None
        and networks.draws_nothing(recipe.model)
        and not hasattr(network, "early_head")
    )


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context of mixed precision for ``"bfloat16"``, and one without effect else."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
