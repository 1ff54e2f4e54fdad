"""Attacks compared on one victim model under one judge: what is asked for, run, and found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from attacks import Attack
from attacks.base import Images
from bench import registry
from bench.data.dataset import Dataset
from bench.execution import signals
from bench.execution.machine import machine
from bench.execution.options import ExecutionOptions
from bench.execution.progress import Progress, open_progress
from bench.execution.workspace import Workspace
from bench.files import atomic
from bench.records.record import Record
from bench.records.store import Store
from bench.reporting import attack_tables, formats, image_grid
from bench.reporting.table import Table
from bench.robustness import evaluation, in_memory, results, trials
from bench.robustness.evaluation import BLOCK
from bench.robustness.judge import Aim, CorrectImages
from bench.robustness.metrics import Outcome, join, summarise
from bench.robustness.trials import Trial
from bench.studies.comparison import place
from bench.studies.tracking import TrackingOptions
from bench.training import victims
from bench.training.victims import Victim

IMAGES = 16
"""So few by default that all attacks, with the victim's training, take minutes on two cores."""


@dataclass(frozen=True, kw_only=True)
class AttackDesign:
    """Attacks on one victim model, at one or several bounds.

    Attributes:
        attacks: Attacks by name with options, as ``"jsma(direction='both')"``, or objects; empty:
            every attack that can reach the goal.
        eps: Largest change of a value, each above 0 and at most 1.
        victim: The victim model; with several seeds one trained here is trained for each.
        images: How many correctly classified test images are attacked.
        aim: ``"untargeted"``, or how the class to reach is chosen.
        query_cap: Most forward and backward passes of an image together.
        batch_size: Images attacked at once, if memory is short.
        seeds: Seeds of targets and draws, and of a victim that is trained here.
        fresh: Rerun attacks that already have results.
    """

    victim: Victim
    attacks: tuple[str | Attack, ...] = ()
    eps: tuple[Fraction, ...] = (Fraction(8, 255),)
    images: int = IMAGES
    aim: Aim = "untargeted"
    query_cap: int | None = None
    batch_size: int | None = None
    seeds: tuple[int, ...] = (0,)
    fresh: bool = False

    def trials(self, eps: Fraction, data: Dataset) -> list[Trial]:
        """One trial per attack, the random floor matched to AdvMask's counts where both are there.

        Raises:
            ValueError: An attack names another eps, or one that was asked for cannot reach the aim.
        """
        wanted = self.attacks or tuple(registry.classes("attacks"))
        built: dict[str, Attack] = {}
        for each in wanted:
            text = each if isinstance(each, str) else registry.express(each)
            attack = registry.build("attacks", text, eps=float(eps))
            own = getattr(attack, "eps", None)
            if own is not None and own != float(eps):
                raise ValueError(f"{text} and --eps {eps} differ: give the eps with --eps alone")
            built[text] = attack
        common: dict[str, Any] = {
            "victim": self.victim.name,
            "data": f"{data.name} {data.digest}",
            "eps": str(eps),
            "aim": self.aim,
            "images": self.images,
            "query_cap": self.query_cap,
        }
        found = {text: Trial(attack=attack, **common) for text, attack in built.items()}
        if {"advmask", "noise"} <= set(found):
            noise = found.pop("noise")  # comes last, when AdvMask's counts are known
            matched = found["advmask"].key
            found["noise"] = Trial(attack=noise.attack, **common, matched=matched)
        return list(dict.fromkeys(found.values()))

    def able(self, data: Dataset, say: Callable[[str], None]) -> dict[Fraction, list[Trial]]:
        """The trials at each eps whose attack can reach the aim; ``say`` is told of the others."""
        image, label = data.test.images[:1].float() / 255, data.test.labels[:1]
        found: dict[Fraction, list[Trial]] = {}
        for eps in self.eps:
            found[eps] = []
            for trial in self.trials(eps, data):
                reason = trials.applies(trial, image, label, len(data.classes))
                if reason and self.attacks:
                    raise ValueError(f"{trial.name}: {reason}")
                if reason:
                    say(f"not applicable: {trial.name}: {reason}")
                else:
                    found[eps].append(trial)
        return found


