"""Intervals and comparisons agree with independent libraries and closed forms."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from bench.records.over_images import optimality, paired_images
from bench.records.statistics import (
    Comparison,
    Equivalence,
    compare,
    compare_pairs,
    decision,
    effect,
    equivalence,
    holm,
    mean_interval,
    verdict,
    wilson,
)

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


@given(SHARES)
def test_an_interval_is_never_nan_and_holds_its_mean(values: list[float]) -> None:
    interval = mean_interval(values)
    assert interval.n == len(values)
    if interval.n == 1:
        assert interval.std is interval.half is interval.low is interval.high is None
    else:
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= interval.mean <= interval.high


def test_an_interval_is_the_one_of_scipy() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.01, 5)
    interval = mean_interval(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.std == pytest.approx(values.std(ddof=1))


def test_equal_values_have_no_width_although_their_sum_is_rounded() -> None:
    assert mean_interval([0.1] * 3).half == 0
    assert mean_interval([0.1] * 3).std == 0


def test_five_seeds_cover_the_mean_as_often_as_promised() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = [abs(mean_interval(draw).mean) <= (mean_interval(draw).half or 0) for draw in draws]
    assert 0.935 < np.mean(covered) < 0.965


@pytest.mark.parametrize(
    ("values", "message"), [([], "at least one value"), ([0.5, math.nan], "finite values, not nan")]
)
def test_an_interval_of_nothing_says_so(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values)


def test_a_comparison_is_the_paired_test_of_scipy() -> None:
    generator = np.random.default_rng(1)
    base, ours = generator.normal(0.9, 0.01, 5), generator.normal(0.91, 0.01, 5)
    found = compare({"none": seeds(*base), "cutout": seeds(*ours)}, "none")["cutout"]
    expected = scipy.stats.ttest_rel(ours, base)
    low, high = expected.confidence_interval(0.95)
    assert found.p == found.p_holm == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    statistic = scipy.stats.mannwhitneyu(ours, base).statistic
    assert found.improvement == pytest.approx(statistic / 25)
    assert found.correlation == pytest.approx(scipy.stats.pearsonr(ours, base).statistic)


def test_holm_multiplies_the_smallest_p_by_the_number_of_methods() -> None:
    generator = np.random.default_rng(2)
    means = {"a": 0.9, "b": 0.92, "c": 0.93, "d": 0.94}
    values = {name: seeds(*generator.normal(mean, 0.01, 5)) for name, mean in means.items()}
    found = compare(values, "a")
    in_order = sorted(found.values(), key=lambda each: each.p or 0)
    running = 0.0
    for place, each in enumerate(in_order):
        assert each.p is not None
        running = max(running, min(1, (len(in_order) - place) * each.p))
        assert each.p_holm == pytest.approx(running)
    assert running < 1


@pytest.mark.slow
def test_what_is_detectable_gets_larger_with_every_method_that_is_compared() -> None:
    spread, base = seeds(0.91, 0.93, 0.95, 0.95, 0.96), seeds(0.90, 0.91, 0.92, 0.93, 0.94)
    alone = compare({"none": base, "has": spread}, "none")["has"]
    methods = {"none": base, **{name: spread for name in "abcdef"}}
    among = compare(methods, "none")["a"]
    std = math.sqrt(0.5) / 100  # of the differences 1, 2, 3, 2, 2 points
    assert alone.detectable == pytest.approx(std * effect(5, 0.05))
    assert among.detectable == pytest.approx(std * effect(5, 0.05 / 6))


def test_two_seeds_have_no_correlation() -> None:
    assert compare({"a": seeds(0.1, 0.2), "b": seeds(0.4, 0.3)}, "a")["b"].correlation is None


def test_only_common_seeds_are_compared() -> None:
    ours, base = {0: 0.9, 1: 0.8, 7: 0.1}, {1: 0.7, 0: 0.6, 9: 0.99}
    found = compare({"none": base, "has": ours}, "none")["has"]
    assert found.n == 2
    assert found.difference == pytest.approx((0.3 + 0.1) / 2)


@pytest.mark.parametrize(
    ("ours", "difference", "low", "n"),
    [
        ({}, None, None, 0),
        ({5: 0.9}, None, None, 0),
        ({0: 0.9}, 0.2, None, 1),
        (seeds(0.9, 0.8, 0.7), 0.2, 0.2, 3),  # all differences equal, but for rounding
        (seeds(0.7, 0.6, 0.5), 0, 0, 3),
    ],
)
def test_where_there_is_no_test_there_is_no_number(
    ours: dict[int, float], difference: float | None, low: float | None, n: int
) -> None:
    found = compare({"none": seeds(0.7, 0.6, 0.5), "has": ours}, "none")["has"]
    assert found.p is found.p_holm is found.detectable is None
    assert found.n == n
    assert (found.difference, found.low) == (
        pytest.approx(difference) if difference is not None else None,
        pytest.approx(low) if low is not None else None,
    )
    assert verdict(found)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from("abc"), SHARES.map(lambda v: seeds(*v))), SHARES)
def test_a_comparison_is_never_nan(methods: dict[str, dict[int, float]], base: list[float]) -> None:
    for found in compare({"none": seeds(*base)} | methods, "none").values():
        assert all(value is None or math.isfinite(value) for value in astuple(found))


def test_pairs_are_compared_as_one_family_with_any_rival() -> None:
    generator = np.random.default_rng(7)
    a, b, c = (seeds(*generator.normal(0.9, 0.01, 5)) for _ in range(3))
    found = compare_pairs({"a-b": (a, b), "a-c": (a, c), "c-b": (c, b)})
    raw = {name: each.p for name, each in found.items()}
    expected = {
        name: scipy.stats.ttest_rel([*ours.values()], [*base.values()]).pvalue
        for name, (ours, base) in {"a-b": (a, b), "a-c": (a, c), "c-b": (c, b)}.items()
    }
    assert raw == pytest.approx(expected)
    least = min(found.values(), key=lambda each: each.p or 1)
    assert least.p_holm == pytest.approx(min(1, 3 * (least.p or 1)))
    assert compare({"b": b, "a": a, "c": c}, "b") == compare_pairs({"a": (a, b), "c": (c, b)})
    assert compare_pairs({}) == {}


def test_equivalence_is_two_one_sided_tests_of_scipy() -> None:
    generator = np.random.default_rng(5)
    answers = set()
    for spread in (0.0005, 0.002, 0.01):
        for shift in (-0.02, -0.004, 0.0, 0.001, 0.006, 0.03):
            base = generator.normal(0.9, 0.01, 5)
            ours = base + generator.normal(shift, spread, 5)
            found = equivalence(seeds(*ours), seeds(*base))
            gains = ours - base
            above = scipy.stats.ttest_1samp(gains, -0.005, alternative="greater").pvalue
            below = scipy.stats.ttest_1samp(gains, 0.005, alternative="less").pvalue
            assert found.p == pytest.approx(max(above, below))
            inner = scipy.stats.ttest_1samp(gains, 0).confidence_interval(0.90)
            outer = scipy.stats.ttest_1samp(gains, 0).confidence_interval(0.95)
            assert (found.low, found.high) == pytest.approx((inner.low, inner.high))
            if inner.low > -0.005 and inner.high < 0.005:
                expected = "yes"
            elif outer.low > 0.005 or outer.high < -0.005:
                expected = "no"
            else:
                expected = "undecided"
            assert (found.verdict, found.margin, found.n) == (expected, 0.005, 5)
            answers.add(expected)
    assert answers == {"yes", "no", "undecided"}


def test_equivalence_of_three_seeds_is_the_closed_form() -> None:
    """With two degrees of freedom, the tail of Student's t is 1/2 - t / (2 sqrt(2 + t^2))."""
    found = equivalence(seeds(0.911, 0.920, 0.929), seeds(0.910, 0.920, 0.930), margin=0.004)
    t = 0.004 * math.sqrt(3) / 0.001  # the differences 1, 0 and -1 thousandths
    assert found.p == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert found.verdict == "yes"
    edge = 2.9199855803537269 * 0.001 / math.sqrt(3)  # the interval is ±edge
    base, ours = seeds(0.910, 0.920, 0.930), seeds(0.911, 0.920, 0.929)
    assert equivalence(ours, base, margin=edge * 1.001).verdict == "yes"
    assert equivalence(ours, base, margin=edge * 0.999).verdict == "undecided"


