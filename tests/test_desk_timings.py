"""Intervals of many records at once are those of each record by itself, to the last bit."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay import usual_arms, usual_world

from sparsebench.desk.arms import arms, break_evens
from sparsebench.desk.frame import frame
from sparsebench.desk.timings import rounds_intervals, timings
from sparsebench.paired import MOST_BLOCKS, rounds_interval
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
