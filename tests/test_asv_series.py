"""What is tracked of a trial: names that asv can use, versions that last, ratios that are the record's own.

And the functions that hand it to asv (suites/asv/track.py), called here as asv calls them. asv itself: test_asv.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_store import record

from sparsebench.case import Case, Conv, Source
from sparsebench.desk.tracked import distinct, series_of
from sparsebench.kernel import all_kernels
from sparsebench.record import Protocol
from sparsebench.suite import Suite, resolve_suite

CASE = Case(m=8, k=16, n=4, pattern="unstructured", sparsity=0.9)
PLAIN = Protocol()


def names(*cases: Case, kernel: str = "csr.c", protocol: Protocol = PLAIN) -> list[str]:
    return [series.name for series in series_of([(case, kernel) for case in cases], protocol)]


def version(case: Case, protocol: Protocol = PLAIN) -> str:
    return series_of([(case, "csr.c")], protocol)[0].version


@pytest.mark.parametrize("suite", ["track", "quick", "cpu-conv", "headline", "llm", "vit-mlp"])
def test_every_series_of_a_suite_has_a_name_of_its_own_that_asv_can_read(suite):
    plan = Suite.load(resolve_suite(suite))
    series = series_of(((trial.case, trial.kernel) for trial in plan.trials(all_kernels())), plan.protocol)
    about = {(one.case_key, one.kernel, one.measure, one.cache) for one in series}
    assert len(about) == len(series) == len({one.name for one in series})
    for one in series:
        assert re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\.track_(time|ratio)", one.name)
        assert len(one.name) < 150


def test_names_say_what_is_asked_and_leave_out_what_is_usual():
    blocks = replace(CASE, pattern="block", params={"block": [4, 1]}, sparsity=0.9375)
    assert names(CASE) == [f"csr.c.8x16_n4_unstructured_90.track_{measure}" for measure in ("time", "ratio")]
    assert names(blocks)[0] == "csr.c.8x16_n4_block_4x1_93_75.track_time"
    assert names(replace(CASE, dtype="bfloat16", layout="batch", seed=3))[0] == (
        "csr.c.8x16_n4_bfloat16_batch_unstructured_90_seed_3.track_time"
    )
    of_file = replace(CASE, pattern="file", sparsity=None, source=Source("rn50/a-b.smtx", None, "f" * 64))
    assert names(of_file)[0] == "csr.c.8x16_n4_file_rn50_a_b_smtx.track_time"
    conv = Conv(c=4, h=5, w=5, kh=2, kw=2)
    assert names(replace(CASE, op="conv2d", n=16, conv=conv))[0] == (
        "csr.c.8x16_n16_conv_4x5x5_2x2_stride_1_padding_0_groups_1_batch_1_unstructured_90.track_time"
    )
    assert names(CASE, protocol=Protocol(cache=("hot", "cold"), threads=2))[::2] == [
        f"csr.c.8x16_n4_unstructured_90_{cache}_2_threads.track_time" for cache in ("hot", "cold")
    ]


def test_dense_kernels_are_tracked_by_time_alone():
    assert names(CASE.problem, kernel="dense.torch") == ["dense.torch.8x16_n4_dense.track_time"]


def test_two_questions_with_one_name_are_told_apart_by_their_versions_and_others_are_left_alone():
    near = replace(CASE, sparsity=0.900001)
    alone, told_apart = names(CASE), names(CASE, near, replace(CASE, n=5))
    assert told_apart[4:] == names(replace(CASE, n=5))
    assert len(set(told_apart)) == 6
    assert not {*alone} & {*told_apart}
    assert told_apart[0] == f"csr.c.8x16_n4_unstructured_90_{version(CASE)[:6]}.track_time"
    twice = series_of([(CASE, "csr.c")] * 2, PLAIN)
    assert distinct(twice) == twice, "the same series twice is no collision"


def test_a_version_is_that_of_the_question_and_lasts():
    """Golden: another hash voids every history that asv has."""
    assert version(CASE) == "f8a103b54eee92c06ec83d1486af0c0c2a8c86506b6af418204c67c11894f48e"
    for other in (replace(CASE, n=5), replace(CASE, seed=1), replace(CASE, dtype="bfloat16")):
        assert version(other) != version(CASE)
    assert version(CASE, Protocol(cache=("hot",))) != version(CASE)
    assert version(CASE, Protocol(threads=2)) != version(CASE)
    assert version(CASE, Protocol(budget_s=9, precision=0.1)) == version(CASE), (
        "how long it was measured is no question"
    )


def test_ratios_are_those_of_the_headline_round_by_round():
    own_s, base_s = [1e-3, 2e-3, 3e-3], [4e-3, 4e-3, 9e-3]
    timed = record(case=CASE, samples={"weights_cold": {"csr.c": own_s, "dense.torch": base_s}})
    time, ratio = series_of([(CASE, "csr.c")], PLAIN)
    assert time.values(timed) == own_s
    assert (time.unit, ratio.unit) == ("seconds", "of the best dense time")
    assert ratio.values(timed) == [0.2, 0.4, 0.3]  # the baseline pays 1 ms for its layout
    assert np.median(ratio.values(timed)) == pytest.approx(1 / timed.speedup(total=True).median)


def test_without_a_baseline_there_is_no_ratio():
    alone = record(case=CASE, baselines={}, samples={"weights_cold": {"csr.c": [1e-3]}})
    time, ratio = series_of([(CASE, "csr.c")], PLAIN)
    assert (time.values(alone), ratio.values(alone)) == ([1e-3], [])


TRACK = Path(__file__).parent.parent / "suites" / "asv" / "track.py"
ABOUT = {"benchmark_name": "csr.c.8x8.track_time", "pretty_name": "csr.c 8x8", "unit": "seconds", "version": "1"}


@pytest.fixture
def track(tmp_path, monkeypatch) -> ModuleType:
    """The module in the folder of a finished setup_cache, as each benchmark's process loads it."""
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text(json.dumps([ABOUT]))
    spec = importlib.util.spec_from_file_location("track", TRACK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(outcome: str, *samples: float) -> dict[str, object]:
    return {ABOUT["benchmark_name"]: {"outcome": outcome, "reason": "why", "samples": list(samples)}}


def test_a_benchmark_hands_over_the_samples_once(track):
    benchmark: Callable = track.track_0
    assert vars(benchmark).items() >= ABOUT.items()
    assert benchmark(answers("ok", 1.0, 2.0)) == {"samples": [1.0, 2.0], "number": 1}
    with pytest.raises(RuntimeError, match="the same samples twice"):
        benchmark(answers("ok", 1.0, 2.0))


def test_a_skip_is_not_available_and_all_else_that_has_no_times_is_a_failure(track):
    with pytest.raises(NotImplementedError, match="why"):
        track.track_0.setup(answers("skipped"))
    for outcome in ("wrong", "failed", "crashed", "oom", "timeout"):
        track.track_0.setup(answers(outcome))
        with pytest.raises(RuntimeError, match=f"{outcome}: why"):
            track.track_0(answers(outcome))
    with pytest.raises(RuntimeError, match="without a baseline"):
        track.track_0(answers("ok"))


def test_the_suite_is_a_file_of_the_repository_or_one_that_ships(track, monkeypatch):
    found = []
    for asked in (None, "suites/track.yaml", "quick"):
        if asked:
            monkeypatch.setenv("SPARSEBENCH_TRACK", asked)
        monkeypatch.setenv("SPARSEBENCH_TRACK_DEVICE", "cpu")
        run, series = track._plan(Path("results"))
        run.worker.stop()
        assert run.fresh, "records that are kept must not stand in for a measurement"
        assert series
        found.append(run.suite.name)
    assert found == ["track", "track", "quick"]


def test_records_are_kept_in_a_folder_for_each_commit(track, monkeypatch):
    assert track._kept() is None
    monkeypatch.setenv("SPARSEBENCH_TRACK_RESULTS", "records")
    assert track._kept() == TRACK.parents[2] / "records"
    monkeypatch.setenv("ASV_COMMIT", "0123456789abcdef")
    assert track._kept() == TRACK.parents[2] / "records" / "01234567"