@pytest.mark.parametrize("shift", [-0.005, 0.005])
def test_a_difference_of_just_the_margin_is_misjudged_in_one_case_of_twenty(shift: float) -> None:
    gains = np.random.default_rng(6).normal(shift, 0.001, (2000, 5))
    answers = [equivalence(seeds(*row), seeds(*np.zeros(5))).verdict for row in gains]
    assert answers.count("yes") / 2000 == pytest.approx(0.05, abs=0.015)
    assert answers.count("no") / 2000 == pytest.approx(0.025, abs=0.0125)


@pytest.mark.parametrize(
    ("ours", "base"),
    [
        ({}, {}),
        ({0: 0.9}, {1: 0.9}),
        ({0: 0.9}, {0: 0.9}),
        ({0: 0.9}, {0: 0.5}),
        (seeds(0.9, 0.8, 0.7), seeds(0.7, 0.6, 0.5)),
        (seeds(0.9, 0.8), seeds(0.9, 0.8)),
    ],
)
def test_without_a_spread_equivalence_is_undecided(
    ours: dict[int, float], base: dict[int, float]
) -> None:
    n = len(ours.keys() & base.keys())
    assert equivalence(ours, base) == Equivalence("undecided", 0.005, None, None, None, n)


@given(SHARES, SHARES)
def test_equivalence_is_never_nan_and_the_same_from_either_side(
    ours: list[float], base: list[float]
) -> None:
    found, back = (
        equivalence(seeds(*one), seeds(*other)) for one, other in ((ours, base), (base, ours))
    )
    numbers = [value for value in (found.p, found.low, found.high) if value is not None]
    assert all(math.isfinite(value) for value in numbers)
    assert found.verdict == back.verdict
    assert len(numbers) in (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.0}, "the margin is 0.0: it must be above 0"),
        ({"margin": math.nan}, "the margin is nan"),
        ({"alpha": 0.5}, "alpha is 0.5: it must be above 0 and below 0.5"),
    ],
)
def test_a_margin_or_level_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equivalence(seeds(0.9, 0.8), seeds(0.9, 0.7), **options)


