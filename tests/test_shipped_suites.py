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
    assert all(
        not trial.case.pattern_object.why_not(trial.case.m, trial.case.k, trial.case.sparsity)
        for trial in trials
        if name != "dlmc"
    )


def test_quick_stays_quick(tmp_path: Path) -> None:
    """Its size is what keeps `sparsebench quick` within minutes: change the number knowingly."""
    made = Suite.load(resolve_suite("quick"))
    trials = made.trials(all_kernels())
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
