"""Attack a block of images, count the passes, and store the result."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks import Goal
from attacks.base import Images
from attacks.originals import copies
from attacks.victim import frozen, out_of_memory
from bench.data import seeds
from bench.errors import Stopped
from bench.files import atomic, json_text, tensor_files
from bench.models.arithmetic import full_float32
from bench.robustness.best_so_far import BUDGETS, NEVER, BestSoFar, settle
from bench.robustness.judge import Verdict
from bench.robustness.metrics import Outcome
from bench.robustness.pass_counter import Counted, peak_memory
from bench.robustness.trials import Trial

KINDS = {
    **dict.fromkeys(("ids", "forwards", "backwards"), (torch.int64, 1)),
    "adversarial": (torch.float32, 4),
}
"""Type and number of axes of each tensor of the file."""

FEWEST = {"fewest": (torch.int32, 3)}
"""What files of version 0.1 do not have."""


@dataclass(frozen=True)
class Block:
    """A block of b images after an attack, with what the attack used.

    Attributes:
        ids: Indices of the images in the test set.
        adversarial: The images that the attack returned; unchanged where it raised an error.
        forwards: Forward passes of each image.
        backwards: Backward passes of each image.
        seconds: Seconds of the attack, without the counting.
        passing: Seconds of it inside the victim model.
        memory: Peak memory above the start in MiB, where the system reports it.
        errors: Errors by index of the image.
        fewest: Fewest changed pixels and elements that succeeded within each of
            `best_so_far.BUDGETS`, shape (b, budgets, 2), as `best_so_far.BestSoFar` notes them;
            None in files of version 0.1.
    """

    ids: Int[Tensor, " b"]
    adversarial: Images
    forwards: Int[Tensor, " b"]
    backwards: Int[Tensor, " b"]
    seconds: float
    passing: float
    memory: float | None
    errors: dict[int, str]
    fewest: Int[Tensor, "b budgets 2"] | None = None

    @classmethod
    def untouched(cls, ids: Int[Tensor, " b"], images: Images, why: str) -> Block:
        """Return a block that was not attacked, with the reason as error of each image."""
        none = torch.zeros(len(ids), dtype=torch.long)
        errors = dict.fromkeys(ids.tolist(), why)
        never = torch.full((len(ids), len(BUDGETS), 2), NEVER, dtype=torch.int32)
        return cls(ids, images.cpu(), none, none, 0.0, 0.0, None, errors, never)

    def part(self, first: int, after: int) -> Block:
        """Return the images from ``first`` to before ``after``, with their share of the time."""
        share = (after - first) / len(self.ids)
        some = self.at(torch.arange(first, after))
        return replace(
            some,
            seconds=self.seconds * share,
            passing=self.passing * share,
            errors={i: self.errors[i] for i in some.ids.tolist() if i in self.errors},
        )

    def at(self, rows: Int[Tensor, " m"]) -> Block:
        """Return the images at some rows, in their order; seconds and errors stay those of all."""
        return replace(
            self,
            ids=self.ids[rows],
            adversarial=self.adversarial[rows],
            forwards=self.forwards[rows],
            backwards=self.backwards[rows],
            fewest=None if self.fewest is None else self.fewest[rows],
        )

    def outcome(self, verdict: Verdict) -> Outcome:
        """Return the outcome of the block, with its verdict."""
        fewest = None
        if self.fewest is not None:
            changes = torch.stack([verdict.l0_pixels, verdict.l0_elements], 1)
            changes = torch.where(verdict.success[:, None], changes, NEVER)
            fewest = settle(self.fewest, self.forwards + self.backwards, changes)
        return Outcome(
            verdict,
            self.forwards,
            self.backwards,
            self.seconds,
            self.passing,
            self.memory,
            self.errors,
            fewest,
        )


@full_float32()
def attack(
    trial: Trial,
    seed: int,
    network: nn.Module,
    images: Images,
    labels: Int[Tensor, " b"],
    goal: Goal,
    ids: Int[Tensor, " b"],
    counts: Int[Tensor, " b"] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Block:
    """Attack a batch of images and count its passes.

    If the attack raises an error, or memory is too short, it is tried again on each half of the
    batch, such that one image does not affect the others; a single image with an error is returned
    unchanged. Equal images are attacked one after the other, since their passes could not be told
    apart.

    Args:
        trial: The attack and how it is evaluated.
        seed: Seed of the attack's random draws.
        network: The victim model.
        images: Images in [0, 1], shape (b, c, h, w).
        labels: True classes, shape (b,).
        goal: What the attack should reach.
        ids: Indices of the images in the test set, shape (b,).
        counts: Number of changes of each image, for an attack that takes a count.
        stop: Whether to stop soon.

    Raises:
        ValueError: Memory is too short for a single image.
        Stopped: ``stop()`` returned True at a pass.
    """

    def again(rows: Int[Tensor, " m"]) -> Block:
        there = rows.to(images.device)
        some = None if counts is None else counts[rows]
        return attack(
            trial, seed, network, images[there], labels[there], goal[there], ids[rows], some, stop
        )

    earlier = copies(images).cpu()
    if earlier.any():
        parts = [(earlier == turn).nonzero()[:, 0] for turn in earlier.unique()]
        return concatenate([again(rows) for rows in parts]).at(torch.cat(parts).argsort())
    best = BestSoFar(images, goal, trial.bound)
    counted = Counted(network, images, labels, trial.query_cap, stop, best)
    adversarial, failed, short = images, "", False
    with peak_memory(images.device) as peak:
        start = counted.clock()
        try:
            with _restored(network):
                adversarial = _call(trial, seed, counted, images, goal, ids, counts)
        except Stopped:
            raise
        except Exception as error:
            # nothing goes on in here: the error keeps the tensors of the attempt alive
            failed = f"{type(error).__name__}: {' '.join(str(error).split())}"
            short = out_of_memory(error)
        seconds = counted.clock() - start - counted.counting
        largest = peak()
    if failed and len(images) > 1:
        return concatenate([again(half) for half in torch.arange(len(images)).chunk(2)])
    if short:
        raise ValueError("Out of memory with a single image: use a device with more memory.")
    return Block(
        ids,
        adversarial.cpu(),
        counted.forwards.cpu(),
        counted.backwards.cpu(),
        seconds,
        counted.passing,
        largest,
        {int(ids[0]): failed} if failed else {},
        best.fewest.cpu(),
    )


@contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    """Give the network its mode, flags, weights and buffers back, whatever an attack did."""
    kept = [
        (tensor, tensor.detach().clone())
        for tensor in itertools.chain(network.parameters(), network.buffers())
    ]
    try:
        with frozen(network):
            yield
    finally:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)


def _call(
    trial: Trial,
    seed: int,
    network: nn.Module,
    images: Images,
    goal: Goal,
    ids: Int[Tensor, " b"],
    counts: Int[Tensor, " b"] | None,
) -> Images:
    """Call the attack and check the shape of what it returns."""
    generators = [seeds.generator(seed, "attack", i) for i in ids.tolist()]
    if counts is None:
        # copies: the judge needs the originals, even if an attack writes into its arguments
        returned = trial.attack(network, images.clone(), replace(goal, labels=goal.labels.clone()),
                                generators)  # fmt: skip
        if not isinstance(returned, Tensor) or returned.shape != images.shape:
            raise TypeError(f"the attack did not return images of shape {tuple(images.shape)}")
        return returned.detach().to(images.dtype)
    answers = images.clone()
    for count in counts.unique().tolist():
        rows = (counts == count).nonzero()[:, 0]
        method: Any = replace(trial.attack, count=count)  # type: ignore[type-var]
        there = rows.to(images.device)
        answers[there] = method(
            network, images[there], goal[there], [generators[row] for row in rows.tolist()]
        )
    return answers


def concatenate(blocks: list[Block]) -> Block:
    """Join consecutive parts of a block."""
    return Block(
        ids=torch.cat([block.ids for block in blocks]),
        adversarial=torch.cat([block.adversarial for block in blocks]),
        forwards=torch.cat([block.forwards for block in blocks]),
        backwards=torch.cat([block.backwards for block in blocks]),
        seconds=sum(block.seconds for block in blocks),
        passing=sum(block.passing for block in blocks),
        memory=max((b.memory for b in blocks if b.memory is not None), default=None),
        errors={i: text for block in blocks for i, text in block.errors.items()},
        fewest=torch.cat([b.fewest for b in blocks if b.fewest is not None]),
    )


def save(block: Block, path: Path, about: dict[str, Any]) -> None:
    """Write a block as a safetensors file, atomically.

    Args:
        block: The block.
        path: The file.
        about: What identifies the block; stored as JSON with seconds, errors and a checksum.
    """
    tensors = {
        "ids": block.ids,
        "adversarial": block.adversarial,
        "forwards": block.forwards,
        "backwards": block.backwards,
    }
    if block.fewest is not None:
        tensors["fewest"] = block.fewest
    took = {name: getattr(block, name) for name in ("seconds", "passing", "memory", "errors")}
    text = json.dumps({"about": about, "took": took})
    atomic.write(path, tensor_files.pack(tensors, {"job": text}, covered="job"))


def adversarial(path: Path) -> Images | None:
    """Return the attacked images of a block's file, or None if it is missing or damaged."""
    try:
        return tensor_files.read(path, covered="job")[0]["adversarial"]
    except (OSError, ValueError, KeyError):
        return None


def load(path: Path, about: dict[str, Any], ids: Int[Tensor, " b"]) -> Block | None:
    """Return a stored block; None if its file is missing or damaged or belongs to other images.

    Args:
        path: The file.
        about: What identifies the block.
        ids: Indices of its images in the test set.
    """
    try:
        tensors, metadata = tensor_files.read(path, covered="job")
        job = json_text.parse(metadata["job"])
        if job["about"] != about:
            return None
        if not torch.equal(tensors["ids"], ids):
            return None
        kinds = {name: (each.dtype, each.ndim) for name, each in tensors.items()}
        if kinds not in (KINDS, KINDS | FEWEST):
            return None
        if "fewest" in tensors and tensors["fewest"].shape[1:] != (len(BUDGETS), 2):
            del tensors["fewest"]  # noted at other budgets, by another version
        if {len(each) for each in tensors.values()} != {len(ids)}:
            return None
        took = job["took"] | {"errors": {int(i): t for i, t in job["took"]["errors"].items()}}
        fields: dict[str, Any] = {**tensors, **took}
        return Block(**fields)
    except (LookupError, ValueError, TypeError, AttributeError, OSError):
        return None
