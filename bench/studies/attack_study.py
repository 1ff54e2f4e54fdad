"""Compare attacks on one victim model: the call from Python, and the run that is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast, get_args

from jaxtyping import Bool, Integer
from torch import Tensor, nn

from attacks import Attack
from attacks.base import Images
from augmentations.checks import whole
from bench import registry
from bench.data.dataset import Dataset
from bench.errors import suggest
from bench.execution import signals
from bench.execution.folders import check_writable
from bench.execution.options import ExecutionOptions, options_of
from bench.execution.progress import Progress, open_progress
from bench.execution.workspace import Workspace
from bench.records.record import Record
from bench.records.validation import check_seeds, positive
from bench.reporting.worst_case import worst_cases
from bench.robustness import evaluation, results
from bench.robustness.judge import TARGETS, Aim
from bench.robustness.metrics import Outcome, summarise
from bench.robustness.trials import Trial
from bench.studies.attack_designs import IMAGES, AttackDesign, Number, fraction
from bench.studies.attack_in_memory import attack_in_memory
from bench.studies.attack_recorder import AttackRecorder
from bench.studies.attack_results import AttackRow, AttackStudy
from bench.studies.comparison import place, seeds_of
from bench.studies.tracking import TrackingOptions
from bench.training import victims


def evaluate_attacks(
    attacks: Sequence[str | Attack] | str | Attack = (),
    *,
    model: nn.Module | str | None = None,
    images: Images | int = IMAGES,
    labels: Integer[Tensor, " n"] | None = None,
    eps: Number | Sequence[Number] = "8/255",
    targeted: bool = False,
    targets: Integer[Tensor, " t"] | None = None,
    region: Bool[Tensor, "r 1 y x"] | None = None,
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
            goal. An object's own eps must be None or equal to ``eps``. One whose class has no name
            here goes by that of its class; it is for a network in memory, for results are stored
            only of ``FILE.py:CLASS`` and other names.
        model: A network for images in [0, 1], or the name of the victim model's architecture.
        images: Images in [0, 1], shape (n, c, h, w), float; or the number of test images to attack.
        labels: True classes of the images, shape (n,), for a network in memory.
        eps: Largest change of a value in [0, 1], above 0 and at most 1; one or several.
        targeted: Reach a class that is drawn from the seed, instead of leaving the true one.
        targets: The class that each image should reach, shape (n,), for a network in memory.
        region: Where pixels may change, bool of shape (n, 1, h, w) or (1, 1, h, w), for a network
            in memory; None: everywhere. A change elsewhere makes an image a failure.
        data: Dataset whose test images are attacked, if no images are given.
        victim: File of the victim model's weights (safetensors or .pt), ``FILE.py:FACTORY``,
            ``PACKAGE:FACTORY`` or ``timm:NAME``.
        mean: Per-channel mean subtracted by a victim model that was trained elsewhere.
        std: Per-channel standard deviation that it divides by.
        target: How target classes are chosen, ``"random"``, ``"least-likely"``, ``"next"`` or
            ``"all"``; None: ``"random"`` if ``targeted``.
        query_cap: Most forward and backward passes of an image together; None: no limit.
        batch_size: Images attacked as one batch; lower it if memory is short.
        seeds: Number of seeds (0, 1, …), or a list of seeds.
        results: Results folder; None: ``$BENCH_RESULTS``, else ``./results``. It and what follows
            is not for a network in memory, which stores nothing.
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

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> _ = nn.init.eye_(network[1].weight)
        >>> images, labels = torch.eye(4).reshape(4, 1, 2, 2)[:2], torch.tensor([0, 1])
        >>> study = evaluate_attacks(
        ...     ["jsma", "pgd"], model=network, images=images, labels=labels, eps=1.0, quiet=True
        ... )
        >>> study.rows["jsma"].success, study.rows["jsma"].l0_pixels_mean
        (1.0, 2.0)
    """
    several = (
        [attacks] if isinstance(attacks, str) or not isinstance(attacks, Sequence) else attacks
    )
    for each in several:
        if not isinstance(each, str):
            registry.check("attacks", each)
    bounds = [eps] if isinstance(eps, str) or not isinstance(eps, Sequence) else eps
    fractions = tuple(fraction(each) for each in bounds)
    aim = _aim(target, targeted, targets is not None)
    for name, value in (("query_cap", query_cap), ("batch_size", batch_size)):
        if value is not None:
            whole(name, value, least=1)
    chosen = seeds_of(seeds)
    check_seeds(chosen)
    if isinstance(model, nn.Module) or isinstance(images, Tensor):
        _refuse_stored(
            victim=victim, mean=mean, std=std, results=results, execution=execution,
            tracking=tracking, fresh=fresh or None,
        )  # fmt: skip
        with registry.named("attacks", [each for each in several if not isinstance(each, str)]):
            return attack_in_memory(
                tuple(several), model, images, labels, eps=fractions, aim=aim, seeds=chosen,
                query_cap=query_cap, targets=targets, region=region, batch_size=batch_size,
            )  # fmt: skip
    if targets is not None or region is not None:
        raise ValueError(
            "targets and region are for a network in memory: give model=network, images=(n, c, h, "
            "w) and labels=(n,)"
        )
    options = options_of("execution", execution, ExecutionOptions)
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