@dataclass(frozen=True)
class AttackRow:
    """What one attack reached.

    Attributes:
        metrics: Every metric of its record, by name.
        adversarial: The attacked images, in the order of those that were given, in [0, 1]; images
            on which it failed and those that the model gets wrong are unchanged. None where they
            were not kept.
    """

    metrics: Mapping[str, float]
    adversarial: Images | None = field(default=None, repr=False)

    @property
    def success(self) -> float:
        """Share of the correctly classified images on which the goal was reached."""
        return self.metrics["success"]

    @property
    def l0_pixels_mean(self) -> float | None:
        """Changed pixels, mean over the successes; None without any."""
        return self.metrics.get("l0_pixels_mean")

    @property
    def l0_elements_mean(self) -> float | None:
        """Changed elements (channels counted apart), mean over the successes; None without any."""
        return self.metrics.get("l0_elements_mean")


@dataclass(frozen=True)
class AttackStudy:
    """What an evaluation of attacks gave; a terminal shows its table, a notebook HTML.

    Attributes:
        records: One record per attack, eps and seed.
        rows: What each attack reached by its name, at the first eps and with the first seed.
        pairs: Wilcoxon's test of any two sparse attacks on the same images, Holm-corrected.
    """

    records: tuple[Record, ...]
    rows: Mapping[str, AttackRow] = field(default_factory=dict, repr=False)
    pairs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def table(self) -> Table:
        """All metrics of the attacks at the first eps."""
        eps = self.records[0].labels["eps"]
        return attack_tables.attack_metrics([r for r in self.records if r.labels["eps"] == eps])

    def to_latex(self) -> str:
        """The table as LaTeX, for a document that uses the package booktabs."""
        return formats.latex(self.table())

    def __str__(self) -> str:
        return formats.text(self.table())

    def _repr_html_(self) -> str:
        return formats.html(self.table())


