"""Running trials: their blocks of pictures go through an executor and are judged as they come in.

Every block is a job of its own, kept when it is finished and not attacked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Int
from torch import Tensor, nn

from attacks import passes
from attacks.base import Images
from bench.errors import Stopped
from bench.execution.executors import Executor, Local, Lost
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.robustness import batches
from bench.robustness.batches import Block, attack, concatenate, load, save
from bench.robustness.judge import CorrectImages, correct_images, goals, judge
from bench.robustness.metrics import Outcome, join
from bench.robustness.trials import Trial, changes, folder
from bench.training.victims import Victim

BLOCK = 64
"""Pictures attacked together and written together. Fixed, for the number of pictures in a batch
changes the last bits of a convolution, and with them results."""


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

    def rows(self, chosen: CorrectImages) -> Int[Tensor, " b"]:
        """The places of the block's pictures among those under attack."""
        first = BLOCK * self.number
        return torch.arange(first, min(first + BLOCK, len(chosen.ids)))


def parts(
    trial: Trial,
    seed: int,
    victim: Victim,
    chosen: CorrectImages,
    *,
    matched: Sequence[Outcome] | None = None,
    batch_size: int = BLOCK,
    fresh: bool = False,
) -> list[Part]:
    """All blocks of a trial; ``matched`` are outcomes of the trial whose counts it takes over."""
    counts = None if matched is None else [changes(outcome) for outcome in matched]
    return [
        Part(
            trial=trial,
            seed=seed,
            victim=victim,
            goal=goal,
            number=number,
            counts=None if counts is None else tuple(counts[goal][rows].tolist()),
            batch_size=batch_size,
            fresh=fresh,
        )
        for goal in range(len(goals(trial.aim, chosen, seed)))
        for number, rows in enumerate(torch.arange(len(chosen.ids)).split(BLOCK))
    ]


KEPT = 8  # networks in memory, for as many seeds
_opponents: dict[tuple[Any, ...], tuple[nn.Module, CorrectImages]] = {}


def opponent(
    victim: Victim,
    images: int,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, CorrectImages]:
    """The network under attack and the pictures that it classifies correctly; kept in memory."""
    key = victim, images, workspace
    if key not in _opponents:
        if len(_opponents) == KEPT:
            del _opponents[next(iter(_opponents))]
        network = victim.load(workspace, progress, stop)
        test = workspace.dataset(victim.data).test
        _opponents[key] = network, correct_images(network, test, images, workspace.device)
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


def finished(part: Part, workspace: Workspace, progress: Progress) -> Block | None:
    """The block of a part, if it was attacked before and its file is whole."""
    chosen = opponent(part.victim, part.trial.images, workspace, progress)[1]
    rows = part.rows(chosen)
    block = load(part.path(workspace), part.about, chosen.ids[rows])
    whole = block is not None and block.adversarial.shape[1:] == chosen.images.shape[1:]
    return block if whole else None


def _passes(part: Part, workspace: Workspace, progress: Progress) -> int:
    """The most passes of the part's attack for one picture."""
    images = opponent(part.victim, part.trial.images, workspace, progress)[1].images
    return passes(part.trial.attack, (images.shape[1], images.shape[2], images.shape[3]))


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
        tables = list(dict.fromkeys((part.trial.eps, part.seed) for part in jobs))
        # attacks that ask for many passes begin first, so that no worker idles at the end
        missing.sort(
            key=lambda part: (
                tables.index((part.trial.eps, part.seed)),
                -_passes(part, workspace, progress),
            )
        )
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
    found: list[list[Outcome]] = [[] for _ in aims]
    for part in mine:
        rows = part.rows(chosen)
        there = rows.to(chosen.labels.device)
        block = finished(part, workspace, progress)
        if part in lost or block is None:
            why = lost.get(part, "its block of pictures was damaged after the attack")
            block = Block.untouched(chosen.ids[rows], chosen.images[there], why)
        verdict = judge(
            network, chosen.images[there], chosen.labels[there],
            aims[part.goal][there], block.adversarial, trial.bound,
        )  # fmt: skip
        found[part.goal].append(block.outcome(verdict))
    return [join(each) for each in found]


def attacked(
    trial: Trial, seed: int, workspace: Workspace, blocks: int | None = None
) -> Images | None:
    """The attacked images of a trial's first goal as they were kept; None if some are missing.

    ``blocks`` asks for the first blocks of images alone.
    """
    place = folder(trial, seed, workspace)
    count = -(-trial.images // BLOCK) if blocks is None else blocks
    found = []
    for number in range(count):
        images = batches.adversarial(place / f"goal-0-block-{number:05d}.safetensors")
        if images is None:
            return None
        found.append(images)
    return torch.cat(found)
