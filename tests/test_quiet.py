"""What else runs on the core slows dense and sparse kernels differently; laws and networks are of rounds without it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay import usual_arms, usual_world

from sparsebench.desk.fit import fit
from sparsebench.desk.observe import Observation, sparse_observations
from sparsebench.desk.observe_dense import dense_observations, dense_times
from sparsebench.desk.quiet import ALL, BETWEEN, MOST, Quiet
from sparsebench.paired import LEAST_ROUNDS, QUIET, quiet, usual
from sparsebench.record import Record

RECORD = usual_world().sweep([(64, 128)], [4], usual_arms((0.9,)))[-1]
BASELINE, CACHE = next(iter(RECORD.baselines)), "weights_cold"
DENSE_SLOWED, OWN_SLOWED = 1.22, 1.57  # by a neighbour on the other half of the core: desk/quiet.py


def told(slow: list[bool], dense_s: float = 4.0, own_s: float = 2.0) -> Record:
    """A record whose rounds a neighbour slows where `slow` says."""
    beside = np.asarray(slow, float)
    samples = {
        RECORD.kernel: (own_s * OWN_SLOWED**beside).tolist(),
        BASELINE: (dense_s * DENSE_SLOWED**beside).tolist(),
    }
    return replace(RECORD, samples={CACHE: samples}, baselines={BASELINE: "sha"}, layout_s={})


HALF = [number % 2 == 1 for number in range(20)]


def test_rounds_count_in_which_the_baseline_was_itself():
    record = told(HALF)
    assert Quiet.of([record]).rounds(record, CACHE).tolist() == [not slow for slow in HALF]
    assert ALL.rounds(record, CACHE).all()
    assert len(ALL.rounds(record, CACHE)) == len(HALF)


def test_a_law_is_fitted_to_what_the_core_does_alone():
    record = told(HALF)
    for quiet_rounds, exact in ((Quiet.of([record]), True), (ALL, False)):
        usual_s = dense_times(one for _, one in dense_observations([record], quiet_rounds))
        (seen,) = sparse_observations([(record, ())], usual_s, usual_s, quiet_rounds)
        assert (seen.plain_s == pytest.approx(2.0)) == exact
        assert (seen.time_s == pytest.approx(2.0)) == exact
        assert (list(usual_s.values()) == [pytest.approx(4.0)]) == exact
    assert record.speedup(total=True).median < 2.0, "verdicts are of all rounds"


def test_of_several_runs_each_counts_as_much_as_it_met_quiet_rounds():
    calm, disturbed = told([False] * 47), told([True] * 44 + [False] * 3)
    quiet_rounds = Quiet.of([calm, calm, disturbed])
    weights = quiet_rounds.weight(calm, CACHE), quiet_rounds.weight(disturbed, CACHE)
    assert weights == (BETWEEN + MOST, BETWEEN + 3)
    assert ALL.weight(disturbed, CACHE) == BETWEEN + MOST
    usual_s = dense_times(one for _, one in dense_observations([calm, calm, disturbed], quiet_rounds))

    def seen(newest: Record, *earlier: Record) -> Observation:
        (found,) = sparse_observations([(newest, earlier)], usual_s, usual_s, quiet_rounds)
        return found

    off = math.log(seen(disturbed).time_s / 2.0)
    assert off > 0.02, "its six fastest rounds, three of them disturbed"
    assert seen(calm).time_s == pytest.approx(2.0)
    share = weights[1] / sum(weights)
    assert math.log(seen(calm, disturbed).time_s / 2.0) == pytest.approx(share * off)
    assert math.log(seen(disturbed, calm).time_s / 2.0) == pytest.approx(share * off)
    assert math.log(seen(disturbed, calm, disturbed).first_s / 2.0) == pytest.approx(share * off)
    assert seen(disturbed, disturbed).time_s == pytest.approx(seen(disturbed).time_s), "there is nothing better"


def test_what_is_usual_is_known_from_all_records_of_the_problem():
    """One of them saw the neighbour from its first round to its last."""
    calm, disturbed = told([False] * 10), told([True] * 10)
    alone, together = Quiet.of([disturbed]), Quiet.of([calm, disturbed])
    assert alone.rounds(disturbed, CACHE).all()
    assert together.rounds(disturbed, CACHE).sum() == LEAST_ROUNDS, "too few are quiet: its fastest count"
    assert together.rounds(calm, CACHE).all()
    other = replace(disturbed, baselines={BASELINE: "other sources"})
    assert Quiet.of([calm, other]).rounds(other, CACHE).all(), "of other code nothing is known"


def test_without_baselines_all_rounds_count():
    record = replace(told(HALF), baselines={})
    assert Quiet.of([record]).rounds(record, CACHE).all()


def test_the_least_of_several_baselines_decides():
    record = told(HALF)
    samples = {**record.samples[CACHE], "dense.late": [5.0 * (3 if number < 10 else 1) for number in range(20)]}
    record = replace(record, samples={CACHE: samples}, baselines={**record.baselines, "dense.late": "sha"})
    assert Quiet.of([record]).rounds(record, CACHE).tolist() == [not slow for slow in HALF]


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40), st.integers(1, 8))
def test_quiet_rounds_are_the_fastest_and_never_too_few(times_s, least):
    values = np.array(times_s)
    found = quiet(values, usual(values), least)
    assert found.sum() >= min(least, len(values))
    if not found.all():
        assert values[found].max() <= values[~found].min()
    if found.sum() > least:
        assert values[found].max() <= QUIET * usual(values)


def test_two_runs_of_which_one_was_disturbed_agree():
    """The noise floor of a fit: the run that a neighbour slowed in a third of its rounds tells what the other tells."""
    some = [number % 3 == 0 for number in range(30)]
    first = replace(told([False] * 30), started_at="2026-12-01T01:00:00+00:00")
    second = replace(told(some), started_at="2026-12-01T02:00:00+00:00", key="second")
    fitted = fit([first, second])
    (model,) = fitted.sparse.values()
    (floor,) = model.floors.values()
    assert floor.ratio == pytest.approx(0.0, abs=1e-12)
    assert floor.seconds == pytest.approx(0.0, abs=1e-12)


def test_a_dense_kernel_that_was_only_screened_lends_no_unit():
    """In one run it was no baseline, and the rounds of its one screening met a neighbour: 3.6 times its time."""
    found = usual_world().sweep([(64, 128)], [4], usual_arms((0.5, 0.9)))
    (screened,) = (record for record in found if record.kernel == "dense.numpy")
    assert "dense.numpy" not in screened.baselines
    slow = {name: [(3.6 if name == "dense.numpy" else 1.0) * time_s for time_s in times_s]
            for name, times_s in screened.samples[CACHE].items()}  # fmt: skip
    records = [replace(screened, samples={CACHE: slow}), *(record for record in found if record is not screened)]
    usual_s = {
        about[-1]: time_s for about, time_s in dense_times(one for _, one in dense_observations(records)).items()
    }
    assert usual_s["dense.numpy"] == min(usual_s[name] for name in screened.baselines)
    alone = dense_times(one for _, one in dense_observations([records[0]]))
    told_s = {about[-1]: time_s for about, time_s in alone.items()}
    assert told_s["dense.numpy"] > 2 * usual_s["dense.numpy"], "where none was timed oftener its own rounds speak"
