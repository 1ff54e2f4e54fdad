"""A block of pictures: attacked together, counted, and kept in a file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks import Goal
from attacks.base import Images
from bench.data import seeds
from bench.errors import Stopped
from bench.files import atomic, json_text, tensor_files
from bench.robustness.judge import Verdict
from bench.robustness.metrics import Outcome
from bench.robustness.pass_counter import Counted, peak_memory
from bench.robustness.trials import Trial

KINDS = {
    **dict.fromkeys(("ids", "forwards", "backwards"), (torch.int64, 1)),
    "adversarial": (torch.float32, 4),
}
"""What a block is kept as: type and number of axes of each tensor."""


@dataclass(frozen=True)
class Block:
    """Some pictures after an attack, and what it took."""

    ids: Int[Tensor, " b"]
    adversarial: Images
    forwards: Int[Tensor, " b"]
    backwards: Int[Tensor, " b"]
    seconds: float
    passing: float
    memory: float | None
    errors: dict[int, str]

    @classmethod
    def untouched(cls, ids: Int[Tensor, " b"], images: Images, why: str) -> Block:
        """Pictures that no attack has seen, and why."""
        none = torch.zeros(len(ids), dtype=torch.long)
        errors = dict.fromkeys(ids.tolist(), why)
        return cls(ids, images.cpu(), none, none, 0.0, 0.0, None, errors)

    def outcome(self, verdict: Verdict) -> Outcome:
        """The block as it was judged."""
        return Outcome(
            verdict,
            self.forwards,
            self.backwards,
            self.seconds,
            self.passing,
            self.memory,
            self.errors,
        )


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
    """Attack a batch and count; the pictures that make the attack raise come back unchanged.

    What raises for a batch is tried again in halves, so that one picture does not spoil the others.
    Raises ``ValueError`` when memory runs out and `Stopped` at a pass after ``stop()`` turns true.
    """
    counted = Counted(network, images, labels, trial.query_cap, stop)
    errors: dict[int, str] = {}
    with peak_memory(images.device) as peak:
        start = counted.clock()
        try:
            adversarial = _call(trial, seed, counted, images, goal, ids, counts)
        except (MemoryError, torch.OutOfMemoryError):
            raise ValueError(
                f"memory ran out with {len(images)} pictures at once: give a smaller --batch-size"
            ) from None
        except Stopped:
            raise
        except Exception as error:
            if len(images) > 1:
                rows = torch.arange(len(images), device=images.device)
                return concatenate(
                    [
                        attack(
                            trial, seed, network, images[half], labels[half], goal[half],
                            ids[half.cpu()], None if counts is None else counts[half.cpu()],
                            stop,
                        )
                        for half in rows.chunk(2)
                    ]
                )  # fmt: skip
            adversarial = images
            errors[int(ids[0])] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        seconds = counted.clock() - start - counted.counting
        return Block(
            ids,
            adversarial.cpu(),
            counted.forwards.cpu(),
            counted.backwards.cpu(),
            seconds,
            counted.passing,
            peak(),
            errors,
        )


def _call(
    trial: Trial,
    seed: int,
    network: nn.Module,
    images: Images,
    goal: Goal,
    ids: Int[Tensor, " b"],
    counts: Int[Tensor, " b"] | None,
) -> Images:
    """The attack's own answer; raises ``TypeError`` for one that is no pictures."""
    generators = [seeds.generator(seed, "attack", i) for i in ids.tolist()]
    if counts is None:
        # copies, for an attack that writes into its arguments must not move the yardstick
        returned = trial.attack(network, images.clone(), Goal(goal.labels.clone(), goal.targeted),
                                generators)  # fmt: skip
        if not isinstance(returned, Tensor) or returned.shape != images.shape:
            raise TypeError(f"the attack returned no pictures of shape {tuple(images.shape)}")
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
    """Parts of one block as one."""
    return Block(
        ids=torch.cat([block.ids for block in blocks]),
        adversarial=torch.cat([block.adversarial for block in blocks]),
        forwards=torch.cat([block.forwards for block in blocks]),
        backwards=torch.cat([block.backwards for block in blocks]),
        seconds=sum(block.seconds for block in blocks),
        passing=sum(block.passing for block in blocks),
        memory=max((b.memory for b in blocks if b.memory is not None), default=None),
        errors={i: text for block in blocks for i, text in block.errors.items()},
    )


def save(block: Block, path: Path, about: dict[str, Any]) -> None:
    """Write a block as safetensors, whole or not at all.

    The metadata holds as JSON what it belongs to, the seconds and errors, and a checksum.
    """
    tensors = {
        "ids": block.ids,
        "adversarial": block.adversarial,
        "forwards": block.forwards,
        "backwards": block.backwards,
    }
    took = {name: getattr(block, name) for name in ("seconds", "passing", "memory", "errors")}
    text = json.dumps({"about": about, "took": took})
    atomic.write(path, tensor_files.pack(tensors, {"job": text}, covered="job"))


def adversarial(path: Path) -> Images | None:
    """The attacked images of a block's file, whatever they belong to; None without a whole one."""
    try:
        return tensor_files.read(path, covered="job")[0]["adversarial"]
    except (OSError, ValueError, KeyError):
        return None


def load(path: Path, about: dict[str, Any], ids: Int[Tensor, " b"]) -> Block | None:
    """The block that was written before, if it is whole and of these pictures and this job."""
    try:
        tensors, metadata = tensor_files.read(path, covered="job")
        job = json_text.parse(metadata["job"])
        if job["about"] != about:
            return None
        if not torch.equal(tensors["ids"], ids):
            return None
        if {name: (each.dtype, each.ndim) for name, each in tensors.items()} != KINDS:
            return None
        if {len(each) for each in tensors.values()} != {len(ids)}:
            return None
        took = job["took"] | {"errors": {int(i): t for i, t in job["took"]["errors"].items()}}
        fields: dict[str, Any] = {**tensors, **took}
        return Block(**fields)
    except (LookupError, ValueError, TypeError, AttributeError, OSError):
        return None
