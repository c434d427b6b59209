"""Plans: which layer becomes what, and every mistake at its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import KERNELS, mistakes, spots, survived, told

from sparsebench.errors import PatternError, SuiteError
from sparsebench.network import Layer, Network, resolve_network
from sparsebench.plan import Choice, Plan

VIT = Network.load(resolve_network("vit-b16"))
CFI = "{pattern: constant_fan_in, sparsity: 0.9}"


def load(path: Path) -> Plan:
    """A plan whose kernels are those of the tests."""
    return Plan.load(path, list(KERNELS))


def written(tmp_path: Path, rules: str, network: str = "vit-b16") -> Plan:
    (tmp_path / "plan.yaml").write_text(f"network: {network}\nlayers:\n{rules}")
    return load(tmp_path / "plan.yaml")


def test_the_first_glob_wins_and_the_rest_stays_dense(tmp_path: Path) -> None:
    plan = written(
        tmp_path,
        f"  blocks.0.mlp.fc1: {CFI}\n"
        "  'blocks.*.mlp.*': {pattern: block, params: {block: [16, 16]}, sparsity: 0.8, kernel: bsr.c}\n",
    )
    assert plan.network == VIT
    assert plan.choices["blocks.0.mlp.fc1"] == Choice("constant_fan_in", {}, 0.9)
    assert plan.choices["blocks.0.mlp.fc2"] == Choice("block", {"block": [16, 16]}, 0.8, "bsr.c")
    assert len(plan.choices) == 24


def test_cases(tmp_path: Path) -> None:
    plan = written(tmp_path, f"  'blocks.1?.mlp.fc1': {CFI}\n")
    cases = plan.cases(VIT, 32, "float16", "ieee", "batch", seed=5)
    assert [planned.layer for planned in cases] == list(VIT.layers)
    assert [planned.dense for planned in cases] == [layer.case(32, "float16", "ieee", "batch") for layer in VIT.layers]
    sparse = [planned.sparse for planned in cases if planned.sparse]
    assert len(sparse) == 2
    for case in sparse:
        assert (case.m, case.k, case.n, case.dtype, case.layout) == (3072, 768, 32 * 197, "float16", "batch")
        assert (case.pattern, case.params, case.sparsity, case.seed, case.source) == (
            "constant_fan_in",
            {},
            0.9,
            5,
            None,
        )
        assert case.problem == VIT.layers[3].case(32, "float16", "ieee", "batch")
    layer, dense, none, kernel = cases[0]
    assert (layer.name, dense.op, none, kernel) == ("patch_embed.proj", "conv2d", None, None)


def test_a_plan_is_for_one_network(tmp_path: Path) -> None:
    plan = written(tmp_path, f"  'head*.x': {CFI}\n".replace("head*.x", "blocks.0.*"))
    other = Network("other", "", (Layer(name="a", kind="linear", m=1, k=1, n=1),))
    with pytest.raises(
        SuiteError, match=r"the plan is for vit-b16; other was given and has no layer 'blocks\.0\.attn\.proj'"
    ):
        plan.cases(other)


def test_uniform_takes_every_prunable_layer() -> None:
    plan = Plan.uniform(VIT, "block", {"block": [4, 1]}, 0.9, "bsr.c")
    assert set(plan.choices) == {layer.name for layer in VIT.layers if layer.prunable}
    assert set(map(str, plan.choices.values())) == {str(Choice("block", {"block": [4, 1]}, 0.9, "bsr.c"))}
    assert sum(planned.sparse is None for planned in plan.cases(VIT)) == 2


@pytest.mark.parametrize(
    ("pattern", "params", "sparsity", "message"),
    [
        ("blok", {}, 0.9, "no pattern is called 'blok'"),
        ("block", {"block": [0, 1]}, 0.9, "block must be"),
        ("block", {"block": [4, 1]}, 1.0, r"sparsity must be in \[0, 1\)"),
        ("block", {"block": [4, 1]}, None, "pattern block needs a sparsity, found none; give one, such as 0.9"),
        ("dense", {}, 0.5, "pattern dense takes no sparsity, found 0.5; its params fix it, leave sparsity out"),
        (
            "file",
            {},
            None,
            "pattern file takes its mask from a file, and a layer of a network brings none; choose another",
        ),
    ],
)
def test_uniform_refuses(pattern: str, params: dict[str, object], sparsity: float | None, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        Plan.uniform(VIT, pattern, params, sparsity)


def text_of(rules: str, network: str = "vit-b16") -> str:
    return f"network: {network}\nlayers:\n{rules}\n"


@pytest.mark.parametrize(("marked", "message"), told("plans"))
def test_each_mistake_and_its_place(tmp_path: Path, marked: str, message: str) -> None:
    text, (place,) = spots(marked)
    (found,) = mistakes(load, tmp_path / "plan.yaml", text)
    assert found.startswith(f"{place}: {message}")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text, places = spots(
        text_of(
            "  ^'*': {pattern: block, params: {block: [^0, 1]}, sparsity: ^2.0}\n"
            "  ^nope: {pattern: ^blok, ^kernle: csr.c}"
        )
    )
    assert [line.split(": ")[0] for line in mistakes(load, tmp_path / "plan.yaml", text)] == places


def test_the_network_may_stand_beside_the_plan(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("name: mine\nsource: b\nlayers: [{name: c, kind: linear, m: 4, k: 4, n: 1}]\n")
    assert written(tmp_path, "  c: {pattern: unstructured, sparsity: 0.5}\n", "net.yaml").network.name == "mine"
    (tmp_path / "net.yaml").write_text("name: mine\n")
    (found,) = mistakes(load, tmp_path / "plan.yaml", text_of(f"  c: {CFI}", "net.yaml"))
    assert found == f"{tmp_path / 'net.yaml'}:1:1: the key 'source' is missing; add it"


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats()
    | st.sampled_from(["a", "block", "dense", "csr.c", "vit-b16"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("block"), inner), max_leaves=5
)
CHOICES = st.fixed_dictionaries(
    {"pattern": st.sampled_from(["dense", "block", "unstructured", "rbgp4", "file", 3])},
    optional={"params": VALUES, "sparsity": VALUES, "kernel": VALUES, "more": VALUES},
)
PLANS = st.fixed_dictionaries(
    {
        "network": st.just("net.yaml") | VALUES,
        "layers": st.dictionaries(st.sampled_from(["c", "*", "[", "d"]), CHOICES | VALUES),
    }
)


@settings(deadline=None)
@given(PLANS)
def test_any_structure_is_a_plan_or_a_suite_error(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-plan"
    folder.mkdir(exist_ok=True)
    (folder / "net.yaml").write_text("name: mine\nsource: b\nlayers: [{name: c, kind: linear, m: 4, k: 4, n: 1}]\n")
    (folder / "plan.yaml").write_text(yaml.safe_dump(data))
    if plan := survived(lambda: load(folder / "plan.yaml"), folder):
        assert len(plan.cases(plan.network)) == len(plan.network.layers)
