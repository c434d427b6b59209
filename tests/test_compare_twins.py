"""doctor --aa: kernels against themselves, by the worker and the clock of every run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsebench.case import Case
from sparsebench.cli import main
from sparsebench.lab import twins
from sparsebench.lab.twins import Twins, examine_twins, judged, plan
from sparsebench.suite import Suite

FAULTY = Path(__file__).parent / "plugins" / "faulty.py"
SUITE = """
name: small
protocol: {{cache: [hot]}}
plugins: [{plugins}]
problems: [{problem}]
arms: [{{pattern: {pattern}, kernels: [{kernels}]}}]
"""
# The first two calls of prepare serve the kernel (integers, then the clock), all others what is packed anew: slower.
UNFAIR = """
import sys
from dataclasses import replace
from time import perf_counter

from sparsebench.kernel import load_kernels

(SCIPY,) = [kernel for kernel in load_kernels() if kernel.name == "csr.scipy"]
CALLS = vars(sys).setdefault("calls", [])  # this file is loaded twice, the second time as another kernel


def prepare(*operands):
    CALLS.append(1)
    launch, second = SCIPY.prepare(*operands), len(CALLS) > 2

    def run():
        start_s = perf_counter()
        y = launch.run()
        end_s = start_s + 1.5 * (perf_counter() - start_s)
        while second and perf_counter() < end_s:
            pass
        return y

    return replace(launch, run=run)


KERNELS = [replace(SCIPY, name="csr.unfair", prepare=prepare, body=None, sources=())]
"""


def small(
    folder: Path, *kernels: str, plugins: str = "", problem: str = "{m: 64, k: 96, n: 8, dtype: float32}"
) -> Path:
    """A suite of one small problem with these kernels."""
    pattern = "file" if "matrices" in problem else "unstructured, sparsity: [0.8]"
    path = folder / "small.yaml"
    path.write_text(SUITE.format(kernels=", ".join(kernels), plugins=plugins, problem=problem, pattern=pattern))
    return path


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """What examine_twins found and said of an honest kernel, one that is slower elsewhere, and one that breaks."""
    folder = tmp_path_factory.mktemp("twins")
    (folder / "unfair.py").write_text(UNFAIR)
    suite = Suite.load(small(folder, "csr.scipy", "csr.unfair", "fault.silent", plugins=f"unfair.py, {FAULTY}"))
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "BUDGET_S", 0.1)
        return examine_twins(suite, said.append, "cpu"), said


def test_every_kernel_of_the_suite_is_timed_against_itself(examined):
    found, said = examined
    kernels = [pair["kernel"] for pair in found["pairs"]]
    assert {"csr.scipy", "csr.unfair", "dense.numpy", "dense.onednn"} <= set(kernels)
    assert len(kernels) == len(set(kernels)), "no twin is a kernel of its own"
    assert all(0.2 < pair["ratio"] < 5 and pair["rounds"] >= 6 for pair in found["pairs"])
    assert sum(found["counts"].values()) == len(kernels)
    tried = len(kernels) + 1
    assert re.match(rf"small: {tried} kernels, each against itself, at most about", said[0])
    assert f"{tried} of {tried}" in said
    assert re.match(r"A/A over small: .*\d+ SAME", said[-1])


def test_what_is_slower_elsewhere_in_memory_is_told_and_its_twin_is_not(examined):
    found, said = examined
    (unfair,) = (pair for pair in found["pairs"] if pair["kernel"] == "csr.unfair")
    assert unfair["elsewhere"] > 1.2 > unfair["ratio"]
    assert re.match(r"packed anew, elsewhere in memory, 95 % of them take within \+\d+\.\d % of their time", said[-2])


def test_a_clock_that_favours_one_of_two_twins_is_found():
    rng = np.random.default_rng(0)
    own = rng.uniform(1e-3, 1.1e-3, 50)
    fair, unfair = (own * rng.normal(ratio, 0.01, 50) for ratio in (1.0, 1.03))
    found = [Twins(Case(m=8, k=8, n=1), "csr.c", "ok", samples={"hot": (own, twin, own)}) for twin in (fair, unfair)]
    slow, same = judged(found)
    assert (slow["verdict"], same["verdict"]) == ("SLOW", "SAME")
    assert slow["ratio"] == pytest.approx(1.03, rel=0.01)
    assert not twins.is_healthy(["SAME"] * 30 + ["SLOW"], 0)


def test_a_kernel_that_breaks_is_no_pair_and_is_told(examined):
    found, said = examined
    assert found["broken"] == 1
    assert not found["healthy"]
    assert any(text.startswith("wrong: fault.silent on 64x96 n=8 unstructured 80 %: ") for text in said)


@pytest.mark.parametrize(
    "broken, same, slow, healthy", [(0, 19, 0, True), (1, 19, 0, False), (0, 18, 0, False), (0, 19, 1, False)]
)
def test_a_machine_is_trusted_where_nearly_all_is_the_same(broken, same, slow, healthy):
    words = ["SAME"] * same + ["SLOW"] * slow + ["UNSURE"] * (20 - same - slow)
    assert twins.is_healthy(words, broken) is healthy
    assert not twins.is_healthy([], 0)


def test_what_cannot_run_here_and_matrices_in_files_are_left_out(tmp_path):
    (tmp_path / "a.smtx").write_text("2, 4, 3\n0 2 3\n0 3 1\n")
    suite = Suite.load(small(tmp_path, "csr.*", problem='{matrices: "*.smtx", n: 4, dtype: float32}'))
    run, trials = plan(suite, tmp_path, "cpu")
    run.worker.stop()
    assert trials
    assert all(trial.kernel.startswith("dense.") and not trial.kernel.endswith("_again") for trial in trials)
    assert "dense.cublas" not in {trial.kernel for trial in trials}


@pytest.mark.parametrize("fair", [True, False])
def test_the_command_exits_by_what_it_found(tmp_path, monkeypatch, capsys, fair):
    found = {"suite": "small", "counts": {}, "pairs": [], "broken": 0, "healthy": fair}
    monkeypatch.setattr(twins, "examine_twins", lambda suite, say, device: {**found, "asked": suite.name})
    asked = [str(small(tmp_path, "csr.scipy"))] if fair else []
    monkeypatch.setattr(sys, "argv", ["sparsebench", "doctor", "--aa", *asked, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert int(ended.value.code or 0) == (0 if fair else 1)
    assert json.loads(capsys.readouterr().out)["asked"] == ("small" if fair else "quick")


def test_a_suite_without_aa_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sparsebench", "doctor", "quick"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "takes no suite, found quick; doctor --aa quick does" in capsys.readouterr().err
