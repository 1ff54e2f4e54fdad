"""Counting what an attack asks of a network: forwards and backwards per picture, and seconds."""

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
from bench.errors import Stopped


class Counted(nn.Module):
    """A network that counts its passes, for each of the pictures under attack, and can cap them.

    A row of a batch belongs to the original it is nearest to (AttackBench, Cinà et al. 2025), so
    an attack may shrink, repeat and reorder its batches; of two equal originals the first one gets
    all rows. A backward counts each time a gradient arrives at the input, once per row.

    With ``cap``, the most forwards and backwards together of a picture, an exhausted picture gets
    the logits of its true label and a gradient of zero, and neither is counted.

    ``passing`` are the seconds spent in the network itself, ``counting`` those spent here; what
    remains of an attack's time is its own.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        labels: Int[Tensor, " b"],
        cap: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.network = network
        self.cap, self.stop = cap, stop
        self.labels = labels
        self.originals = images.flatten(1)
        self.half_squares = self.originals.square().sum(1) / 2
        self.forwards = torch.zeros(len(images), dtype=torch.long, device=images.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.passing = 0.0
        self.counting = 0.0
        self.entered = 0.0

    def forward(self, images: Images) -> Float[Tensor, "b k"]:
        """Return the logits, and count; raises `Stopped` once ``stop()`` is true."""
        if self.stop():
            raise Stopped("stopped in the middle of an attack")
        start = self.clock()
        with torch.no_grad():
            owner = (self.half_squares - images.flatten(1) @ self.originals.T).argmin(1)
            served = self.admit(owner)
            tally(self.forwards, owner[served])
        differentiated = torch.is_grad_enabled() and images.requires_grad
        inputs = _Entry.apply(images, self, owner) if differentiated else images
        before = self.clock()
        if self.cap is None or bool(served.all()):
            logits: Tensor = self.network(inputs)
        else:
            logits = self.partly(inputs, owner, served)
        after = self.clock()
        self.passing += after - before
        self.counting += before - start
        if differentiated:
            logits = _Exit.apply(logits, self)
        return logits

    def partly(
        self, images: Images, owner: Int[Tensor, " b"], served: Bool[Tensor, " b"]
    ) -> Float[Tensor, "b k"]:
        """Logits where some rows belong to exhausted pictures."""
        rows = served.nonzero()[:, 0]
        answers = self.network(images[rows] if len(rows) else images[:1].detach())
        truth = nn.functional.one_hot(self.labels[owner], answers.shape[1]).to(answers.dtype)
        logits = truth + 0 * images.flatten(1)[:, :1]
        return logits.index_put((rows,), answers) if len(rows) else logits

    def admit(self, owner: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which rows are still paid for; rows of one picture are paid in their order."""
        if self.cap is None:
            return torch.ones_like(owner, dtype=torch.bool)
        grouped, order = owner.sort(stable=True)
        place = torch.arange(len(owner), device=owner.device)
        earlier = torch.empty_like(owner)
        earlier[order] = place - torch.searchsorted(grouped, grouped)
        return (self.forwards + self.backwards)[owner] + earlier < self.cap

    def clock(self) -> float:
        """The time, once an accelerator has done what it was asked."""
        if self.originals.is_cuda:
            torch.cuda.synchronize(self.originals.device)
        return time.perf_counter()


def tally(counts: Int[Tensor, " n"], owner: Int[Tensor, " b"]) -> None:
    """Add to each picture's count the number of its rows."""
    counts += torch.bincount(owner, minlength=len(counts))


class _Entry(torch.autograd.Function):
    """The identity on the images, whose gradient is counted."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, counted: Counted, owner: Tensor) -> Tensor:
        ctx.counted, ctx.owner = counted, owner
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        counted, owner = ctx.counted, ctx.owner
        arrived = counted.clock()
        counted.passing += arrived - counted.entered
        _refuse_several(gradient)
        served = counted.admit(owner)
        tally(counted.backwards, owner[served])
        if counted.cap is not None:
            gradient = torch.where(served[:, None, None, None], gradient, 0)
        counted.counting += counted.clock() - arrived
        return gradient, None, None


class _Exit(torch.autograd.Function):
    """The identity on the logits, which tells when a backward begins."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, counted: Counted) -> Tensor:
        ctx.counted = counted
        return logits.clone()  # not a view: an attack may write into its logits

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.counted.entered = ctx.counted.clock()
        return gradient, None


def _refuse_several(gradient: Tensor) -> None:
    """Refuse several backwards that run as one: how many they are can't be seen from within."""
    try:
        gradient.data_ptr()  # such a gradient has no storage of its own
    except RuntimeError:
        raise RuntimeError(
            "backwards run with is_grads_batched cannot be counted: use a loop"
        ) from None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """While open, the given function tells how far memory rose above the start, in MiB.

    Memory of the accelerator, or resident memory of this process on Linux; elsewhere None.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    try:
        give_back()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest mark
        resident = _status("VmRSS")
    except (OSError, KeyError):
        yield lambda: None
    else:
        yield lambda: max(0.0, _status("VmHWM") - resident) / 2**10


def give_back() -> None:
    """Return freed pages to the system: the allocator would use them again, unseen as a rise."""
    with suppress(OSError, AttributeError):  # only the GNU library has it
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int:
    """One number of the process's memory, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0])
