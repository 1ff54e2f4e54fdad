"""Count the forward and backward passes of an attack for each image, and measure its time."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attacks.base import Images
from attacks.originals import Originals, occurrence
from bench.errors import Stopped
from bench.robustness.best_so_far import BestSoFar


class Counted(nn.Module):
    """A network that counts its passes for each image under attack, and can limit them.

    A row of a batch is counted for the image that it was made from (`Originals`), such that an
    attack can shrink, repeat and reorder its batches. A backward pass is counted each time a
    gradient reaches the input, once per row.

    Args:
        network: The victim model.
        images: The images under attack, distinct, shape (b, c, h, w).
        labels: True classes, shape (b,).
        cap: Most forward and backward passes of an image together; after that the image gets the
            logits of its true label and a gradient of zero, which are not counted.
        stop: Whether to stop soon.
        best: Is shown each forward pass; None: nobody is.

    Attributes:
        forwards: Forward passes of each image, shape (b,).
        backwards: Backward passes of each image, shape (b,).
        passing: Seconds in the victim model.
        counting: Seconds of the counting; the rest of an attack's time is its own.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        labels: Int[Tensor, " b"],
        cap: int | None = None,
        stop: Callable[[], bool] = lambda: False,
        best: BestSoFar | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.cap, self.stop, self.best = cap, stop, best
        self.labels = labels
        self.originals = Originals(images)
        self.forwards = torch.zeros(len(images), dtype=torch.long, device=images.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.passing = 0.0
        self.counting = 0.0
        self.backward_start = 0.0

    def forward(self, images: Images) -> Float[Tensor, "b k"]:
        """Return the logits and count the passes; raise `Stopped` if asked to stop."""
        if self.stop():
            raise Stopped("stopped in the middle of an attack")
        start = self.clock()
        with torch.no_grad():
            owner = self.originals.owner(images)
            served = self.within_cap(owner)
            count_rows(self.forwards, owner[served])
        differentiated = torch.is_grad_enabled() and images.requires_grad
        inputs = _Entry.apply(images, self, owner) if differentiated else images
        before = self.clock()
        if self.cap is None or bool(served.all()):
            logits: Tensor = self.network(inputs)
        else:
            logits = self.forward_served(inputs, owner, served)
        after = self.clock()
        self.passing += after - before
        self.counting += before - start
        if self.best is not None:
            spent = (self.forwards + self.backwards)[owner]
            self.best.see(images.detach(), logits.detach(), owner, spent)
            self.counting += self.clock() - after
        if differentiated:
            logits = _Exit.apply(logits, self)
        return logits

    def forward_served(
        self, images: Images, owner: Int[Tensor, " b"], served: Bool[Tensor, " b"]
    ) -> Float[Tensor, "b k"]:
        """Return logits where some rows belong to images whose passes are used up."""
        rows = served.nonzero()[:, 0]
        answers = self.network(images[rows] if len(rows) else images[:1].detach())
        truth = nn.functional.one_hot(self.labels[owner], answers.shape[1]).to(answers.dtype)
        logits = truth + (0 * images.flatten(1)[:, :1]).to(truth)
        return logits.index_put((rows,), answers) if len(rows) else logits

    def within_cap(self, owner: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Return which rows are within the cap; rows of one image are served in order."""
        if self.cap is None:
            return torch.ones_like(owner, dtype=torch.bool)
        return (self.forwards + self.backwards)[owner] + occurrence(owner) < self.cap

    def clock(self) -> float:
        """Return the time in seconds, after a GPU has finished its work."""
        if self.forwards.is_cuda:
            torch.cuda.synchronize(self.forwards.device)
        return time.perf_counter()


def count_rows(counts: Int[Tensor, " n"], owner: Int[Tensor, " b"]) -> None:
    """Add the number of each image's rows to its count."""
    counts += torch.bincount(owner, minlength=len(counts))


class _Entry(torch.autograd.Function):
    """The identity on the images, which counts their gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, counted: Counted, owner: Tensor) -> Tensor:
        ctx.counted, ctx.owner = counted, owner
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        counted, owner = ctx.counted, ctx.owner
        backward_end = counted.clock()
        counted.passing += backward_end - counted.backward_start
        _refuse_several(gradient)
        served = counted.within_cap(owner)
        count_rows(counted.backwards, owner[served])
        if counted.cap is not None:
            gradient = torch.where(served[:, None, None, None], gradient, 0)
        counted.counting += counted.clock() - backward_end
        return gradient, None, None


class _Exit(torch.autograd.Function):
    """The identity on the logits, which notes the start of a backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, counted: Counted) -> Tensor:
        ctx.counted = counted
        return logits.clone()  # not a view: an attack may write into the logits

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.counted.backward_start = ctx.counted.clock()
        return gradient, None


def _refuse_several(gradient: Tensor) -> None:
    """Refuse batched backward passes, whose number cannot be seen from inside."""
    try:
        gradient.data_ptr()  # a batched gradient has no storage of its own
    except RuntimeError:
        raise RuntimeError(
            "backward passes with is_grads_batched cannot be counted; use a loop"
        ) from None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """Measure how far memory rises above the start.

    Args:
        device: A GPU, whose memory is measured; else the resident memory of this process on Linux.

    Yields:
        A function that returns the rise in MiB; None where the system does not report it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    try:
        release_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        resident = _status("VmRSS")
    except (OSError, KeyError):
        yield lambda: None
    else:
        yield lambda: max(0.0, _status("VmHWM") - resident) / 2**10


def release_freed_memory() -> None:
    """Return freed pages to the system: reused pages would not count as a rise."""
    with suppress(OSError, AttributeError):  # malloc_trim exists in the GNU C library only
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int:
    """Return one number of the process's memory in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0])
