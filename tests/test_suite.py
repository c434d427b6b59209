"""Suites: every mistake at its place, and what a suite without any says. What it plans: test_trials.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import KERNELS, SMTX, mistakes, spots, suite, survived, told

from sparsebench.errors import SuiteError
from sparsebench.kernel import all_kernels
from sparsebench.record import Protocol
from sparsebench.suite import Suite, about, resolve_suite, shipped_suites


@pytest.fixture(autouse=True)
def _named_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Globs are judged against KERNELS, so that these tests do not change with the kernels that ship."""
    monkeypatch.setattr("sparsebench.suite.all_kernels", lambda plugins: KERNELS)


PROBLEM = "{m: 8, k: 8, n: 1}"
ARM = "{pattern: block, block: [4, 1], sparsity: 0.5, kernels: [bsr.c]}"


def text_of(problem: str = PROBLEM, arm: str = ARM, top: str = "") -> str:
    """A suite of one problem and one arm, with `top` before them."""
    return f"name: a\n{top}problems:\n  - {problem}\narms:\n  - {arm}\n"


def test_defaults(tmp_path: Path) -> None:
    made = suite(tmp_path, text_of())
    assert (made.name, made.about, made.seeds, made.protocol, made.plugins) == ("a", "", (0,), Protocol(), ())
    (problem,), (arm,) = made.problems, made.arms
    assert (problem.dtypes, problem.maths, problem.layouts) == (("float32",), ("ieee",), ("feature",))
    assert (problem.columns, arm.sparsities, arm.origin) == ((1,), (0.5,), None)
    assert (made.path, made.data) == (tmp_path / "suite.yaml", tmp_path)


def test_single_values_count_as_lists_and_repeats_as_one(tmp_path: Path) -> None:
    problem = "{m: 8, k: 8, n: [1, 2, 1], dtype: float16, layout: [batch, feature, batch]}"
    top = "about: b\nseeds: 3\nprotocol: {cache: hot, threads: 2, budget_s: 1, precision: 0.5}\n"
    made = suite(tmp_path, text_of(problem, ARM.replace("[4, 1]", "[[4, 1], [2, 2]]"), top))
    assert (made.seeds, made.about) == ((3,), "b")
    assert made.protocol == Protocol(cache=("hot",), threads=2, budget_s=1.0, precision=0.5)
    assert made.problems[0].columns == (1, 2)
    assert made.problems[0].layouts == ("batch", "feature")
    assert made.arms[0].params == ({"block": [4, 1]}, {"block": [2, 2]})


def test_params_are_json_data_with_the_patterns_defaults(tmp_path: Path) -> None:
    graphs = "{tile: [128, 32], row_repeat: 4, outer_sparsity: 0.5}"
    rbgp4 = f"{{pattern: rbgp4, rbgp4: {graphs}, sparsity: 0.75, kernels: [rbgp4.c]}}"
    blocks = "[{block: [4, 1], sparsity: 0.63}, {block: [1, 1], sparsity: 0.97}]"
    levels = f"{{pattern: hierarchical, levels: {blocks}, kernels: [hbs.c]}}"
    assert suite(tmp_path, text_of(arm=rbgp4)).arms[0].params == (
        {"tile": [128, 32], "row_repeat": 4, "block": [1, 1], "outer_sparsity": 0.5},
    )
    assert suite(tmp_path, text_of(arm=levels)).arms[0].params == (
        {"levels": [{"block": [4, 1], "sparsity": 0.63}, {"block": [1, 1], "sparsity": 0.97}]},
    )
    for ablated, params in (("", {}), (", ablated: 0", {}), (", ablated: 0.25", {"ablated": 0.25})):
        arm = f"{{pattern: constant_fan_in, sparsity: 0.9, kernels: [condensed.c]{ablated}}}"
        assert suite(tmp_path, text_of(arm=arm)).arms[0].params == (params,)


@pytest.mark.parametrize(("marked", "message"), told("suites"))
def test_each_mistake_and_its_place(tmp_path: Path, marked: str, message: str) -> None:
    text, (place,) = spots(marked)
    (found,) = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert found.startswith(f"{place}: {message}")


@pytest.mark.parametrize(("marked", "message"), told("suite_tops"))
def test_each_mistake_above_the_problems(tmp_path: Path, marked: str, message: str) -> None:
    test_each_mistake_and_its_place(tmp_path, text_of(top=f"{marked}\n"), message)


@pytest.mark.parametrize(("marked", "message"), told("suite_problems"))
def test_each_mistake_in_a_problem(tmp_path: Path, marked: str, message: str) -> None:
    test_each_mistake_and_its_place(tmp_path, text_of(marked), message)


@pytest.mark.parametrize(("marked", "message"), told("suite_arms"))
def test_each_mistake_in_an_arm(tmp_path: Path, marked: str, message: str) -> None:
    test_each_mistake_and_its_place(tmp_path, text_of(arm=marked), message)