def test_an_unknown_baseline_is_named() -> None:
    with pytest.raises(ValueError, match="baseline 'nine' is not among: none"):
        compare({"none": {0: 0.5}}, "nine")


@pytest.mark.parametrize(("n", "level"), [(5, 0.05), (5, 0.05 / 6), (8, 0.05 / 6), (20, 0.05)])
def test_the_detectable_effect_is_the_one_of_statsmodels_where_it_converges(
    n: int, level: float
) -> None:
    from statsmodels.stats.power import TTestPower

    expected = TTestPower().solve_power(nobs=n, alpha=level, power=0.8)
    assert effect(n, level) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_detectable_effect_is_detected_four_times_in_five(n: int) -> None:
    """Where the solver of statsmodels does not converge, a simulation judges."""
    level = 0.05 / 12
    draws = np.random.default_rng(n).normal(effect(n, level), 1, (20_000, n))
    p = scipy.stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(p < level) == pytest.approx(0.8, abs=0.012)


def test_wilson_is_the_closed_form() -> None:
    z, k, n = scipy.stats.norm.ppf(0.975), 17, 20
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert wilson(k, n) == pytest.approx((middle - half, middle + half))
    assert wilson(20, 20)[1] == 1
    assert wilson(0, 20)[0] == 0


@pytest.mark.parametrize(("k", "n"), [(1, 0), (3, 2), (-1, 2), (0, 0)])
def test_wilson_refuses_a_rate_that_does_not_exist(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} successes among {n}"):
        wilson(k, n)