def evaluate_attacks(
    attacks: Sequence[str | Attack] | str | Attack = (),
    *,
    model: nn.Module | str | None = None,
    images: Images | int = IMAGES,
    labels: Int[Tensor, " n"] | None = None,
    eps: float | Fraction | str | Sequence[float | Fraction | str] = "8/255",
    targeted: bool = False,
    data: str | Path | Dataset = "photos",
    victim: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    target: Aim | None = None,
    query_cap: int | None = None,
    batch_size: int | None = None,
    seeds: int | Sequence[int] = 1,
    results: str | Path | None = None,
    execution: ExecutionOptions | None = None,
    tracking: TrackingOptions | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> AttackStudy:
    """Attack a model with several attacks and judge what they return, all by the same rules.

    With a network and a batch of images, everything happens in memory:
    ``evaluate_attacks(["jsma"], model=network, images=x, labels=y, eps=8 / 255)``. Otherwise it is
    the command ``bench attack-eval``: the victim model is read from ``victim`` or trained on
    ``data`` once, and records, attacked images and MLflow runs are kept in the results folder.

    Args:
        attacks: Attacks by name with options, or objects; empty: every attack that can reach the
            goal. An object's own eps must be ``eps`` or None.
        model: A network for images in [0, 1], or the name of the victim's architecture.
        images: Images in [0, 1], shape (n, c, h, w), float; or how many test images to attack.
        labels: True classes of the images, shape (n,), for a network in memory.
        eps: Largest change of a value, above 0 and at most 1; one or several.
        targeted: Reach a class that is drawn from the seed instead of leaving the true one.
        data: Dataset whose test images are attacked, where no images are given.
        victim: Safetensors file with the victim's weights, or ``timm:NAME``.
        mean: Per-channel mean subtracted by a victim that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.
        target: How the class to reach is chosen; None: ``"random"`` where ``targeted``.
        query_cap: Most forward and backward passes of an image together.
        batch_size: Images attacked at once, if memory is short.
        seeds: How many seeds (0, 1, …), or the seeds themselves.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        execution: Device and executor.
        tracking: Where MLflow logs to, or whether it logs at all.
        data_root: Folder in which named datasets are looked for first.
        download: Whether a missing dataset may be fetched from its publisher.
        fresh: Rerun attacks that already have results.
        quiet: Hide progress output.

    Returns:
        The study; ``rows["jsma"].success`` is the share of the correctly classified images on which
        JSMA reached its goal.

    Raises:
        ValueError: Something that was asked for does not exist or cannot be.
        Missing: The dataset or the weights are not there.
    """
    several = (
        [attacks] if isinstance(attacks, str) or not isinstance(attacks, Sequence) else attacks
    )
    bounds = [eps] if isinstance(eps, str) or not isinstance(eps, Sequence) else eps
    fractions = tuple(fraction(each) for each in bounds)
    aim: Aim = target or ("random" if targeted else "untargeted")
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if isinstance(model, nn.Module) or isinstance(images, Tensor):
        if not isinstance(model, nn.Module) or not isinstance(images, Tensor) or labels is None:
            raise ValueError(
                "a network in memory needs images and labels, and images in memory need a network: "
                "give model=network, images=(n, c, h, w) and labels=(n,)"
            )
        if len(fractions) > 1 or len(chosen) > 1:
            raise ValueError("a network in memory is attacked at one eps with one seed")
        return attack_in_memory(
            tuple(several), model, images, labels, fractions[0], aim, chosen[0], query_cap
        )
    options = execution or ExecutionOptions()
    root = None if data_root is None else Path(data_root)
    workspace, name = place(options.workspace(results, root, download), data)
    dataset = workspace.dataset(name)
    design = AttackDesign(
        victim=victims.choose(dataset, victim=victim, model=model, mean=mean, std=std),
        attacks=tuple(several),
        eps=fractions,
        images=images,
        aim=aim,
        query_cap=query_cap,
        batch_size=batch_size,
        seeds=chosen,
        fresh=fresh,
    )
    return run(design, workspace, options, tracking, open_progress(quiet))


def fraction(eps: float | Fraction | str) -> Fraction:
    """An eps as an exact fraction; a float is the fraction of 255 that it comes from.

    >>> fraction(8 / 255), fraction("0.03")
    (Fraction(8, 255), Fraction(3, 100))
    """
    if isinstance(eps, float) and (near := Fraction(round(eps * 255), 255)) and float(near) == eps:
        return near
    try:
        found = Fraction(eps) if not isinstance(eps, float) else Fraction(repr(eps))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"eps is {eps!r}: write it as 8/255 or 0.03") from None
    if not 0 < found <= 1:
        raise ValueError(f"eps is {eps}: it must be above 0 and at most 1, such as 8/255")
    return found


def attack_in_memory(
    attacks: tuple[str | Attack, ...],
    network: nn.Module,
    images: Images,
    labels: Int[Tensor, " n"],
    eps: Fraction,
    aim: Aim,
    seed: int,
    query_cap: int | None,
) -> AttackStudy:
    """Attack a batch of images and judge the results; nothing is written."""
    data, chosen = in_memory.pose(network, images, labels)
    victim = Victim(model=type(network).__name__, data=data.name)
    design = AttackDesign(
        victim=victim,
        attacks=attacks,
        eps=(eps,),
        images=len(chosen.ids),
        aim=aim,
        query_cap=query_cap,
        seeds=(seed,),
    )
    table: dict[Trial, list[Outcome]] = {}
    rows: dict[str, AttackRow] = {}
    for trial in design.able(data, lambda line: None)[eps]:
        matched = next((table[each] for each in table if each.key == trial.matched), None)
        attacked, outcomes = in_memory.attack(trial, seed, network, chosen, matched)
        table[trial] = outcomes
        whole = images.detach().clone()
        whole[chosen.ids.to(whole.device)] = attacked.to(whole)
        rows[trial.name] = AttackRow(summarise(outcomes), whole)
    labelled = {"victim": victim.name, "model": victim.model, "data": data.name}
    device = str(images.device)
    made = results.attack_records(
        table, seed, labelled, machine(device), {"correct": chosen.correct}
    )
    pairs = [{"eps": str(eps), "seed": seed, **pair} for pair in results.pairwise_tests(table)]
    return AttackStudy(tuple(made), rows, tuple(pairs))


