"""The suites that ship plan without an error, with the kernels that ship."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from planning import SMTX

from sparsebench.kernel import all_kernels
from sparsebench.network import Network
from sparsebench.shipped import shipped_networks
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


@pytest.mark.parametrize("name", ["headline", "rbgp", "hbsnn", "sweep", "sweep-conv", "sweep-bf16", "llm"])
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
    assert made.protocol.budget_s * len(trials) < 155  # seconds: packing and checking take the rest of three minutes


SWEEPS = {"sweep": 40, "sweep-conv": 40, "sweep-bf16": 40}  # least shapes of each kernel


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_has_enough_shapes_for_each_kernel_and_holds_every_network_out(name: str) -> None:
    """Models are judged on whole shapes left out, and on the networks: neither may be seen in the fit."""
    kernels, networks = all_kernels(), {other: Network.load(path) for other, path in shipped_networks().items()}
    held_out = {(x.m, x.k, x.conv) for other, net in networks.items() if other != "sweep-convs" for x in net.layers}
    device = "cuda" if name == "sweep-bf16" else "cpu"
    shapes: dict[str, set[object]] = defaultdict(set)
    for trial in Suite.load(resolve_suite(name)).trials(kernels, device=device):
        case = trial.case
        assert (case.m, case.k, case.conv and replace(case.conv, batch=1)) not in held_out
        if case.pattern == "dense" or case.pattern_object.why_not(case.m, case.k, case.sparsity) is None:
            shapes[trial.kernel].add((case.m, case.k))
    assert {kernel: len(seen) for kernel, seen in shapes.items() if len(seen) < SWEEPS[name]} == {}


@pytest.mark.parametrize(("name", "minutes"), [("sweep", 65), ("sweep-conv", 32)])
def test_a_sweep_takes_minutes_on_one_core(name: str, minutes: float) -> None:
    """0.76 and 0.84 s a trial were measured on a core of an Emerald Rapids whose other core measured too."""
    trials = Suite.load(resolve_suite(name)).trials(all_kernels(), device="cpu")
    assert len(trials) * 0.8 < minutes * 60
    assert max(trial.case.flops() for trial in trials) < 5.2e9  # 50 ms of a dense product at 100 GFLOP/s
