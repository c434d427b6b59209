"""A trial's time is taken in goes, other trials between them; whatever breaks, each trial has its one record."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_devices import Bout, Device, small, stored
from test_clock import CACHE_BYTES, Machine

from sparsebench.case import Case
from sparsebench.kernel import Launch, all_kernels
from sparsebench.lab.bench import Bench
from sparsebench.lab.calm import Calm
from sparsebench.lab.clock import LEAST_STAY, Contestant, Rotation
from sparsebench.lab.gates import STAY
from sparsebench.lab.interleaved import FIRST_LOOK, LEAST_GOES, Interleaved
from sparsebench.lab.pth import load
from sparsebench.lab.session import ADMITTED, GOES, UNDER_WAY, work
from sparsebench.lab.sides import CpuSide
from sparsebench.lab.wire import Answer, Lost, Measure
from sparsebench.paired import LEAST_ROUNDS
from sparsebench.record import Protocol

KERNELS = ("csr.scipy", "csr.torch")


class Slow(Device):
    """A device whose trials want `goes` goes. A death forgets what it had begun, as a new worker process has."""

    def __init__(self, goes=3, script=lambda request, alone: None, held=0.0):
        super().__init__(script)
        self.goes, self.held, self.begun = goes, held, Counter()
        self.most = 0  # trials under way at once

    def ask(self, request, timeout_s, *, alone=False):
        if alone:
            self.begun.clear()
        answer, suspect = super().ask(request, timeout_s, alone=alone)
        if answer.outcome in ("crashed", "oom", "timeout"):
            self.begun.clear()
        elif isinstance(request, Measure) and request.goes > 1:
            about = request.case.key, request.kernel
            self.begun[about] += 1
            self.most = max(self.most, len(self.begun))
            if self.begun[about] < self.goes:
                return Answer("ok", facts={"under_way": self.held, "spent": {}}), suspect
            del self.begun[about]
        return answer, suspect


def measured(device):
    """(n, sparsity, kernel) of each go."""
    return [(a.case.n, a.case.sparsity, a.kernel) for a, _ in device.asked if isinstance(a, Measure)]


def run(tmp_path: Path, device, n=(4, 8, 16), name="results"):
    with Bout(small(tmp_path, *KERNELS, n=n), tmp_path / name) as docket:
        work(docket, device)
        assert docket.done
    return docket


# --- the session ------------------------------------------------------------------------------------------------------


def test_goes_of_one_trial_have_those_of_others_between_them(tmp_path):
    device = Slow(goes=3)
    docket = run(tmp_path, device)
    goes = measured(device)
    assert set(Counter(goes).values()) == {3}
    assert all(a != b for a, b in pairwise(goes))
    assert len({n for n, *_ in goes[: 3 * ADMITTED]}) > 1  # of several problems
    assert len(stored(tmp_path / "results")) == len(docket.trials)
    assert {asked.goes for asked, _ in device.asked if isinstance(asked, Measure)} == {GOES["cpu"]}


def test_only_so_many_trials_are_under_way(tmp_path):
    device = Slow(goes=12)
    run(tmp_path, device, n=range(1, 13))
    assert device.most == UNDER_WAY["cpu"]


def test_no_trial_begins_while_those_under_way_hold_all_the_memory(tmp_path):
    device = Slow(goes=3, held=1.0)
    run(tmp_path, device)
    assert device.most == 1


def test_one_go_is_all_a_gpu_takes(tmp_path, monkeypatch):
    monkeypatch.setitem(GOES, "cpu", GOES["cuda"])
    monkeypatch.setitem(UNDER_WAY, "cpu", UNDER_WAY["cuda"])
    device = Slow(goes=3)
    run(tmp_path, device)
    assert set(Counter(measured(device)).values()) == {1}


def test_records_say_what_their_trial_took_all_goes_together(tmp_path):
    device = Slow(goes=3, script=lambda request, alone: time.sleep(0.02))
    run(tmp_path, device, n=(4,))
    took = [r.facts["took_s"] for r in stored(tmp_path / "results") if r.case.pattern != "dense"]
    assert min(took) >= 0.06
    assert max(took) < 0.5


@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_crash_in_a_go_is_tried_alone_in_one_go_and_the_others_begin_anew(tmp_path, at):
    crashed = []

    def script(request, alone):
        if isinstance(request, Measure) and not crashed and len(measured(device)) > at:
            crashed.append(request)
            return Answer("crashed", "planted")
        return None

    device = Slow(goes=3, script=script)
    docket = run(tmp_path, device)
    found = stored(tmp_path / "results")
    assert {record.outcome for record in found} == {"ok"}
    assert len(found) == len(docket.trials) == len({record.key for record in found})
    (told,) = [record for record in found if "first_try" in record.facts]
    assert (told.case.key, told.kernel) == (crashed[0].case.key, crashed[0].kernel)
    (alone,) = [request for request, by_itself in device.asked if by_itself]
    assert alone.goes == 1


def test_a_kernel_that_breaks_three_trials_has_no_more_goes(tmp_path):
    def script(request, alone):
        return Answer("crashed", "planted") if getattr(request, "kernel", "") == "csr.torch" else None

    docket = run(tmp_path, Slow(goes=3, script=script), n=(4, 8, 16, 32))
    outcomes = Counter((record.kernel, record.outcome) for record in stored(tmp_path / "results"))
    assert outcomes["csr.torch", "crashed"] == 3
    assert outcomes["csr.torch", "skipped"] == 5
    assert outcomes["csr.scipy", "ok"] == 8
    assert docket.summary.left_out["csr.torch"] == 5


@pytest.mark.parametrize("at", [0, 5, 11])
def test_a_device_that_goes_away_leaves_what_it_had_under_way_to_the_next(tmp_path, at):
    def script(request, alone):
        if isinstance(request, Measure) and len(measured(first)) > at:
            raise Lost("planted")

    first, second = Slow(goes=3, script=script), Slow(goes=3)
    with Bout(small(tmp_path, *KERNELS, n=(4, 8, 16)), tmp_path / "results") as docket:
        with pytest.raises(Lost):
            work(docket, first)
        work(docket, second)
        assert docket.done
    found = stored(tmp_path / "results")
    assert len(found) == len(docket.trials) == len({record.key for record in found})
    assert {record.outcome for record in found} == {"ok"}


def test_ctrl_c_keeps_what_is_recorded_and_a_later_run_does_the_rest(tmp_path):
    def script(request, alone):
        if isinstance(request, Measure) and len(measured(first)) > 20:
            raise KeyboardInterrupt

    first = Slow(goes=3, script=script)
    with (
        Bout(small(tmp_path, *KERNELS, n=(4, 8, 16)), tmp_path / "results") as docket,
        pytest.raises(KeyboardInterrupt),
    ):
        work(docket, first)
    kept = len(stored(tmp_path / "results"))
    assert 0 < kept < len(docket.trials)
    docket = run(tmp_path, Slow(goes=3))
    assert docket.summary.kept == kept
    assert len(stored(tmp_path / "results")) == len(docket.trials)


def test_after_the_time_limit_what_is_under_way_ends_and_nothing_begins(tmp_path):
    def script(request, alone):
        if isinstance(request, Measure):
            docket.deadline_s = 0.0

    device = Slow(goes=3, script=script)
    with Bout(small(tmp_path, *KERNELS, n=(4, 8, 16)), tmp_path / "results") as docket:
        work(docket, device)
    assert len(set(measured(device))) == 1
    assert docket.summary.not_started == len(docket.trials) - len(stored(tmp_path / "results"))


# --- the clock --------------------------------------------------------------------------------------------------------


def interleaved(machine: Machine, goes: int, **protocol) -> Interleaved:
    pair = [machine.contestant("dense.x", 1e-3), machine.contestant("csr.x", 5e-4)]
    return Interleaved(machine.clock(), pair, Protocol(**protocol), ["dense.x"], goes)


def goes_of(timing: Interleaved):
    """(how many goes it took, the timing)."""
    for number in range(1, 1000):
        if found := timing.go():
            return number, found
    raise AssertionError("never over")


def test_a_ratio_known_at_once_is_asked_of_four_goes_still():
    number, found = goes_of(interleaved(Machine(), 8, budget_s=60, precision=0.01))
    assert (number, found.stop) == (LEAST_GOES, "precision")
    rounds = len(found.samples["weights_cold"]["csr.x"])
    assert FIRST_LOOK + (LEAST_GOES - 1) * LEAST_ROUNDS <= rounds < 4 * FIRST_LOOK


def test_one_go_is_what_it_was():
    number, found = goes_of(interleaved(Machine(), 1, budget_s=60, precision=0.01))
    assert (number, found.stop) == (1, "precision")
    assert len(found.samples["weights_cold"]["csr.x"]) == FIRST_LOOK


def test_the_budget_ends_a_timing_that_stays_unsure_after_as_many_goes_as_it_was_cut_into():
    number, found = goes_of(interleaved(Machine(), 8, budget_s=0.02, precision=1e-9))
    assert found.stop == "budget"
    assert number <= 8
    assert len(found.samples["weights_cold"]["csr.x"]) >= LEAST_ROUNDS


def test_long_calls_have_a_round_a_go_and_six_in_all():
    number, found = goes_of(interleaved(Machine(), 8, budget_s=1e-9, precision=1e-9))
    assert number == LEAST_ROUNDS
    assert len(found.samples["weights_cold"]["csr.x"]) == LEAST_ROUNDS


def test_the_first_rounds_of_a_go_do_not_count():
    """A pretend machine whose caches are cold at the start of a go: calls take 3, 2 and then 1 ms."""
    machine = Machine()
    since = [0]

    def run() -> None:
        machine.time_s += 1e-3 * max(3 - since[0], 1)
        since[0] += 1

    contestant = Contestant("csr.x", Rotation([Launch(run)], CACHE_BYTES * 2), np.zeros(4))
    seen = {}
    for settling in (0, 2):
        timing = Interleaved(machine.clock(), [contestant], Protocol(budget_s=60), ["csr.x"], 8, settling)
        calls, found = 0, None
        while found is None:
            since[0] = 0
            found = timing.go()
            calls += since[0]
        times_s = found.samples["weights_cold"]["csr.x"]
        assert calls == len(times_s) + settling * LEAST_GOES
        seen[settling] = max(times_s)
    assert seen == {0: pytest.approx(3e-3), 2: pytest.approx(1e-3)}


def test_rounds_that_do_not_count_take_no_more_time_than_those_that_do():
    """Long calls: one such round a go, however many were wanted."""
    calls = []
    contestant = Contestant("csr.x", Rotation([Launch(lambda: calls.append(1))], CACHE_BYTES * 2), np.zeros(4))
    timing = Interleaved(Machine().clock(), [contestant], Protocol(budget_s=1e-9), ["csr.x"], 8, 6)
    number, found = goes_of(timing)
    assert len(found.samples["weights_cold"]["csr.x"]) == number == LEAST_ROUNDS
    assert len(calls) == 2 * LEAST_ROUNDS


class Neighboured(Machine):
    """A pretend machine whose calls all take 1.4 times as long in `busy` goes, 1 on; the sparse ones 1.8 times."""

    def __init__(self, busy: range) -> None:
        super().__init__()
        self.busy, self.go = busy, 0

    def contestant(self, name: str, cost_s: float) -> Contestant:
        slowed = 1.8 if name.startswith("csr") else 1.4

        def run() -> None:
            self.time_s += cost_s * (slowed if self.go in self.busy else 1.0)

        return Contestant(name, Rotation([Launch(run)], CACHE_BYTES * 2), np.zeros(4))

    def timed(self, calm: Calm, **fields):
        """(goes, the timing) of a pair."""
        pair = [self.contestant("dense.x", 1e-3), self.contestant("csr.x", 5e-4)]
        timing = Interleaved(self.clock(), pair, Protocol(**fields), ["dense.x"], 8, 6, calm)
        for self.go in range(1, 100_000):
            if found := timing.go():
                return self.go, found
        raise AssertionError("never over")


def heard(time_s: float) -> Calm:
    """What earlier timings of the same problem took."""
    calm = Calm()
    for _ in range(100):
        calm.hear("weights_cold", "dense.x", time_s)
    return calm


def test_a_timing_goes_on_until_six_rounds_were_quiet():
    """The ratio is known in four goes, of a neighbour's moment; the goes that meet it further on are cut short."""
    number, found = Neighboured(range(10)).timed(heard(1e-3), budget_s=60, precision=0.01)
    assert (number, found.stop) == (10, "precision")
    times_s = np.asarray(found.samples["weights_cold"]["dense.x"])
    assert (times_s < 1.1e-3).sum() >= LEAST_ROUNDS
    in_four_goes = len(
        Neighboured(range(0)).timed(heard(1e-3), budget_s=60, precision=0.01)[1].samples["weights_cold"]["csr.x"]
    )
    assert (times_s > 1.3e-3).sum() == in_four_goes, "rounds of cut goes do not count"


