"""Seeds are added until methods are decided, with no more false claims than promised."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import multivariate_normal, norm, t, ttest_rel

from bench.cli import main
from bench.records import sequential
from bench.records.sequential import VERDICTS, SequentialDesign, nominal_levels, simulate
from bench.studies import seeds_needed
from bench.studies.seeds_needed import count


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def paired(design: SequentialDesign, differences: list[float]) -> np.ndarray:
    """One study of one method."""
    found = np.full((1, 1, design.most), np.nan)
    found[0, 0, : len(differences)] = differences
    return found


def test_one_look_is_the_paired_t_test() -> None:
    ours, base = [0.91, 0.93, 0.92, 0.94, 0.92], [0.90, 0.91, 0.92, 0.92, 0.91]
    design = SequentialDesign(methods=1, most=5)
    assert design.levels(1, sides=2) == pytest.approx([0.05])
    p, sign, _ = sequential._tests(paired(design, list(np.subtract(ours, base))), 0.005)
    assert p[0, 0] == pytest.approx(ttest_rel(ours, base).pvalue)
    assert sign[0, 0] == 1


@pytest.mark.slow
def test_two_looks_with_many_seeds_have_the_levels_of_the_normal_distribution() -> None:
    """With 40 and 80 seeds, t is nearly normal and the looks correlate with sqrt(40 / 80)."""
    looks, alpha = (40, 80), 0.05
    first, second = nominal_levels(looks, alpha, 1)
    assert first == pytest.approx(alpha / 2)
    correlation = math.sqrt(looks[0] / looks[1])
    joint = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    critical = [norm.isf(first), norm.isf(second)]
    assert 1 - joint.cdf(np.array(critical)) == pytest.approx(alpha, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize("most", [5, 12, 30])
def test_studies_without_a_difference_claim_one_in_at_most_a_twentieth(most: int) -> None:
    design = SequentialDesign(methods=6, most=most)
    (outcome,) = simulate(design, [0.0], spread=10.0, studies=2000)  # the margin is never reached
    assert 0.02 < outcome.any_claim < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.slow
def test_differences_as_large_as_the_margin_are_called_equivalent_in_at_most_a_twentieth() -> None:
    design = SequentialDesign(methods=6, most=30)
    (outcome,) = simulate(design, [1.0], spread=design.margin, studies=2000)
    assert outcome.any_equivalent < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)


def test_looking_without_a_design_would_claim_more() -> None:
    """What the design is for: a t-test at 0.05 at each of six looks errs far more often."""
    draws = np.random.default_rng(1).standard_normal((4000, 30))
    claimed = np.zeros(4000, dtype=bool)
    for n in (5, 10, 15, 20, 25, 30):
        seen = draws[:, :n]
        statistic = seen.mean(1) / seen.std(1, ddof=1) * math.sqrt(n)
        claimed |= 2 * t.sf(np.abs(statistic), n - 1) < 0.05
    assert claimed.mean() > 0.1


@pytest.mark.slow
def test_large_differences_stop_early_and_small_ones_are_equivalent() -> None:
    design = SequentialDesign(methods=2, most=30)
    none, large = simulate(design, [0.0, 4.0], spread=design.margin, studies=200)
    assert none.equivalent > 0.95
    assert none.claim < 0.05
    assert large.claim == 1.0
    assert large.seeds < 8


def test_a_decision_does_not_change_with_later_seeds() -> None:
    design = SequentialDesign(methods=1, most=15, margin=0.005)
    early = [0.05, 0.051, 0.049, 0.05, 0.05]
    for later in ([], [-0.05] * 10):
        verdicts, looks = design.verdicts(paired(design, early + later))
        assert VERDICTS[verdicts[0, 0]] == "better"
        assert looks[0, 0] == 1


def test_failed_seeds_are_left_out_and_pairs_kept() -> None:
    base = {seed: 0.9 for seed in range(5)}
    ours = {0: 0.95, 1: 0.951, 3: 0.949, 4: 0.95}  # seed 2 failed
    found = SequentialDesign(methods=1, most=5).decide({"none": base, "cutout": ours}, "none", 1)
    assert found["cutout"].verdict == "better"
    assert found["cutout"].n == 4
    assert found["cutout"].difference == pytest.approx(0.05)


def test_without_a_look_nothing_is_decided_and_nothing_is_spent() -> None:
    found = SequentialDesign(methods=1, most=5).decide({"none": {}, "cutout": {}}, "none", 0)
    assert (found["cutout"].verdict, found["cutout"].alpha_spent) == ("undecided", 0.0)


def test_differences_that_are_all_equal_decide_nothing() -> None:
    values = {"none": dict.fromkeys(range(5), 0.9), "cutout": dict.fromkeys(range(5), 0.9)}
    found = SequentialDesign(methods=1, most=5).decide(values, "none", 1)
    assert found["cutout"].verdict == "undecided"
    assert found["cutout"].low is None


def test_holm_passes_the_share_of_a_shown_method_on() -> None:
    """The second method's p lies between 0.05 / 2 and 0.05: shown only after the first one."""
    design = SequentialDesign(methods=2, most=5)
    weak = np.array([0.010, 0.020, 0.004, 0.016, 0.003])
    strong = np.array([0.050, 0.051, 0.049, 0.050, 0.051])
    p = 2 * t.sf(weak.mean() / (weak.std(ddof=1) / math.sqrt(5)), 4)
    assert 0.025 < p < 0.05
    both, _ = design.verdicts(np.stack([strong, weak])[None])
    assert [VERDICTS[v] for v in both[0]] == ["better", "better"]
    alone, _ = design.verdicts(np.stack([np.tile([0.01, -0.02], 3)[:5], weak])[None])
    assert VERDICTS[alone[0, 1]] == "undecided"


