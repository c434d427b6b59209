"""The suites in suites/targets and the table that .ci/targets.py makes of their records fit together."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cuda_cases import GPU
from planning import SMTX

from sparsebench.kernel import all_kernels
from sparsebench.record import Protocol, Record
from sparsebench.suite import Suite
from sparsebench.trial import Trial

ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "suites" / "targets").glob("*.yaml"))
PEAKS = {
    "tensor_flops_per_s": {"bfloat16": 7e14}, "read_l2_bytes_per_s": 5e12, "stream_bytes_per_s": 3e12,
    "gpu": {"processors": 132},
}  # fmt: skip


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("targets", ROOT / ".ci" / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["targets"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def planned(path: Path, data: Path) -> list[Trial]:
    kernels = all_kernels()
    trials = Suite.load(path, data=data).trials(kernels, device="cuda")
    return [trial for trial in trials if kernels[trial.kernel].why_not(trial.case, GPU) is None]


def pretended(path: Path, trials: Sequence[Trial], own_s: float) -> list[Record]:
    """Records in which dense kernels take 10 us, our own bodies `own_s`, and other sparse kernels 8 us."""
    found = []
    for trial in trials:
        if trial.case.pattern == "dense":
            continue
        ours = trial.kernel.endswith((".cuda", ".mma", ".triton"))
        samples = {"weights_cold": {"dense.cublas": [1e-5] * 8, trial.kernel: [own_s if ours else 8e-6] * 8}}
        found.append(
            Record(
                key=str(len(found)), suite=f"target-{path.stem}", case=trial.case, kernel=trial.kernel, source_sha="",
                machine="m", protocol=Protocol(), outcome="ok", baselines={"dense.cublas": ""}, samples=samples,
                nnz=trial.case.m * trial.case.k // 10, format_bytes=10**6, useful_flops=10**9,
                facts={"t0_s": 1e-6, "V": 32},
            )
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[Trial]]:
    data = tmp_path_factory.mktemp("data")
    (data / "layer.smtx").write_text(SMTX)
    return {path: planned(path, data) for path in SUITES}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_target_suite_is_of_few_trials_that_its_kernels_take(path, trials):
    assert 10 < len(trials[path]) < 200 or path.stem == "csr"
    assert f"name: target-{path.stem}\n" in path.read_text()


@pytest.mark.parametrize(("own_s", "all_hold"), [(1e-8, True), (2e-5, False)])
def test_every_target_finds_its_records(targets, trials, own_s, all_hold):
    records = [record for path, asked in trials.items() for record in pretended(path, asked, own_s)]
    lines = list(targets.lines(records, PEAKS))
    assert all(isinstance(line, targets.Line) for line in lines), [line for line in lines if isinstance(line, str)]
    named = {line.target for line in lines}
    assert len(named) >= 11, named
    faster = [line for line in lines if line.target != "rbgp4 bf16 of its cap"]
    assert all(line.holds for line in faster) is all_hold


def test_a_target_without_records_says_so(targets, capsys, tmp_path):
    assert list(targets.lines([], PEAKS)) == [target.__name__ for target in targets.TARGETS]
    assert targets.main(tmp_path) == 2
    assert "run bash .ci/gpu" in capsys.readouterr().out


def test_a_line_tells_found_and_wanted(targets):
    line: Any = targets.Line("t", "case", 1.5, 2)
    assert str(line) == "| t | case | 1.50 | >= 2 | NO |"
