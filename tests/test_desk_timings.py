"""Intervals of many records at once are those of each record by itself; laws are fitted to trimmed means."""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay import usual_arms, usual_world

from sparsebench.desk.arms import arms, break_evens
from sparsebench.desk.frame import frame
from sparsebench.desk.observe import sparse_observations
from sparsebench.desk.observe_dense import dense_observations, dense_times
from sparsebench.desk.timings import rounds_intervals, timings
from sparsebench.paired import CUT, MOST_BLOCKS, rounds_interval, trimmed_mean
from sparsebench.store import uncollected


@given(
    st.one_of(st.integers(1, 60), st.just(300), st.just(MOST_BLOCKS + 1)),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_each_row_has_the_interval_that_it_has_alone(rounds, persistence, seed):
    steps = np.random.default_rng(seed).standard_normal((5, rounds))
    series = np.round(steps + persistence * np.cumsum(steps, axis=1), seed % 3)  # ties too
    assert rounds_intervals(series).tolist() == [list(rounds_interval(row)) for row in series.tolist()]


def test_each_record_has_the_speedups_that_it_has_alone():
    found = usual_world(noise=0.05).sweep([(64, 128)], [4], usual_arms((0.5, 0.9)))
    changed = [
        replace(record, layout_s={record.kernel: 1e-6, **dict.fromkeys(record.baselines, 1e-5)}) for record in found
    ]
    alone = [replace(record, baselines={}) for record in found[-2:]]
    few = [
        replace(record, samples={c: {k: t[:3] for k, t in by.items()} for c, by in record.samples.items()})
        for record in found[:4]
    ]
    asked = [(record, cache) for record in (*found, *changed, *alone, *few) for cache in record.samples]
    told = timings(asked)
    for (record, cache), one in zip(asked, told, strict=True):
        assert (one.time_s, one.low_s, one.high_s) == rounds_interval(record.times_s(cache))
        assert one.native == record.speedup(cache)
        assert one.total == record.speedup(cache, total=True)
        assert one.baseline == (record.best_baseline(cache, total=True) or "")
    assert any(one.native != one.total for one in told)
    assert any(one.total is None for one in told)
    assert timings([]) == []


@given(st.lists(st.floats(-20.0, 20.0), min_size=1, max_size=60), st.floats(-5.0, 5.0))
def test_a_trimmed_mean_is_among_the_middle_values_and_moves_with_them(values, shift):
    ordered, found = sorted(values), trimmed_mean(np.array(values))
    gone = math.floor(CUT * len(values))
    assert ordered[gone] - 1e-9 <= found <= ordered[-1 - gone] + 1e-9
    assert trimmed_mean(np.array(values) + shift) == pytest.approx(found + shift, abs=1e-9)
    assert trimmed_mean(-np.array(values)) == pytest.approx(-found, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 4.0], 2.5),
        ([10.0, 0.0, 1.0], (0.4 * 0 + 1 + 0.4 * 10) / 1.8),
        ([0.0, 1.0, 2.0, 3.0, 99.0], 2.0),
        ([9e9, 1.0, 2.0, 3.0, 5.0, -9e9], (0.8 * 1 + 2 + 3 + 0.8 * 5) / 3.6),
    ],
)
def test_a_trimmed_mean_cuts_a_fifth_at_either_end_and_parts_of_a_round(values, expected):
    assert trimmed_mean(np.array(values)) == pytest.approx(expected)


def test_of_two_states_a_trimmed_mean_keeps_to_the_share_and_a_median_jumps():
    def told(slow):  # of 50 rounds so many in the slow state
        return np.array([0.0] * (50 - slow) + [1.0] * slow)

    assert np.median(told(26)) - np.median(told(24)) == 1.0
    assert trimmed_mean(told(26)) - trimmed_mean(told(24)) == pytest.approx(2 / 30)


def test_laws_see_trimmed_means_inside_their_intervals_and_records_tell_medians():
    record = usual_world().sweep([(64, 128)], [4], usual_arms((0.9,)))[-1]
    (baseline,), fast, slow = list(record.baselines)[:1], [1.0] * 4, [2.0] * 5
    both = {record.kernel: [*fast, *slow], baseline: [4.0] * 9}
    record = replace(record, samples={"weights_cold": both}, baselines={baseline: "sha"}, layout_s={})
    usual_s = dict.fromkeys(dense_times(one for _, one in dense_observations([record])), 40.0)
    (seen,) = sparse_observations([(record, ())], usual_s, usual_s)
    plain_s = math.exp(trimmed_mean(np.log(both[record.kernel])))
    assert record.speedup().median == 2.0
    assert 1.0 < plain_s < 2.0
    assert (seen.plain_s, seen.time_s) == pytest.approx((plain_s, 40.0 * plain_s / 4.0))
    (alone,) = sparse_observations([(record, ())], {}, {})
    dense = [one for _, one in dense_observations([record])]
    assert [one.time_s for one in dense] == pytest.approx([4.0])
    for one in (seen, alone, *dense):
        low_s, high_s = one.interval()
        assert low_s <= one.time_s * (1 + 1e-12)
        assert high_s >= one.time_s * (1 - 1e-12)


def test_tables_of_nothing_are_empty():
    assert arms(frame([])).empty
    assert break_evens(frame([])).empty


def test_cycles_are_looked_for_again_afterwards_whatever_happens():
    @uncollected()
    def collecting() -> bool:
        with uncollected():
            pass
        return gc.isenabled()

    @uncollected()
    def breaking() -> None:
        raise ZeroDivisionError

    assert not collecting()
    with pytest.raises(ZeroDivisionError):
        breaking()
    assert gc.isenabled()
