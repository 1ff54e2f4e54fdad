"""How attacks are evaluated: a trial is one attack on one victim, done block by block.

Every block of pictures is a job of its own, written when it is finished and not attacked again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from bench.errors import Stopped
from bench.executors import Executor, Local, Lost
from bench.outcomes import Outcome, join
from bench.passes import Counted, peak_memory
from bench.progress import Progress
from bench.recipes import key
from bench.robustness import Aim, Pictures, goals, judge, pictures
from bench.victims import Victim
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

    @property
    def attacked(self) -> dict[str, Any]:
        """What determines how a picture is attacked: blocks serve trials of more pictures, too."""
        fields = self.to_json()
        if self.matched is None:  # else the counts depend on all pictures
            del fields["images"]
        return fields


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


class _Reached(Exception):
    """An attack went as far as asking the network."""


class _Unasked(nn.Module):
    """A network that answers nothing."""

    def forward(self, images: Tensor) -> Tensor:
        raise _Reached


def applies(trial: Trial, image: Images, label: Int[Tensor, " 1"], classes: int) -> str:
    """Empty if the attack can do what is asked, else its own words why it cannot.

    It is tried on a picture up to its first forward, before which an attack refuses what it cannot.
    """
    targeted = trial.aim != "untargeted"
    goal = Goal((label + 1) % classes if targeted else label, targeted)
    try:
        trial.attack(_Unasked(), image.clone(), goal, [seeds.generator(0, "probe")])
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
    return workspace.results / "attacks" / f"{key(trial.attacked)}-{seed}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One block of pictures of a trial with one seed and goal: what an executor takes as a job.

    ``goal`` and ``number`` count the goals of the trial and its blocks of pictures. ``counts`` is
    how many changes each picture of the block gets, where another trial determines that.
    """

    trial: Trial
    seed: int
    victim: Victim
    goal: int
    number: int
    counts: tuple[int, ...] | None = None
    batch_size: int = BLOCK
    fresh: bool = False

    @property
    def about(self) -> dict[str, Any]:
        """What the block's file belongs to."""
        return {"trial": self.trial.attacked, "seed": self.seed, "goal": self.goal}

    def path(self, workspace: Workspace) -> Path:
        """Where the block's file lies."""
        name = f"goal-{self.goal}-block-{self.number:05d}.safetensors"
        return folder(self.trial, self.seed, workspace) / name

    def rows(self, chosen: Pictures) -> Int[Tensor, " b"]:
        """The places of the block's pictures among those under attack."""
        first = BLOCK * self.number
        return torch.arange(first, min(first + BLOCK, len(chosen.ids)))


def parts(
    trial: Trial,
    seed: int,
    victim: Victim,
    chosen: Pictures,
    *,
    matched: Sequence[Outcome] | None = None,
    **options: Any,
) -> list[Part]:
    """All blocks of a trial; ``matched`` are the outcomes of the trial whose counts it takes over.

    ``options`` are further fields of each part.
    """
    counts = None if matched is None else [changes(outcome) for outcome in matched]
    return [
        Part(
            trial=trial,
            seed=seed,
            victim=victim,
            goal=goal,
            number=number,
            counts=None if counts is None else tuple(counts[goal][rows].tolist()),
            **options,
        )
        for goal in range(len(goals(trial.aim, chosen, seed)))
        for number, rows in enumerate(torch.arange(len(chosen.ids)).split(BLOCK))
    ]


KEPT = 8  # networks in memory, for as many seeds
_opponents: dict[tuple[Any, ...], tuple[nn.Module, Pictures]] = {}


def opponent(
    victim: Victim,
    images: int,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, Pictures]:
    """The network under attack and the pictures that it classifies correctly; kept in memory."""
    key = victim, images, workspace
    if key not in _opponents:
        if len(_opponents) == KEPT:
            del _opponents[next(iter(_opponents))]
        network = victim.load(workspace, progress, stop)
        test = workspace.dataset().test
        _opponents[key] = network, pictures(network, test, images, workspace.device)
    return _opponents[key]