def test_a_problem_that_no_arm_takes(tmp_path: Path) -> None:
    (tmp_path / "a.smtx").write_text(SMTX)
    text, (place,) = spots(
        text_of("{matrices: '*.smtx', n: 1}\n  - ^{m: 1, k: 1, n: 1}", "{pattern: file, kernels: csr.c}")
    )
    (found,) = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert found.startswith(f"{place}: this problem gets no trials: its only arms are of pattern file, and it brings")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text, places = spots(
        "name: a\n^abuot: b\nseeds: [^-1]\nprotocol: {threads: ^0, budget_s: ^1e3}\n"
        "problems:\n"
        "  - {m: 1, k: ^'2', n: [^0, ^true], dtype: ^float, ^dtype: float32}\n"
        "  - {network: ^vit-b61, batch: ^0}\n"
        "  - {matrices: ^'*.smtx', n: ^010}\n"
        "arms:\n"
        "  - ^{^patern: file, kernels: [^nope.c]}\n"
        "  - {pattern: block, block: [^0, 4], sparsity: [0.5, ^1.2], kernels: [^'nope.*'], from: ^weights}\n"
        "  - pattern: hierarchical\n"
        "    levels: ^[{block: [4, 1], sparsity: 0.6}, {block: [3, 1], sparsity: 0.9}]\n"
        "    kernels: ^[]\n"
    )
    found = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert [line.split(": ")[0] for line in found] == places


def test_the_mistakes_of_a_network_are_told_with_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("name: a\nlayers: []\n")
    text, (place,) = spots(text_of("{network: net.yaml, batch: ^0}"))
    found = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert found[0].startswith(f"{place}: batch must be at least 1")
    assert found[1] == f"{tmp_path / 'net.yaml'}:1:1: the key 'source' is missing; add it"
    assert found[2].startswith(f"{tmp_path / 'net.yaml'}:2:9: layers must not be empty")


def test_plugins_stand_beside_the_suite_and_paths_below_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("sparsebench.suite.all_kernels", lambda plugins: seen.append(plugins) or KERNELS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.smtx").write_text(SMTX)
    text = text_of("{matrices: '*.smtx', n: 1}", top="plugins: [mine.py]\n")
    made = suite(tmp_path, text, data=tmp_path / "data", plugins=[Path("more.py")])
    assert seen == [[tmp_path / "mine.py", Path("more.py")]]
    assert made.plugins == (tmp_path / "mine.py", Path("more.py"))
    assert made.problems[0].files == (tmp_path / "data" / "a.smtx",)


def test_a_real_plugin_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebench.suite.all_kernels", all_kernels)
    (tmp_path / "mine.py").write_text(
        "from sparsebench import FORMATS, Kernel\n"
        "KERNELS = [Kernel(name='csr.mine', format=FORMATS['csr'], prepare=None, about='', source='')]\n"
    )
    arm = "{pattern: unstructured, sparsity: 0.5, kernels: [csr.mine]}"
    assert suite(tmp_path, text_of(arm=arm, top="plugins: [mine.py]\n")).arms[0].kernels == ("csr.mine",)


def test_a_plugin_that_is_gone_is_one_mistake_and_no_glob_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsebench.suite.all_kernels", all_kernels)
    text, (place,) = spots(text_of(arm=ARM.replace("bsr.c", "its.own"), top="plugins: ^[gone.py]\n"))
    (found,) = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert found.startswith(f"{place}: plugin {tmp_path / 'gone.py'} was not found; give the path of a Python file")


def test_a_data_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"the data folder .*gone was not found; give --data a folder that is there"):
        suite(tmp_path, text_of(), data=tmp_path / "gone")


def test_an_existing_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_suite("quick") == shipped_suites()["quick"]
    (tmp_path / "quick").write_text("mine")
    assert resolve_suite("quick") == Path("quick")
    with pytest.raises(SuiteError, match=r"suite 'quik' is neither a file below .* did you mean 'quick'\?"):
        resolve_suite("quik")


def test_about_needs_neither_data_nor_kernels(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nabout: b\nproblems: [{matrices: gone, n: 1}]\n")
    assert about(tmp_path / "a.yaml") == "b"
    (tmp_path / "a.yaml").write_text("- 1\n")
    assert about(tmp_path / "a.yaml") == ""


NUMBERS = st.integers(-2, 9) | st.floats() | st.sampled_from([0.5, 0.9, 10**400])
WORDS = st.sampled_from(
    ["a", "", "block", "file", "csr.*", "float32", "tf32", "hot", "magnitude", "vit-b16", "\0", "[", "**"]
)
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2), max_leaves=6
)
PROBLEM_KEYS = ["m", "k", "n", "matrices", "weights", "tensors", "network", "batch", "dtype", "math", "layout"]
ARM_KEYS = ["pattern", "kernels", "sparsity", "block", "levels", "rbgp4", "ablated", "from"]
ARMS = st.fixed_dictionaries(
    {
        "pattern": st.sampled_from(["dense", "block", "file", "unstructured", "rbgp4", "hierarchical", 3]),
        "kernels": WORDS,
    },
    optional=dict.fromkeys(ARM_KEYS[2:], VALUES),
)
SUITES = st.fixed_dictionaries(
    {
        "name": st.just("a") | LEAVES,
        "problems": st.lists(
            st.dictionaries(st.sampled_from(PROBLEM_KEYS), VALUES) | st.just({"m": 8, "k": 8, "n": 1}), max_size=3
        ),
        "arms": st.lists(ARMS | VALUES, max_size=3),
    },
    optional={"seeds": VALUES, "protocol": VALUES, "plugins": VALUES, "about": VALUES, "more": VALUES},
)


@settings(deadline=None)
@given(SUITES)
def test_any_structure_is_planned_or_a_bad_input(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any-suite" / "suite.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(data))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sparsebench.suite.all_kernels", lambda plugins: KERNELS)
        trials = survived(lambda: Suite.load(path).trials(KERNELS), path.parent)
        assert trials is None or len(trials) > 0
