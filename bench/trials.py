"""How attacks are evaluated: a trial is one attack on one victim, done block by block.

Every block of pictures is written when it is finished and not attacked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Int
from torch import Tensor, nn

from attacks import Attack, Goal
from attacks.base import Images
from bench import records, registry, seeds
from bench.outcomes import Outcome, join
from bench.passes import Counted, peak_memory
from bench.progress import Progress
from bench.recipes import key
from bench.robustness import Aim, Pictures, goals, judge
from bench.workspace import Workspace

BLOCK = 64
"""Pictures attacked together and written together. Fixed, for the number of pictures in a batch
changes the last bits of a convolution, and with them results."""


KINDS = {
    **dict.fromkeys(("ids", "forwards", "backwards"), (torch.int64, 1)),
    "adversarial": (torch.float32, 4),
}
"""What a block is kept as: type and number of axes of each tensor."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one attack is evaluated.

    ``victim`` and ``data`` are JSON that pins the network and the pictures, ``eps`` is kept as it
    was typed, ``query_cap`` the most forwards and backwards together of a picture. ``matched`` is
    the key of another trial: for each picture the attack then makes as many changes (its ``count``)
    as that one made pixels change, or as its median where that one failed.
    """

    attack: Attack
    victim: str
    data: str
    eps: str
    aim: Aim = "random"
    images: int = 16
    query_cap: int | None = None
    matched: str | None = None

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images is {self.images}: attack at least 1 picture")
        if self.query_cap is not None and self.query_cap < 1:
            raise ValueError(f"query_cap is {self.query_cap}: allow at least 1 pass")

    @property
    def bounded(self) -> bool:
        """Whether the attack promises to keep within eps."""
        return bool(getattr(self.attack, "bounded", getattr(self.attack, "eps", 0) is not None))

    @property
    def name(self) -> str:
        """How a user calls the attack: without the eps, which a whole table has in common."""
        method: Any = self.attack
        if getattr(method, "eps", None) is not None:
            method = replace(method, eps=type(method)().eps)
        text = registry.express(method)
        return text if self.matched is None else f"{text}, as many pixels"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON; those that are None are left out."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return fields | {"attack": registry.express(self.attack)}

    @property
    def key(self) -> str:
        """Names the trial without its seed."""
        return key(self.to_json())


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


class _Reached(Exception):
    """An attack went as far as asking the network."""


class _Unasked(nn.Module):
    """A network that answers nothing."""

    def forward(self, images: Tensor) -> Tensor:
        raise _Reached


def applies(attack: Attack, chosen: Pictures, aim: Aim) -> str:
    """Empty if the attack can do what is asked, else its own words why it cannot.

    It is tried up to its first forward, before which an attack refuses what it cannot do.
    """
    goal = Goal(chosen.labels[:1], targeted=aim != "untargeted")
    try:
        attack(_Unasked(), chosen.images[:1].clone(), goal, [seeds.generator(0, "probe")])
    except ValueError as error:
        return str(error)
    except Exception:
        return ""  # what goes wrong in the trial is counted there
    return ""


def attack(
    trial: Trial,
    seed: int,
    network: nn.Module,
    images: Images,
    labels: Int[Tensor, " b"],
    goal: Goal,
    ids: Int[Tensor, " b"],
    counts: Int[Tensor, " b"] | None = None,
) -> Block:
    """Attack a batch and count; the pictures that make the attack raise come back unchanged.

    What raises for a batch is tried again in halves, so that one picture does not spoil the others.
    Raises ``ValueError`` when memory runs out.
    """
    counted = Counted(network, images, labels, trial.query_cap)
    errors: dict[int, str] = {}
    with peak_memory(images.device) as peak:
        start = counted.clock()
        try:
            adversarial = _call(trial, seed, counted, images, goal, ids, counts)
        except (MemoryError, torch.OutOfMemoryError):
            raise ValueError(
                f"memory ran out with {len(images)} pictures at once: give a smaller --batch-size"
            ) from None
        except Exception as error:
            if len(images) > 1:
                rows = torch.arange(len(images), device=images.device)
                return concatenate(
                    [
                        attack(
                            trial, seed, network, images[half], labels[half], goal[half],
                            ids[half.cpu()], None if counts is None else counts[half.cpu()],
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
    from safetensors.torch import save as pack

    tensors = {
        "ids": block.ids,
        "adversarial": block.adversarial.contiguous(),
        "forwards": block.forwards,
        "backwards": block.backwards,
    }
    took = {name: getattr(block, name) for name in ("seconds", "passing", "memory", "errors")}
    text = json.dumps({"about": about, "took": took})
    records.write(path, pack(tensors, {"job": text, "sha256": _checksum(tensors, text)}))


def load(path: Path, about: dict[str, Any], ids: Int[Tensor, " b"]) -> Block | None:
    """The block that was written before, if it is whole and of these pictures and this job."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        job = records.parse(metadata["job"])
        if _checksum(tensors, metadata["job"]) != metadata["sha256"] or job["about"] != about:
            return None
        if not torch.equal(tensors["ids"], ids):
            return None
        if {name: (each.dtype, each.ndim) for name, each in tensors.items()} != KINDS:
            return None
        if {len(each) for each in tensors.values()} != {len(ids)}:
            return None
        took = job["took"] | {"errors": {int(i): t for i, t in job["took"]["errors"].items()}}
        return Block(**tensors, **took)
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, OSError):
        return None


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def folder(trial: Trial, seed: int, workspace: Workspace) -> Path:
    """Where the blocks of a trial lie."""
    return workspace.results / "attacks" / f"{trial.key}-{seed}"


