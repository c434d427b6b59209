"""Records exported to asv, which shows, compares and publishes them as its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_store import MACHINE, record

from sparsebench.case import Case
from sparsebench.desk.export_asv import export_asv
from sparsebench.errors import BadInput, StoreError
from sparsebench.kernel import load_kernels
from sparsebench.record import Record
from sparsebench.store import Store

needs_asv = pytest.importorskip("asv", reason="asv is not installed (extra asv)")

CONF = {
    "version": 1, "project": "p", "repo": ".", "branches": ["main"], "environment_type": "existing",
    "results_dir": "asv", "html_dir": "html",
}  # fmt: skip
RATIO = "csr.c.8x16_n4_unstructured_50.track_ratio"
(CSR,) = (kernel for kernel in load_kernels() if kernel.name == "csr.c")


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A git repository of two commits with an asv.conf.json, in which this process then is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asv.conf.json").write_text(json.dumps(CONF))
    git("init", "--quiet", "--initial-branch", "main")
    for message in ("first", "second"):
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        git(*who, "commit", "--quiet", "--allow-empty", "-m", message)
    return tmp_path


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def asv(*arguments: str) -> str:
    ran = subprocess.run([sys.executable, "-m", "asv", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def timed(factor: float = 1.0, **changes) -> Record:
    """csr.c as it is installed, `factor` times as slow as it was; 20 rounds."""
    own_s = [factor * (1 + i / 1000) * 1e-3 for i in range(20)]
    samples = {"weights_cold": {"csr.c": own_s, "dense.torch": [2e-3] * 20}}
    about = {
        "source_sha": CSR.source_sha,
        "samples": samples,
        "layout_s": {},
        "started_at": "2026-11-01T00:00:00+00:00",
    }
    return record(**{**about, "versions": {"torch": "2.13.0"}, "host": {"python": "3.11.7"}, **changes})


def stored(results: Path, *records: Record) -> Path:
    with Store(results, MACHINE, "s") as store:
        store.append(*records)
    return results


def broken(outcome: str, k: int) -> Record:
    case = Case(m=8, k=k, n=4, pattern="unstructured", sparsity=0.5)
    return timed(key=outcome, case=case, outcome=outcome, reason="why", samples={}, baselines={})


def test_asv_shows_compares_and_publishes_them(repository):
    stored(repository / "before", timed(), broken("skipped", 32), broken("crashed", 64))
    stored(repository / "after", timed(1.5))
    first = export_asv(Path("before"), Path("asv"), commit="HEAD~1")
    second = export_asv(Path("after"), Path("asv"))
    assert (first.commit, second.commit) == (git("rev-parse", "HEAD~1"), git("rev-parse", "HEAD"))
    assert (first.benchmarks, second.benchmarks) == (6, 2)
    assert all(path.is_file() for path in (*first.files, *second.files))

    shown = asv("show", "HEAD~1", "--details")
    assert f"{RATIO} [{MACHINE.id}/sparsebench-py3.11-" in shown
    assert re.search(r"^ +repeat: 20$", shown, re.MULTILINE), shown
    assert "n/a" in shown
    assert "failed" in shown
    lines = {
        line.split("|")[-2].strip(): line for line in asv("compare", "HEAD~1", "HEAD").splitlines() if "track" in line
    }
    assert lines[RATIO].startswith("| +"), lines[RATIO]
    assert "1.50" in lines[RATIO]

    asv("publish")
    index = json.loads((repository / "html" / "index.json").read_text())
    assert index["machines"][MACHINE.id]["cpu"] == MACHINE.name
    assert index["benchmarks"][RATIO]["pretty_name"] == "csr.c 8x16 n4 unstructured 50 %: ratio"
    assert sorted(index["revision_to_hash"].values()) == sorted([first.commit, second.commit])


def test_without_a_commit_only_the_kernels_installed_here_are_of_head(repository):
    other = timed(key="other", case=Case(m=4, k=4, n=4), source_sha="0" * 64)
    plugin = timed(key="plugin", kernel="csr.mine", source_sha="0" * 64, samples={"weights_cold": {"csr.mine": [1.0]}})
    results = stored(repository / "results", timed(), other, plugin)
    head, named = (export_asv(results, repository / out, commit=of) for out, of in (("a", None), ("b", "HEAD")))
    assert (head.left_out, named.left_out) == (1, 0)
    assert (head.benchmarks, named.benchmarks) == (4, 5), "a plugin's kernel has no other version to be of"
    with pytest.raises(StoreError, match=r"all 1 records .* measure again, or name their commit with --commit"):
        export_asv(stored(repository / "old", other), repository / "c")
    assert not (repository / "c").exists()


def test_the_newest_record_of_a_question_counts(repository):
    older = timed(2.0, key="older", started_at="2026-10-01T00:00:00+00:00")
    for name, order in (("a", (older, timed())), ("b", (timed(), older))):
        (path,) = export_asv(stored(repository / name, *order), repository / f"{name}-asv").files
        assert '"csr.c.8x16_n4_unstructured_50.track_time": [[0.00100' in path.read_text()


def test_what_asv_has_already_stays(repository):
    folder = repository / "asv" / MACHINE.id
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text('{"machine": "mine", "version": 1}')
    known = {"other": {"name": "other", "version": "1"}, "version": 2}
    (repository / "asv" / "benchmarks.json").write_text(json.dumps(known))
    export_asv(stored(repository / "results", timed()), repository / "asv")
    assert json.loads((folder / "machine.json").read_text())["machine"] == "mine"
    assert {"other", RATIO} <= set(json.loads((repository / "asv" / "benchmarks.json").read_text()))


def test_records_of_other_versions_are_another_environment(repository):
    newer = timed(key="newer", versions={"torch": "2.14.0"})
    assert len(export_asv(stored(repository / "results", timed(), newer), repository / "asv").files) == 2


def test_without_asv_it_says_what_to_install(repository, monkeypatch):
    results = stored(repository / "results", timed())
    monkeypatch.setitem(sys.modules, "asv", None)
    with pytest.raises(BadInput, match=r"pip install 'sparsebench\[asv\]'"):
        export_asv(results, repository / "out")
    assert not (repository / "out").exists()


def test_a_commit_that_git_does_not_know_is_refused(repository, tmp_path_factory, monkeypatch):
    results = stored(repository / "results", timed())
    with pytest.raises(BadInput, match="git does not know 'nonsense' here"):
        export_asv(results, repository / "out", commit="nonsense")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
    monkeypatch.chdir(tmp_path_factory.mktemp("no repository"))
    with pytest.raises(BadInput, match=r"git does not know 'HEAD' here: .*name a commit with --commit"):
        export_asv(results, repository / "out")
    assert not (repository / "out").exists()


def test_a_folder_that_cannot_be_written_is_said(repository):
    (repository / "taken").write_text("a file")
    with pytest.raises(StoreError, match="choose another folder with --out"):
        export_asv(stored(repository / "results", timed()), repository / "taken")


def test_names_hold_among_all_environments(repository):
    """Two questions with one name, each in an environment of its own, are told apart all the same."""
    near = timed(key="near", case=replace(timed().case, sparsity=0.500001), versions={"torch": "2.14.0"})
    assert export_asv(stored(repository / "results", timed(), near), repository / "asv").benchmarks == 4