def run(
    design: AttackDesign,
    workspace: Workspace,
    execution: ExecutionOptions,
    tracking: TrackingOptions | None = None,
    progress: Progress | None = None,
) -> AttackStudy:
    """Attack what is missing, judge everything, write the records and log them.

    Raises:
        Stopped: A signal came; what is finished is kept.
    """
    progress = progress or open_progress()
    studies = design.able(workspace.dataset(design.victim.data), progress.say)
    with signals.listen(progress.say) as stop:
        return _run(design, studies, workspace, execution, tracking, progress, stop)


def _run(
    design: AttackDesign,
    studies: Mapping[Fraction, list[Trial]],
    workspace: Workspace,
    execution: ExecutionOptions,
    tracking: TrackingOptions | None,
    progress: Progress,
    stop: Callable[[], bool],
) -> AttackStudy:
    executor = execution.build(workspace.device)
    data = workspace.dataset(design.victim.data)
    opponents = {seed: design.victim.of(seed) for seed in design.seeds}
    chosen = {
        seed: evaluation.opponent(each, design.images, workspace, progress, stop)[1]
        for seed, each in opponents.items()
    }
    right = " %, ".join(f"{100 * each.correct:.1f}" for each in dict.fromkeys(chosen.values()))
    progress.say(
        f"{design.images} test images of {data.name} ({data.source}) that the victim model "
        f"classifies correctly, as it does {right} %"
    )
    size = design.batch_size or BLOCK
    jobs = [
        part
        for members in studies.values()
        for seed in design.seeds
        for trial in members
        if trial.matched is None
        for part in evaluation.parts(
            trial, seed, opponents[seed], chosen[seed], batch_size=size, fresh=design.fresh
        )
    ]
    keeper = Keeper(design.victim, chosen, workspace, tracking, progress)
    tables: dict[tuple[Fraction, int], dict[Trial, list[Outcome]]] = {}
    for trial, seed, outcomes, reused in evaluation.run(
        jobs, workspace, progress, executor=executor, stop=stop
    ):
        keeper.tell(trial, seed, outcomes, reused)
        members = studies[Fraction(trial.eps)]
        table = tables.setdefault((Fraction(trial.eps), seed), {})
        table[trial] = outcomes
        rest = [each for each in members if each not in table]
        if not all(each.matched for each in rest):
            continue
        for floor in rest:
            likes = next(each for each in table if each.key == floor.matched)
            matched = evaluation.parts(
                floor, seed, opponents[seed], chosen[seed],
                matched=table[likes], batch_size=size, fresh=design.fresh,
            )  # fmt: skip
            for last in evaluation.run(matched, workspace, progress, stop=stop):
                keeper.tell(*last)
                table[floor] = last[2]
        tables[Fraction(trial.eps), seed] = {each: table[each] for each in members}
        keeper.keep(tables[Fraction(trial.eps), seed], seed)
    keeper.summarise()
    pairs = [
        {"eps": str(eps), "seed": seed, **pair}
        for (eps, seed), table in sorted(tables.items())
        for pair in results.pairwise_tests(table)
    ]
    first = tables.get((design.eps[0], design.seeds[0]), {})
    rows = {
        trial.name: AttackRow(
            summarise(outcomes), evaluation.attacked(trial, design.seeds[0], workspace)
        )
        for trial, outcomes in first.items()
    }
    return AttackStudy(tuple(keeper.records), rows, tuple(pairs))


