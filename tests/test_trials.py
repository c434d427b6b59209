"""What a suite plans: which trials, merged how, in which order."""

from __future__ import annotations

import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from planning import KERNELS, SMTX, suite

from sparsebench.case import Case, Source
from sparsebench.errors import MatrixError, SuiteError
from sparsebench.sources import TensorInfo
from sparsebench.suite import Suite, Trial

@pytest.fixture(autouse=True)
def _named_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Globs are judged against KERNELS, so that these tests do not change with the kernels that ship."""
    monkeypatch.setattr("sparsebench.suite.all_kernels", lambda plugins: KERNELS)


SHA = {"a.smtx": "a" * 64, "b.smtx": "b" * 64, "w.npz": "c" * 64}


def inspect(path: Path) -> list[TensorInfo]:
    """Two masks of one shape, and a file with two weights and a mask."""
    if path.suffix == ".smtx":
        return [TensorInfo(None, 8, 16, "mask", SHA[path.name])]
    tensors: list[tuple[str, int, int, Any]] = [("one", 8, 16, "weights"), ("two", 4, 4, "weights"), ("mask", 4, 4, "mask")]
    return [TensorInfo(name, m, k, kind, SHA[path.name]) for name, m, k, kind in tensors]


def planned(tmp_path: Path, problems: str, arms: str, top: str = "", **more: Any) -> list[Trial]:
    """The trials of problems x arms, with files a.smtx, b.smtx and w.npz in the folder."""
    for name in SHA:
        (tmp_path / name).touch()
    text = f"name: a\n{top}problems:\n{listed(problems)}arms:\n{listed(arms)}"
    return suite(tmp_path, text).trials(KERNELS, inspect, **more)


def listed(entries: str) -> str:
    return "".join(f"  - {{{entry.strip()}}}\n" for entry in entries.strip().splitlines())


def told(trials: list[Trial]) -> list[str]:
    """Trials as short lines."""
    return [
        f"{t.case.m}x{t.case.k} n={t.case.n} {t.case.pattern} {t.case.sparsity} s{t.case.seed} {t.kernel}" for t in trials
    ]


def sparse(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.case.pattern != "dense"]


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
        *(f"8x16 n=1 unstructured {s} s{seed} csr.{by}" for s in (0.9, 0.5) for seed in (1, 0) for by in ("torch", "c")),
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


def test_masks_from_files(tmp_path: Path) -> None:
    arms = """pattern: file, kernels: [csr.c]
              pattern: block, block: [4, 1], sparsity: 0.5, kernels: [bsr.c]
              pattern: block, block: [4, 1], sparsity: 0.75, from: magnitude, kernels: [bsr.c]"""
    trials = sparse(planned(tmp_path, "matrices: '*.smtx', n: 1", arms, "seeds: [7, 8]\n"))
    assert [(t.case.pattern, t.case.sparsity, t.case.seed, t.case.params) for t in trials] == [
        ("file", None, 7, {}),
        ("file", None, 7, {}),
        ("block", 0.5, 7, {"block": [4, 1]}),
        ("block", 0.5, 8, {"block": [4, 1]}),
        ("block", 0.75, 7, {"block": [4, 1], "from": "magnitude"}),
        ("block", 0.75, 8, {"block": [4, 1], "from": "magnitude"}),
    ]
    assert [t.case.source for t in trials[:3]] == [
        Source("a.smtx", None, SHA["a.smtx"]),
        Source("b.smtx", None, SHA["b.smtx"]),
        None,
    ]
    assert [t.data for t in trials[:3]] == [tmp_path / "a.smtx", tmp_path / "b.smtx", None]


def test_weights_from_files(tmp_path: Path) -> None:
    arms = """pattern: file, kernels: [csr.c]
              pattern: unstructured, sparsity: 0.5, kernels: [csr.c]
              pattern: unstructured, sparsity: 0.5, from: random, kernels: [csr.torch]
              pattern: rbgp4, rbgp4: {tile: [4, 4]}, sparsity: 0.5, kernels: [rbgp4.c]"""
    trials = sparse(planned(tmp_path, "weights: w.npz, tensors: o*, n: 1", arms, "seeds: [7, 8]\n"))
    source = Source("w.npz", "one", SHA["w.npz"])
    assert [(t.case.pattern, t.case.seed, t.case.params.get("from"), t.case.source, t.data) for t in trials] == [
        ("file", 7, None, source, tmp_path / "w.npz"),
        ("unstructured", 7, "magnitude", source, tmp_path / "w.npz"),
        ("unstructured", 7, None, None, None),
        ("unstructured", 8, None, None, None),
        ("rbgp4", 7, None, None, None),
        ("rbgp4", 8, None, None, None),
    ]
    assert all(t.case.pruned_by_magnitude == (t.case.params.get("from") == "magnitude") for t in trials)


def test_pattern_file_leaves_shapes_alone(tmp_path: Path) -> None:
    problems = "matrices: a.smtx, n: 1\n m: 8, k: 16, n: 1\n m: 4, k: 4, n: 1"
    arms = "pattern: file, kernels: [csr.c]\n pattern: unstructured, sparsity: 0.5, kernels: [csr.c]"
    trials = sparse(planned(tmp_path, problems, arms))
    assert [(t.case.m, t.case.pattern) for t in trials] == [(8, "file"), (8, "unstructured"), (4, "unstructured")]


def test_a_source_never_says_where_the_data_folder_is(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.smtx").touch()
    text = "name: a\nproblems: [{matrices: %r, n: 1}]\narms: [{pattern: file, kernels: [csr.c]}]\n"
    names = []
    for glob in ("**/a.smtx", str(tmp_path / "data" / "*" / "*.smtx"), "../data/deep/a.smtx"):
        made = suite(tmp_path, text % glob, data=tmp_path / "data")
        (trial,) = sparse(made.trials(KERNELS, inspect))
        assert trial.case.source
        names.append(trial.case.source.file)
    assert names == ["deep/a.smtx", "deep/a.smtx", "a.smtx"]


def test_a_network_is_measured_dense_throughout_and_sparse_where_prunable(tmp_path: Path) -> None:
    arm = "pattern: block, block: [5, 1], sparsity: 0.9, kernels: [bsr.c]"
    trials = planned(tmp_path, "network: vit-b16, batch: [1, 2]", arm)
    assert [(t.case.op, t.case.m, t.case.n, t.kernel) for t in trials if t.case.n in (196, 197, 1)] == [
        ("conv2d", 768, 196, "dense.conv"),
        *((("gemm", m, 197, kernel) for m in (2304, 768, 3072, 768) for kernel in ("dense.one", "dense.two", "bsr.c"))),
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
    with pytest.raises(SuiteError, match=r"--kernels 'hbs\.\*' takes every trial out of the plan; choose a kernel that an arm"):
        planned(tmp_path, problem, arm, only="hbs.*")


def test_a_kernel_that_is_gone_when_trials_are_planned(tmp_path: Path) -> None:
    made = suite(tmp_path, "name: a\nproblems: [{m: 1, k: 1, n: 1}]\narms: [{pattern: unstructured, sparsity: 0.5, kernels: csr.c}]\n")
    with pytest.raises(SuiteError, match=r"suite\.yaml:3:56: no kernel is called 'csr\.c'; did you mean 'hbs\.c'"):
        made.trials({"hbs.c": KERNELS["hbs.c"]})


def test_a_tensor_glob_without_a_match(tmp_path: Path) -> None:
    problem, arm = "weights: w.npz, tensors: tow, n: 1", "pattern: file, kernels: [csr.c]"
    with pytest.raises(SuiteError, match=r"suite\.yaml:3:31: no tensor of 1 files is called 'tow'; did you mean 'two'\?"):
        planned(tmp_path, problem, arm)


def test_a_file_without_matrices(tmp_path: Path) -> None:
    (tmp_path / "a.smtx").touch()
    made = suite(tmp_path, "name: a\nproblems: [{matrices: a.smtx, n: 1}]\narms: [{pattern: file, kernels: csr.c}]\n")
    with pytest.raises(SuiteError, match=r"suite\.yaml:2:12: .*; the files hold no matrices at all"):
        made.trials(KERNELS, lambda path: [])


def test_all_broken_files_are_told_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.smtx").write_text(SMTX if name == "b" else "2, 2\n")
    made = suite(tmp_path, "name: a\nproblems: [{matrices: '*.smtx', n: 1}]\narms: [{pattern: file, kernels: csr.c}]\n")
    with pytest.raises(MatrixError) as caught:
        made.trials(KERNELS)
    assert [line.split("/")[-1].split(":")[0] for line in str(caught.value).splitlines()] == ["a.smtx", "c.smtx"]


def test_a_file_is_inspected_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.smtx").touch()
    seen: list[Path] = []

    def counting(path: Path) -> list[TensorInfo]:
        seen.append(path)
        return inspect(path)

    text = "name: a\nproblems: [{matrices: a.smtx, n: [1, 2]}, {matrices: '*.smtx', n: 3}]\narms: [{pattern: file, kernels: csr.c}]\n"
    assert len(suite(tmp_path, text).trials(KERNELS, counting)) == 9
    assert seen == [tmp_path / "a.smtx"]


def test_real_files_are_inspected_by_default(tmp_path: Path) -> None:
    (tmp_path / "real.smtx").write_text(SMTX)
    made = suite(tmp_path, "name: a\nproblems: [{matrices: '*.smtx', n: 1}]\narms: [{pattern: file, kernels: csr.c}]\n")
    (trial,) = sparse(made.trials(KERNELS))
    assert (trial.case.m, trial.case.k, trial.data) == (2, 4, tmp_path / "real.smtx")


def test_a_hundred_thousand_trials_take_seconds_and_a_million_are_refused(tmp_path: Path) -> None:
    def of(columns: int, seeds: int) -> Suite:
        return suite(
            tmp_path,
            f"name: a\nseeds: {list(range(seeds))}\nproblems: [{{m: 8, k: 8, n: {list(range(1, columns + 1))}}}]\n"
            "arms: [{pattern: block, block: [4, 1], sparsity: [0.1, 0.2, 0.3, 0.4, 0.5], kernels: [bsr.c, bsr.cuda]}]\n",
        )

    started_s = time.perf_counter()
    assert len(of(1000, 10).trials(KERNELS)) == 100_000 + 2_000
    assert time.perf_counter() - started_s < 20  # 1.0 s on one Zen 5 core
    with pytest.raises(SuiteError, match=r"suite\.yaml:3:12: at most 1000000 trials are planned, up to here 1010000 were asked for; ask"):
        of(1000, 101).trials(KERNELS)


def test_cases_are_what_a_record_can_keep(tmp_path: Path) -> None:
    arms = """pattern: hierarchical, levels: [{block: [4, 1], sparsity: 0.6}, {block: [1, 1], sparsity: 0.9}], kernels: [hbs.c]
              pattern: rbgp4, rbgp4: {tile: [4, 4]}, sparsity: 0.5, kernels: [rbgp4.c]"""
    for trial in planned(tmp_path, "network: wrn-40-4, batch: 1\n matrices: a.smtx, n: 1", arms):
        assert Case.from_json(trial.case.to_json()) == trial.case