def test_images_are_compared_by_their_ranks() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.normal(10, 3, 60), generator.normal(12, 3, 60)
    found = paired_images(a, b)
    assert found.p == pytest.approx(scipy.stats.wilcoxon(a, b, method="exact").pvalue)
    assert found.difference == pytest.approx(np.median(a - b))
    assert (found.less, found.more, found.same) == ((a < b).sum(), (a > b).sum(), 0)


def test_images_without_a_difference_are_ranked_and_not_dropped() -> None:
    # after three zeros the ranks are 4, 5, 6 and 7, and 9 are positive: six of the 16 subsets have
    # a sum of at most 9; of the ranks 1 to 4 it would be five with at most 3
    differences = np.array([0.0, 0, 0, 1, 2, -3, -4])
    assert paired_images(differences, np.zeros(7)).p == 2 * 6 / 16


@pytest.mark.parametrize("differing", [3, 4, 5, 6])
def test_few_images_that_differ_among_many_are_no_evidence(differing: int) -> None:
    a, b = np.full(200, 5.0), np.full(200, 5.0)
    a[:differing] = 4
    assert paired_images(a, b).p == pytest.approx(2 * 0.5**differing)


def test_thousands_of_images_are_compared_by_the_normal_approximation() -> None:
    generator = np.random.default_rng(4)
    differences = generator.integers(-9, 10, 3000) + 0.2
    wanted = scipy.stats.wilcoxon(differences, zero_method="pratt").pvalue
    assert paired_images(differences, np.zeros(3000)).p == pytest.approx(wanted)


def test_the_mean_difference_of_images_that_both_broke_has_an_interval() -> None:
    a, b = np.array([3.0, 5.0, 4.0, np.inf]), np.array([1.0, 1.0, np.inf, 2.0])
    found = paired_images(a, b)
    interval = mean_interval([2.0, 4.0])
    assert (found.mean, found.mean_low, found.mean_high) == (3, interval.low, interval.high)
    assert paired_images([3.0], [1.0]).mean_low is None
    assert paired_images([np.inf], [1.0]).mean is None


def test_an_image_that_only_one_attack_broke_is_the_largest_difference() -> None:
    found = paired_images([1.0, 2.0, math.inf, math.inf], [3.0, math.inf, math.inf, 4.0])
    assert (found.less, found.more, found.same, found.difference) == (2, 1, 1, -2)
    far = paired_images([1.0, 2.0, 1e6, 5.0], [3.0, 1e9, 1e6, 4.0])
    near = paired_images([1.0, 2.0, math.inf, 5.0], [3.0, math.inf, math.inf, 4.0])
    assert far.p == near.p


def test_equal_images_have_no_test() -> None:
    assert paired_images([1.0, math.inf], [1.0, math.inf]).p is None
    assert paired_images([], []).p is None
    assert paired_images([math.inf], [math.inf]).difference is None
    with pytest.raises(ValueError, match="1 and 2 distances"):
        paired_images([1.0], [1.0, 2.0])


def test_the_best_attack_is_optimal_and_a_useless_one_is_not() -> None:
    best = np.array([1.0, 2, 3, 4, 0])
    useless = np.array([math.inf] * 4 + [0])
    found = optimality({"best": best, "useless": useless, "half": np.minimum(2 * best, 4)})
    assert found["best"] == 1
    assert found["useless"] == pytest.approx(0)
    # areas by hand: best 10, half 2 + 4 + 4 + 4 = 14, room 4 · 4 - 10 = 6
    assert found["half"] == pytest.approx(1 - 4 / 6)


