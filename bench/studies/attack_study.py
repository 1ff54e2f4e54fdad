"""Compare attacks on one victim model: the design, the run, and the results."""

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
from bench.reporting.formats import Table
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
"""Default number of images: all attacks and the training of the victim model take minutes."""


@dataclass(frozen=True, kw_only=True)
class AttackDesign:
    """Attacks on one victim model, at one or several bounds.

    Attributes:
        victim: The victim model.
        attacks: Attacks by name with options, as ``"jsma(direction='both')"``, or objects; empty:
            every attack that can reach the goal.
        eps: Largest change of a value in [0, 1], each above 0 and at most 1.
        images: Number of correctly classified test images to attack.
        aim: ``"untargeted"``, or how target classes are chosen.
        query_cap: Most forward and backward passes of an image together; None: no limit.
        batch_size: Images attacked as one batch; None: `bench.robustness.evaluation.BLOCK`.
        seeds: Seeds of targets and draws, and of a victim model that is trained here.
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
        """Return one trial per attack.

        ``noise`` comes last, and changes as many pixels as ``advmask`` if both are in the design.

        Args:
            eps: The bound.
            data: Dataset whose test images are attacked.

        Raises:
            ValueError: Unknown attack or option, or an attack with another eps.
        """
        wanted = self.attacks or tuple(registry.classes("attacks"))
        built: dict[str, Attack] = {}
        for each in wanted:
            text = each if isinstance(each, str) else registry.express(each)
            attack = registry.build("attacks", text, eps=float(eps))
            own = getattr(attack, "eps", None)
            if own is not None and own != float(eps):
                raise ValueError(
                    f"the eps of {text} differs from --eps {eps}; remove it from the attack"
                )
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
            noise = found.pop("noise")  # runs last, when AdvMask's counts are known
            matched = found["advmask"].key
            found["noise"] = Trial(attack=noise.attack, **common, matched=matched)
        return list(dict.fromkeys(found.values()))

    def applicable(self, data: Dataset, say: Callable[[str], None]) -> dict[Fraction, list[Trial]]:
        """Return the trials of each eps whose attack can reach the aim.

        Args:
            data: Dataset whose test images are attacked.
            say: Called with one line for each attack that is left out.

        Raises:
            ValueError: An attack that was named cannot reach the aim.
        """
        image, label = data.test.images[:1].float() / 255, data.test.labels[:1]
        found: dict[Fraction, list[Trial]] = {}
        for eps in self.eps:
            found[eps] = []
            for trial in self.trials(eps, data):
                reason = trials.refusal(trial, image, label, len(data.classes))
                if reason and self.attacks:
                    raise ValueError(f"{trial.name}: {reason}")
                if reason:
                    say(f"Not applicable: {trial.name}: {reason}")
                else:
                    found[eps].append(trial)
        return found


@dataclass(frozen=True)
class AttackRow:
    """The result of one attack.

    Attributes:
        metrics: Every metric of its record, by name.
        adversarial: The images after the attack, in the order of the given ones, in [0, 1]; images
            on which it failed and those that the model misclassifies are unchanged. None if they
            were not stored.
    """

    metrics: Mapping[str, float]
    adversarial: Images | None = field(default=None, repr=False)

    @property
    def success(self) -> float:
        """Share of the correctly classified images on which the goal was reached."""
        return self.metrics["success"]

    @property
    def l0_pixels_mean(self) -> float | None:
        """Mean number of changed pixels over the successes; None without any."""
        return self.metrics.get("l0_pixels_mean")

    @property
    def l0_elements_mean(self) -> float | None:
        """Mean number of changed elements (channels counted) over the successes."""
        return self.metrics.get("l0_elements_mean")


@dataclass(frozen=True)
class AttackStudy:
    """The results of several attacks; a terminal shows a table, a notebook HTML.

    Attributes:
        records: One record per attack, eps and seed.
        rows: Result of each attack by its name, at the first eps and with the first seed.
        pairs: Wilcoxon's test of every two sparse attacks on the same images, Holm-corrected.
    """

    records: tuple[Record, ...]
    rows: Mapping[str, AttackRow] = field(default_factory=dict, repr=False)
    pairs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def table(self) -> Table:
        """Return all metrics of the attacks at the first eps."""
        eps = self.records[0].labels["eps"]
        return attack_tables.attack_metrics([r for r in self.records if r.labels["eps"] == eps])

    def to_latex(self) -> str:
        """Return the table as LaTeX; it needs the package booktabs."""
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
    """Attack a model with several attacks and judge all results by the same rules.

    With a network and a batch of images, everything happens in memory:
    ``evaluate_attacks(["jsma"], model=network, images=x, labels=y, eps=8 / 255)``. Otherwise it
    does the same as the command ``bench attack-eval``: the victim model is read from ``victim`` or
    trained on ``data`` once; records, attacked images and MLflow runs are stored in the results
    folder.

    Args:
        attacks: Attacks by name with options, or objects; empty: every attack that can reach the
            goal. An object's own eps must be None or equal to ``eps``.
        model: A network for images in [0, 1], or the name of the victim model's architecture.
        images: Images in [0, 1], shape (n, c, h, w), float; or the number of test images to attack.
        labels: True classes of the images, shape (n,), for a network in memory.
        eps: Largest change of a value in [0, 1], above 0 and at most 1; one or several.
        targeted: Reach a class that is drawn from the seed, instead of leaving the true one.
        data: Dataset whose test images are attacked, if no images are given.
        victim: Safetensors file of the victim model's weights, or ``timm:NAME``.
        mean: Per-channel mean subtracted by a victim model that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.
        target: How target classes are chosen; None: ``"random"`` if ``targeted``.
        query_cap: Most forward and backward passes of an image together; None: no limit.
        batch_size: Images attacked as one batch; lower it if memory is short.
        seeds: Number of seeds (0, 1, …), or a list of seeds.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``.
        execution: Device and executor.
        tracking: MLflow server, or whether MLflow is used at all.
        data_root: Folder searched first for named datasets.
        download: Whether a missing dataset may be downloaded from its publisher.
        fresh: Rerun attacks that already have results.
        quiet: Hide progress output.

    Returns:
        The study; ``rows["jsma"].success`` is the share of the correctly classified images on which
        JSMA reached its goal.

    Raises:
        ValueError: An argument is unknown, out of range, or contradicts another.
        Missing: The dataset or the weights were not found.
        Stopped: Ctrl-C or SIGTERM; finished blocks of images are stored.
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
                "a network in memory needs images and labels, and images need a network: "
                "give model=network, images=(n, c, h, w) and labels=(n,)"
            )
        if len(fractions) > 1 or len(chosen) > 1:
            raise ValueError(
                "a network in memory is attacked at one eps with one seed; give one of each"
            )
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
    """Return an eps as an exact fraction; a float that is n/255 becomes that fraction.

    Args:
        eps: Number or text, such as ``8 / 255``, ``"8/255"`` or ``"0.03"``.

    Raises:
        ValueError: Not a number, or not above 0 and at most 1.

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
    data, chosen = in_memory.prepare(network, images, labels)
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
    for trial in design.applicable(data, lambda line: None)[eps]:
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
    """Attack what is missing, judge all results, write the records and log them to MLflow.

    Args:
        design: What to attack and how.
        workspace: Where results are stored, and the device.
        execution: The executor.
        tracking: MLflow server, or whether MLflow is used at all.
        progress: Shows the progress; None: bars on a terminal, lines elsewhere.

    Raises:
        ValueError: An attack that was named cannot reach the aim.
        Stopped: Ctrl-C or SIGTERM; finished blocks of images are stored.
    """
    progress = progress or open_progress()
    studies = design.applicable(workspace.dataset(design.victim.data), progress.say)
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
    victim_models = {seed: design.victim.of(seed) for seed in design.seeds}
    chosen = {
        seed: evaluation.load_victim(each, design.images, workspace, progress, stop)[1]
        for seed, each in victim_models.items()
    }
    right = " %, ".join(f"{100 * each.correct:.1f}" for each in dict.fromkeys(chosen.values()))
    progress.say(
        f"Attacking {design.images} correctly classified test images of {data.name} "
        f"({data.source}); accuracy of the victim model: {right} %"
    )
    size = design.batch_size or BLOCK
    jobs = [
        part
        for members in studies.values()
        for seed in design.seeds
        for trial in members
        if trial.matched is None
        for part in evaluation.attack_jobs(
            trial, seed, victim_models[seed], chosen[seed], batch_size=size, fresh=design.fresh
        )
    ]
    recorder = AttackRecorder(design.victim, chosen, workspace, tracking, progress)
    tables: dict[tuple[Fraction, int], dict[Trial, list[Outcome]]] = {}
    for trial, seed, outcomes, reused in evaluation.run(
        jobs, workspace, progress, executor=executor, stop=stop
    ):
        recorder.report(trial, seed, outcomes, reused)
        members = studies[Fraction(trial.eps)]
        table = tables.setdefault((Fraction(trial.eps), seed), {})
        table[trial] = outcomes
        rest = [each for each in members if each not in table]
        if not all(each.matched for each in rest):
            continue
        for matched_trial in rest:
            source = next(each for each in table if each.key == matched_trial.matched)
            matched = evaluation.attack_jobs(
                matched_trial, seed, victim_models[seed], chosen[seed],
                matched=table[source], batch_size=size, fresh=design.fresh,
            )  # fmt: skip
            for last in evaluation.run(matched, workspace, progress, stop=stop):
                recorder.report(*last)
                table[matched_trial] = last[2]
        tables[Fraction(trial.eps), seed] = {each: table[each] for each in members}
        recorder.record(tables[Fraction(trial.eps), seed], seed)
    recorder.summarise()
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
    return AttackStudy(tuple(recorder.records), rows, tuple(pairs))


class AttackRecorder:
    """Reports each finished trial, and writes and logs the records of each complete table."""

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

    def report(self, trial: Trial, seed: int, outcomes: list[Outcome], reused: bool) -> None:
        """Print one line on the result of a trial and draw a grid of its images."""
        metrics = summarise(outcomes)
        pixels = metrics.get("l0_pixels_mean")
        size = "" if pixels is None else f", {pixels:.1f} pixels"
        self.progress.say(
            f"{trial.name}, eps {trial.eps}, seed {seed}: {metrics['success']:.1%}{size}, "
            f"{metrics['seconds_per_image']:.2f} s per image{' (stored before)' if reused else ''}"
        )
        if trouble := results.problems(join(outcomes)):
            self.progress.say(f"  {trial.name}: {trouble}")
        if not reused:
            draw(trial, seed, self.chosen[seed], self.workspace)

    def record(self, table: dict[Trial, list[Outcome]], seed: int) -> None:
        """Write the records of a complete table (one eps and seed) and log them to MLflow."""
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
                # without the curve, which is over changes and not over epochs
                self.tracker.log(replace(record, curve=()), files=files)
        self.records += made

    def summarise(self) -> None:
        """Log the intervals over seeds after the last table."""
        if self.tracker:
            self.tracker.summarise(attack_tables.attack_intervals(self.records))


def draw(trial: Trial, seed: int, chosen: CorrectImages, workspace: Workspace) -> None:
    """Write a grid of a trial's first images: clean, change, mask, adversarial."""
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
    """A trial of a design, as ``--dry-run`` shows it.

    Attributes:
        trial: The trial.
        seed: Its seed.
        done: Whether its record exists.
    """

    trial: Trial
    seed: int
    done: bool

    def to_json(self) -> dict[str, Any]:
        """Return the trial as ``--dry-run --json`` prints it."""
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
    """Return which trials of a design would run and which are done.

    Args:
        design: What to attack and how.
        workspace: The results folder.
        say: Called with one line for each attack that cannot reach the aim.
    """
    applicable = design.applicable(workspace.dataset(design.victim.data), say)
    wanted = [
        (trial, seed) for group in applicable.values() for trial in group for seed in design.seeds
    ]
    done = Store(workspace.results).find((trial.key, seed) for trial, seed in wanted)
    return [PlannedTrial(trial, seed, (trial.key, seed) in done) for trial, seed in wanted]