def test_who_waits_for_quiet_does_not_wait_for_ever():
    number, found = Neighboured(range(100_000)).timed(heard(1e-3), budget_s=0.02, precision=1e-9)
    assert number > LEAST_GOES
    assert min(found.samples["weights_cold"]["dense.x"]) > 1.3e-3


def test_a_machine_that_was_never_faster_is_quiet():
    number, found = Neighboured(range(100_000)).timed(heard(1.4e-3), budget_s=60, precision=0.01)
    assert (number, found.stop) == (LEAST_GOES, "precision")


def test_all_timings_of_a_problem_tell_what_is_quiet():
    calm = Calm()
    Neighboured(range(0)).timed(calm, budget_s=60, precision=0.01)
    assert calm.quiet("weights_cold", "dense.x", [1e-3, 1.1e-3, 1.4e-3]) == 2
    assert calm.quiet("weights_cold", "dense.y", [1e-3, 1.1e-3, 1.4e-3]) == 3, "never heard of"
    assert Neighboured(range(10)).timed(calm, budget_s=60, precision=0.01)[0] == 10


def test_a_go_does_not_begin_at_the_end_of_a_y():
    ys = [np.zeros(1) for _ in range(3)]
    launches = [Launch(lambda: None, y=ys[number // 32]) for number in range(70)]
    rotation = Rotation(launches, 1, 32)
    for taken, first in ((0, 0), (32 - LEAST_STAY, 20), (33 - LEAST_STAY, 32), (40, 40), (63, 0), (64, 0), (69, 0)):
        rotation._next = taken
        rotation.settle_on_y()
        assert rotation._next == first, taken
    alone = Rotation(launches[:20], 1, 32)
    alone._next = 19
    alone.settle_on_y()
    assert alone._next == 19, "there is no other Y"


# --- the bench --------------------------------------------------------------------------------------------------------


def test_several_launches_write_the_same_y_before_the_next_ones_turn():
    """A Y that rested for many rounds is cold, as none is in a network; one alone would be one draw of luck."""
    bench = Bench(all_kernels(), Protocol(), CpuSide(cache_bytes=2**20), load)
    case = Case(m=64, k=64, n=5, pattern="unstructured", sparsity=0.9)
    ready = bench._ready(all_kernels()["csr.c"], bench._sparse_reference(case, None))
    places = [launch.y.ctypes.data for launch in ready.contestant.rotation.launches]
    assert len(places) == STAY * len(set(places)), "all Ys had a turn"
    turns = [places[start : start + STAY] for start in range(0, len(places), STAY)]
    assert all(len(set(turn)) == 1 for turn in turns)
    starts = [turn[0] for turn in turns]
    assert all(one != other for one, other in pairwise(starts))
    assert len(set(starts)) == 8


def test_trials_of_two_problems_take_turns_on_one_bench():
    """Each is checked before and after its own goes, and keeps its rounds apart from the other's."""
    protocol = Protocol(budget_s=0.02, precision=1e-9)
    bench = Bench(all_kernels(), protocol, CpuSide(cache_bytes=2**20), load)
    cases = [Case(m=24, k=40, n=n, pattern="unstructured", sparsity=0.8) for n in (3, 7)]
    asked = [Measure(case, None, kernel, ["dense.numpy"], 4) for case in cases for kernel in KERNELS]
    done, goes = {}, Counter()
    while len(done) < len(asked):
        for number, request in enumerate(asked):
            if number not in done:
                goes[number] += 1
                facts = bench.measure(request)
                if "under_way" not in facts:
                    done[number] = facts
                else:
                    assert 0 < facts["under_way"] < 1
    assert all(count > 1 for count in goes.values())
    for number, request in enumerate(asked):
        samples = done[number]["samples"]["weights_cold"]
        assert set(samples) == {request.kernel, "dense.numpy"}
        assert len(samples[request.kernel]) == len(samples["dense.numpy"]) >= LEAST_ROUNDS
        assert np.isfinite(done[number]["error_ratio"])
        assert done[number]["error_ratio"] <= 1
    assert not bench._under_way


def test_dense_kernels_are_timed_together_in_goes_between_those_of_trials_under_way():
    """One moment of the machine does not name baselines; and a trial that comes to its end meanwhile has its record."""
    protocol = Protocol(budget_s=0.02, precision=1e-9)
    bench = Bench(all_kernels(), protocol, CpuSide(cache_bytes=2**20), load)
    cases = [Case(m=24, k=40, n=n, pattern="unstructured", sparsity=0.8) for n in (3, 7)]
    asked = [Measure(cases[0], None, kernel, ["dense.numpy"], 4) for kernel in KERNELS]
    for request in asked:
        assert "under_way" in bench.measure(request)
    dense = ["dense.numpy", "dense.torch_mm"]
    for _ in range(50):  # once, unless the machine takes the core away for a go
        facts = bench.screen(cases[1].problem, dense)
        assert set(facts["samples"]["weights_cold"]) == set(dense)
        assert not facts["wrong"]
        if all(trial.seen for trial in bench._under_way.values()):
            break
    assert all(trial.seen for trial in bench._under_way.values()), "seven goes are more than each wanted"
    assert len(bench._under_way) == len(asked)
    found = [bench.measure(request) for request in asked]
    assert not bench._under_way
    for facts, request in zip(found, asked, strict=True):
        assert len(facts["samples"]["weights_cold"][request.kernel]) >= LEAST_ROUNDS
