"""The clock, with planted faults: what it must cancel, and what must make it fail."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from sparsebench.kernel import Launch
from sparsebench.lab.baselines import aa_flags
from sparsebench.lab.clock import Contestant, CpuClock, Rotation, copies_needed
from sparsebench.lab.interleaved import Interleaved, Timing
from sparsebench.lab.probes import CoreShare
from sparsebench.paired import effective_rounds, median_interval, paired_ratio, rounds_interval
from sparsebench.record import Protocol

CACHE_BYTES = 2**16


def time_interleaved(clock, contestants, protocol, against) -> Timing:
    """A timing in one go."""
    timing = Interleaved(clock, contestants, protocol, against).go()
    assert timing is not None
    return timing


class Machine:
    """A pretend machine: a call takes the seconds it is told, 1 % noise, and more the later in its round it comes."""

    def __init__(self, order_bias: float = 0.0, entry_bias: dict[str, float] | None = None) -> None:
        self.time_s, self.place, self.size = 0.0, 0, 2
        self.order_bias, self.entry_bias = order_bias, entry_bias or {}
        self.rng = np.random.default_rng(0)
        self.name = ""

    def contestant(self, name: str, cost_s: float) -> Contestant:
        def run() -> None:
            noise = 1 + 0.01 * self.rng.standard_normal()
            late = self.order_bias * self.place / (self.size - 1)
            self.time_s += cost_s * noise * (1 + late + self.entry_bias.get(self.name, 0.0))
            self.place = (self.place + 1) % self.size

        return Contestant(name, Rotation([Launch(run)], CACHE_BYTES * 2), np.zeros(4))

    def clock(self, **fields) -> CpuClock:
        return CpuClock(CACHE_BYTES, mark=self.mark, rng=np.random.default_rng(1), now_s=lambda: self.time_s, **fields)

    def mark(self, name: str) -> None:
        self.name = name


PROTOCOL = Protocol(budget_s=0.3, precision=1e-4)


def twins(machine: Machine, **clock_fields):
    pair = [machine.contestant("dense.x", 1e-3), machine.contestant("dense.aa", 1e-3)]
    return time_interleaved(machine.clock(**clock_fields), pair, PROTOCOL, ["dense.x"])


def test_a_kernel_against_itself_is_one():
    timing = twins(Machine())
    times_s = timing.samples["weights_cold"]
    assert paired_ratio(times_s["dense.aa"], times_s["dense.x"]).median == pytest.approx(1, abs=0.02)
    assert aa_flags("dense.x", timing.samples) == []


def test_a_bias_by_place_in_the_round_is_cancelled_by_random_order():
    assert aa_flags("dense.x", twins(Machine(order_bias=0.03)).samples) == []


def test_a_planted_order_bias_of_3_percent_makes_aa_fail():
    """The same bias under a fixed order: without the shuffle the second entry pays it each time."""
    timing = twins(Machine(order_bias=0.03), order=range)
    assert aa_flags("dense.x", timing.samples) == ["aa_off:dense.x:weights_cold"]


def test_a_bias_against_the_second_entry_makes_aa_fail():
    assert aa_flags("dense.x", twins(Machine(entry_bias={"dense.aa": 0.03})).samples)


def test_stops_when_the_ratio_is_known_and_says_so():
    machine = Machine()
    pair = [machine.contestant("a", 1e-3), machine.contestant("b", 2e-3)]
    timing = time_interleaved(machine.clock(), pair, Protocol(budget_s=60, precision=0.01), ["a"])
    assert timing.stop == "precision"
    times_s = timing.samples["weights_cold"]
    assert len(times_s["a"]) == len(times_s["b"])
    ratio = paired_ratio(times_s["b"], times_s["a"])
    assert ratio.low <= 2.0 * 1.01
    assert ratio.half_width <= 0.01
    assert twins(Machine()).stop == "budget"


def test_never_fewer_than_six_rounds_whatever_the_budget():
    machine = Machine()
    timing = time_interleaved(
        machine.clock(), [machine.contestant("a", 1.0)], Protocol(budget_s=1e-9, precision=1e-9), ["a"]
    )
    assert len(timing.samples["weights_cold"]["a"]) == 6


def test_every_cache_state_gets_its_rounds():
    machine = Machine()
    caches = ("hot", "weights_cold", "cold")
    timing = time_interleaved(
        machine.clock(), [machine.contestant("a", 1e-3)], Protocol(cache=caches, budget_s=0.05), ["a"]
    )
    assert set(timing.samples) == set(caches)
    assert len({len(by_name["a"]) for by_name in timing.samples.values()}) == 1


def test_hot_loops_short_calls_inside_a_sample():
    calls = []
    clock = CpuClock(CACHE_BYTES)
    contestant = Contestant("a", Rotation([Launch(lambda: calls.append(1))], 1), np.zeros(1))
    assert clock.sample(contestant, "hot") < 1e-5
    assert len(calls) > 20


def test_weights_cold_takes_copies_in_turn_and_washes_when_they_fit_the_cache():
    taken, washed = [], []
    launches = [Launch(lambda number=number: taken.append(number)) for number in range(3)]

    class Watched(CpuClock):
        def overwrite_cache(self) -> None:
            washed.append(len(taken))

    clock = Watched(CACHE_BYTES)
    small = Contestant("small", Rotation(launches, 16), np.zeros(1))
    for _ in range(7):
        clock.sample(small, "weights_cold")
    assert taken == [0, 1, 2, 0, 1, 2, 0]
    assert washed == [0, 3, 6]
    washed.clear()
    clock.sample(Contestant("large", Rotation(launches, CACHE_BYTES), np.zeros(1)), "weights_cold")
    assert washed == []


@pytest.mark.parametrize("weight_bytes, copies", [(0, 256), (1, 256), (2**10, 128), (2**16, 2), (2**30, 2)])
def test_copies_total_twice_the_cache(weight_bytes, copies):
    assert copies_needed(weight_bytes, CACHE_BYTES) == copies


def test_a_descheduled_thread_and_a_wide_spread_are_flagged():
    times = iter(np.tile([1e-3, 1e-3, 1e-3, 1e-3 + 8e-3, 3e-3], 100).tolist())
    now = [0.0]

    def run() -> None:
        now[0] += next(times)

    clock = CpuClock(CACHE_BYTES, now_s=lambda: now[0])
    contestant = Contestant("a", Rotation([Launch(run)], CACHE_BYTES * 2), np.zeros(1))
    timing = time_interleaved(clock, [contestant], Protocol(budget_s=1e-4, precision=1e-9), ["a"])
    assert "descheduled:a:weights_cold" in timing.flags
    assert "wide_spread:a:weights_cold" in timing.flags


def test_median_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        _, low, high = median_interval(rng.exponential(size=25).tolist())
        inside += low <= np.log(2) <= high
    assert inside >= 940


def persistent(rng: np.random.Generator, rounds: int, correlation: float) -> list[float]:
    """A series of mean 0 whose neighbours correlate so: a machine whose state outlasts a round."""
    noise, series = rng.normal(size=rounds + 200) * np.sqrt(1 - correlation**2), [0.0]
    for value in noise.tolist():
        series.append(correlation * series[-1] + value)
    return series[-rounds:]


def covered(interval: Callable[[list[float]], tuple[float, float, float]], correlation: float, rounds: int) -> float:
    rng = np.random.default_rng(0)
    found = [interval(persistent(rng, rounds, correlation)) for _ in range(400)]
    return float(np.mean([low <= 0 <= high for _, low, high in found]))


def test_rounds_that_are_not_independent_get_the_wider_interval_they_need():
    assert covered(median_interval, 0.9, 1500) < 0.6  # what taking them for independent would claim to be 95 %
    assert covered(rounds_interval, 0.9, 1500) >= 0.91
    assert covered(rounds_interval, 0.5, 200) >= 0.91


def test_independent_rounds_lose_next_to_nothing_by_it():
    rng = np.random.default_rng(0)
    series = rng.normal(size=(400, 100)).tolist()
    honest, simple = (
        np.median([np.ptp(interval(x)[1:]) for x in series]) for interval in (rounds_interval, median_interval)
    )
    assert 1.0 <= honest / simple < 1.15
    assert covered(rounds_interval, 0.0, 60) >= 0.94


def test_effective_rounds_of_series_known_in_closed_form():
    rng = np.random.default_rng(0)
    for correlation in (0.5, 0.9):
        signs = 2 / np.pi * np.arcsin(correlation ** np.arange(1, 400))  # sign autocorrelation of a normal series
        wanted = 1 / (1 + 2 * signs.sum())
        for rounds in (900, 5000):  # one by one, and summed over blocks
            found = [effective_rounds(persistent(rng, rounds, correlation)) / rounds for _ in range(40)]
            assert np.median(found) == pytest.approx(wanted, rel=0.15)
    assert effective_rounds([1.0, 2.0] * 3) == 6
    assert effective_rounds([1.0] * 50) == 50
    assert (
        effective_rounds([1.0, 2.0] * 30) == 60
    )  # rounds that make up for each other are not worth more than they are


def test_pairs_cannot_be_made_up():
    with pytest.raises(ValueError, match="paired ratio of 2 and 1 rounds"):
        paired_ratio([1.0, 2.0], [1.0])


def test_the_real_clock_measures_a_sleep():
    contestant = Contestant("a", Rotation([Launch(lambda: time.sleep(2e-3))], CACHE_BYTES * 2), np.zeros(1))
    assert 2e-3 <= CpuClock(CACHE_BYTES).sample(contestant, "cold") < 0.1


# ------------------------------------------------------------------------------------------------------ foreign load


class Lost:
    """A core that others had for these shares of the time."""

    def __init__(self, preempted: float, stolen: float) -> None:
        self.shares = preempted, stolen

    def lost(self) -> tuple[float, float]:
        return self.shares


@pytest.mark.parametrize(
    "shares, flags",
    [((0.0, 0.0), ()), ((0.04, 0.04), ()), ((0.3, 0.0), ("preempted:30%",)), ((0, 0.1), ("stolen:10%",))],
)
def test_work_of_others_on_the_core_is_flagged(shares, flags):
    timing = twins(Machine(), share=lambda: Lost(*shares))
    assert tuple(flag for flag in timing.flags if flag.startswith(("preempted", "stolen"))) == flags


def test_a_process_that_sleeps_is_seen_as_without_its_core():
    share, worked_s = CoreShare(), time.process_time() + 0.05
    time.sleep(0.2)
    while time.process_time() < worked_s:
        pass
    assert share.lost()[0] > 0.5
    share.skip(0.19)
    assert share.lost()[0] < 0.95
    share.skip(10.0)
    assert share.lost() == (0.0, 0.0)


def test_every_timed_call_meets_another_x():
    turns, machine = [], Machine()
    own = machine.contestant("a", 1e-3)
    changed = Contestant("a", own.rotation, own.x, lambda: turns.append(1))
    timing = time_interleaved(machine.clock(), [changed], PROTOCOL, ["a"])
    assert len(turns) == len(timing.samples["weights_cold"]["a"])