def test_the_interval_holds_at_the_strictest_level() -> None:
    design = SequentialDesign(methods=3, most=10)
    values = [0.01, 0.012, 0.009, 0.011, 0.013, 0.01, 0.012, 0.009, 0.011, 0.0]
    found = design.decide(
        {"none": dict.fromkeys(range(10), 0.0), "a": dict(enumerate(values))}, "none", 2
    )["a"]
    level = design.levels(3, sides=2)[found.looks - 1]
    seen = np.array(values[: found.n])
    half = t.isf(level / 2, found.n - 1) * seen.std(ddof=1) / math.sqrt(found.n)
    assert found.high is not None
    assert found.difference is not None
    assert found.high - found.difference == pytest.approx(half)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"most": 4}, "at most 4 seeds are below the first look at 5 seeds"),
        ({"methods": 0}, "give a method beside the baseline"),
        ({"margin": 0.0}, "the margin is 0.0"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"first": 2}, "needs at least 3 seeds"),
    ],
)
def test_bad_designs_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequentialDesign(**({"methods": 1} | arguments))  # type: ignore[arg-type]


def test_the_number_of_seeds_is_that_of_a_power_calculation() -> None:
    """statsmodels' solver is reliable at this level."""
    from statsmodels.stats.power import TTestPower

    for size in (0.5, 1.0):
        exact = TTestPower().solve_power(effect_size=size, alpha=0.05, power=0.8)
        assert count(size, 1) == math.ceil(exact)
    assert count(0.001, 1) is None
    near = TTestPower().solve_power(effect_size=0.0295, alpha=0.05, power=0.8)
    assert 2**13 < near < 10_000
    assert count(0.0295, 1) == math.ceil(near)


