"""RBGP4: the Kronecker identity, and certificates checked by a singular value decomposition of their own."""

from __future__ import annotations

import re
from functools import reduce
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.errors import PatternError
from sparsebench.patterns import BaseGraphs, Rbgp4, ramanujan
from sparsebench.patterns.ramanujan import Gap, draw_graph, gap_of, is_biregular, is_certified, reachable

VGG = {"tile": [128, 32], "row_repeat": 4, "block": [1, 1], "outer_sparsity": 0.5}


def singular_values(graph: np.ndarray) -> np.ndarray:
    values: np.ndarray = np.linalg.svd(graph.astype(np.float64), compute_uv=False)
    return values


def degrees(graph: np.ndarray) -> tuple[int, int]:
    """Left and right degree of a biregular graph; a failed assertion where it is not biregular."""
    left, right = graph.sum(axis=1), graph.sum(axis=0)
    assert len(set(left)) == 1
    assert len(set(right)) == 1
    return int(left[0]), int(right[0])


def assert_certified(graph: np.ndarray, gap: Gap) -> None:
    left, right = degrees(graph)
    values = np.append(singular_values(graph), 0.0)  # a graph of one row has one singular value
    assert gap.lambda1 == pytest.approx(values[0]) == pytest.approx(sqrt(left * right))
    assert gap.lambda2 == pytest.approx(values[1], abs=1e-6)
    assert gap.bound == pytest.approx(sqrt(left - 1) + sqrt(right - 1))
    assert values[1] <= sqrt(left - 1) + sqrt(right - 1) + 1e-6
    assert values[1] < values[0] - 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.integers(2, 5), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_drawn_graphs_are_biregular_and_ramanujan(j: int, left: int, right: int, seed: int) -> None:
    graph, gap = draw_graph(right << j, left << j, j, np.random.default_rng(seed))
    assert graph.shape == (right << j, left << j)
    assert degrees(graph) == (left, right)
    assert_certified(graph, gap)
    assert gap.tries >= j
    again, same = draw_graph(right << j, left << j, j, np.random.default_rng(seed))
    assert np.array_equal(graph, again)
    assert gap == same


@pytest.mark.parametrize(
    ("rows", "columns", "j"), [(32, 32, 2), (32, 128, 4), (128, 32, 2), (64, 64, 4), (256, 256, 4)]
)
def test_larger_graphs_are_certified_too(rows: int, columns: int, j: int) -> None:
    graph, gap = draw_graph(rows, columns, j, np.random.default_rng(0))
    assert_certified(graph, gap)


def test_two_neighbours_on_both_sides_make_one_cycle() -> None:
    """There lambda1 = bound = 2, so only connectedness can tell a good graph: lambda2 = 2 cos(pi / side)."""
    graph, gap = draw_graph(64, 64, 5, np.random.default_rng(0))
    assert gap.lambda1 == gap.bound == 2.0
    assert gap.lambda2 == pytest.approx(2 * np.cos(np.pi / 64))
    reached = {0}
    while (
        wider := {int(row) for row in np.flatnonzero(graph[:, graph[list(reached)].any(axis=0)].any(axis=1))}
    ) != reached:
        reached = wider
    assert len(reached) == 64


def test_complete_graphs_certify_themselves() -> None:
    graph, gap = draw_graph(3, 5, 0, np.random.default_rng(0))
    assert graph.all()
    assert gap == Gap(sqrt(15), 0.0, 2 + sqrt(2), 0)


def test_the_certificate_fails_where_it_must() -> None:
    two_cycles = np.kron(np.eye(2, dtype=bool), np.ones((2, 2), bool))
    assert not is_certified(gap_of(two_cycles, 1))
    two_parts = np.kron(np.eye(2, dtype=bool), np.ones((4, 4), bool))
    assert not is_certified(gap_of(two_parts, 1))
    crooked = np.array([[True, True], [True, False]])
    assert not is_biregular(crooked)
    assert is_certified(Gap(lambda1=4.0, lambda2=3.4, bound=3.4, tries=1))
    assert not is_certified(Gap(lambda1=4.0, lambda2=3.5, bound=3.4, tries=1))


def test_drawing_gives_up_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ramanujan, "is_certified", lambda gap: False)
    monkeypatch.setattr(ramanujan, "TRIES", 3)
    with pytest.raises(
        PatternError, match=r"no lift of a graph 4x4 stayed within the Ramanujan bound in 3 draws; use another seed"
    ):
        draw_graph(8, 8, 1, np.random.default_rng(0))


