"""asv as installed: it takes our samples, calls a skip n/a and a fault a failure, and finds a planted slow-down."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from asv_copy import MACHINE, ROOT, Copy

from sparsebench.desk.tracked import Series, series_of
from sparsebench.record import Record
from sparsebench.store import read_records

pytest.importorskip("asv", reason="asv is not installed (extra asv)")
pytestmark = pytest.mark.slow

SUITE = """
name: tiny
protocol: {{cache: [hot], budget_s: {budget_s}, precision: 0.01}}
plugins: [{plugins}]
problems: [{{{problem}}}]
arms: [{{pattern: unstructured, sparsity: [0.8], kernels: [{kernels}]}}]
"""
TINY, SMALL = "m: 32, k: 48, n: 8", "m: 256, k: 256, n: 64"  # all overhead; some 100 us, which a busy machine steadies
NOWHERE = """
from dataclasses import replace

from sparsebench.kernel import load_kernels

(SCIPY,) = (kernel for kernel in load_kernels() if kernel.name == "csr.scipy")
KERNELS = [replace(SCIPY, name="csr.nowhere", needs=("a_module_that_is_nowhere",))]
"""


@dataclass(frozen=True, slots=True)
class Tracked:
    """One `asv run` of a suite with a sound kernel, one that is wrong and one that cannot run here."""

    copy: Copy
    said: str
    records: Mapping[str, Record]  # by kernel
    benchmarks: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, Mapping[str, Any]]  # what asv stored of each benchmark

    def series(self, kernel: str, measure: str) -> Series:
        record = self.records[kernel]
        (found,) = (one for one in series_of([(record.case, kernel)], record.protocol) if one.measure == measure)
        return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "nowhere.py").write_text(NOWHERE)
    plugins = f"{ROOT / 'tests' / 'plugins' / 'faulty.py'}, {folder / 'nowhere.py'}"
    copy = Copy.make(folder)
    kernels = "csr.scipy, fault.silent, csr.nowhere"
    (copy.path / "tiny.yaml").write_text(SUITE.format(problem=TINY, budget_s=0.02, plugins=plugins, kernels=kernels))
    ran = copy.asv(
        "run", "-E", "existing", "--set-commit-hash", "HEAD", "--record-samples", "--show-stderr",
        SPARSEBENCH_TRACK="tiny.yaml", SPARSEBENCH_TRACK_RESULTS="records",
    )  # fmt: skip
    assert ran.returncode == 2, f"asv says 2 where a benchmark failed\n{ran.stdout}"
    (path,) = (copy.path / ".asv" / "results" / MACHINE).glob("*-existing*.json")
    stored = json.loads(path.read_text())
    return Tracked(
        copy,
        ran.stdout,
        {record.kernel: record for record in read_records(copy.path / "records")},
        json.loads((copy.path / ".asv" / "results" / "benchmarks.json").read_text()),
        {name: dict(zip(stored["result_columns"], row, strict=False)) for name, row in stored["results"].items()},
    )


def test_asv_keeps_the_raw_samples_of_our_clock(tracked):
    """The samples of a track_ benchmark are not in asv's documentation: this is what the pinned version is held to."""
    for measure in ("time", "ratio"):
        series = tracked.series("csr.scipy", measure)
        answer = tracked.answers[series.name]
        assert answer["samples"] == [series.values(tracked.records["csr.scipy"])]
        assert len(answer["samples"][0]) == answer["stats_repeat"][0] > 1
        assert answer["stats_ci_99_a"][0] <= answer["result"][0] <= answer["stats_ci_99_b"][0]
    assert re.search(r"csr\.scipy\S*track_time +[\d.]+±[\d.]+[nμm]s", tracked.said.replace("...", "csr.scipy")), (
        tracked.said
    )


def test_a_suite_is_measured_once_whatever_the_number_of_benchmarks(tracked):
    trials = len(tracked.records)
    (path,) = (tracked.copy.path / "records").glob("*/tiny.jsonl")
    assert len(path.read_text().splitlines()) == trials
    assert len(tracked.answers) == trials + sum(kernel.split(".")[0] != "dense" for kernel in tracked.records)


def test_what_cannot_run_here_is_not_available_and_a_wrong_kernel_is_a_failure(tracked):
    for measure in ("time", "ratio"):
        (skipped,) = tracked.answers[tracked.series("csr.nowhere", measure).name]["result"]
        assert math.isnan(skipped)
        assert tracked.answers[tracked.series("fault.silent", measure).name]["result"] is None
    assert "RuntimeError: wrong: integer gate" in tracked.said
    assert "needs the Python module a_module_that_is_nowhere" in tracked.said


def test_asv_gives_a_suite_all_the_time_it_needs(tracked):
    """Its own limit is 60 s, which a suite of a hundred trials does not keep."""
    assert {known["setup_cache_timeout"] for known in tracked.benchmarks.values() if known != 2} == {24 * 3600}


def test_version_and_unit_are_those_of_the_question(tracked):
    for kernel in ("csr.scipy", "csr.nowhere"):
        for measure in ("time", "ratio"):
            series = tracked.series(kernel, measure)
            known = tracked.benchmarks[series.name]
            assert (known["version"], known["unit"], known["type"]) == (series.version, series.unit, "track")
            assert tracked.answers[series.name]["version"] == series.version


@pytest.mark.timeout(900)
def test_a_planted_slow_down_is_found_by_asv_continuous_and_by_compare(tmp_path):
    """A commit lets csr.scipy do its work four times: both tools exit 1 and name it. Then the page that shows it.

    Twice may be nothing on a machine whose plain seconds move by a half; how small a change is found is
    test_compare_power's question.
    """
    copy = Copy.make(tmp_path)
    suite = SUITE.format(problem=SMALL, budget_s=0.5, plugins="", kernels="csr.scipy, csr.torch")
    (copy.path / "tiny.yaml").write_text(suite)
    before = copy.commit("a suite")
    face = copy.path / "kernels" / "csr" / "scipy.py"
    sound = face.read_text()
    assert sound.count("Launch(lambda: w @ x,") == 1
    face.write_text(sound.replace("Launch(lambda: w @ x,", "Launch(lambda: [w @ x for _ in range(4)][0],"))
    after = copy.commit("four times")

    found = copy.asv(
        "continuous", "HEAD~1", "HEAD", "--show-stderr",
        SPARSEBENCH_TRACK="tiny.yaml", SPARSEBENCH_TRACK_RESULTS=".asv/records",
    )  # fmt: skip
    assert found.returncode == 1, found.stdout
    assert "PERFORMANCE DECREASED" in found.stdout
    assert re.search(r"\| \+ .*csr\.scipy\.256x256_n64_unstructured_80_hot\.track_ratio", found.stdout), found.stdout

    records = [f".asv/records/{commit[:8]}" for commit in (before, after)]
    compared = copy.sparsebench("compare", *records)
    assert compared.returncode == 1, compared.stdout
    assert re.search(r"SLOW.*csr\.scipy|csr\.scipy.*SLOW", compared.stdout), compared.stdout

    assert copy.asv("publish").returncode == 0
    index = json.loads((copy.path / ".asv" / "html" / "index.json").read_text())
    assert set(index["revision_to_hash"].values()) == {before, after}
    assert any(name.startswith("csr.scipy.") for name in index["benchmarks"])