def work(
    part: Part, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> bool | None:
    """Attack a block unless its file is there; returns whether it was, None when asked to stop.

    A block that another process is attacking is waited for.
    """
    network, chosen = opponent(part.victim, part.trial.images, workspace, progress, stop)
    rows, path = part.rows(chosen), part.path(workspace)
    lock = workspace.cache / "locks" / f"{path.parent.name}-{part.goal}-{part.number}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not part.fresh and finished(part, workspace, progress) is not None:
            return True
        goal = goals(part.trial.aim, chosen, part.seed)[part.goal]
        counts = None if part.counts is None else torch.tensor(part.counts)
        done = []
        for batch in torch.arange(len(rows)).split(part.batch_size):
            there = rows[batch].to(chosen.labels.device)
            try:
                found = attack(
                    part.trial, part.seed, network, chosen.images[there], chosen.labels[there],
                    goal[there], chosen.ids[rows[batch]],
                    None if counts is None else counts[batch], stop,
                )  # fmt: skip
            except Stopped:
                return None
            done.append(found)
        save(concatenate(done), path, part.about)
    return False


SLOW = ("cw-l0", "sapf", "pgd-l0")
"""Attacks that ask for many passes: they begin first, so that no worker idles at the end."""


def _haste(part: Part) -> int:
    name = registry.parse(registry.express(part.trial.attack))[0]
    return SLOW.index(name) if name in SLOW else len(SLOW)


def finished(part: Part, workspace: Workspace, progress: Progress) -> Block | None:
    """The block of a part, if it was attacked before and its file is whole."""
    chosen = opponent(part.victim, part.trial.images, workspace, progress)[1]
    rows = part.rows(chosen)
    block = load(part.path(workspace), part.about, chosen.ids[rows])
    whole = block is not None and block.adversarial.shape[1:] == chosen.images.shape[1:]
    return block if whole else None


Verdicts = tuple[Trial, int, list[Outcome], bool]
"""A trial and seed, one outcome per goal, and whether all of it had been attacked before."""


def run(
    jobs: Sequence[Part],
    workspace: Workspace,
    progress: Progress,
    *,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Verdicts]:
    """Attack what is missing and yield each trial as soon as its last block is there, judged.

    Finished blocks are kept whatever happens. Raises `Stopped` when ``stop()`` turns true. The
    pictures of a block whose worker died again and again come back unchanged, with that as error.
    """
    executor = executor or Local()
    trials: dict[tuple[Trial, int], list[Part]] = {}
    for part in jobs:
        trials.setdefault((part.trial, part.seed), []).append(part)
    missing = [part for part in jobs if part.fresh or finished(part, workspace, progress) is None]
    if not isinstance(executor, Local):
        missing.sort(key=lambda part: (part.trial.eps, part.seed, _haste(part)))
    left = Counter((part.trial, part.seed) for part in missing)
    lost: dict[Part, str] = {}
    for name, mine in trials.items():
        if not left[name]:
            yield *name, gather(mine, workspace, progress, lost), True
    with progress.task("blocks of pictures", len(missing)) as advance:
        for index, answer in executor.map(work, missing, workspace, progress, stop):
            part = missing[index]
            name = part.trial, part.seed
            if answer is None:
                break
            if isinstance(answer, Lost):
                lost[part] = answer.message
            left[name] -= 1
            advance(note=f"{part.trial.name}, eps {part.trial.eps}")
            if not left[name]:
                yield *name, gather(trials[name], workspace, progress, lost), False
    if rest := sum(left.values()):
        done = len(missing) - rest
        raise Stopped(f"stopped after {done} of {len(missing)} blocks of pictures")


def gather(
    mine: Sequence[Part], workspace: Workspace, progress: Progress, lost: Mapping[Part, str]
) -> list[Outcome]:
    """Read the blocks of a trial and judge them; one outcome per goal."""
    trial, seed = mine[0].trial, mine[0].seed
    network, chosen = opponent(mine[0].victim, trial.images, workspace, progress)
    aims = goals(trial.aim, chosen, seed)
    bound = float(Fraction(trial.eps)) if trial.bounded else None
    found: list[list[Outcome]] = [[] for _ in aims]
    for part in mine:
        rows = part.rows(chosen)
        there = rows.to(chosen.labels.device)
        block = finished(part, workspace, progress)
        if part in lost or block is None:
            why = lost.get(part, "its block of pictures was damaged after the attack")
            block = Block.untouched(chosen.ids[rows], chosen.images[there], why)
        found[part.goal].append(
            Outcome(
                judge(
                    network, chosen.images[there], chosen.labels[there],
                    aims[part.goal][there], block.adversarial, bound,
                ),
                block.forwards, block.backwards,
                block.seconds, block.passing, block.memory, block.errors,
            )
        )  # fmt: skip
    return [join(each) for each in found]


def changes(outcome: Outcome) -> Int[Tensor, " n"]:
    """The pixels that each picture needed, the median of the others where the attack failed."""
    won, counts = outcome.verdict.success, outcome.verdict.l0_pixels
    usual = counts[won].median() if won.any() else counts.new_tensor(1)
    return torch.where(won, counts, usual).clamp(min=1)


def peek(place: Path) -> Images | None:
    """The attacked pictures of a trial's first block, if it is there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place / "goal-0-block-00000.safetensors", "pt") as file:
            adversarial: Tensor = file.get_tensor("adversarial")
    except (OSError, SafetensorError):
        return None
    else:
        return adversarial
