"""``bench attack-eval``: sparse attacks on one victim under one judge."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import options

if TYPE_CHECKING:
    from bench.outcomes import Outcome
    from bench.records import Record
    from bench.robustness import Pictures
    from bench.trials import Trial
    from bench.victims import Victim

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
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
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
    studies = {each: trials(each, attacks, victim.name, workspace, given) for each in eps}
    seeds = list(range(given["seeds"])) if given["seed"] is None else [given["seed"]]
    if given["dry_run"]:
        plan(studies, seeds, workspace, as_json=given["as_json"])
        return

    from bench import interrupts
    from bench.progress import open_progress

    progress = open_progress(given["quiet"])
    with interrupts.listen(progress.say) as stop:
        found, pairs = evaluate(
            studies, seeds, victim, workspace, progress, stop, bool(attacks), given
        )
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
    from bench import foreign, victims

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
    digest = foreign.check(path)
    return victims.Victim(model=given["model"], path=path.resolve(), digest=digest, **statistics)


def trials(
    eps: Fraction, attacks: tuple[str, ...], victim: str, workspace: Any, given: dict[str, Any]
) -> list[Trial]:
    """One trial per attack: those asked for, or all, with the floor matched to AdvMask."""
    from bench import registry
    from bench.trials import Trial

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


def plan(
    studies: dict[Fraction, list[Trial]], seeds: list[int], workspace: Any, *, as_json: bool
) -> None:
    """Show what would be attacked and what is done."""
    from bench.records import Store

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


def evaluate(
    studies: dict[Fraction, list[Trial]],
    seeds: list[int],
    victim: Victim,
    workspace: Any,
    progress: Any,
    stop: Any,
    asked: bool,
    given: dict[str, Any],
) -> tuple[list[Record], list[dict[str, Any]]]:
    """Attack, judge, write the records and log them; also the paired tests of every table."""
    from bench import attack_tables, executors
    from bench.trials import BLOCK, opponent, parts, run

    executor = executors.build(
        given["executor"],
        given["jobs"],
        device=workspace.device,
        address=given["address"],
        gpus=given["gpus"],
    )
    data = workspace.dataset()
    chosen = opponent(victim, given["images"], workspace, progress, stop)[1]
    progress.say(
        f"{given['images']} test pictures of {data.name} ({data.source}) that the victim "
        f"classifies correctly, as it does {chosen.correct:.1%}"
    )
    able = {eps: able_ones(trials, chosen, progress, asked) for eps, trials in studies.items()}
    common = {"fresh": given["fresh"], "batch_size": given["batch_size"] or BLOCK}
    jobs = [
        part
        for trials in able.values()
        for seed in seeds
        for trial in trials
        if trial.matched is None
        for part in parts(trial, seed, victim, chosen, **common)
    ]
    keeper = Keeper(workspace, victim, chosen, given, progress)
    tables: dict[tuple[Fraction, int], dict[Trial, list[Outcome]]] = {}
    for trial, seed, outcomes, reused in run(
        jobs, workspace, progress, executor=executor, stop=stop
    ):
        keeper.tell(trial, seed, outcomes, reused)
        table = tables.setdefault((Fraction(trial.eps), seed), {})
        table[trial] = outcomes
        rest = [each for each in able[Fraction(trial.eps)] if each not in table]
        if all(each.matched for each in rest):
            for floor in rest:
                likes = next(each for each in table if each.key == floor.matched)
                matched = parts(floor, seed, victim, chosen, matched=table[likes], **common)
                for last in run(matched, workspace, progress, stop=stop):
                    keeper.tell(*last)
                    table[floor] = last[2]
            ordered = {each: table[each] for each in able[Fraction(trial.eps)]}
            keeper.keep(ordered, seed)
            tables[Fraction(trial.eps), seed] = ordered
    keeper.summarise()
    tests = [
        {"eps": str(eps), "seed": seed, **pair}
        for (eps, seed), table in sorted(tables.items())
        for pair in attack_tables.pairs(table)
    ]
    return keeper.found, tests


class Keeper:
    """Tells of each trial that comes in, and keeps the records of each table that is complete."""

    def __init__(
        self,
        workspace: Any,
        victim: Victim,
        chosen: Pictures,
        given: dict[str, Any],
        progress: Any,
    ) -> None:
        self.workspace, self.victim, self.chosen = workspace, victim, chosen
        self.progress = progress
        self.tracker = None
        self.found: list[Record] = []
        if not given["no_tracking"]:
            from bench.tracking import Tracker

            self.tracker = Tracker(given["tracking_uri"], workspace.results, warn=progress.say)

    def tell(self, trial: Trial, seed: int, outcomes: list[Outcome], reused: bool) -> None:
        """A line on what an attack reached, and a picture of what it did."""
        from bench.attack_tables import complaint
        from bench.outcomes import join, summarise

        metrics = summarise(outcomes)
        pixels = metrics.get("l0_pixels_mean")
        size = "" if pixels is None else f", {pixels:.1f} pixels"
        self.progress.say(
            f"{trial.name}, eps {trial.eps}, seed {seed}: {metrics['success']:.1%}{size}, "
            f"{metrics['seconds_per_image']:.2f} s a picture{' (done before)' if reused else ''}"
        )
        if trouble := complaint(join(outcomes)):
            self.progress.say(f"  {trial.name}: {trouble}")
        if not reused:
            picture(trial, seed, self.chosen, self.workspace)

    def keep(self, table: dict[Trial, list[Outcome]], seed: int) -> None:
        """Write the records of a table and log them."""
        from bench import attack_tables
        from bench.records import Store
        from bench.trials import folder
        from bench.workspace import machine

        store, data = Store(self.workspace.results), self.workspace.dataset()
        made = attack_tables.records(
            table,
            seed,
            {"victim": self.victim.name, "model": self.victim.model, "data": data.name},
            machine(self.workspace.device),
            {"correct": self.chosen.correct},
        )
        known = store.find((record.key, seed) for record in made)
        for trial, record in zip(table, made, strict=True):
            before = known.get((record.key, seed))
            if before is None or before.metrics != record.metrics:
                store.add(record)
            if self.tracker:
                place = folder(trial, seed, self.workspace)
                files = [*sorted(place.glob("*.png")), *sorted(place.glob("*.safetensors"))]
                self.tracker.log(replace(record, curve=()), files=files)  # its steps are no epochs
        self.found += made

    def summarise(self) -> None:
        """Every table is complete: the intervals go to the parents."""
        from bench import attack_tables

        if self.tracker:
            self.tracker.summarise(attack_tables.intervals(self.found))


def able_ones(trials: list[Trial], chosen: Pictures, progress: Any, asked: bool) -> list[Trial]:
    """The trials whose attack can do what is asked; an attack that was asked for must."""
    from bench.trials import applies

    able = []
    for trial in trials:
        reason = applies(trial.attack, chosen, trial.aim)
        if reason and asked:
            raise ValueError(f"{trial.name}: {reason}")
        if reason:
            progress.say(f"not applicable: {trial.name}: {reason}")
        else:
            able.append(trial)
    return able


def picture(trial: Trial, seed: int, chosen: Pictures, workspace: Any) -> None:
    """Write a grid of the first pictures beside the blocks: clean, change, mask, adversarial."""
    from bench import gallery, records
    from bench.trials import folder, peek

    place = folder(trial, seed, workspace)
    if (attacked := peek(place)) is None:
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
    records.write(place / "pictures.png", gallery.png(gallery.grid(columns)))


def report(
    found: list[Record], tests: list[dict[str, Any]], workspace: Any, given: dict[str, Any]
) -> None:
    """The tables, or everything as JSON."""
    from bench import attack_tables, tables

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
        click.echo(tables.text(attack_tables.overview(members)))
        seed = members[0].seed
        same = [test for test in tests if test["eps"] == eps and test["seed"] == seed]
        for line in attack_tables.compared(same, "advmask"):
            click.echo(line)
    click.echo(f"next: bench tables attacks --results {workspace.results}", err=True)