class Keeper:
    """Tells of each attack that comes in, and keeps the records of each table that is complete."""

    def __init__(
        self,
        victim: Victim,
        chosen: Mapping[int, CorrectImages],
        workspace: Workspace,
        tracking: TrackingOptions | None,
        progress: Progress,
    ) -> None:
        self.victim, self.chosen = victim, chosen
        self.workspace, self.progress = workspace, progress
        self.tracker = (tracking or TrackingOptions()).open(workspace, progress.say)
        self.records: list[Record] = []

    def tell(self, trial: Trial, seed: int, outcomes: list[Outcome], reused: bool) -> None:
        """A line on what an attack reached, and a grid of images of what it did."""
        metrics = summarise(outcomes)
        pixels = metrics.get("l0_pixels_mean")
        size = "" if pixels is None else f", {pixels:.1f} pixels"
        self.progress.say(
            f"{trial.name}, eps {trial.eps}, seed {seed}: {metrics['success']:.1%}{size}, "
            f"{metrics['seconds_per_image']:.2f} s per image{' (done before)' if reused else ''}"
        )
        if trouble := results.complaint(join(outcomes)):
            self.progress.say(f"  {trial.name}: {trouble}")
        if not reused:
            draw(trial, seed, self.chosen[seed], self.workspace)

    def keep(self, table: dict[Trial, list[Outcome]], seed: int) -> None:
        """Write the records of a table and log them."""
        store = Store(self.workspace.results)
        labels = {"victim": self.victim.name, "model": self.victim.model, "data": self.victim.data}
        correct = {"correct": self.chosen[seed].correct}
        made = results.attack_records(table, seed, labels, machine(self.workspace.device), correct)
        known = store.find((record.key, seed) for record in made)
        for trial, record in zip(table, made, strict=True):
            before = known.get((record.key, seed))
            if before is None or before.metrics != record.metrics:
                store.add(record)
            if self.tracker:
                folder = trials.folder(trial, seed, self.workspace)
                files = [*sorted(folder.glob("*.png")), *sorted(folder.glob("*.safetensors"))]
                self.tracker.log(replace(record, curve=()), files=files)  # its steps are no epochs
        self.records += made

    def summarise(self) -> None:
        """Every table is complete: the intervals go to the parents."""
        if self.tracker:
            self.tracker.summarise(attack_tables.attack_intervals(self.records))


def draw(trial: Trial, seed: int, chosen: CorrectImages, workspace: Workspace) -> None:
    """Write a grid of the first images beside the blocks: clean, change, mask, adversarial."""
    attacked = evaluation.attacked(trial, seed, workspace, blocks=1)
    if attacked is None:
        return
    clean = chosen.images[:8].cpu()
    adversarial = attacked[:8].nan_to_num(0).clamp(0, 1)
    delta = adversarial - clean
    scale = 2 * delta.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    columns = {
        "clean": clean,
        "change": 0.5 + delta / scale,
        "mask": (delta != 0).any(1, keepdim=True).float(),
        "adversarial": adversarial,
    }
    path = trials.folder(trial, seed, workspace) / "pictures.png"
    atomic.write(path, image_grid.png(image_grid.grid(columns)))


@dataclass(frozen=True)
class PlannedTrial:
    """An attack of a design with one seed, and whether its record is there."""

    trial: Trial
    seed: int
    done: bool

    def to_json(self) -> dict[str, Any]:
        """The attack as ``--dry-run --json`` prints it."""
        return {
            "attack": self.trial.name,
            "eps": self.trial.eps,
            "goal": self.trial.aim,
            "victim": self.trial.victim,
            "data": self.trial.data,
            "images": self.trial.images,
            "seed": self.seed,
            "done": self.done,
        }

    def __str__(self) -> str:
        trial = self.trial
        return (
            f"{'done' if self.done else 'to run':7} {trial.name}  eps {trial.eps}, {trial.aim}, "
            f"{trial.images} images of {trial.data}, {trial.victim}, seed {self.seed}"
        )


def plan(
    design: AttackDesign, workspace: Workspace, say: Callable[[str], None]
) -> list[PlannedTrial]:
    """Which attacks would run and which are done."""
    able = design.able(workspace.dataset(design.victim.data), say)
    wanted = [(trial, seed) for group in able.values() for trial in group for seed in design.seeds]
    done = Store(workspace.results).find((trial.key, seed) for trial, seed in wanted)
    return [PlannedTrial(trial, seed, (trial.key, seed) in done) for trial, seed in wanted]
