"""Run trials: blocks of images are attacked by an executor and judged as they finish.

Every block is stored when it is finished and not attacked again. It is a job of its own, unless a
batch holds several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attacks import passes
from attacks.base import Images
from bench.errors import Stopped
from bench.execution.executors import Executor, Local, Lost
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import locks
from bench.robustness import batches
from bench.robustness.batches import Block, attack, concatenate, load, save
from bench.robustness.judge import CorrectImages, correct_images, goals, judge
from bench.robustness.metrics import Outcome, join
from bench.robustness.trials import Trial, change_counts, folder
from bench.training.victims import Victim

BLOCK = 64
"""Number of images per block, stored together, and attacked together unless ``batch_size`` says
otherwise. Fixed, because the number of images in a batch changes the last bits of a convolution,
and with them results."""

ON_CUDA = 4 * BLOCK
"""Images of a batch on a CUDA device, where a pass over a block takes hardly longer than one over a
single image."""


def usual_batch(device: str) -> int:
    """The number of images that are attacked as one batch on a device, unless the user says."""
    return ON_CUDA if device.startswith("cuda") else BLOCK


@dataclass(frozen=True, kw_only=True)
class AttackJob:
    """Blocks of images of a trial that are attacked together: one job of an executor.

    Attributes:
        trial: The trial.
        seed: Seed of targets and draws.
        victim: The victim model.
        goal: Index among the goals of the trial.
        number: Index of the first block among the trial's blocks of images.
        counts: Number of changes of each image, where another trial determines it.
        batch_size: Images attacked as one batch.
        fresh: Attack the blocks even if their files exist.
        span: Number of consecutive blocks.
    """

    trial: Trial
    seed: int
    victim: Victim
    goal: int
    number: int
    counts: tuple[int, ...] | None = None
    batch_size: int = BLOCK
    fresh: bool = False
    span: int = 1

    @property
    def blocks(self) -> list[AttackJob]:
        """The same with a job for each block."""
        numbers = range(self.number, self.number + self.span)
        counts: Sequence[tuple[int, ...] | None] = [None] * self.span
        if self.counts is not None:
            starts = range(0, self.span * BLOCK, BLOCK)
            counts = [self.counts[start : start + BLOCK] for start in starts]
        return [
            replace(self, number=number, counts=some, span=1)
            for number, some in zip(numbers, counts, strict=True)
        ]

    @property
    def about(self) -> dict[str, Any]:
        """What identifies the block in its file."""
        return {"trial": self.trial.attacked, "seed": self.seed, "goal": self.goal}

    def path(self, workspace: Workspace) -> Path:
        """Return the file of the first block."""
        name = f"goal-{self.goal}-block-{self.number:05d}.safetensors"
        return folder(self.trial, self.seed, workspace) / name

    def rows(self, chosen: CorrectImages) -> Int[Tensor, " b"]:
        """Return the indices of the blocks' images among the attacked ones."""
        first = BLOCK * self.number
        return torch.arange(first, min(first + self.span * BLOCK, len(chosen.ids)))


def attack_jobs(
    trial: Trial,
    seed: int,
    victim: Victim,
    chosen: CorrectImages,
    *,
    matched: Sequence[Outcome] | None = None,
    batch_size: int | None = None,
    fresh: bool = False,
) -> list[AttackJob]:
    """Return the jobs of all blocks of a trial.

    Args:
        trial: The trial.
        seed: Seed of targets and draws.
        victim: The victim model.
        chosen: The images under attack.
        matched: Outcomes, one per goal, whose counts of changed pixels the trial uses; None for a
            trial with counts of its own.
        batch_size: Images attacked as one batch; None: those of a block.
        fresh: Attack blocks even if their files exist.
    """
    counts = None if matched is None else [change_counts(outcome) for outcome in matched]
    return [
        AttackJob(
            trial=trial,
            seed=seed,
            victim=victim,
            goal=goal,
            number=number,
            counts=None if counts is None else tuple(counts[goal][rows].tolist()),
            batch_size=batch_size or BLOCK,
            fresh=fresh,
        )
        for goal in range(len(goals(trial.aim, chosen, seed)))
        for number, rows in enumerate(torch.arange(len(chosen.ids)).split(BLOCK))
    ]