def blocks(
    trial: Trial,
    seed: int,
    network: nn.Module,
    chosen: Pictures,
    place: Path,
    *,
    batch_size: int = BLOCK,
    counts: list[Int[Tensor, " n"]] | None = None,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Int[Tensor, " b"], Block, bool]]:
    """Attack the pictures for each goal, block by block; finished blocks are read back.

    Yields the goal's number, the rows of the pictures, the block, and whether it was there before.
    Raises ``InterruptedError`` when ``stop()`` turns true.
    """
    for number, goal in enumerate(goals(trial.aim, chosen, seed)):
        for part, rows in enumerate(torch.arange(len(chosen.ids)).split(BLOCK)):
            path = place / f"goal-{number}-block-{part:05d}.safetensors"
            about = {"trial": trial.to_json(), "seed": seed, "goal": number}
            block = None if fresh else load(path, about, chosen.ids[rows])
            if block is not None and block.adversarial.shape != chosen.images[rows].shape:
                block = None
            before = block is not None
            if block is None:
                if stop():
                    raise InterruptedError("stopped; the finished blocks of pictures are kept")
                block = concatenate(
                    [
                        attack(
                            trial, seed, network, chosen.images[batch], chosen.labels[batch],
                            goal[batch], chosen.ids[batch],
                            None if counts is None else counts[number][batch],
                        )
                        for batch in rows.split(batch_size)
                    ]
                )  # fmt: skip
                save(block, path, about)
            yield number, rows, block, before


def run(
    trial: Trial,
    seed: int,
    network: nn.Module,
    chosen: Pictures,
    workspace: Workspace,
    progress: Progress,
    *,
    batch_size: int = BLOCK,
    matched: list[Outcome] | None = None,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[Outcome], bool]:
    """Attack and judge: one outcome per goal, and whether all of it had been attacked before.

    A trial that another process is running is waited for. ``matched`` are the outcomes of the trial
    whose number of changes this one takes over.
    """
    place = folder(trial, seed, workspace)
    lock = workspace.cache / "locks" / f"{place.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    aims = goals(trial.aim, chosen, seed)
    parts: list[list[Outcome]] = [[] for _ in aims]
    reused = True
    bound = float(Fraction(trial.eps)) if trial.bounded else None
    counts = None if matched is None else [changes(outcome) for outcome in matched]
    with FileLock(lock), progress.task(trial.name, len(aims) * len(chosen.ids)) as advance:
        for number, rows, block, before in blocks(
            trial, seed, network, chosen, place,
            batch_size=batch_size, counts=counts, fresh=fresh, stop=stop,
        ):  # fmt: skip
            reused &= before
            there = rows.to(chosen.labels.device)
            parts[number].append(
                Outcome(
                    judge(
                        network, chosen.images[there], chosen.labels[there],
                        aims[number][there], block.adversarial, bound,
                    ),
                    block.forwards, block.backwards,
                    block.seconds, block.passing, block.memory, block.errors,
                )
            )  # fmt: skip
            advance(len(rows))
    return [join(each) for each in parts], reused


def changes(outcome: Outcome) -> Int[Tensor, " n"]:
    """The pixels that each picture needed, the median of the others where the attack failed."""
    won, counts = outcome.verdict.success, outcome.verdict.l0_pixels
    usual = counts[won].median() if won.any() else counts.new_tensor(1)
    return torch.where(won, counts, usual).clamp(min=1)


def peek(place: Path) -> Images:
    """The attacked pictures of a trial's first block."""
    from safetensors import safe_open

    with safe_open(place / "goal-0-block-00000.safetensors", "pt") as file:
        adversarial: Tensor = file.get_tensor("adversarial")
    return adversarial