@pytest.mark.parametrize(("m", "k", "sparsity"), [(512, 4608, 0.5), (512, 128, 0.75), (768, 192, 0.9375)])
def test_the_mask_is_the_product_of_four_graphs(m: int, k: int, sparsity: float) -> None:
    pattern = Rbgp4.from_params(VGG)
    draw = pattern.draw(m, k, sparsity, np.random.default_rng(1))
    graphs: BaseGraphs = draw.structure
    assert graphs.outer.shape == (m // 128, k // 32)
    assert graphs.inner.shape == (32, 32)
    factors = [graphs.outer, np.ones((4, 1), bool), graphs.inner, np.ones((1, 1), bool)]
    assert np.array_equal(draw.mask, reduce(np.kron, factors))
    assert 1 - draw.mask.mean() == sparsity
    assert (1 - graphs.outer.mean(), 1 - graphs.inner.mean()) == (0.5, 1 - 2 * (1 - sparsity))


def test_every_entry_follows_from_its_four_graphs() -> None:
    draw = Rbgp4((16, 12), 2, (2, 3), 0.5).draw(64, 48, 0.75, np.random.default_rng(0))
    graphs: BaseGraphs = draw.structure
    rows, columns = np.indices(draw.mask.shape)
    inner = graphs.inner[rows % 16 // 2 % 4, columns % 12 // 3]
    assert np.array_equal(draw.mask, graphs.outer[rows // 16, columns // 12] & inner)


def test_certificates_travel_and_the_product_is_only_reported() -> None:
    draw = Rbgp4((16, 16), 2, (1, 2), 0.5).draw(64, 64, 0.75, np.random.default_rng(0))
    graphs: BaseGraphs = draw.structure
    for name, graph in (("outer", graphs.outer), ("inner", graphs.inner)):
        assert_certified(graph, graphs.certificates[name])
        assert draw.facts[name] == {
            field: getattr(graphs.certificates[name], field) for field in ("lambda1", "lambda2", "bound", "tries")
        }
    values = singular_values(draw.mask)
    assert draw.facts["product"] == {"lambda1": pytest.approx(values[0]), "lambda2": pytest.approx(values[1])}
    assert set(draw.facts) == {"outer", "inner", "product"}
    left, right = degrees(draw.mask)
    assert values[1] > sqrt(left - 1) + sqrt(right - 1), "a product of Ramanujan graphs is not one itself"


MISFITS: list[tuple[dict[str, Any], tuple[int, int, float], str]] = [
    (VGG, (100, 64, 0.75), "tile 128x32 does not divide 100x64: 100 rows are not a multiple of 128"),
    (VGG, (256, 80, 0.75), "tile 128x32 does not divide 256x80: 80 columns are not a multiple of 32"),
    (
        VGG,
        (128, 64, 0.75),
        "outer graph: a graph 1x2 cannot have sparsity 0.5: both sides must be multiples of 2**1 and leave at least 2 "
        "neighbours; it can have 0; change tile or outer_sparsity",
    ),
    (
        VGG,
        (512, 128, 0.9),
        "512x128 in tiles 128x32 cannot have sparsity 0.9; it can have 0.5, 0.75, 0.875, 0.9375, 0.96875",
    ),
    (VGG, (512, 128, 0.25), "cannot have sparsity 0.25; it can have 0.5, 0.75"),
    (VGG, (512, 128, 0.992), "cannot have sparsity 0.992; it can have"),
    ({"tile": [4096, 4096]}, (4096, 4096, 0.5), "inner graph: a sparse graph 4096x4096 is too large to certify"),
]


@pytest.mark.parametrize(("params", "asked", "sentence"), MISFITS)
def test_what_does_not_fit_is_a_sentence_and_an_error(
    params: dict[str, Any], asked: tuple[int, int, float], sentence: str
) -> None:
    m, k, sparsity = asked
    pattern = Rbgp4.from_params(params)
    assert sentence in (pattern.why_not(m, k, sparsity) or "")
    with pytest.raises(PatternError, match=re.escape(sentence)):
        pattern.draw(m, k, sparsity, np.random.default_rng(0))


def test_reachable_sparsities_are_those_that_can_be_drawn() -> None:
    assert reachable(32, 32) == [0, 1, 2, 3, 4]
    assert reachable(1, 64) == [0]
    assert Rbgp4.from_params(VGG).why_not(512, 128) is None
    with pytest.raises(PatternError, match=r"a graph 6x9 cannot have sparsity 0\.5: .*; it can have 0$"):
        draw_graph(6, 9, 1, np.random.default_rng(0))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, r"pattern rbgp4: .*missing.*'tile'"),
    ({"tile": 128}, r"tile must be two whole numbers of at least 1, \[rows, columns\], found 128"),
    (
        {"tile": [8, 8], "block": [0, 1]},
        r"block must be two whole numbers of at least 1, \[rows, columns\], found \[0, 1\]",
    ),
    ({"tile": [8, 8], "row_repeat": 0}, r"row_repeat must be a whole number of at least 1, found 0"),
    ({"tile": [8, 8], "row_repeat": 1.5}, r"row_repeat must be a whole number of at least 1, found 1\.5"),
    (
        {"tile": [8, 8], "outer_sparsity": 0.6},
        r"outer_sparsity must be 1 - 2\*\*-j \(0, 0\.5, 0\.75, \.\.\.\), found 0\.6",
    ),
    ({"tile": [8, 8], "outer_sparsity": 1.0}, r"sparsity must be in \[0, 1\), found 1\.0"),
    ({"tile": [8, 8], "row_repeat": 3}, r"tile 8x8 must be a multiple of row_repeat x block rows .* which are 3x1"),
    ({"tile": [8, 8], "block": [1, 3]}, r"tile 8x8 must be a multiple .* which are 1x3; change one of them"),
]


@pytest.mark.parametrize(("params", "message"), WRONG)
def test_wrong_params_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PatternError, match=message):
        Rbgp4.from_params(params)


def test_there_is_no_draw_from_weights() -> None:
    with pytest.raises(PatternError, match=r"pattern rbgp4 cannot be pruned from weights; use `from: random`"):
        Rbgp4.from_params(VGG).from_weights(np.ones((512, 128), np.float32), 0.75)