KEPT = 8  # number of victim models in memory, one per seed
_victims: dict[tuple[Any, ...], tuple[nn.Module, CorrectImages]] = {}


def load_victim(
    victim: Victim,
    images: int,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, CorrectImages]:
    """Load a victim model and the images that it classifies correctly; both stay in memory.

    Args:
        victim: The victim model.
        images: Number of images.
        workspace: Where victim models are stored, and the device.
        progress: Shows the training of a victim model that is trained here.
        stop: Whether to stop soon.

    Raises:
        ValueError: Fewer images are classified correctly.
        Stopped: ``stop()`` returned True during the training.
    """
    key = victim, images, workspace
    if key not in _victims:
        if len(_victims) == KEPT:
            del _victims[next(iter(_victims))]
        network = victim.load(workspace, progress, stop)
        test = workspace.dataset(victim.data).test
        _victims[key] = network, correct_images(network, test, images, workspace.device)
    return _victims[key]


def work(
    job: AttackJob, workspace: Workspace, progress: Progress, stop: Callable[[], bool]
) -> bool | None:
    """Attack the blocks of a job whose files are missing; the work of an executor.

    If another process is attacking one of them, this one waits for it.

    Returns:
        Whether all files existed before; None if asked to stop.
    """
    network, chosen = load_victim(job.victim, job.trial.images, workspace, progress, stop)
    try:
        with ExitStack() as stack:
            for block in job.blocks:
                name = f"{block.path(workspace).parent.name}-{block.goal}-{block.number}.lock"
                what = f"block {block.number} of {job.trial.name}, eps {job.trial.eps}"
                lock = workspace.cache / "locks" / name
                held = locks.held(lock, f"{what}, seed {job.seed}", progress.say, stop)
                stack.enter_context(held)
            return _attack(job, network, chosen, workspace, progress, stop)
    except Stopped:
        return None


