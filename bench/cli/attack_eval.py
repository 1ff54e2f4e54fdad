"""``bench attack-eval``: sparse attacks on one victim under one judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import options

if TYPE_CHECKING:
    from bench.records.record import Record
    from bench.robustness.trials import Trial
    from bench.training.victims import Victim

IMAGES = 16
"""So few by default that all attacks, with the victim's training, take minutes on two cores."""


def numbers(text: str | None) -> list[float] | None:
    """Numbers as typed: ``0.485,0.456,0.406``; raises ``BadParameter`` for anything else."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of numbers; write it as 0.485,0.456,0.406"
        ) from None


@click.command("attack-eval", context_settings={"default_map": {"data": "photos"}})
@click.option(
    "--eps",
    type=options.Eps(),
    multiple=True,
    default=["8/255"],
    show_default=True,
    help="Largest change of a value; repeat for several.",
)
@click.option(
    "--attack",
    "attacks",
    type=options.Name(options.attack_names),
    multiple=True,
    help="An attack, with options as in \"jsma(direction='both')\"; repeat.  [default: all]",
)
@click.option(
    "--victim",
    metavar="FILE|timm:NAME",
    help="Weights as safetensors, or a network of timm.  [default: trained once on the data set]",
)
@click.option(
    "--model",
    type=options.Name(options.model_names),
    help="The victim's architecture.  [default: resnet20; resnet8 for digits]",
)
@click.option("--mean", metavar="0.485,…", help="What the victim subtracts.  [default: the data's]")
@click.option("--std", metavar="0.229,…", help="What the victim divides by.  [default: the data's]")
@options.data
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=IMAGES,
    show_default=True,
    help="How many correctly classified test pictures.",
)
@click.option(
    "--targeted/--untargeted",
    default=None,
    help="Reach a class, or leave one.  [default: untargeted, which every attack can do]",
)
@click.option(
    "--target",
    type=click.Choice(["random", "least-likely", "next", "all"]),
    help="Which class to reach; all: every other one in turn.  [default: random]",
)
@click.option(
    "--query-cap", type=click.IntRange(min=1), help="Most forwards and backwards of a picture."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Pictures at once, if memory is short.  [default: 64]",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many: of targets and draws, and of the victim where it is trained here.",
)
@click.option("--seed", type=click.IntRange(min=0), help="This seed instead.")
@click.option("--fresh", is_flag=True, help="Attack again what is done.")
@options.results
@options.tracking
@options.compute
@options.spread
@options.dry_run
@options.as_json
@options.quiet
def attack_eval(eps: tuple[Fraction, ...], attacks: tuple[str, ...], **given: Any) -> None:
    """Attack a network with sparse attacks and judge what they return.

    Success, the pixels and elements that changed, norms, forwards and backwards; dense PGD is the
    ceiling that eps allows, random signs at as many pixels as AdvMask's are the floor.

    \b
    Example: bench attack-eval --eps 8/255
    Example: bench attack-eval --eps 8/255 --eps 16/255 --targeted --images 100
        --victim resnet20.safetensors --model resnet20 --data cifar10
    """
    given["mean"], given["std"] = numbers(given["mean"]), numbers(given["std"])
    check(given)
    workspace = options.workspace(**given)
    victim = opponent(workspace, given)
    seeds = list(range(given["seeds"])) if given["seed"] is None else [given["seed"]]

    from bench.cli.trials import evaluate
    from bench.execution import signals
    from bench.execution.progress import open_progress

    progress = open_progress(given["quiet"])
    studies = {}
    for each in eps:
        wanted = trials(each, attacks, victim.name, workspace, given)
        studies[each] = able_ones(wanted, workspace, progress.say, asked=bool(attacks))
    if given["dry_run"]:
        plan(studies, seeds, workspace, as_json=given["as_json"])
        return
    with signals.listen(progress.say) as stop:
        found, pairs = evaluate(studies, seeds, victim, workspace, progress, stop, given)
    report(found, pairs, workspace, given)


def check(given: dict[str, Any]) -> None:
    """Refuse combinations that make no sense, before anything slow is imported."""
    victim = given["victim"]
    if victim and not victim.startswith("timm:") and not given["model"]:
        raise click.UsageError(f"--victim {victim} needs --model: weights do not name theirs")
    if victim and victim.startswith("timm:") and given["model"]:
        raise click.UsageError(f"--victim {victim} names its network: leave --model out")
    if not victim and (given["mean"] or given["std"]):
        raise click.UsageError("--mean and --std belong to a --victim that was trained elsewhere")
    if given["target"] and given["targeted"] is False:
        raise click.UsageError(f"--target {given['target']} contradicts --untargeted")


def opponent(workspace: Any, given: dict[str, Any]) -> Victim:
    """The network under attack, as the options describe it; it is not loaded yet."""
    from bench.models import pretrained
    from bench.training import victims

    data, name = workspace.dataset(), given["victim"]
    statistics: dict[str, Any] = {
        each: given[each] and tuple(given[each]) for each in ("mean", "std")
    }
    if name is None:
        changes = {"model": given["model"]} if given["model"] else {}
        side = data.train.images.shape[-1]
        recipe = victims.usual_victim(data.name, data.pin, side, **changes)
        return victims.Victim(model=recipe.model, recipe=recipe)
    if name.startswith("timm:"):
        return victims.Victim(model=name, **statistics)
    path = Path(name)
    digest = pretrained.check(path)
    return victims.Victim(model=given["model"], path=path.resolve(), digest=digest, **statistics)


def trials(
    eps: Fraction, attacks: tuple[str, ...], victim: str, workspace: Any, given: dict[str, Any]
) -> list[Trial]:
    """One trial per attack: those asked for, or all, with the floor matched to AdvMask."""
    from bench import registry
    from bench.robustness.trials import Trial

    data = workspace.dataset()
    texts = attacks or tuple(options.attack_names())
    built = {text: registry.build("attacks", text, eps=float(eps)) for text in texts}
    for text, attack in built.items():
        own = getattr(attack, "eps", None)
        if own is not None and own != float(eps):
            raise ValueError(f"{text} and --eps {eps} differ: give the eps with --eps alone")
    common: dict[str, Any] = {
        "victim": victim,
        "data": f"{data.name} {data.digest}",
        "eps": str(eps),
        "aim": given["target"] or ("random" if given["targeted"] else "untargeted"),
        "images": given["images"],
        "query_cap": given["query_cap"],
    }
    found = {text: Trial(attack=attack, **common) for text, attack in built.items()}
    if {"advmask", "noise"} <= set(found):
        noise = found.pop("noise")  # comes last, when AdvMask's counts are known
        matched = found["advmask"].key
        found["noise"] = Trial(attack=noise.attack, **common, matched=matched)
    return list(dict.fromkeys(found.values()))


def able_ones(
    trials: list[Trial], workspace: Any, say: Callable[[str], None], asked: bool
) -> list[Trial]:
    """The trials whose attack can do what is asked; an attack that was asked for must."""
    from bench.robustness.trials import applies

    data = workspace.dataset()
    image, label = data.test.images[:1].float() / 255, data.test.labels[:1]
    able = []
    for trial in trials:
        reason = applies(trial, image, label, len(data.classes))
        if reason and asked:
            raise ValueError(f"{trial.name}: {reason}")
        if reason:
            say(f"not applicable: {trial.name}: {reason}")
        else:
            able.append(trial)
    return able


def plan(
    studies: dict[Fraction, list[Trial]], seeds: list[int], workspace: Any, *, as_json: bool
) -> None:
    """Show what would be attacked and what is done."""
    from bench.records.store import Store

    jobs = [(trial, seed) for trials in studies.values() for trial in trials for seed in seeds]
    done = Store(workspace.results).find((trial.key, seed) for trial, seed in jobs)
    lines = [
        {
            "attack": trial.name,
            "eps": trial.eps,
            "goal": trial.aim,
            "victim": trial.victim,
            "data": trial.data,
            "images": trial.images,
            "seed": seed,
            "done": (trial.key, seed) in done,
        }
        for trial, seed in jobs
    ]
    if as_json:
        click.echo(json.dumps({"jobs": lines}))
        return
    for line in lines:
        state = "done" if line["done"] else "to run"
        click.echo(
            f"{state:7} {line['attack']}  eps {line['eps']}, {line['goal']}, "
            f"{line['images']} pictures of {line['data']}, {line['victim']}, seed {line['seed']}"
        )
    click.echo(f"{len(done)} of {len(jobs)} trials are done")


def report(
    found: list[Record], tests: list[dict[str, Any]], workspace: Any, given: dict[str, Any]
) -> None:
    """The tables, or everything as JSON."""
    from bench.reporting import attack_tables, formats
    from bench.robustness.results import comparison_line

    if given["as_json"]:
        click.echo(
            json.dumps(
                {
                    "records": [record.to_json() for record in found],
                    "table": attack_tables.summary(found),
                    "pairs": tests,
                }
            )
        )
        return
    for eps in dict.fromkeys(record.labels["eps"] for record in found):
        members = [record for record in found if record.labels["eps"] == eps]
        labels = members[0].labels
        click.echo(
            f"\n{labels['model']}, {labels['data']}, eps {eps}, {labels['goal']}, "
            f"{given['images']} pictures\n"
        )
        click.echo(formats.text(attack_tables.overview(members)))
        seed = members[0].seed
        same = [test for test in tests if test["eps"] == eps and test["seed"] == seed]
        if line := comparison_line(same, "advmask"):
            click.echo(line)
    click.echo(f"next: bench tables attacks --results {workspace.results}", err=True)
