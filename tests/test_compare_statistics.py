"""The statistics between runs: what they claim holds in simulation, and each claim has a way of making it fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebench.between import (
    ALPHA,
    LEAST_CONTROLS,
    LEAST_SD,
    MANY,
    MARGIN,
    MOST_RUNS,
    Between,
    Difference,
    Estimate,
    between,
    difference,
    estimate,
    judge,
    needed,
    within_rounds,
)

ROUNDS, NOISE = 60, 0.015  # of a simulated run: each round's ratio is off by 1.5 %
BETWEEN_SD = 0.003  # two runs of the same code differ by 0.3 %, which 60 rounds at 1.5 % cannot tell from nothing
PAIRS = 200


def table(rng: np.random.Generator, slower: np.ndarray, between_sd: float = BETWEEN_SD) -> list[Difference]:
    """One comparison of runs whose true differences are `slower` (log terms), with as many controls as pairs."""

    def run(true: float) -> Estimate:
        return estimate(rng.normal(true + rng.normal(0, between_sd / math.sqrt(2)), NOISE, ROUNDS).tolist())

    controls = [(run(0.0), run(0.0)) for _ in slower]
    apart = between([b.value - a.value for a, b in controls], [a.variance + b.variance for a, b in controls], 0.5)
    return [difference([run(0.0)], [run(float(true))], apart) for true in slower]


def words(differences: list[Difference]) -> list[str]:
    return [judged.word for judged in judge(differences)]


def test_an_estimate_is_the_median_with_an_error_that_holds_without_a_distribution():
    rng = np.random.default_rng(0)
    for draw in (rng.standard_normal, lambda n: rng.exponential(size=n) - math.log(2), lambda n: rng.standard_t(2, n)):
        scaled = [abs(seen.value) / seen.error for seen in (estimate(draw(50).tolist()) for _ in range(1000))]
        assert 0.93 < np.mean(np.less(scaled, 2)) <= 1


def test_fewer_than_six_rounds_are_no_evidence():
    seen = estimate([0.1] * 5)
    assert seen.error == math.inf
    apart = Between(1e-6)
    size = difference([seen], [estimate([9.0] * 40)], apart)
    assert judge([size])[0].word == "UNSURE"
    assert needed(judge([size])[0]) is None


def test_a_few_rounds_beside_a_good_run_weigh_nothing():
    good, poor = estimate(np.linspace(-0.01, 0.01, 40).tolist()), estimate([5.0])
    alone, both = (difference([good], runs, Between(1e-4)) for runs in ([good], [good, poor]))
    assert alone == both


@pytest.mark.parametrize("sd", [0.0, 0.01, 0.05])
def test_the_part_between_runs_is_recovered_from_controls(sd):
    rng = np.random.default_rng(1)
    errors = rng.uniform(0.001, 0.02, 2000)
    found = between(rng.normal(0, np.hypot(errors, sd)).tolist(), (errors**2).tolist(), assumed_sd=1.0)
    assert found.controls == 2000
    assert found.sd == pytest.approx(max(sd, LEAST_SD), rel=0.1)


def test_without_controls_the_part_between_runs_is_assumed_and_more_where_they_differed_by_more():
    assert between([], [], 0.04) == Between(0.04**2)
    few = [0.01] * (LEAST_CONTROLS - 1)
    assert between(few, [1e-8] * len(few), 0.04) == Between(0.04**2)
    assert between([0.2], [1e-8], 0.04).sd == pytest.approx(0.2)
    assert between([0.2], [math.inf], 0.04) == Between(0.04**2)


def test_the_tails_of_the_controls_are_recovered_and_normal_ones_are_left_alone():
    rng = np.random.default_rng(2)
    calm = between(rng.normal(0, 0.02, 400).tolist(), [1e-8] * 400, 1.0)
    wild = between((0.02 * rng.standard_t(3, 400)).tolist(), [1e-8] * 400, 1.0)
    assert calm.freedom == 400
    assert 2 <= wild.freedom <= 4
    assert wild.sd == pytest.approx(calm.sd, rel=0.2)


def test_a_hiccup_neither_hides_a_slow_down_nor_makes_one():
    """One of thirty runs of the same code took twice as long: the others are judged almost as before."""
    rng = np.random.default_rng(9)
    steady = rng.normal(0, 0.004, 30)
    calm, upset = (between(d.tolist(), [1e-8] * len(d), 1.0) for d in (steady, np.append(steady, math.log(2))))
    assert upset.sd == pytest.approx(calm.sd, rel=0.3)
    assert upset.freedom < calm.freedom
    mean_square = float(np.sqrt(np.mean(np.append(steady, math.log(2)) ** 2)))
    assert mean_square > 20 * upset.sd, "which is what a variance would have made of it"


def test_drift_between_runs_raises_no_alarm_and_rounds_alone_would_raise_many():
    """The check fails where it is left out: a test on raw rounds takes two runs of the same code for different."""
    rng = np.random.default_rng(3)
    honest = [words(table(rng, np.zeros(PAIRS), between_sd=0.03)) for _ in range(10)]
    assert sum("SLOW" in found or "FAST" in found for found in honest) <= 2  # 5 % of 10 tables, and some luck
    naive = [
        Difference(each.value, each.rounds_variance, 0.0, MANY) for each in table(rng, np.zeros(PAIRS), between_sd=0.03)
    ]
    assert sum(word in ("SLOW", "FAST") for word in words(naive)) > 0.2 * PAIRS


def test_the_chance_of_any_false_alarm_in_a_table_is_below_alpha():
    rng = np.random.default_rng(4)
    unlucky = sum(
        any(judged.difference.p <= judged.level for judged in judge(table(rng, np.zeros(50)))) for _ in range(60)
    )
    assert unlucky <= 60 * ALPHA + 3 * math.sqrt(60 * ALPHA)


@pytest.mark.parametrize("slower, wanted", [(0.03, 0.80), (0.05, 0.95), (0.10, 0.99)])
def test_injected_slow_downs_are_found_among_200_cases(slower, wanted):
    """Half of the cases are slower; the other half may raise one false alarm in a hundred."""
    rng = np.random.default_rng(5)
    true = np.where(np.arange(PAIRS) % 2, math.log1p(slower), 0.0)
    found = np.array([words(table(rng, true)) for _ in range(4)])
    assert np.mean(found[:, true > 0] == "SLOW") >= wanted
    assert np.mean(found[:, true == 0] != "SAME") <= 0.05
    assert np.mean(np.isin(found[:, true == 0], ["SLOW", "FAST"])) <= 0.01


def test_a_difference_as_large_as_the_margin_is_called_the_same_once_in_twenty_at_most():
    rng = np.random.default_rng(6)
    found = np.concatenate([words(table(rng, np.full(PAIRS, MARGIN))) for _ in range(5)])
    assert np.mean(found == "SAME") <= 1.4 * ALPHA


@pytest.mark.parametrize("freedom", [2.0, 4.0, MANY])
def test_the_error_is_a_normal_and_a_t_part_together(freedom):
    rng = np.random.default_rng(10)
    tails = rng.standard_t(freedom, 400_000) if freedom < MANY else rng.standard_normal(400_000)
    drawn = np.abs(rng.normal(0, 0.03, 400_000) + 0.02 * tails)
    size = Difference(0.0, 0.03**2, 0.02**2, freedom)
    for level in (0.1, 0.01, 0.001):
        assert np.mean(drawn > size.half_width(level)) == pytest.approx(level, rel=0.12)
    assert Difference(size.half_width(0.01), 0.03**2, 0.02**2, freedom).p == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("rounds, runs", [(1e-4, 0.0), (0.0, 1e-4)])
def test_one_part_alone_has_its_own_quantiles(rounds, runs):
    assert Difference(0.0, rounds, runs).half_width(0.05) == pytest.approx(0.0196, rel=0.01)


def test_noise_is_unsure_and_never_the_same():
    assert words([Difference(0.0, 1.0, 0.0, MANY)]) == ["UNSURE"]
    assert words([Difference(0.0, 1e-6, 0.0, MANY)]) == ["SAME"]
    assert words([Difference(0.001, 1e-10, 0.0, MANY)]) == ["SAME"], "certain, and too small to matter"


def test_slower_is_positive_and_within_the_margin_is_never_slow():
    assert words([Difference(sign * 0.1, 1e-6, 0.0, MANY) for sign in (1, -1)]) == ["SLOW", "FAST"]
    assert words([Difference(0.019, 1.6e-5, 0.0, MANY)]) == ["UNSURE"], "it differs for sure, and perhaps by too little"


def test_a_margin_of_their_own_keeps_short_times_quiet():
    assert words([Difference(0.1, 1e-6, 0.0, MANY, margin=0.2)]) == ["SAME"]


def test_runs_of_a_side_are_averaged_and_bring_the_part_between_runs_down():
    one = estimate(np.random.default_rng(7).normal(0, NOISE, ROUNDS).tolist())
    alone, four = (difference([one] * runs, [one] * runs, Between(1e-4)) for runs in (1, 4))
    assert four.runs_variance == pytest.approx(alone.runs_variance / 4)
    assert four.rounds_variance == pytest.approx(alone.rounds_variance / 4)
    assert four.value == alone.value == 0


def test_twins_of_the_same_rounds_have_no_part_between_runs():
    size = within_rounds(np.random.default_rng(8).normal(0.0, 0.01, 200).tolist())
    assert size.runs_variance == 0
    assert words([size]) == ["SAME"]


@given(size=st.floats(-0.2, 0.2), rounds=st.floats(1e-8, 1e-2), runs=st.floats(1e-8, 1e-2), freedom=st.floats(8, 1000))
def test_what_is_asked_for_decides(size, rounds, runs, freedom):
    """With the rounds or runs that `needed` names an UNSURE pair whose difference is what it seems is decided."""
    (judged,) = judge([Difference(size, rounds, runs, freedom)])
    asked = needed(judged)
    if judged.word != "UNSURE" or asked is None:
        return
    times, many = asked.rounds * 1.3, math.ceil(asked.runs * 1.3)  # "about": tails matter less, the more runs there are
    (again,) = judge([Difference(size, rounds / times / many, runs / many, freedom)])
    assert again.word == ("SAME" if abs(size) < MARGIN else "SLOW" if size > 0 else "FAST")
    assert asked.runs <= MOST_RUNS


def test_holm_tests_the_smallest_p_at_the_strictest_level():
    sizes = [Difference(value, 1e-4, 0.0, MANY) for value in (0.0, 0.05, 0.5)]
    levels = [judged.level for judged in judge(sizes)]
    assert levels == pytest.approx([ALPHA, ALPHA / 2, ALPHA / 3])
    assert judge([]) == []
