"""A run end to end with real workers: outcomes, blame, resume. Law 1 and law 2 live here."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparsebench.desk.report import write_report
from sparsebench.errors import BadInput, StoreError
from sparsebench.kernel import all_kernels
from sparsebench.lab.baselines import AA_TOLERANCE
from sparsebench.lab.build import missing_need
from sparsebench.lab.doctor import examine
from sparsebench.lab.run import Limits, Run, Summary, Watch
from sparsebench.machine import Machine
from sparsebench.record import BROKEN, Record
from sparsebench.store import read_lines, without_first
from sparsebench.suite import Suite

PLUGIN = Path(__file__).parent / "plugins" / "faulty.py"
SUITE = """
name: small
about: two tiny problems
seeds: [0]
protocol: {{cache: [hot], threads: 1, budget_s: 0.02, precision: 0.05}}
problems:
  - {{m: 32, k: 48, n: {n}, dtype: [{dtype}]}}
arms:
  - {{pattern: unstructured, sparsity: [0.8], kernels: [{kernels}]}}
"""


def suite(folder: Path, *kernels: str, n: object = 8, dtype: str = "float32") -> Suite:
    """A suite of one or two tiny problems with these kernels, written to `folder` and loaded."""
    path = folder / "small.yaml"
    plugins = f"plugins: [{PLUGIN}]\n" if any(name.startswith("fault") for name in kernels) else ""
    path.write_text(SUITE.format(n=n, dtype=dtype, kernels=", ".join(kernels)) + plugins)
    return Suite.load(path)


def outcomes(summary) -> dict[str, str]:
    return {record.kernel: record.outcome for record in summary.records}


@dataclass(frozen=True)
class Done:
    """A suite, where its results are, what its first run came to, and the records that were watched."""

    asked: Suite
    results: Path
    summary: Summary
    seen: list[Record]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    """One run for the tests that only look at it, or go on from a copy of it."""
    folder, seen = tmp_path_factory.mktemp("done"), []
    asked = suite(folder, "csr.scipy", "csr.torch", n=[4, 8])
    summary = Run(asked, folder / "results", watch=Watch(finished=seen.append)).execute()
    return Done(asked, folder / "results", summary, seen)


def test_one_trial_makes_one_record_and_a_second_run_makes_none(done):
    trials = Run(done.asked, done.results).trials
    stored = without_first(read_lines(done.summary.path))
    assert len(stored) == len(trials) == len(done.seen) == len({record.key for record in stored})
    assert {(record.case.key, record.kernel) for record in stored} == {
        (trial.case.key, trial.kernel) for trial in trials
    }
    again = Run(done.asked, done.results).execute()
    assert again.kept == len(stored)
    assert len(without_first(read_lines(done.summary.path))) == len(stored)


def test_a_record_tells_the_whole_story(done):
    summary = done.summary
    record = next(record for record in summary.records if record.kernel == "csr.scipy")
    assert record.outcome == "ok"
    assert 0 < record.error_ratio < 1
    assert record.baselines
    assert set(record.samples["hot"]) == {"csr.scipy", *record.baselines}
    assert len({len(times_s) for times_s in record.samples["hot"].values()}) == 1
    assert record.speedup().low <= record.speedup().median <= record.speedup().high
    assert record.nnz == round(0.2 * 32 * 48)
    assert record.useful_flops == 2 * record.nnz * record.case.n
    assert record.pack_s > 0
    assert set(record.layout_s) == set(record.samples["hot"])
    winner = next(r for r in summary.records if "dense.aa" in r.samples.get("hot", {}))
    assert winner.kernel == next(iter(winner.baselines))
    peaks = json.loads((summary.path.parent / "peaks.jsonl").read_text())
    assert peaks["stream_bytes_per_s"] > 1e8
    assert min(peaks["fma_flops_per_s"][dtype] for dtype in ("float32", "bfloat16")) > 1e8


@pytest.mark.skipif(missing_need("cc") is not None, reason="needs a C compiler")
def test_bfloat16_is_measured_and_reported_like_float32(tmp_path):
    asked = suite(tmp_path, "csr.c", "csr.scipy", dtype="bfloat16")
    summary = Run(asked, tmp_path / "results").execute()
    found = outcomes(summary)
    assert found.pop("csr.scipy") == "skipped"
    if all_kernels()["dense.onednn"].lacks("bfloat16", Machine.here("cpu")):
        assert found.pop("dense.onednn") == "skipped"
    assert set(found.values()) == {"ok"}
    assert {"dense.torch", "dense.torch_mm", "dense.widened", "dense.widened_mm"} < set(found)
    record = next(record for record in summary.records if record.kernel == "csr.c")
    assert record.nnz == round(0.2 * 32 * 48)
    assert record.moved_bytes == record.format_bytes + 2 * (48 * 8 + 32 * 8)
    assert record.speedup().median > 0
    page = write_report(tmp_path / "results", tmp_path / "out")
    assert "bfloat16" in page.read_text()


def test_fresh_runs_all_again_and_appends(done, tmp_path):
    shutil.copytree(done.results, tmp_path / "results")
    asked = suite(tmp_path, "csr.scipy")
    kept = Run(asked, tmp_path / "results").execute()
    assert kept.kept == len(kept.records)
    again = Run(asked, tmp_path / "results", fresh=True).execute()
    assert again.kept == 0
    stored = without_first(read_lines(again.path))
    assert len(stored) == len(done.summary.records) + len(kept.records)
    trials = {(record.case.key, record.kernel) for record in stored}  # keys name the baselines that each run found
    assert trials == {(record.case.key, record.kernel) for record in done.summary.records}


FAULTS = {
    "crash": ("crashed", "SIGSEGV"),
    "crash_in_the_clock": ("crashed", "SIGSEGV"),
    "hang": ("timeout", "no answer within"),
    "endless": ("oom", "MemoryError"),
    "silent": ("wrong", "integer gate: Y\\[0, 0\\] is nan: never written"),
    "turning": ("wrong", "precision gate after the clock, on fresh inputs"),
    "remembering": ("wrong", "precision gate after the clock, on fresh inputs"),
    "caching": ("wrong", "precision gate on what (the last timed|a later) call left"),
    "lazy": ("wrong", "precision gate on what the last timed call left"),
    "changing": ("wrong", "inputs: the kernel changed X"),
    "scribbling": ("wrong", "bounds: the kernel wrote beside Y \\[32, 8\\]; bytes changed: 1"),
    "raising": ("failed", "ZeroDivisionError: planted \\(faulty.py:"),
}


DEADLY = ("crash", "crash_in_the_clock", "hang", "endless")  # to their worker; the others can share one, and a run
FAULTY_RUNS = (*((fault,) for fault in DEADLY), tuple(fault for fault in FAULTS if fault not in DEADLY))


@pytest.mark.parametrize("faults", FAULTY_RUNS, ids="+".join)
def test_a_planted_fault_becomes_its_own_record_and_touches_no_other(tmp_path, faults):
    limits = Limits(timeout_s=4 if "hang" in faults else 60, memory_bytes=2 * 2**30)
    kernels = ["csr.scipy", *(f"fault.{fault}" for fault in faults), "csr.torch"]
    with_them = Run(suite(tmp_path, *kernels), tmp_path / "results", limits=limits).execute()
    found = {record.kernel: record for record in with_them.records}
    for fault in faults:
        broken, (outcome, reason) = found[f"fault.{fault}"], FAULTS[fault]
        assert broken.outcome == outcome
        assert re.search(reason, broken.reason), broken.reason
        assert not broken.samples
    others = {r.key: r.outcome for r in with_them.records if not r.kernel.startswith("fault.")}
    assert set(others.values()) == {"ok"}
    # The same suite without the faulty kernels, on the same results: it asks for the same keys and finds all of them.
    without = Run(suite(tmp_path, "csr.scipy", "csr.torch"), tmp_path / "results").execute()
    assert {record.key: record.outcome for record in without.records} == others
    assert without.kept == len(others)


def test_broken_trials_are_tried_again_and_wrong_ones_are_not(tmp_path):
    asked = suite(tmp_path, "fault.raising", "fault.silent")
    first = Run(asked, tmp_path / "results").execute()
    second = Run(asked, tmp_path / "results").execute()
    assert second.kept == len(first.records) - 1
    assert outcomes(second)["fault.raising"] == "failed"
    assert {record.outcome for record in first.records} & BROKEN == {"failed", "wrong"}


def test_time_limit_stops_starting_and_a_later_run_goes_on(tmp_path):
    asked = suite(tmp_path, "csr.scipy")
    short = Run(asked, tmp_path / "results", time_limit_s=0).execute()
    assert short.records == []
    assert short.not_started == len(Run(asked, tmp_path / "results").trials)
    assert Run(asked, tmp_path / "results").execute().not_started == 0


def test_a_dry_run_writes_nothing(tmp_path):
    trials, expected_s = Run(suite(tmp_path, "csr.scipy"), tmp_path / "results").dry()
    assert trials > 1
    assert expected_s > 0
    assert not (tmp_path / "results").exists()


def test_a_kernel_for_another_shape_is_skipped_with_a_sentence(tmp_path):
    path = tmp_path / "blocks.yaml"
    path.write_text(
        SUITE.format(n=4, dtype="float32", kernels="bsr.scipy")
        .replace("unstructured", "block, block: [5, 1]")
        .replace("small", "blocks")
    )
    summary = Run(Suite.load(path), tmp_path / "results").execute()
    record = next(record for record in summary.records if record.kernel == "bsr.scipy")
    assert record.outcome == "skipped"
    assert "does not divide" in record.reason
    assert record.final


def test_results_that_cannot_be_written_stop_the_run_before_it_starts(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(StoreError, match="choose another with --results"):
        Run(suite(tmp_path, "csr.scipy"), tmp_path / "results").execute()


def test_cuda_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(BadInput, match="--device"):
        Run(suite(tmp_path, "csr.scipy"), tmp_path / "results", device="cuda")


RUNNER = """
import sys
from pathlib import Path
from sparsebench.lab.run import Run
from sparsebench.suite import Suite
Run(Suite.load(Path(sys.argv[1])), Path(sys.argv[2])).execute()
"""


@pytest.mark.slow
def test_kill_9_twenty_times_at_random_moments_and_the_plan_is_completed(tmp_path):
    """Killed run, worker and all: no record lost but the one in flight, none twice, the store always loads."""
    rng = random.Random(0)
    asked = suite(tmp_path, "csr.scipy", "csr.torch", "csr.c", n=list(range(1, 25)))
    before: set[str] = set()
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", RUNNER, str(asked.path), str(tmp_path / "results")]) as runner:
            time.sleep(rng.uniform(0.8, 2.4))
            os.kill(runner.pid, signal.SIGKILL)
        stored = without_first(record for path in tmp_path.glob("results/*/small.jsonl") for record in read_lines(path))
        keys = [record.key for record in stored]
        assert len(keys) == len(set(keys))
        assert before <= set(keys)
        before = set(keys)
    summary = Run(asked, tmp_path / "results").execute()
    stored = without_first(read_lines(summary.path))
    assert before <= {record.key for record in stored}
    assert len(stored) == len({record.key for record in stored}) == len(Run(asked, tmp_path / "results").trials)
    assert set(summary.outcomes) == {"ok"}


@pytest.mark.slow
def test_the_winning_dense_kernel_against_itself_is_one_on_this_machine():
    """A/A for real, within 2 %. One of three tries may meet a busy neighbour; a biased clock fails all of them."""
    ratios = [examine(lambda text: None)["aa"]["median"] for _ in range(3)]
    assert sum(abs(ratio - 1) <= AA_TOLERANCE for ratio in ratios) >= 2, ratios
