"""What a suite plans: which trials, merged how, in which order. Those of files: test_trials_of_files.py."""

from __future__ import annotations

import time
from itertools import groupby
from pathlib import Path

import pytest
from planning import KERNELS, kernel, planned, suite

from sparsebench.case import Case
from sparsebench.errors import SuiteError
from sparsebench.suite import Suite, Trial


@pytest.fixture(autouse=True)
def _named_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Globs are judged against KERNELS, so that these tests do not change with the kernels that ship."""
    monkeypatch.setattr("sparsebench.suite.all_kernels", lambda plugins: KERNELS)


def told(trials: list[Trial]) -> list[str]:
    """Trials as short lines."""
    return [
        f"{t.case.m}x{t.case.k} n={t.case.n} {t.case.pattern} {t.case.sparsity} s{t.case.seed} {t.kernel}"
        for t in trials
    ]


def test_dense_first_then_case_by_case_in_the_order_of_the_file(tmp_path: Path) -> None:
    trials = planned(
        tmp_path,
        "m: 8, k: 16, n: [1, 4]",
        """pattern: unstructured, sparsity: [0.9, 0.5], kernels: [csr.torch, csr.c]
           pattern: block, block: [4, 1], sparsity: 0.5, kernels: ['bsr.*']""",
        "seeds: [1, 0]\n",
    )
    of_one = [
        "8x16 n=1 dense None s0 dense.one",
        "8x16 n=1 dense None s0 dense.two",
        *(
            f"8x16 n=1 unstructured {s} s{seed} csr.{by}"
            for s in (0.9, 0.5)
            for seed in (1, 0)
            for by in ("torch", "c")
        ),
        *(f"8x16 n=1 block 0.5 s{seed} bsr.{by}" for seed in (1, 0) for by in ("c", "cuda")),
    ]
    assert told(trials) == of_one + [line.replace("n=1", "n=4") for line in of_one]


def test_equal_trials_are_merged_and_grouped_by_problem_over_the_whole_file(tmp_path: Path) -> None:
    trials = planned(
        tmp_path,
        """m: 8, k: 16, n: 1
           m: 4, k: 4, n: 1
           m: 8, k: 16, n: [2, 1]""",
        """pattern: unstructured, sparsity: 0.5, kernels: [csr.c]
           pattern: unstructured, sparsity: [0.5, 0.9], kernels: ['csr.*']
           pattern: dense, kernels: [dense.two, csr.c]""",
    )
    assert len(set(map(repr, trials))) == len(trials)
    assert [(case.m, case.n) for case, _ in groupby(t.case.problem for t in trials)] == [(8, 1), (4, 1), (8, 2)]
    assert told(trials)[:7] == [
        "8x16 n=1 dense None s0 dense.one",
        "8x16 n=1 dense None s0 dense.two",
        "8x16 n=1 dense None s0 csr.c",
        "8x16 n=1 unstructured 0.5 s0 csr.c",
        "8x16 n=1 unstructured 0.5 s0 csr.torch",
        "8x16 n=1 unstructured 0.9 s0 csr.c",
        "8x16 n=1 unstructured 0.9 s0 csr.torch",
    ]


def test_every_setting_is_its_own_problem(tmp_path: Path) -> None:
    trials = planned(
        tmp_path,
        "m: 8, k: 16, n: 1, dtype: [float32, bfloat16], layout: [feature, batch]",
        "pattern: unstructured, sparsity: 0.5, kernels: [csr.c]",
    )
    settings = [(t.case.dtype, t.case.layout, t.kernel) for t in trials]
    assert settings == [
        (dtype, layout, kernel)
        for dtype in ("float32", "bfloat16")
        for layout in ("feature", "batch")
        for kernel in ("dense.one", "dense.two", "csr.c")
    ]


def test_baselines_are_the_dense_kernels_that_take_the_dtype(tmp_path: Path) -> None:
    made = suite(
        tmp_path,
        "name: a\nproblems: [{m: 1, k: 1, n: 1, dtype: [float32, bfloat16, float16]}]\n"
        "arms: [{pattern: unstructured, sparsity: 0.5, kernels: csr.c}]\n",
    )
    trials = made.trials({**KERNELS, "dense.wide": kernel("dense.wide", dtypes=("bfloat16",))})
    of = {dtype: [t.kernel for t in trials if t.case.dtype == dtype] for dtype in ("float32", "bfloat16", "float16")}
    assert of["float32"] == ["dense.one", "dense.two", "csr.c"]
    assert of["bfloat16"] == ["dense.wide", "csr.c"]
    assert of["float16"] == ["dense.one", "dense.two", "dense.wide", "csr.c"]  # nobody takes it: all say so


def test_a_network_is_measured_dense_throughout_and_sparse_where_prunable(tmp_path: Path) -> None:
    arm = "pattern: block, block: [5, 1], sparsity: 0.9, kernels: [bsr.c]"
    trials = planned(tmp_path, "network: vit-b16, batch: [1, 2]", arm)
    assert [(t.case.op, t.case.m, t.case.n, t.kernel) for t in trials if t.case.n in (196, 197, 1)] == [
        ("conv2d", 768, 196, "dense.conv"),
        *(("gemm", m, 197, kernel) for m in (2304, 768, 3072, 768) for kernel in ("dense.one", "dense.two", "bsr.c")),
        ("gemm", 1000, 1, "dense.one"),
        ("gemm", 1000, 1, "dense.two"),
    ]
    assert {t.case.n for t in trials} == {1, 2, 196, 197, 392, 394}
    assert {t.case.conv.batch for t in trials if t.case.conv} == {1, 2}


def test_only_takes_sparse_trials_out_and_leaves_their_baselines(tmp_path: Path) -> None:
    problems = "network: vit-b16, batch: 1\n m: 8, k: 16, n: 1"
    arms = "pattern: unstructured, sparsity: 0.5, kernels: ['csr.*']\n pattern: dense, kernels: ['dense.*']"
    whole = planned(tmp_path, problems, arms)
    assert planned(tmp_path, problems, arms, only="csr.*") == whole
    one = planned(tmp_path, problems, arms, only="csr.c")
    assert one == [trial for trial in whole if trial.kernel != "csr.torch"]
    dense = planned(tmp_path, problems, arms, only="dense.one")
    assert dense == [trial for trial in whole if trial.kernel.startswith("dense")]


def test_only_takes_problems_out_whose_sparse_trials_are_all_gone(tmp_path: Path) -> None:
    problems = "matrices: a.smtx, n: 1\n m: 4, k: 4, n: 1"
    arms = "pattern: file, kernels: [csr.c]\n pattern: unstructured, sparsity: 0.5, kernels: [csr.torch]"
    assert {t.case.m for t in planned(tmp_path, problems, arms, only="csr.c")} == {8}


def test_only_without_a_kernel_or_without_a_trial(tmp_path: Path) -> None:
    problem, arm = "m: 8, k: 16, n: 1", "pattern: unstructured, sparsity: 0.5, kernels: [csr.c]"
    with pytest.raises(SuiteError, match=r"--kernels: no kernel is called 'crs\.c'; did you mean 'csr\.c'\?"):
        planned(tmp_path, problem, arm, only="crs.c")
    with pytest.raises(
        SuiteError, match=r"--kernels 'hbs\.\*' takes every trial out of the plan; choose a kernel that an arm"
    ):
        planned(tmp_path, problem, arm, only="hbs.*")


def test_a_kernel_that_is_gone_when_trials_are_planned(tmp_path: Path) -> None:
    made = suite(
        tmp_path,
        "name: a\nproblems: [{m: 1, k: 1, n: 1}]\narms: [{pattern: unstructured, sparsity: 0.5, kernels: csr.c}]\n",
    )
    with pytest.raises(SuiteError, match=r"suite\.yaml:3:56: no kernel is called 'csr\.c'; did you mean 'hbs\.c'"):
        made.trials({"hbs.c": KERNELS["hbs.c"]})


def test_a_hundred_thousand_trials_take_seconds_and_a_million_are_refused(tmp_path: Path) -> None:
    def of(columns: int, seeds: int) -> Suite:
        return suite(
            tmp_path,
            f"name: a\nseeds: {list(range(seeds))}\nproblems: [{{m: 8, k: 8, n: {list(range(1, columns + 1))}}}]\n"
            "arms: [{pattern: block, block: [4, 1], sparsity: [0.1, 0.2, 0.3, 0.4, 0.5], kernels: 'bsr.*'}]\n",
        )

    started_s = time.perf_counter()
    assert len(of(1000, 10).trials(KERNELS)) == 100_000 + 2_000
    assert time.perf_counter() - started_s < 20  # 1.0 s on one Zen 5 core
    with pytest.raises(
        SuiteError,
        match=r"suite\.yaml:3:12: at most 1000000 trials are planned, 1010000 are asked for up to here; ask",
    ):
        of(1000, 101).trials(KERNELS)


def test_cases_are_what_a_record_can_keep(tmp_path: Path) -> None:
    arms = """pattern: hierarchical, levels: [{block: [4, 1], sparsity: 0.6}], kernels: [hbs.c]
              pattern: rbgp4, rbgp4: {tile: [4, 4]}, sparsity: 0.5, kernels: [rbgp4.c]"""
    for trial in planned(tmp_path, "network: wrn-40-4, batch: 1\n matrices: a.smtx, n: 1", arms):
        assert Case.from_json(trial.case.to_json()) == trial.case


def test_a_suite_with_every_kind_of_problem_and_arm(tmp_path: Path) -> None:
    """Sizes add up: shapes x settings, times what each arm makes of them."""
    problems = """m: 768, k: 3072, n: [1, 64], dtype: [float32]
                  matrices: "*.smtx", n: [64, 256], dtype: [float32]
                  network: vit-b16, batch: [1, 32], dtype: [float32]
                  weights: w.npz, tensors: "*o*", n: [64], dtype: [float32]"""
    levels = "[{block: [4, 1], sparsity: 0.63}, {block: [1, 1], sparsity: 0.97}]"
    arms = f"""pattern: file, kernels: ["csr.*"]
               pattern: constant_fan_in, sparsity: [0.8, 0.9], kernels: ["condensed.*", "csr.*"]
               pattern: block, block: [[4, 1], [16, 16]], sparsity: [0.9], from: magnitude, kernels: ["bsr.*"]
               pattern: hierarchical, levels: {levels}, kernels: ["hbs.*"]
               pattern: rbgp4, rbgp4: {{tile: [128, 32], row_repeat: 4}}, sparsity: [0.75], kernels: ["rbgp4.*"]"""
    trials = planned(tmp_path, problems, arms)
    layers = 4  # shapes of vit-b16 that may be pruned: qkv, proj, fc1, fc2
    shapes = 2 + 2 + 2 * layers  # both files have one shape; w.npz's `one` has it too, with weights of its own
    weights = 2  # one [8, 16], two [4, 4]
    count = {pattern: sum(t.case.pattern == pattern for t in trials) for pattern in ("file", "block", "hierarchical")}
    assert count["file"] == 2 * (2 * 2 + weights)
    assert count["block"] == 2 * 2 * (shapes + weights)
    assert count["hierarchical"] == shapes + weights  # by magnitude where the file brings weights, so not merged
    assert len(trials) == len({(t.case.key, t.kernel) for t in trials})
