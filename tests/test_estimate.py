"""How long a plan will take: as the same trials took before, else as their kernel usually takes, else by a rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from test_store import record

from sparsebench import Case
from sparsebench.lab.estimate import BESIDE, OVERHEAD_S, Costs
from sparsebench.record import Protocol
from sparsebench.suite import Trial

START = datetime(2026, 11, 1, tzinfo=UTC)
PROTOCOL = Protocol(budget_s=0.5)


def case(n: int) -> Case:
    return Case(m=64, k=64, n=n, pattern="unstructured", sparsity=0.9)


def at(second: float, kernel: str = "csr.c", n: int = 1):
    started_at = (START + timedelta(seconds=second)).isoformat()
    return replace(record(f"{kernel} {n}"), case=case(n), kernel=kernel, protocol=PROTOCOL, started_at=started_at)


def test_a_trial_takes_what_it_took_before():
    costs = Costs.of([at(0, n=1), at(3, n=2), at(4, n=3)])
    assert costs.seconds([Trial(case(2), "csr.c")], PROTOCOL) == 3
    assert costs.seconds([Trial(case(2), "csr.c"), Trial(case(3), "csr.c")], PROTOCOL) == 4


def test_another_trial_of_a_kernel_takes_its_usual_time_under_the_same_budget():
    costs = Costs.of([at(0, n=1), at(3, n=2), at(4, n=3), at(6, n=4)])
    assert costs.seconds([Trial(case(9), "csr.c")], PROTOCOL) == 2
    other = Protocol(budget_s=7.0)
    assert costs.seconds([Trial(case(9), "csr.c")], other) == pytest.approx(7 * BESIDE["cpu"] + OVERHEAD_S, abs=0.01)


def test_records_written_together_share_what_lies_before_them():
    costs = Costs.of([at(0, "a"), at(4, "b"), at(4.001, "c"), at(5, "d")])
    assert costs.seconds([Trial(case(1), "b")], PROTOCOL) == pytest.approx(2, abs=0.01)
    assert costs.seconds([Trial(case(1), "d")], PROTOCOL) == pytest.approx(1, abs=0.01)


def test_a_night_between_two_runs_is_no_trial():
    costs = Costs.of([at(0, n=1), at(40_000, n=2)])
    assert costs.seconds([Trial(case(2), "csr.c")], PROTOCOL) == pytest.approx(
        0.5 * BESIDE["cpu"] + OVERHEAD_S, abs=0.01
    )


def test_without_records_each_spends_its_budget_in_every_cache_state():
    both = Protocol(budget_s=0.5, cache=("hot", "weights_cold"))
    assert Costs.of([]).seconds([Trial(case(1), "csr.c")], both) == pytest.approx(
        1 * BESIDE["cpu"] + OVERHEAD_S, abs=0.01
    )
    assert Costs().seconds([], both) == 0