def _aim(target: str | None, targeted: bool, given: bool) -> Aim:
    """What the attacks should reach; ``given`` says whether there are targets for each image."""
    if target is None:
        return "given" if given else "random" if targeted else "untargeted"
    if target not in get_args(Aim):
        raise ValueError(f"there is no target {target!r}: {suggest(target, TARGETS)}")
    if given:
        raise ValueError(f"target is {target!r}, but targets are given: remove one of the two")
    if target == "given":
        raise ValueError("target is 'given', but no targets are: give targets=(n,), or remove it")
    if target == "untargeted" and targeted:
        raise ValueError("target is 'untargeted', but targeted is True: remove one of the two")
    return cast("Aim", target)


def _refuse_stored(**given: object) -> None:
    """Refuse arguments that mean nothing for a network in memory, unless they are None."""
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise ValueError(
            f"a network in memory is attacked as it is and nothing is stored: remove "
            f"{', '.join(idle)}"
        )


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
        OSError: The results cannot be written; nothing was run.
        ValueError: An attack that was named cannot reach the aim, or has a network as an option,
            which no stored result can name; or no record holds the eps.
        Stopped: Ctrl-C or SIGTERM; finished blocks of images are stored.
    """
    progress = progress or open_progress()
    for eps in design.eps:
        if not positive(str(eps)):
            raise ValueError(
                f"eps is {eps}: records hold at most nine digits above and below the line; round "
                "it, such as to 8/255"
            )
    for each in design.attacks:
        if not isinstance(each, str) and not registry.writable(each):
            raise ValueError(
                f"{registry.short(each)} has a network as an option, which no stored result can "
                "name: give evaluate_attacks the model, images and labels in memory"
            )
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
    check_writable(workspace.results)
    data = workspace.dataset(design.victim.data)
    victim_models = {seed: design.victim.of(seed) for seed in design.seeds}
    chosen = {
        seed: evaluation.load_victim(each, design.images, workspace, progress, stop)[1]
        for seed, each in victim_models.items()
    }
    right = " %, ".join(f"{100 * each.correct:.1f}" for each in dict.fromkeys(chosen.values()))
    progress.say(
        f"Attacking {design.images} test images of {data.name} ({data.source}) that the victim "
        f"model classifies correctly, as it does {right} % of those that were tried"
    )
    size = design.batch_size or evaluation.usual_batch(workspace.device)
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
    with contextlib.closing(recorder):
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
            for last in rest:
                matched = evaluation.attack_jobs(
                    last, seed, victim_models[seed], chosen[seed],
                    matched=results.matched_outcomes(last, table), batch_size=size,
                    fresh=design.fresh,
                )  # fmt: skip
                for done in evaluation.run(matched, workspace, progress, stop=stop):
                    recorder.report(*done)
                    table[last] = done[2]
            tables[Fraction(trial.eps), seed] = {each: table[each] for each in members}
            recorder.record(tables[Fraction(trial.eps), seed], seed)
    return _gathered(design, tables, recorder.records, workspace)


def _gathered(
    design: AttackDesign,
    tables: Mapping[tuple[Fraction, int], dict[Trial, list[Outcome]]],
    found: Sequence[Record],
    workspace: Workspace,
) -> AttackStudy:
    """The study of complete tables, one for each eps and seed, and of their records."""
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
    # stored attacks and those of other workers come when they are ready
    records = sorted(
        found,
        key=lambda each: (
            design.eps.index(Fraction(each.labels["eps"])),
            design.seeds.index(each.seed),
        ),
    )
    worst = worst_cases(records, lambda record: record.images)
    return AttackStudy(tuple(records), rows, tuple(pairs), tuple(worst))
