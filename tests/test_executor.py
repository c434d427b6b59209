"""What runs requests: a device that goes away costs the request under way; devices share a docket; workers restart."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_devices import MACHINE, Bout, Device, small, stored

from sparsebench.case import Case
from sparsebench.lab.executor import Local, missing_needs, setup_for
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.session import MOST_LOSSES, work
from sparsebench.lab.wire import CheckDense, Lost, Measure, Peaks, Screen
from sparsebench.machine import Machine
from sparsebench.record import Protocol

KERNELS = ("csr.scipy", "csr.torch")


def leaves_at(number: int, times: int = 1):
    """A script in which the device goes away under the request of this number, and those that follow it there."""
    seen = []

    def script(request, alone):
        seen.append(request)
        if number < len(seen) <= number + times:
            raise Lost("planted")

    return script


def finish(docket, device) -> int:
    """Let a device come back as often as it goes away; how often it did."""
    losses = 0
    while True:
        try:
            work(docket, device)
            return losses
        except Lost:
            losses += 1


def whole_run(tmp_path: Path, n: tuple[int, ...] = (4, 8)) -> list:
    """The requests of a run in which nothing happens."""
    device = Device()
    with Bout(small(tmp_path, *KERNELS, n=n), tmp_path / "whole") as docket:
        work(docket, device)
    return [request for request, _ in device.asked]


def test_a_device_that_goes_away_under_any_request_costs_that_request_and_nothing_else(tmp_path):
    requests = whole_run(tmp_path, n=(4,))
    assert {type(request) for request in requests} == {Peaks, CheckDense, Screen, Measure}
    expected = {(record.case.key, record.kernel): record.key for record in stored(tmp_path / "whole")}
    for number in range(len(requests)):
        device, results = Device(leaves_at(number)), tmp_path / f"at{number}"
        with Bout(small(tmp_path, *KERNELS, n=(4,)), results) as docket:
            assert finish(docket, device) == 1
        found = stored(results)
        assert {(record.case.key, record.kernel): record.key for record in found} == expected
        assert len(found) == len(expected) == len(docket.summary.records), "one record a trial"
        assert {record.outcome for record in found} == {"ok"}
        assert len((results / MACHINE.id / "peaks.jsonl").read_text().splitlines()) == 1
        measured = [request for request, _ in device.asked if isinstance(request, Measure)]
        again = isinstance(requests[number], Measure)
        assert len(measured) == len([r for r in requests if isinstance(r, Measure)]) + again


def test_a_trial_that_three_devices_went_away_under_is_recorded_and_tried_again_by_a_later_run(tmp_path):
    requests = whole_run(tmp_path)
    number = next(i for i, request in enumerate(requests) if isinstance(request, Measure))
    with Bout(small(tmp_path, *KERNELS), tmp_path / "results") as docket:
        assert finish(docket, Device(leaves_at(number, MOST_LOSSES))) == MOST_LOSSES
    (broken,) = [record for record in stored(tmp_path / "results") if record.outcome != "ok"]
    assert (broken.outcome, broken.kernel) == ("crashed", requests[number].kernel)
    assert broken.reason.startswith("3 times a device went away while it ran")
    with Bout(small(tmp_path, *KERNELS), tmp_path / "results") as docket:
        work(docket, Device())
    assert set(docket.summary.outcomes) == {"ok"}
    assert len(stored(tmp_path / "results")) == len(docket.trials) + 1


def test_a_screening_that_three_devices_went_away_under_leaves_its_problem_to_a_later_run(tmp_path):
    requests = whole_run(tmp_path)
    number = next(i for i, request in enumerate(requests) if isinstance(request, Screen))
    bout = Bout(small(tmp_path, *KERNELS), tmp_path / "results")
    seen = []

    def script(request, alone):
        if request == requests[number] and len(seen) < MOST_LOSSES:
            seen.append(request)
            raise Lost("planted")

    with bout as docket:
        finish(docket, Device(script))
    of_one_problem = len(docket.trials) // 2
    assert docket.summary.not_started == of_one_problem
    assert len(stored(tmp_path / "results")) == of_one_problem
    assert any("3 times a device went away while it ran" in text for text in bout.said)
    with Bout(small(tmp_path, *KERNELS), tmp_path / "results") as docket:
        work(docket, Device())
    assert docket.summary.kept == of_one_problem
    assert set(docket.summary.outcomes) == {"ok"}


def test_equal_devices_share_the_problems_and_each_problem_stays_on_one(tmp_path):
    devices = [Device(lambda request, alone: time.sleep(0.01)) for _ in range(3)]
    with Bout(small(tmp_path, *KERNELS, n=range(1, 13)), tmp_path / "results") as docket:
        threads = [threading.Thread(target=work, args=(docket, device)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    problems = [{request.case.n for request, _ in d.asked if not isinstance(request, Peaks)} for d in devices]
    assert all(problems)
    assert sum(map(len, problems)) == len(set.union(*problems)) == 12
    assert Counter(record.key for record in stored(tmp_path / "results")).most_common(1)[0][1] == 1
    assert len(stored(tmp_path / "results")) == len(docket.trials)
    assert sum(isinstance(request, Peaks) for device in devices for request, _ in device.asked) == 1


def test_a_device_that_waits_gets_the_problem_of_one_that_goes_away(tmp_path):
    waiting = threading.Event()

    def script(request, alone):
        if isinstance(request, Measure):
            waiting.wait(5)
            raise Lost("planted")

    leaver, other = Device(script), Device()
    with Bout(small(tmp_path, *KERNELS, n=(4,)), tmp_path / "results") as docket:
        first = threading.Thread(target=finish_once, args=(docket, leaver))
        first.start()
        while not any(isinstance(request, Measure) for request, _ in leaver.asked):
            time.sleep(0.01)
        second = threading.Thread(target=work, args=(docket, other))
        second.start()
        time.sleep(0.3)
        assert not other.asked
        waiting.set()
        first.join()
        second.join()
    assert [type(request) for request, _ in other.asked] == [Measure] * 4, "the baselines stay those that were named"
    assert len(stored(tmp_path / "results")) == len(docket.trials)


def finish_once(docket, device) -> None:
    with pytest.raises(Lost):
        work(docket, device)


def test_a_device_that_left_while_it_waited_takes_nothing(tmp_path):
    device = Device()
    device.gone = True
    with Bout(small(tmp_path, *KERNELS), tmp_path / "results") as docket:
        docket.claim_peaks()
        with pytest.raises(Lost):
            work(docket, device)
    assert not device.asked


def test_what_is_left_at_the_end_counts_as_not_started(tmp_path):
    with Bout(small(tmp_path, *KERNELS), tmp_path / "results") as docket:
        docket.close()
        assert docket.done
        assert docket.summary.not_started == len(docket.trials)


def test_an_unmet_need_is_said_by_the_device_that_has_it(tmp_path):
    device = Device()
    device.missing = {"scipy": "needs the Python module scipy, which is not installed: pip install scipy"}
    with Bout(small(tmp_path, *KERNELS), tmp_path / "results") as docket:
        work(docket, device)
    found = [record for record in stored(tmp_path / "results") if record.kernel == "csr.scipy"]
    assert {(record.outcome, record.reason) for record in found} == {("skipped", device.missing["scipy"])}


# The local worker -----------------------------------------------------------------------------------------------------

REQUEST = Measure(Case(m=8, k=8, n=2), None, "csr.scipy", [])


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("REPLAY_ELSE", "0.4")
    with WorkerProcess(setup_for(Machine.here("cpu"), Protocol(), ()), "replay_worker") as made:
        yield made


def test_a_worker_serves_many_requests_and_is_fresh_for_one_that_is_asked_alone(worker):
    assert worker.ask(REQUEST, 10)[0].outcome == "ok"
    first = worker.pid
    assert worker.ask(REQUEST, 10)[1] == "csr.scipy"
    assert worker.pid == first
    assert worker.ask(REQUEST, 10, alone=True)[0].outcome == "ok"
    assert worker.pid != first


def test_a_killed_worker_is_an_answer_with_a_suspect_and_the_next_request_starts_another(worker):
    worker.ask(CheckDense(REQUEST.case, "dense.numpy"), 10)
    threading.Timer(0.2, os.kill, (worker.pid, signal.SIGKILL)).start()
    answer, suspect = worker.ask(REQUEST, 10)
    assert (answer.outcome, suspect) == ("oom", "csr.scipy")
    assert "SIGKILL" in answer.reason
    assert worker.ask(REQUEST, 10)[0].outcome == "ok"


def test_a_request_that_is_given_up_is_lost_at_once_and_its_worker_ended(worker):
    worker.ask(CheckDense(REQUEST.case, "dense.numpy"), 10)
    threading.Timer(0.1, worker.give_up).start()
    start_s = time.monotonic()
    with pytest.raises(Lost, match="given up"):
        worker.ask(REQUEST, 10)
    assert time.monotonic() - start_s < 2
    assert worker.pid is None
    assert worker.ask(REQUEST, 10)[0].outcome == "ok"


def test_the_local_device_says_what_is_here(worker):
    device = Local(worker, [])
    assert device.versions["torch"]
    assert "load" in device.host
    assert device.ask(REQUEST, 10)[0].outcome == "ok"


def test_unmet_needs_are_told_once_with_what_to_install():
    class Kernel:
        needs = ("no_such_module", "numpy")

    assert missing_needs([Kernel(), Kernel()]) == {
        "no_such_module": "needs the Python module no_such_module, which is not installed: pip install no_such_module"
    }
