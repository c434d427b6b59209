"""Who broke a worker: the suspect once more alone, and a kernel that breaks three trials left out of the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from fake_devices import Bout, Device, small, stored

from sparsebench.lab.blame import BLAMED, Quarantine, twice
from sparsebench.lab.run import Limits, Run
from sparsebench.lab.session import work
from sparsebench.lab.wire import Answer, CheckDense, Measure, Screen
from sparsebench.record import BROKEN
from sparsebench.suite import Suite

CRASH = Answer("crashed", "the worker died of SIGSEGV: planted")


def scripted(*answers: Answer):
    """An ask that gives these answers in turn, and the list of what it was asked."""
    asked = []

    def ask(request, *, alone=False):
        asked.append(alone)
        return answers[len(asked) - 1], "csr.c"

    return ask, asked


@pytest.mark.parametrize("outcome", sorted(BLAMED))
def test_a_trial_that_succeeds_alone_is_ok_and_tells_of_its_first_try(outcome):
    ask, asked = scripted(Answer(outcome, "why"), Answer("ok", facts={"nnz": 3, "facts": {"ran": "x"}}))
    answer, _ = twice(ask, None)
    assert asked == [False, True]
    assert answer.outcome == "ok"
    assert answer.facts == {"nnz": 3, "facts": {"ran": "x", "first_try": f"{outcome}: why"}}


@pytest.mark.parametrize("outcome", sorted(BLAMED))
@pytest.mark.parametrize(
    "again, told",
    [
        (Answer("crashed", "of SIGBUS"), "why; once more alone in a fresh worker: of SIGBUS"),
        (Answer("failed", "ValueError"), "why; once more alone in a fresh worker: ValueError"),
        (Answer("timeout", "why"), "why; once more alone in a fresh worker: the same"),
    ],
)
def test_a_trial_that_breaks_again_keeps_its_outcome_with_both_reasons(outcome, again, told):
    ask, _ = scripted(Answer(outcome, "why"), again)
    assert twice(ask, None)[0] == Answer(outcome, told)


def test_a_wrong_answer_in_a_fresh_worker_is_the_last_word():
    ask, _ = scripted(CRASH, Answer("wrong", "integer gate", {"error_ratio": 2.0}))
    answer, _ = twice(ask, None)
    assert (answer.outcome, answer.reason) == ("wrong", "integer gate")


@pytest.mark.parametrize("outcome", ["ok", "skipped", "wrong", "failed"])
def test_what_breaks_no_worker_is_asked_once(outcome):
    ask, asked = scripted(Answer(outcome, "why"))
    assert twice(ask, None)[0].outcome == outcome
    assert asked == [False]


def test_a_kernel_is_left_out_at_its_third_strike():
    quarantine = Quarantine()
    assert [quarantine.strike("csr.c") for _ in range(4)] == [False, False, True, False]
    assert quarantine.bars("csr.c") == "needs another run: csr.c broke 3 trials of this one and was left out"
    assert "its baseline csr.c broke 3 trials" in (quarantine.bars("bsr.c", ["dense.numpy", "csr.c"]) or "")
    assert quarantine.bars("bsr.c", ["dense.numpy"]) is None


def breaks(kernel: str, answer: Answer = CRASH, times: int = 10**6):
    """A script in which Measure of `kernel` breaks, the first so many times."""
    left = Counter({kernel: times})

    def script(request, alone):
        if isinstance(request, Measure) and left[request.kernel] > 0:
            left[request.kernel] -= 1
            return answer
        return None

    return script


def test_a_kernel_that_broke_three_trials_is_not_run_any_more_and_each_of_its_trials_has_a_record(tmp_path):
    suite, device = small(tmp_path, "csr.scipy", "csr.torch", n=(2, 4, 8)), Device(breaks("csr.torch"))
    bout = Bout(suite, tmp_path / "results")
    with bout as docket:
        work(docket, device)
    found = [record for record in stored(tmp_path / "results") if record.kernel == "csr.torch"]
    assert [record.outcome for record in found] == ["crashed"] * 3 + ["skipped"] * 3
    assert {record.reason for record in found[3:]} == {
        "needs another run: csr.torch broke 3 trials of this one and was left out"
    }
    assert not any(record.final for record in found)
    assert docket.summary.left_out == {"csr.torch": 3}
    assert bout.said == ["csr.torch broke 3 trials: its others are left out and wait for another run"]
    asked = Counter(request.kernel for request, _ in device.asked if isinstance(request, Measure))
    assert asked == {"csr.torch": 6, "csr.scipy": 6}, "three trials, each once more alone"
    others = [record for record in stored(tmp_path / "results") if record.kernel != "csr.torch"]
    assert {record.outcome for record in others} == {"ok"}


def test_a_later_run_tries_first_what_was_left_out_and_then_what_broke(tmp_path):
    suite = small(tmp_path, "csr.torch", n=(2, 4, 8))
    with Bout(suite, tmp_path / "results") as docket:
        work(docket, Device(breaks("csr.torch")))
    before = stored(tmp_path / "results")
    crashed = [record.case.key for record in before if record.outcome == "crashed"]
    device = Device()
    with Bout(suite, tmp_path / "results") as docket:
        work(docket, device)
    tried = [request.case.key for request, _ in device.asked if isinstance(request, Measure)]
    assert len(tried) == 6
    assert tried[3:] == crashed
    assert set(docket.summary.outcomes) == {"ok"}
    assert docket.summary.kept == len(docket.trials) - 6
    # So a kernel that always breaks cannot keep its own later trials from being tried, run after run.
    with Bout(suite, tmp_path / "other") as docket:
        work(docket, Device(breaks("csr.torch")))
    with Bout(suite, tmp_path / "other") as docket:
        work(docket, Device(breaks("csr.torch")))
    newest = {record.key: record.outcome for record in stored(tmp_path / "other") if record.kernel == "csr.torch"}
    assert set(newest.values()) == {"crashed"}


def test_a_dense_kernel_that_breaks_three_times_is_no_baseline_of_later_problems(tmp_path):
    def script(request, alone):
        return CRASH if isinstance(request, CheckDense) and request.kernel == "dense.torch" else None

    device = Device(script)
    with Bout(small(tmp_path, "csr.scipy", n=(1, 2, 4, 8, 16)), tmp_path / "results") as docket:
        work(docket, device)
    dense = [record for record in stored(tmp_path / "results") if record.kernel == "dense.torch"]
    assert [record.outcome for record in dense] == ["crashed"] * 3 + ["skipped"] * 2
    sparse = [record for record in stored(tmp_path / "results") if record.kernel == "csr.scipy"]
    assert {record.outcome for record in sparse} == {"ok"}
    assert not any("dense.torch" in record.baselines for record in sparse)


def of_baseline(alone_breaks: bool, answer: Answer = CRASH):
    """A script in which the first baseline breaks in every trial of a sparse kernel; alone if so told."""

    def script(request, alone):
        if isinstance(request, Measure):
            return answer, request.baselines[0]
        if isinstance(request, Screen) and alone and alone_breaks:
            return CRASH
        return None

    return script


def test_a_baseline_that_breaks_alone_too_is_to_blame_and_its_strikes_count(tmp_path):
    with Bout(small(tmp_path, "csr.scipy", n=(2, 4)), tmp_path / "results") as docket:
        work(docket, Device(of_baseline(alone_breaks=True)))
    found = [record for record in stored(tmp_path / "results") if record.kernel == "csr.scipy"]
    name = next(iter(found[0].baselines))
    assert [record.outcome for record in found] == ["crashed"] * 3 + ["skipped"]
    assert found[0].reason.startswith(f"its baseline {name} broke: the worker died of SIGSEGV")
    assert found[3].reason == f"needs another run: its baseline {name} broke 3 trials of this one and was left out"
    assert not any(record.final for record in found)


def test_a_baseline_that_breaks_only_beside_a_kernel_is_innocent(tmp_path):
    device = Device(of_baseline(alone_breaks=False))
    with Bout(small(tmp_path, "csr.scipy", n=(2, 4)), tmp_path / "results") as docket:
        work(docket, device)
    found = [record for record in stored(tmp_path / "results") if record.kernel == "csr.scipy"]
    assert [record.outcome for record in found] == ["crashed"] * 3 + ["skipped"]
    assert "broke beside it, but not without it: the worker died" in found[0].reason
    assert found[3].reason == "needs another run: csr.scipy broke 3 trials of this one and was left out"


@pytest.mark.parametrize("outcome", ["wrong", "failed"])
def test_what_a_baseline_got_wrong_is_never_final_for_the_trial_beside_it(tmp_path, outcome):
    with Bout(small(tmp_path, "csr.scipy", n=(2,)), tmp_path / "results") as docket:
        work(docket, Device(of_baseline(alone_breaks=False, answer=Answer(outcome, "precision gate"))))
    found = [record for record in stored(tmp_path / "results") if record.kernel == "csr.scipy"]
    assert {record.outcome for record in found} == {"failed"}
    assert "its baseline dense." in found[0].reason
    assert not found[0].final


def test_a_screening_that_breaks_once_is_run_again_and_loses_no_kernel(tmp_path):
    broke = []

    def script(request, alone):
        if isinstance(request, Screen) and not request.twin and not broke:
            broke.append(request)
            return CRASH
        return None

    device = Device(script)
    with Bout(small(tmp_path, "csr.scipy", n=(2,)), tmp_path / "results") as docket:
        work(docket, device)
    assert set(docket.summary.outcomes) == {"ok"}
    assert [alone for request, alone in device.asked if request == broke[0]] == [False, True]


# With real workers ----------------------------------------------------------------------------------------------------

SUITE = """
name: small
protocol: {{cache: [hot], budget_s: 0.02, precision: 0.05}}
plugins: [{plugin}]
problems: [{{m: 16, k: 24, n: {n}, dtype: [float32]}}]
arms: [{{pattern: unstructured, sparsity: [0.5], kernels: [{kernels}]}}]
"""


def planted(folder: Path, *kernels: str, n: object) -> Suite:
    path = folder / "small.yaml"
    plugin = Path(__file__).parent / "plugins" / "poisonous.py"
    path.write_text(SUITE.format(plugin=plugin, n=n, kernels=", ".join(kernels)))
    return Suite.load(path)


def test_a_kernel_killed_by_what_an_earlier_one_left_behind_is_ok_when_run_alone(tmp_path):
    summary = Run(planted(tmp_path, "poison.giver", "poison.taker", n=2), tmp_path / "results").execute()
    found = {record.kernel: record for record in summary.records}
    assert not {record.outcome for record in summary.records} & BROKEN
    assert found["poison.taker"].facts["first_try"].startswith("crashed: the worker died of SIGSEGV")
    assert "first_try" not in found["poison.giver"].facts
    assert found["poison.taker"].samples


@pytest.mark.slow
def test_a_kernel_that_crashes_every_worker_is_left_out_after_three(tmp_path):
    suite = planted(tmp_path, "poison.deadly", "csr.scipy", n=[1, 2, 4, 8])
    summary = Run(suite, tmp_path / "results", limits=Limits(timeout_s=60)).execute()
    found = [record for record in summary.records if record.kernel == "poison.deadly"]
    assert [record.outcome for record in found] == ["crashed"] * 3 + ["skipped"]
    assert {record.outcome for record in summary.records if record.kernel != "poison.deadly"} == {"ok"}
    assert "SIGSEGV" in found[0].reason
    assert "once more alone in a fresh worker" in found[0].reason