COMPARED = [
    "run",
    "--aug",
    "none",
    "--aug",
    "cutout",
    "--model",
    "resnet8",
    "--epochs",
    "1",
    "--batch-size",
    "32",
    "--no-tracking",
    "--quiet",
    "--threads",
    "1",
]
TINY = ["--data", "digits(train=40, test=40)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--aug", "none", "--until", "decided"], "one method alone cannot be decided"),
        (
            ["--aug", "none", "--aug", "cutout", "--until", "decided", "--seed-list", "1,2"],
            "--seed-list has no effect on --until decided, which chooses the seeds; remove it",
        ),
        (
            ["--aug", "none", "--aug", "cutout", "--until", "decided", "--max-seeds", "4"],
            "at most 4 seeds are below the first look at 5 seeds: give at least 5",
        ),
        (
            ["--aug", "none", "--aug", "cutout", "--within", "2"],
            "--within has no effect on a fixed number of seeds (see --until); remove it",
        ),
        (
            ["--aug", "none", "--aug", "cutout", "--until", "decided", "--model", "resnet8",
             "--model", "resnet20"],
            "give one --model",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = bench("run", *arguments, "--results", str(tmp_path))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_seeds_are_added_until_the_verdict_and_the_same_command_reruns_nothing(
    tmp_path: Path,
) -> None:
    arguments = [*COMPARED, *TINY, "--until", "decided", "--within", "90", "--max-seeds", "6"]
    arguments += ["--results", str(tmp_path)]
    first = json.loads(bench(*arguments, "--json").stdout)
    verdict = first["verdicts"]["cutout"]
    assert verdict["verdict"] == "equivalent"
    assert verdict["looks"] == 1
    assert verdict["n"] == 5
    assert verdict["alpha_spent"] == pytest.approx(0.05 * 5 / 6)
    assert SequentialDesign(methods=1).alpha == 0.05
    assert len(first["records"]) == 10
    again = json.loads(bench(*arguments, "--json").stdout)
    assert again["verdicts"] == first["verdicts"]
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 10
    planned = bench(*arguments, "--dry-run").stdout
    assert "10 of 10 runs are done" in planned
    assert "Looks with more seeds: none" in planned
    told = [each for each in arguments if each != "--quiet"]
    told[told.index("--within") + 1] = "0.01"  # which no look can show
    assert "10 of 12 runs are done" in bench(*told, "--dry-run").stdout
    said = bench(*told).stderr
    assert "10 runs, 10 done, 0 to run" in said
    assert "2 runs, 0 done, 2 to run" in said
    assert said.count("40 training and 40 test images") == 1


@pytest.mark.slow
def test_a_pilot_says_how_many_seeds_a_difference_needs(tmp_path: Path) -> None:
    bench(*COMPARED, *TINY, "--seeds", "3", "--results", str(tmp_path))
    found = json.loads(
        bench("plan", "--difference", "20", "--results", str(tmp_path), "--json").stdout
    )
    (only,) = found["needed"]
    assert only["method"] == "cutout"
    assert only["n"] == 3
    assert only["seeds"] == count(0.2 / only["spread"], 1)
    empty = bench("plan", "--results", str(tmp_path), "--data", "cifar10")
    assert empty.exit_code == 2
    assert "start a pilot" in empty.stderr


def test_a_difference_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="the difference is 0 points"):
        seeds_needed.needed([], 0.0)


@pytest.mark.slow
def test_the_calibration_is_printed_and_drawn(tmp_path: Path) -> None:
    drawn = tmp_path / "power.png"
    arguments = ["plan", "--calibrate", "--methods", "2", "--max-seeds", "10", "--studies", "200"]
    done = bench(*arguments, "--output", str(drawn))
    assert re.search(
        r"any difference, where there is none: \d\.\d% \(\d\.\d% to \d+\.\d%, the 95 % interval",
        done.stdout,
    )
    assert drawn.read_bytes().startswith(b"\x89PNG")
    refused = bench(*arguments, "--output", str(tmp_path / "power.txt"))
    assert refused.exit_code == 2
    assert "end its name with .png, .pdf or .svg" in refused.stderr


def test_the_levels_are_those_of_sorted_statistics() -> None:
    """They are taken by partition, several times as fast."""
    looks, alpha = (5, 10, 15), 0.05
    statistics = np.abs(sequential._null_statistics(looks))
    alive, spent = np.ones(len(statistics), dtype=bool), 0.0
    for column, level in enumerate(nominal_levels(looks, alpha, 2)):
        wanted = alpha * looks[column] / looks[-1] - spent
        spent += wanted
        if column:
            rest = np.sort(statistics[alive, column])
            critical = rest[len(rest) - round(wanted * sequential.SAMPLES)]
            assert level == 2 * t.sf(critical, looks[column] - 1)
        else:
            critical = t.isf(wanted / 2, looks[column] - 1)
        alive &= statistics[:, column] <= critical


def test_more_seeds_than_can_be_planned_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 201 seeds are too many to plan for: give 200"):
        SequentialDesign(methods=1, most=201)
