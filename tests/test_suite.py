"""Suites: every mistake at its place, and what a suite without any says. What it plans: test_trials.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import KERNELS, SMTX, mistakes, spots, suite

from sparsebench.errors import BadInput, SuiteError
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
    rbgp4 = "{pattern: rbgp4, rbgp4: {tile: [128, 32], row_repeat: 4, outer_sparsity: 0.5}, sparsity: 0.75, kernels: [rbgp4.c]}"
    levels = "{pattern: hierarchical, levels: [{block: [4, 1], sparsity: 0.63}, {block: [1, 1], sparsity: 0.97}], kernels: [hbs.c]}"
    assert suite(tmp_path, text_of(arm=rbgp4)).arms[0].params == (
        {"tile": [128, 32], "row_repeat": 4, "block": [1, 1], "outer_sparsity": 0.5},
    )
    assert suite(tmp_path, text_of(arm=levels)).arms[0].params == (
        {"levels": [{"block": [4, 1], "sparsity": 0.63}, {"block": [1, 1], "sparsity": 0.97}]},
    )
    for ablated, params in (("", {}), (", ablated: 0", {}), (", ablated: 0.25", {"ablated": 0.25})):
        arm = f"{{pattern: constant_fan_in, sparsity: 0.9, kernels: [condensed.c]{ablated}}}"
        assert suite(tmp_path, text_of(arm=arm)).arms[0].params == (params,)


# ^ stands before the place that the message must name.
WRONG_TOP = {
    "unknown key": ("^abuot: b\n", "unknown key 'abuot'; did you mean 'about'?"),
    "about": ("about: ^[1]\n", "about must be text, found [1]; write text"),
    "seed": ("seeds: [0, ^-1]\n", "seeds must be at least 0, found -1; choose another value"),
    "seed text": ("seeds: ^'1'\n", "seeds must be a whole number, found the text '1'; write 1 (quotes, or an exponent"),
    "no seeds": ("seeds: ^[]\n", "seeds must not be empty, found []; without an entry there is nothing to do, give at least"),
    "protocol": ("protocol: ^fast\n", "protocol must be a mapping of keys, found the text 'fast'; write a mapping of keys"),
    "protocol key": ("protocol: {^budget: 1}\n", "unknown key 'budget'; did you mean 'budget_s'?"),
    "cache": ("protocol: {cache: [hot, ^cool]}\n", "cache must be one of hot, weights_cold, cold, found 'cool'; did you mean 'cold'?"),
    "no cache": ("protocol: {cache: ^[]}\n", "cache must not be empty, found []"),
    "threads": ("protocol: {threads: ^0}\n", "threads must be at least 1, found 0; choose another value"),
    "threads bool": ("protocol: {threads: ^yes}\n", "threads must be a whole number, found true; write a whole number"),
    "budget": ("protocol: {budget_s: ^0}\n", "budget_s must be above 0.0, found 0; choose another value"),
    "budget inf": ("protocol: {budget_s: ^.inf}\n", "budget_s must be at most 86400.0, found inf; choose another value"),
    "exponent": ("protocol: {budget_s: ^1e3}\n", "budget_s must be a number, found the text '1e3'; write 1000 (quotes, or an"),
    "precision": ("protocol: {precision: ^1.0}\n", "precision must be below 1.0, found 1.0; choose another value"),
    "precision nan": ("protocol: {precision: ^.nan}\n", "precision must be below 1.0, found nan; choose another value"),
    "plugin type": ("plugins: [^3]\n", "plugins must be text, found 3; put it in quotes (YAML reads on, off, yes and no as"),
}  # fmt: skip

WRONG_PROBLEM = {
    "no mapping": ("^3", "a problem takes m and k, or matrices, or weights, or network; found no mapping of keys, write"),
    "no kind": ("^{n: 3}", "a problem takes m and k, or matrices, or weights, or network; found n, write for example {m:"),
    "empty": ("^{}", "a problem takes m and k, or matrices, or weights, or network; found no key, write for example {m: 768"),
    "typo": ("{^matrixes: x, n: 1}", "a problem takes m and k, or matrices, or weights, or network; found matrixes, n; did you mean 'matrices'?"),
    "two kinds": ("^{m: 1, k: 1, n: 1, network: vit-b16}", "a problem takes m and k, or matrices, or weights, or network; found m and k and network, write one problem for each"),
    "no k": ("^{m: 1, n: 1}", "the key 'k' is missing; add it"),
    "no n": ("^{m: 1, k: 1}", "the key 'n' is missing; add it"),
    "m zero": ("{m: ^0, k: 1, n: 1}", "m must be at least 1, found 0; choose another value"),
    "m huge": ("{m: ^2147483648, k: 1, n: 1}", "m must be at most 2147483647, found 2147483648; choose another value"),
    "n text": ("{m: 1, k: 1, n: [1, ^'64']}", "n must be a whole number, found the text '64'; write 64 (quotes, or an exponent"),
    "n float": ("{m: 1, k: 1, n: ^64.0}", "n must be a whole number, found 64.0; write 64"),
    "n bool": ("{m: 1, k: 1, n: ^true}", "n must be a whole number, found true; write a whole number"),
    "n empty": ("{m: 1, k: 1, n: ^[]}", "n must not be empty, found []; without an entry there is nothing to do, give at least one"),
    "n null": ("{m: 1, k: 1, n:^}", "a value was asked for, found nothing; give one, or remove the key"),
    "n octal": ("{m: 1, k: 1, n: ^010}", "a plain number was asked for, found 010, to YAML 8; write 8, or put it in quotes"),
    "n twice": ("{m: 1, k: 1, n: 1, ^n: 2}", "a key may stand once, found 'n' again, first on line 3; remove one of the two"),
    "dtype": ("{m: 1, k: 1, n: 1, dtype: ^float}", "dtype must be one of float32, float16, bfloat16, found 'float'; did you mean 'float32'?"),
    "math": ("{m: 1, k: 1, n: 1, math: [^tf23]}", "math must be one of ieee, tf32, tf32x3, found 'tf23'; did you mean 'tf32'?"),
    "layout": ("{m: 1, k: 1, n: 1, layout: ^batches}", "layout must be one of feature, batch, found 'batches'; did you mean 'batch'?"),
    "tf32 of halves": ("{m: 1, k: 1, n: 1, dtype: [float32, float16], math: ^[ieee, tf32]}", "math ieee, tf32 was asked for float16 too, but tf32 and tf32x3 multiply float32; give float16 a problem of its own, with math ieee"),
    "network": ("{network: ^vit-b61, batch: 1}", "network 'vit-b61' is neither a file below "),
    "network n": ("{network: vit-b16, batch: 1, ^n: 2}", "unknown key 'n'; there are batch, dtype, layout, math, network"),
    "no batch": ("^{network: vit-b16}", "the key 'batch' is missing; add it"),
    "matrices": ("{matrices: ^'**/*.smtx', n: 1}", "no file matches '**/*.smtx' below "),
    "weights": ("{weights: ^model.safetensors, n: 1}", "no file matches 'model.safetensors' below "),
    "tensors of matrices": ("{matrices: '*.yaml', ^tensors: a, n: 1}", "unknown key 'tensors'; there are dtype, layout, math, matrices, n"),
}  # fmt: skip

WRONG_ARM = {
    "no mapping": ("^block", "arms must be a mapping of keys, found the text 'block'; write a mapping of keys"),
    "pattern": (ARM.replace("n: block", "n: ^blok"), "pattern must be one of dense, unstructured, block, constant_fan_in, hierarchical, rbgp4, file, found 'blok'; did you mean 'block'?"),
    "no pattern": ("^{kernels: [csr.c]}", "the key 'pattern' is missing; add it"),
    "no kernels": ("^{pattern: unstructured, sparsity: 0.5}", "the key 'kernels' is missing; add it"),
    "kernels empty": ("{pattern: unstructured, sparsity: 0.5, kernels: ^[]}", "kernels must not be empty, found []"),
    "kernel": ("{pattern: unstructured, sparsity: 0.5, kernels: [csr.c, ^csr.toch]}", "no kernel is called 'csr.toch'; did you mean 'csr.torch'?"),
    "kernel glob": ("{pattern: unstructured, sparsity: 0.5, kernels: ^'crs.*'}", "no kernel is called 'crs.*'; did you mean 'csr.c'?"),
    "kernel nowhere near": ("{pattern: unstructured, sparsity: 0.5, kernels: ^qqq}", "no kernel is called 'qqq'; there are bsr.c, bsr.cuda, condensed.c"),
    "format": ("{pattern: unstructured, sparsity: 0.5, kernels: ^['hbs.*']}", "no kernel of this arm can store pattern unstructured: hbs.c stores hierarchical; name others"),
    "no sparsity": ("^{pattern: unstructured, kernels: [csr.c]}", "the key 'sparsity' is missing; add it"),
    "sparsity": (ARM.replace("0.5", "^1.2"), "sparsity must be in [0, 1), found 1.2; 0.9 means that a tenth of the weights is kept"),
    "sparsity one": (ARM.replace("0.5", "[0.5, ^1]"), "sparsity must be in [0, 1), found 1.0; 0.9 means"),
    "sparsity below": (ARM.replace("0.5", "^-0.1"), "sparsity must be in [0, 1), found -0.1; 0.9 means"),
    "sparsity nan": (ARM.replace("0.5", "^.nan"), "sparsity must be in [0, 1), found nan; 0.9 means"),
    "sparsity text": (ARM.replace("0.5", "^'0.5'"), "sparsity must be a number, found the text '0.5'; write 0.5"),
    "sparsity word": (ARM.replace("0.5", "^high"), "sparsity must be a number, found the text 'high'; write a number"),
    "sparsity empty": (ARM.replace("0.5", "^[]"), "sparsity must not be empty, found []"),
    "sparsity fixed": ("{pattern: dense, ^sparsity: 0.5, kernels: ['dense.*']}", "unknown key 'sparsity'; there are kernels, pattern"),
    "block zero": (ARM.replace("[4, 1]", "[4, ^0]"), "block must be at least 1, found 0; choose another value"),
    "second block zero": (ARM.replace("[4, 1]", "[[4, 1], [^0, 4]]"), "block must be at least 1, found 0; choose another value"),
    "block of one": (ARM.replace("[4, 1]", "^[4]"), "block must be two whole numbers, [rows, columns], found [4]; write for example [4, 1]"),
    "block number": (ARM.replace("[4, 1]", "^4"), "block must be a list, found 4; write a list"),
    "block elsewhere": ("{pattern: unstructured, ^block: [4, 1], sparsity: 0.5, kernels: [csr.c]}", "unknown key 'block'; there are from, kernels, pattern, sparsity"),
    "no levels": ("{pattern: hierarchical, levels: ^[], kernels: [hbs.c]}", "levels must not be empty, found []"),
    "levels": ("{pattern: hierarchical, levels: ^[{block: [4, 2], sparsity: 0.6}, {block: [3, 1], sparsity: 0.9}], kernels: [hbs.c]}", "blocks of a level must divide those of the level before: 3x1 of level 2 does not divide 4x2 of level 1"),
    "level key": ("{pattern: hierarchical, levels: [{block: [4, 2], ^sparcity: 0.6, sparsity: 0.6}], kernels: [hbs.c]}", "unknown key 'sparcity'; did you mean 'sparsity'?"),
    "level sparsity": ("{pattern: hierarchical, levels: [{block: [4, 2], sparsity: ^1.0}], kernels: [hbs.c]}", "sparsity must be in [0, 1), found 1.0; 0.9 means"),
    "levels keep too much": ("{pattern: hierarchical, levels: ^[{block: [4, 2], sparsity: 0.2}, {block: [1, 1], sparsity: 0.2}], kernels: [hbs.c]}", "levels keep 80 % + 80 % = 160 % of the weights"),
    "rbgp4": ("^{pattern: rbgp4, sparsity: 0.5, kernels: [rbgp4.c]}", "the key 'rbgp4' is missing; add it"),
    "rbgp4 key": ("{pattern: rbgp4, rbgp4: {tile: [8, 8], ^row_repeats: 2}, sparsity: 0.5, kernels: [rbgp4.c]}", "unknown key 'row_repeats'; did you mean 'row_repeat'?"),
    "rbgp4 tile": ("{pattern: rbgp4, rbgp4: {tile: [8, ^0]}, sparsity: 0.5, kernels: [rbgp4.c]}", "tile must be at least 1, found 0; choose another value"),
    "rbgp4 outer": ("{pattern: rbgp4, rbgp4: ^{tile: [8, 8], outer_sparsity: 0.6}, sparsity: 0.75, kernels: [rbgp4.c]}", "outer_sparsity must be 1 - 2**-j ("),
    "ablated": ("{pattern: constant_fan_in, ablated: ^1.0, sparsity: 0.5, kernels: [condensed.c]}", "sparsity must be in [0, 1), found 1.0"),
    "from": (ARM.replace("[bsr.c]", "[bsr.c], from: ^magnitudes"), "from must be one of magnitude, random, found 'magnitudes'; did you mean 'magnitude'?"),
    "from of rbgp4": ("{pattern: rbgp4, rbgp4: {tile: [8, 8]}, from: ^magnitude, sparsity: 0.5, kernels: [rbgp4.c]}", "pattern rbgp4 cannot be pruned from weights, found from: magnitude; write `from: random`"),
    "file of nothing": ("^{pattern: file, kernels: [csr.c]}", "this arm makes no trials: pattern file needs a problem with matrices or weights; add one"),
}  # fmt: skip

WRONG = {
    **{f"top: {name}": (text_of(top=top), message) for name, (top, message) in WRONG_TOP.items()},
    **{f"problem: {name}": (text_of(problem), message) for name, (problem, message) in WRONG_PROBLEM.items()},
    **{f"arm: {name}": (text_of(arm=arm), message) for name, (arm, message) in WRONG_ARM.items()},
    "no mapping": ("^- 1\n", "the file must be a mapping of keys, found [1]; write a mapping of keys"),
    "no name": (text_of().replace("name: a\n", "about: b\n").replace("about", "^about"), "the key 'name' is missing; add it"),
    "name leads away": (text_of().replace("name: a", "name: ^../a"), "name must be letters, digits and - _ . since it names the file of results, found '../a'; write for example vit-mlp"),
    "name of dots": (text_of().replace("name: a", "name: ^.."), "name must be letters, digits and - _ ."),
    "name number": (text_of().replace("name: a", "name: ^1"), "name must be text, found 1; put it in quotes"),
    "no problems": ("name: a\nproblems: ^[]\narms:\n  - " + ARM, "problems must not be empty, found []; without an entry"),
    "no arms": (f"name: a\nproblems:\n  - {PROBLEM}\narms: ^[]\n", "arms must not be empty, found []; without an entry"),
    "problems missing": ("^name: a\narms:\n  - " + ARM, "the key 'problems' is missing; add it"),
}  # fmt: skip


@pytest.mark.parametrize(("marked", "message"), WRONG.values(), ids=WRONG.keys())
def test_each_mistake_and_its_place(tmp_path: Path, marked: str, message: str) -> None:
    text, (place,) = spots(marked)
    found = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert len(found) == 1
    assert found[0].startswith(f"{place}: {message}")


def test_a_problem_that_no_arm_takes(tmp_path: Path) -> None:
    (tmp_path / "a.smtx").write_text(SMTX)
    marked = "name: a\nproblems:\n  - {matrices: '*.smtx', n: 1}\n  - ^{m: 1, k: 1, n: 1}\narms:\n  - {pattern: file, kernels: [csr.c]}\n"
    text, (place,) = spots(marked)
    (found,) = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert found == f"{place}: this problem gets no trials: its only arms are of pattern file, and it brings none; add an arm"


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
        "  - {pattern: hierarchical, levels: ^[{block: [4, 1], sparsity: 0.6}, {block: [3, 1], sparsity: 0.9}], kernels: ^[]}\n"
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


def test_a_plugin_that_is_gone_is_one_mistake_and_no_glob_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebench.suite.all_kernels", all_kernels)
    text, (place,) = spots(text_of(arm=ARM.replace("bsr.c", "its.own"), top="plugins: ^[gone.py]\n"))
    (found,) = mistakes(Suite.load, tmp_path / "suite.yaml", text)
    assert found == f"{place}: plugin {tmp_path / 'gone.py'} was not found; give the path of a Python file that ends in KERNELS = [...]"


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
WORDS = st.sampled_from(["a", "", "block", "file", "csr.*", "float32", "tf32", "hot", "magnitude", "vit-b16", "\0", "[", "**"])
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2), max_leaves=6)
PROBLEM_KEYS = "m k n matrices weights tensors network batch dtype math layout".split()
ARM_KEYS = "pattern kernels sparsity block levels rbgp4 ablated from".split()
ARMS = st.fixed_dictionaries(
    {"pattern": st.sampled_from(["dense", "block", "file", "unstructured", "rbgp4", "hierarchical", 3]), "kernels": WORDS},
    optional={key: VALUES for key in ARM_KEYS[2:]},
)
SUITES = st.fixed_dictionaries(
    {
        "name": st.just("a") | LEAVES,
        "problems": st.lists(st.dictionaries(st.sampled_from(PROBLEM_KEYS), VALUES) | st.just({"m": 8, "k": 8, "n": 1}), max_size=3),
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
        try:
            assert Suite.load(path).trials(KERNELS)
        except BadInput as error:
            assert str(path.parent) in str(error)