def _attack(
    job: AttackJob,
    network: nn.Module,
    chosen: CorrectImages,
    workspace: Workspace,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Attack the blocks whose files are missing; returns whether there was none."""
    missing = [
        block for block in job.blocks if job.fresh or finished(block, workspace, progress) is None
    ]
    if not missing:
        return True
    rows = torch.cat([block.rows(chosen) for block in missing])
    goal = goals(job.trial.aim, chosen, job.seed)[job.goal]
    counts = None
    if job.counts is not None:
        counts = torch.tensor([count for block in missing for count in block.counts or ()])
    done = []
    for batch in torch.arange(len(rows)).split(job.batch_size):
        there = rows[batch].to(chosen.labels.device)
        found = attack(
            job.trial, job.seed, network, chosen.images[there], chosen.labels[there],
            goal[there], chosen.ids[rows[batch]],
            None if counts is None else counts[batch], stop,
        )  # fmt: skip
        done.append(found)
    whole, first = concatenate(done), 0
    for block in missing:
        after = first + len(block.rows(chosen))
        save(whole.part(first, after), block.path(workspace), block.about)
        first = after
    return False


def finished(job: AttackJob, workspace: Workspace, progress: Progress) -> Block | None:
    """Return the stored block of a job; None if its file is missing or damaged."""
    chosen = load_victim(job.victim, job.trial.images, workspace, progress)[1]
    rows = job.rows(chosen)
    block = load(job.path(workspace), job.about, chosen.ids[rows])
    whole = block is not None and block.adversarial.shape[1:] == chosen.images.shape[1:]
    return block if whole else None


def _together(jobs: Sequence[AttackJob]) -> list[AttackJob]:
    """Join jobs of consecutive blocks of a trial and goal, as far as a batch holds them."""
    joined: list[AttackJob] = []
    for job in jobs:
        last = joined[-1] if joined else None
        if last is not None and (last.span + 1) * BLOCK <= job.batch_size:
            following = replace(last, number=last.number + last.span, counts=job.counts, span=1)
            if job == following:
                counts = None if job.counts is None else (last.counts or ()) + job.counts
                joined[-1] = replace(last, counts=counts, span=last.span + 1)
                continue
        joined.append(job)
    return joined


def _most_passes(job: AttackJob, workspace: Workspace, progress: Progress) -> int:
    """Return the largest number of passes per image of the job's attack."""
    images = load_victim(job.victim, job.trial.images, workspace, progress)[1].images
    return passes(job.trial.attack, (images.shape[1], images.shape[2], images.shape[3]))


JudgedTrial = tuple[Trial, int, list[Outcome], bool]
"""A trial, its seed, one outcome per goal, and whether all its blocks were stored before."""


def run(
    jobs: Sequence[AttackJob],
    workspace: Workspace,
    progress: Progress,
    *,
    executor: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[JudgedTrial]:
    """Attack the blocks that are missing, and yield each trial with its last block.

    Finished blocks are stored whatever happens. If the worker of a block dies at every attempt, its
    images are unchanged and have that as their error.

    Args:
        jobs: Jobs of one or more trials.
        workspace: Where the blocks are stored, and the device.
        progress: Shows the blocks.
        executor: Where the blocks are attacked; None: one after the other in this process.
        stop: Whether to stop soon.

    Raises:
        Stopped: ``stop()`` returned True before the last block.
    """
    executor = executor or Local()
    trials: dict[tuple[Trial, int], list[AttackJob]] = {}
    for job in jobs:
        trials.setdefault((job.trial, job.seed), []).append(job)
    missing = [job for job in jobs if job.fresh or finished(job, workspace, progress) is None]
    if not isinstance(executor, Local):
        tables = list(dict.fromkeys((job.trial.eps, job.seed) for job in jobs))
        # attacks with many passes start first, so that no worker idles at the end
        missing.sort(
            key=lambda job: (
                tables.index((job.trial.eps, job.seed)),
                -_most_passes(job, workspace, progress),
            )
        )
    left = Counter((job.trial, job.seed) for job in missing)
    whole = len(missing)
    missing = _together(missing)
    lost: dict[AttackJob, str] = {}
    for name, members in trials.items():
        if not left[name]:
            yield *name, judge_trial(members, workspace, progress, lost), True
    with progress.task("blocks of images", whole) as advance:
        for index, answer in executor.map(work, missing, workspace, progress, stop):
            job = missing[index]
            name = job.trial, job.seed
            if answer is None:
                break
            if isinstance(answer, Lost):
                lost |= dict.fromkeys(job.blocks, answer.message)
            left[name] -= job.span
            advance(job.span, note=f"{job.trial.name}, eps {job.trial.eps}")
            if not left[name]:
                yield *name, judge_trial(trials[name], workspace, progress, lost), False
    if rest := sum(left.values()):
        raise Stopped(f"stopped after {whole - rest} of {whole} blocks of images")


def judge_trial(
    members: Sequence[AttackJob],
    workspace: Workspace,
    progress: Progress,
    lost: Mapping[AttackJob, str],
) -> list[Outcome]:
    """Read the blocks of a trial and judge them; return one outcome per goal."""
    trial, seed = members[0].trial, members[0].seed
    network, chosen = load_victim(members[0].victim, trial.images, workspace, progress)
    aims = goals(trial.aim, chosen, seed)
    found: list[list[Outcome]] = [[] for _ in aims]
    for job in members:
        rows = job.rows(chosen)
        there = rows.to(chosen.labels.device)
        block = finished(job, workspace, progress)
        if job in lost or block is None:
            why = lost.get(job, "the file of its block was damaged after the attack")
            block = Block.untouched(chosen.ids[rows], chosen.images[there], why)
        verdict = judge(
            network, chosen.images[there], chosen.labels[there],
            aims[job.goal][there], block.adversarial, trial.bound,
        )  # fmt: skip
        found[job.goal].append(block.outcome(verdict))
    return [join(each) for each in found]


def attacked(
    trial: Trial, seed: int, workspace: Workspace, blocks: int | None = None
) -> Images | None:
    """Return the stored images of a trial's first goal after the attack; None if some are missing.

    Args:
        trial: The trial.
        seed: Its seed.
        workspace: Where the blocks are stored.
        blocks: Number of blocks to read, from the first; None: all.
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
