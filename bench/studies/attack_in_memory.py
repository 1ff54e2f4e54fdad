"""Attack images in memory: a network and a batch go in, the results come out."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from jaxtyping import Bool, Integer
from torch import Tensor, nn

from attacks import Attack
from bench.execution.machine import machine
from bench.reporting.worst_case import worst_cases
from bench.robustness import in_memory, results
from bench.robustness.judge import Aim
from bench.robustness.metrics import Outcome, summarise
from bench.robustness.trials import Trial
from bench.studies.attack_designs import AttackDesign
from bench.studies.attack_results import AttackRow, AttackStudy
from bench.training.victims import Victim


def attack_in_memory(
    attacks: tuple[str | Attack, ...],
    network: object,
    images: object,
    labels: object,
    *,
    eps: Sequence[Fraction],
    aim: Aim,
    seeds: Sequence[int],
    query_cap: int | None,
    targets: Integer[Tensor, " t"] | None,
    region: Bool[Tensor, "r 1 y x"] | None,
    batch_size: int | None,
) -> AttackStudy:
    """Attack a batch of images and judge the results; nothing is written.

    Raises:
        ValueError: The network, the images or the labels are missing; several bounds or seeds; or
            what does not fit, as `in_memory.prepare` and `in_memory.given_goal` say.
    """
    for name, given in (("images", images), ("labels", labels)):
        # a number, such as the default of images, means that none were given
        if given is not None and not isinstance(given, Tensor | int):
            raise ValueError(f"{name} are a {type(given).__name__}: give a tensor")
    if (
        not isinstance(network, nn.Module)
        or not isinstance(images, Tensor)
        or not isinstance(labels, Tensor)
    ):
        raise ValueError(
            "a network in memory needs images and labels, and images need a network: "
            "give model=network, images=(n, c, h, w) and labels=(n,)"
        )
    if len(eps) > 1 or len(seeds) > 1:
        raise ValueError(
            "a network in memory is attacked at one eps with one seed; give one of each"
        )
    data, chosen = in_memory.prepare(network, images, labels)
    goal = in_memory.given_goal(chosen, images, targets, region)
    victim = Victim(model=type(network).__name__, data=data.name)
    (bound,), (seed,) = eps, seeds
    design = AttackDesign(
        victim=victim,
        attacks=attacks,
        eps=(bound,),
        images=len(chosen.ids),
        aim=aim,
        query_cap=query_cap,
        seeds=(seed,),
    )
    table: dict[Trial, list[Outcome]] = {}
    rows: dict[str, AttackRow] = {}
    for trial in design.applicable(data, lambda line: None)[bound]:
        attacked, outcomes = in_memory.attack(
            trial, seed, network, chosen, results.matched_outcomes(trial, table), goal, batch_size
        )
        table[trial] = outcomes
        whole = images.detach().clone()
        whole[chosen.ids.to(whole.device)] = attacked.to(whole)
        rows[trial.name] = AttackRow(summarise(outcomes), whole)
    labelled = {"victim": victim.name, "model": victim.model, "data": data.name}
    device = str(images.device)
    made = results.attack_records(
        table, seed, labelled, machine(device), {"correct": chosen.correct}
    )
    pairs = [{"eps": str(bound), "seed": seed, **pair} for pair in results.pairwise_tests(table)]
    worst = worst_cases(made, lambda record: record.images)
    return AttackStudy(tuple(made), rows, tuple(pairs), tuple(worst))
