"""A trial that met few quiet rounds is timed again at the end of its run; its record holds the rounds of both times."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from fake_devices import Bout, Device, small, stored
from test_quiet import RECORD

from sparsebench.desk.again import every_line, runs
from sparsebench.desk.compare_runs import runs_of
from sparsebench.lab.restless import ENOUGH, restless, together
from sparsebench.lab.session import work
from sparsebench.lab.wire import Answer, Lost, Measure
from sparsebench.paired import LEAST_ROUNDS
from sparsebench.record import Record
from sparsebench.store import Store, without_first

CACHE, SLOWED = "weights_cold", 1.22  # dense, by a neighbour on the other half of the core: desk/quiet.py
BUSY = ("csr.scipy", 4, 0.9)  # kernel, n and sparsity of the trial that a neighbour slows when it is timed first
QUIET = ENOUGH + 4


class Shared(Device):
    """A device that a neighbour slows in all but `calm` rounds of one trial, when it is timed for the first time."""

    def __init__(self, calm=2, script=lambda request, alone: None):
        super().__init__(script)
        self.calm = calm

    def ask(self, request, timeout_s, *, alone=False):
        answer, suspect = super().ask(request, timeout_s, alone=alone)
        if isinstance(request, Measure) and answer.outcome == "ok":
            first = measured(self)[about(request)] == 1
            slow = QUIET - self.calm if about(request) == BUSY and first else 0
            beside = [SLOWED] * slow + [1.0] * (QUIET - slow)
            samples = {name: [1e-3 * state for state in beside] for name in (request.kernel, *request.baselines)}
            flags = ["preempted:40%"] if slow else []
            answer = replace(answer, facts={**answer.facts, "samples": {CACHE: samples}, "flags": flags})
        return answer, suspect


def about(asked: Measure):
    return asked.kernel, asked.case.n, asked.case.sparsity


def measured(device: Device) -> Counter:
    """How often each sparse trial was asked for."""
    return Counter(about(asked) for asked, _ in device.asked if isinstance(asked, Measure))


def busy(records) -> list[Record]:
    """The records of the trial that the neighbour met, oldest first."""
    return [one for one in records if (one.kernel, one.case.n, one.case.sparsity) == BUSY]


def run(tmp_path, device, **limits):
    with Bout(small(tmp_path, "csr.scipy", "csr.torch"), tmp_path / "results") as docket:
        for name, value in limits.items():
            setattr(docket, name, value)
        work(docket, device)
        assert docket.done
    return docket


def test_what_a_neighbour_met_is_timed_again_when_all_others_are_through(tmp_path):
    device = Shared()
    docket = run(tmp_path, device)
    assert measured(device) == Counter({key: 2 if key == BUSY else 1 for key in measured(device)})
    asked = [about(one) for one, _ in device.asked if isinstance(one, Measure)]
    assert asked[-1] == BUSY
    first, record = busy(every_line(tmp_path / "results"))
    assert busy(stored(tmp_path / "results")) == [record]
    assert len(first.times_s(CACHE)) == QUIET
    assert len(record.times_s(CACHE)) == 2 * QUIET == len(record.times_s(CACHE, next(iter(record.baselines))))
    assert record.times_s(CACHE)[:QUIET].tolist() == first.times_s(CACHE).tolist()
    assert (record.key, record.started_at) == (first.key, first.started_at)
    assert (record.facts["timed"], record.flags) == (2, ("preempted:20%",)), "of two timings one lost two fifths"
    assert record.facts["took_s"] >= first.facts["took_s"]
    assert busy(docket.summary.records) == [record]
    assert len(docket.summary.records) == len(docket.trials)


def test_readers_take_the_later_line_for_the_trial(tmp_path):
    run(tmp_path, Shared())
    found = list(every_line(tmp_path / "results"))
    (kept,) = busy(without_first(found))
    assert len(kept.times_s(CACHE)) == 2 * QUIET
    ((newest, earlier),) = [one for one in runs(found) if busy([one[0]])]
    assert (len(newest.times_s(CACHE)), earlier) == (2 * QUIET, ())
    assert [len(group) for group in runs_of(found).values() if busy(group)] == [1]


@pytest.mark.parametrize(
    ("calm", "again"), [(0, False), (2, True), (ENOUGH - 1, True), (ENOUGH, False), (QUIET, False)]
)
def test_few_quiet_rounds_are_fewer_than_twelve(tmp_path, calm, again):
    """With none at all only other trials of the problem tell that it was slow, and they do."""
    device = Shared(calm)
    run(tmp_path, device)
    assert (measured(device)[BUSY] == 2) == (again or calm == 0)


def test_a_trial_of_few_rounds_that_were_all_quiet_is_left_alone():
    record = few_rounds()
    assert len(record.times_s(CACHE)) == LEAST_ROUNDS
    assert restless([("trial", record)]) == []
    assert restless([("trial", replace(record, baselines={}))]) == []


def few_rounds() -> Record:
    samples = {CACHE: {RECORD.kernel: [5e-4] * LEAST_ROUNDS, "dense.x": [1e-3] * LEAST_ROUNDS}}
    return replace(RECORD, samples=samples, baselines={"dense.x": "sha"}, layout_s={})


def test_nothing_is_timed_again_on_a_gpu(tmp_path):
    def script(request, alone):
        if isinstance(request, Measure) and sum(measured(device).values()) == len(docket.trials) - len(dense):
            docket.ledger.machine = replace(docket.ledger.machine, device="cuda")

    device = Shared(script=script)
    with Bout(small(tmp_path, "csr.scipy"), tmp_path / "results") as docket:
        dense = [trial for trial in docket.trials if trial.case.pattern == "dense"]
        work(docket, device)
        assert docket.ledger.machine.device == "cuda"
    assert set(measured(device).values()) == {1}


def test_a_second_run_leaves_the_records_as_they_are(tmp_path):
    run(tmp_path, Shared())
    device = Shared()
    docket = run(tmp_path, device)
    assert not measured(device)
    assert docket.summary.kept == len(docket.trials)
    assert len(busy(docket.summary.records)[0].times_s(CACHE)) == 2 * QUIET


def test_past_the_time_limit_the_first_record_stands(tmp_path):
    def script(request, alone):
        if isinstance(request, Measure) and sum(measured(device).values()) == 8:
            docket.deadline_s = 0.0

    device = Shared(script=script)
    with Bout(small(tmp_path, "csr.scipy", "csr.torch"), tmp_path / "results") as docket:
        work(docket, device)
        docket.close()
    assert set(measured(device).values()) == {1}
    assert docket.summary.not_started == 0
    (record,) = busy(docket.summary.records)
    assert len(record.times_s(CACHE)) == QUIET


@pytest.mark.parametrize("how", ["lost", "ctrl-c"])
def test_a_device_that_leaves_during_the_second_time_loses_nothing(tmp_path, how):
    def script(request, alone):
        if isinstance(request, Measure) and measured(first)[BUSY] == 2:
            raise Lost("gone") if how == "lost" else KeyboardInterrupt

    first, second = Shared(script=script), Shared(calm=QUIET)
    with Bout(small(tmp_path, "csr.scipy", "csr.torch"), tmp_path / "results") as docket:
        with pytest.raises((Lost, KeyboardInterrupt)):
            work(docket, first)
        if how == "lost":
            work(docket, second)
        docket.close()
    assert docket.summary.not_started == 0
    (record,) = busy(docket.summary.records)
    assert len(record.times_s(CACHE)) == (2 * QUIET if how == "lost" else QUIET)


def test_what_breaks_the_second_time_says_so(tmp_path):
    def script(request, alone):
        if isinstance(request, Measure) and measured(device)[BUSY] >= 2:
            return Answer("wrong", "planted", {"error_ratio": 7.0})
        return None

    device = Shared(script=script)
    docket = run(tmp_path, device)
    (record,) = busy(docket.summary.records)
    assert (record.outcome, record.error_ratio) == ("wrong", 7.0)
    with Store(tmp_path / "results", docket.summary.machine, "small") as store:
        assert store.records[record.key].outcome == "wrong"


def test_doubts_and_errors_of_both_times_stay():
    record = few_rounds()
    first = replace(record, flags=("preempted:40%", "stolen:8%", "clock_low"), error_ratio=0.4, started_at="then")
    facts = {"samples": record.samples, "flags": ["preempted:10%", "clock_low"], "error_ratio": 0.2, "facts": {}}
    told = together(first, Answer("ok", facts=facts)).facts
    assert told["flags"] == ["preempted:25%", "clock_low"], "a loss of 4 % in all is none"
    assert (told["error_ratio"], told["started_at"]) == (0.4, "then")