def test_optimality_is_the_area_under_the_robust_accuracy() -> None:
    generator = np.random.default_rng(4)
    distances = {name: generator.integers(0, 30, 200).astype(float) for name in "ab"}
    for each in distances.values():
        each[generator.random(200) < 0.1] = math.inf
    correct = np.minimum(*distances.values()) > 0
    distances = {name: np.where(correct, each, 0) for name, each in distances.items()}
    best = np.minimum(*distances.values())
    limit = best[np.isfinite(best)].max()
    budgets = np.linspace(0, limit, 40_001)

    def area(values: np.ndarray) -> float:
        return float(np.trapezoid((values > budgets[:, None]).mean(axis=1), budgets))

    for name, found in optimality(distances).items():
        room = correct.mean() * limit - area(best)
        assert found == pytest.approx(1 - (area(distances[name]) - area(best)) / room, abs=1e-3)


def test_optimality_without_room_is_unknown() -> None:
    assert optimality({"a": np.array([math.inf, math.inf])}) == {"a": None}
    assert optimality({"a": np.array([2.0, 2]), "b": np.array([3.0, 2])}) == {"a": None, "b": None}
    assert optimality({}) == {}


def test_verdicts_are_plain_words() -> None:
    weak = Comparison(0.0042, -0.005, 0.01, 0.3, 0.61, 0.7, 0.009, 5, None)
    assert verdict(weak) == (
        "+0.42 points, not resolvable with 5 seeds (Holm p = 0.61): "
        "an effect below 0.9 points would be shown with less than 80 % power"
    )
    strong = Comparison(-0.02, -0.03, -0.01, 1e-7, 4e-7, 0.0, 0.01, 5, None)
    assert verdict(strong) == "-2.00 points, significant (Holm p < 0.001)"
    one = Comparison(0.01, None, None, None, None, 1.0, None, 1, None)
    assert verdict(one) == "+1.00 points with a single seed, which cannot be tested"
    nothing = Comparison(None, None, None, None, None, None, None, 0, None)
    assert verdict(nothing) == "no seed in common with the baseline"
    flat = Comparison(0.0, 0.0, 0.0, None, None, 0.5, None, 3, None)
    assert verdict(flat) == "+0.00 points in each of 3 seeds, without a spread to test against"
    assert verdict(replace(flat, difference=-1e-9)) == verdict(flat)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.020, 0.021, 0.019, 0.020, 0.022], "better"),
        ([-0.020, -0.021, -0.019, -0.020, -0.022], "worse"),
        ([0.001, -0.001, 0.0005, -0.0005, 0.0002], "equivalent"),
        ([0.020, -0.020, 0.010, -0.030, 0.025], "undecided"),
        ([0.003, 0.0031, 0.0029, 0.003, 0.0032], "better"),  # significant, and within the margin
        ([0.02], "undecided"),
    ],
)
def test_the_verdict_follows_from_both_tests(differences: list[float], verdict: str) -> None:
    base = {seed: 0.9 for seed in range(len(differences))}
    ours = {seed: 0.9 + each for seed, each in enumerate(differences)}
    compared = compare({"none": base, "cutout": ours}, "none")["cutout"]
    equal = equivalence(ours, base)
    assert decision(compared, equal) == verdict
    mirrored = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert decision(compared, equal, best="low") == mirrored


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9).filter(any))
def test_the_p_value_of_few_differences_with_ties_is_that_of_all_signs(given: list[int]) -> None:
    differences = np.array(given, dtype=float)
    wanted = scipy.stats.wilcoxon(differences, zero_method="pratt").pvalue
    assert paired_images(differences, np.zeros(len(given))).p == pytest.approx(float(wanted))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_that_of_statsmodels(given: list[float]) -> None:
    wanted = multipletests(given, method="holm")[1]
    assert holm(given) == pytest.approx(list(wanted))
