"""The suites that ship plan without an error, with the kernels that ship."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from planning import SMTX

from sparsebench.kernel import all_kernels
from sparsebench.suite import Suite, about, resolve_suite, shipped_suites


@pytest.mark.parametrize("name", shipped_suites())
def test_plans(tmp_path: Path, name: str) -> None:
    (tmp_path / "layer.smtx").write_text(SMTX)
    made = Suite.load(resolve_suite(name), data=tmp_path)
    trials = made.trials(all_kernels())
    assert made.name == name
    assert made.about == about(made.path) != ""
    assert {trial.case.pattern for trial in trials} - {"dense"}
    fits: dict[str, bool] = {}
    for case in (trial.case for trial in trials if trial.case.pattern != "dense"):
        asked = repr((case.pattern, sorted(case.params.items()), case.sparsity))
        fits[asked] = fits.get(asked, False) or case.pattern_object.why_not(case.m, case.k, case.sparsity) is None
    # A tile that does not divide every shape is a skipped record there; one that divides none is a mistake.
    assert [asked for asked in fits if not fits[asked]] == [] or name == "dlmc"


@pytest.mark.parametrize("name", ["headline", "rbgp", "hbsnn", "sweep", "llm"])
def test_suites_for_a_gpu_plan_its_kernels_alone(name: str) -> None:
    kernels = all_kernels()
    trials = Suite.load(resolve_suite(name)).trials(kernels, device="cuda")
    assert {device for trial in trials for device in kernels[trial.kernel].devices} <= {"cuda", "cpu"}
    assert all("cuda" in kernels[trial.kernel].devices for trial in trials)


def test_quick_stays_quick(tmp_path: Path) -> None:
    """Its size is what keeps `sparsebench quick` within minutes: change the number knowingly."""
    made = Suite.load(resolve_suite("quick"))
    trials = made.trials(all_kernels(), device="cpu")
    sparse = Counter(trial.kernel for trial in trials if trial.case.pattern != "dense")
    assert sparse == {
        "csr.c": 15,
        "csr.torch": 5,
        "bsr.c": 30,
        "bsr.scipy": 5,
        "condensed.c": 15,
        "hbs.c": 5,
        "rbgp4.c": 10,
    }
    assert len({trial.case.problem.key for trial in trials}) == 7
    assert made.protocol.budget_s * len(trials) < 60
