"""What a suite plans from files: masks, weights, their sources, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planning import KERNELS, SHA, SMTX, inspect, planned, sparse, suite

from sparsebench.case import Source
from sparsebench.errors import MatrixError, SuiteError
from sparsebench.sources import TensorInfo


@pytest.fixture(autouse=True)
def _named_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Globs are judged against KERNELS, so that these tests do not change with the kernels that ship."""
    monkeypatch.setattr("sparsebench.suite.all_kernels", lambda plugins: KERNELS)


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


def test_a_tensor_glob_without_a_match(tmp_path: Path) -> None:
    problem, arm = "weights: w.npz, tensors: tow, n: 1", "pattern: file, kernels: [csr.c]"
    with pytest.raises(
        SuiteError, match=r"suite\.yaml:3:31: no tensor of 1 files is called 'tow'; did you mean 'two'\?"
    ):
        planned(tmp_path, problem, arm)


def test_a_file_without_matrices(tmp_path: Path) -> None:
    (tmp_path / "a.smtx").touch()
    made = suite(tmp_path, "name: a\nproblems: [{matrices: a.smtx, n: 1}]\narms: [{pattern: file, kernels: csr.c}]\n")
    with pytest.raises(SuiteError, match=r"suite\.yaml:2:12: .*; the files hold no matrices at all"):
        made.trials(KERNELS, lambda path, tensors: [])


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

    def counting(path: Path, tensors: str) -> list[TensorInfo]:
        seen.append(path)
        return inspect(path, tensors)

    problems = "[{matrices: a.smtx, n: [1, 2]}, {matrices: '*.smtx', n: 3}]"
    text = f"name: a\nproblems: {problems}\narms: [{{pattern: file, kernels: csr.c}}]\n"
    assert len(suite(tmp_path, text).trials(KERNELS, counting)) == 9
    assert seen == [tmp_path / "a.smtx"]


def test_real_files_are_inspected_by_default(tmp_path: Path) -> None:
    (tmp_path / "real.smtx").write_text(SMTX)
    made = suite(tmp_path, "name: a\nproblems: [{matrices: '*.smtx', n: 1}]\narms: [{pattern: file, kernels: csr.c}]\n")
    (trial,) = sparse(made.trials(KERNELS))
    assert (trial.case.m, trial.case.k, trial.data) == (2, 4, tmp_path / "real.smtx")


def test_a_tensor_that_is_not_asked_for_may_be_broken(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", good=np.ones((4, 8), np.float32), bad=np.full((4, 8), np.nan, np.float32))
    text = "name: a\nproblems: [{weights: w.npz, tensors: 'TENSORS', n: 1}]\narms: [{pattern: file, kernels: csr.c}]\n"
    assert {trial.case.m for trial in suite(tmp_path, text.replace("TENSORS", "good")).trials(KERNELS)} == {4}
    with pytest.raises(MatrixError, match="bad"):
        suite(tmp_path, text.replace("TENSORS", "*")).trials(KERNELS)
