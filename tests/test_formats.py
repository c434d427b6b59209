"""One set of laws that every format keeps for any mask its patterns draw, and every sentence with which one says no."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import PROBLEMS, drawn_problems

from sparsebench import FORMATS, Case, Format
from sparsebench.errors import FormatError
from sparsebench.formats import Bsr, Condensed, Csr, Dense, Hbs, Nm, Rbgp4, csr
from sparsebench.patterns import BaseGraphs, Draw, Levels

DTYPES = (np.float32, np.float16, np.float64)
STORED = {  # arrays of each format, whose bytes nbytes must count
    "dense": lambda p: [p.values],
    "csr": lambda p: [p.values, p.columns, p.offsets],
    "bsr": lambda p: [p.values, p.block_columns, p.block_offsets],
    "hbs": lambda p: [array for level in p.levels for array in STORED["bsr"](level)],
    "rbgp4": lambda p: [p.values, p.outer, p.inner],
    "condensed": lambda p: [p.values, p.columns, p.rows],
    "nm": lambda p: [p.values, p.places],
    "rows": lambda p: [p.values, p.rows],
    "columns": lambda p: [p.values, p.columns],
}


def patterns_of(cls: type[Format]) -> tuple[str, ...]:
    return cls.patterns or ("dense", "unstructured", "block", "constant_fan_in")


PACKINGS = [
    pytest.param(cls, pattern, problem, id=f"{cls.name}-{problem.label}")
    for cls in FORMATS.values()
    for pattern in patterns_of(cls)
    for problem in PROBLEMS[pattern]
]


def weights(draw: Draw, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Normal numbers everywhere, also outside the mask, with zeros of both signs among them."""
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal(draw.mask.shape).astype(dtype)
    dense[rng.random(dense.shape) < 0.1] = 0.0
    dense[rng.random(dense.shape) < 0.1] = -0.0
    return dense


def draw_of(pattern: str, m: int, k: int, params: dict, sparsity: float | None, seed: int = 0) -> Draw:
    return Case(m=m, k=k, n=1, pattern=pattern, params=params, sparsity=sparsity, seed=seed).draw()


def assert_laws(cls: type[Format], draw: Draw, dense: np.ndarray) -> None:
    """Whole again bit for bit (-0 too), contiguous, of the dense dtype, and true about its size."""
    packed = cls.from_dense(dense, draw.mask, draw.structure)
    kept = np.where(draw.mask, dense, dense.dtype.type(0))
    back = packed.to_dense()
    assert back.dtype == dense.dtype
    assert back.shape == packed.shape == dense.shape
    assert back.tobytes() == kept.tobytes()
    assert packed.nnz == np.count_nonzero(draw.mask)
    arrays = STORED[cls.name](packed)
    assert all(array.flags.c_contiguous for array in arrays)
    assert packed.nbytes == sum(array.nbytes for array in arrays)
    assert isinstance(packed, Format)


def test_the_table_of_arrays_names_every_format():
    assert set(STORED) == set(FORMATS)
    assert all(cls.name == name and cls.about for name, cls in FORMATS.items())


@pytest.mark.parametrize(("cls", "pattern", "problem"), PACKINGS)
def test_laws_on_every_shape(cls, pattern, problem):
    draw = draw_of(pattern, problem.m, problem.k, problem.params, problem.sparsity)
    for dtype in DTYPES:
        assert_laws(cls, draw, weights(draw, dtype))


@pytest.mark.parametrize(
    ("cls", "pattern"), [(cls, name) for cls in FORMATS.values() for name in patterns_of(cls)], ids=str
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_laws_on_any_shape(cls, pattern, data):
    m, k, params, sparsity = data.draw(drawn_problems(pattern))
    seed = data.draw(st.integers(0, 2**32 - 1))
    draw = draw_of(pattern, m, k, params, sparsity, seed)
    assert_laws(cls, draw, weights(draw, seed=seed))


def test_a_format_is_frozen():
    packed = Csr.from_dense(np.eye(2), np.eye(2, dtype=bool))
    with pytest.raises(dataclasses.FrozenInstanceError):
        packed.k = 3  # type: ignore[misc]


# ------------------------------------------------------------------------------------ what each one promises beside


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_csr_columns_rise_along_each_row(data):
    m, k, params, sparsity = data.draw(drawn_problems("unstructured"))
    draw = draw_of("unstructured", m, k, params, sparsity)
    packed = Csr.from_dense(weights(draw), draw.mask)
    assert packed.columns.dtype == packed.offsets.dtype == np.int32
    for first, end in zip(packed.offsets[:-1], packed.offsets[1:], strict=True):
        assert (np.diff(packed.columns[first:end]) > 0).all()


def test_dense_keeps_a_copy():
    dense = np.ones((2, 2), np.float32)
    packed = Dense.from_dense(dense, np.ones((2, 2), bool))
    dense[0, 0] = 7
    packed.to_dense()[1, 1] = 9
    assert (packed.values == 1).all()


def test_bsr_stores_a_block_for_one_entry_and_counts_the_entry():
    mask = np.zeros((4, 6), bool)
    mask[1, 4] = True
    packed = Bsr.from_dense(np.full((4, 6), 5.0), mask, (2, 3))
    assert packed.values.shape == (1, 2, 3)
    assert packed.block == (2, 3)
    assert packed.values.sum() == 5
    assert packed.nnz == 1
    assert packed.block_columns.tolist() == [1]
    assert packed.block_offsets.tolist() == [0, 1, 1]


def test_rbgp4_keeps_no_index_per_nonzero():
    draw = draw_of("rbgp4", 128, 64, {"tile": [32, 16], "row_repeat": 4, "outer_sparsity": 0.5}, 0.75)
    packed = Rbgp4.from_dense(weights(draw), draw.mask, draw.structure)
    assert packed.values.shape == (4, 2, 32, 8)
    assert (packed.outer.shape, packed.inner.shape) == ((4, 2), (8, 8))
    assert packed.nbytes - packed.values.nbytes == 4 * (4 * 2 + 8 * 8)


def test_condensed_indices_are_16_bit_up_to_65536_columns():
    for k, dtype in ((65536, np.uint16), (65537, np.int32)):
        mask = np.zeros((1, k), bool)
        mask[0, -1] = True
        packed = Condensed.from_dense(np.ones((1, k), np.float32), mask)
        assert packed.columns.dtype == dtype
        assert packed.to_dense()[0, -1] == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_condensed_padding_is_zero_and_points_at_a_column_of_its_row(data):
    m, k, params, sparsity = data.draw(drawn_problems("constant_fan_in"))
    draw = draw_of("constant_fan_in", m, k, params, sparsity)
    packed = Condensed.from_dense(weights(draw), draw.mask)
    assert packed.columns.shape[1] % 4 == 0
    assert packed.columns.shape[1] - packed.fan_in < 4
    assert not packed.values[:, packed.fan_in :].any()
    assert draw.mask[packed.rows[:, None], packed.columns].all()
    assert (np.diff(packed.columns[:, : packed.fan_in].astype(int)) > 0).all()


def test_condensed_leaves_ablated_rows_out():
    mask = np.zeros((5, 8), bool)
    mask[[1, 4], 2:5] = True
    packed = Condensed.from_dense(np.ones((5, 8), np.float32), mask)
    assert packed.rows.tolist() == [1, 4]
    assert packed.values.shape == (2, 4)
    assert packed.fan_in == 3


def test_2_4_in_16_bits_is_9_16_of_the_dense_matrix():
    draw = draw_of("nm", 16, 64, {"nm": [2, 4]}, 0.5)
    packed = Nm.from_dense(weights(draw, np.float16), draw.mask, draw.structure)
    assert packed.places.shape == (16, 64 // 4 * 2 * 2 // 8)
    assert packed.nbytes == 16 * 64 * 2 * 9 // 16
    assert np.array_equal(packed.columns(), np.nonzero(draw.mask)[1].reshape(16, 32))


# ------------------------------------------------------------------------------------------------- how they say no


def ones(m: int, k: int) -> np.ndarray:
    return np.ones((m, k), np.float32)


def two_levels(first: np.ndarray, second: np.ndarray) -> Levels:
    return Levels(((2, 2), (1, 1)), (first, second))


def graphs(outer: np.ndarray, inner: np.ndarray, tile: tuple[int, int]) -> BaseGraphs:
    return BaseGraphs(outer, inner, 1, (1, 1), tile, {})


UNEVEN = np.array([[True, True], [True, False]])
FULL, NONE = np.ones((2, 2), bool), np.zeros((2, 2), bool)

REFUSED = {
    "condensed-uneven": (
        lambda: Condensed.from_dense(ones(2, 2), UNEVEN),
        "same number of nonzeros in every live row, but row 0 has 2 and row 1 has 1; use format 'csr', or a pattern",
    ),
    "condensed-uneven-after-ablated": (
        lambda: Condensed.from_dense(ones(3, 2), np.concatenate([NONE[:1], UNEVEN])),
        "row 1 has 2 and row 2 has 1",
    ),
    "bsr-no-block": (
        lambda: Bsr.from_dense(ones(2, 2), FULL),
        "needs the block (rows, columns) as structure, found None; use pattern 'block'",
    ),
    "bsr-wrong-block": (lambda: Bsr.from_dense(ones(2, 2), FULL, "ab"), "found 'ab'"),
    "bsr-does-not-divide": (
        lambda: Bsr.from_dense(ones(6, 8), np.ones((6, 8), bool), (4, 1)),
        "a block of 4x1 does not divide a matrix of 6x8; use a block whose sides divide it",
    ),
    "bsr-block-of-zero": (lambda: Bsr.from_dense(ones(2, 2), FULL, (0, 1)), "a block of 0x1 does not divide"),
    "hbs-no-levels": (
        lambda: Hbs.from_dense(ones(2, 2), FULL),
        "needs the levels of its draw as structure, found None; use pattern 'hierarchical'",
    ),
    "hbs-overlap": (
        lambda: Hbs.from_dense(ones(2, 2), FULL, two_levels(FULL, np.eye(2, dtype=bool))),
        "needs disjoint levels, but entry (0, 0) is in 2 of them",
    ),
    "hbs-incomplete": (
        lambda: Hbs.from_dense(ones(2, 2), FULL, two_levels(NONE, ~np.eye(2, dtype=bool))),
        "add up to the mask, but entry (0, 0) is True in the mask and False in the levels",
    ),
    "hbs-too-much": (
        lambda: Hbs.from_dense(ones(2, 2), NONE, two_levels(FULL, NONE)),
        "entry (0, 0) is False in the mask and True in the levels; pass the mask and the structure of one draw",
    ),
    "rbgp4-no-graphs": (
        lambda: Rbgp4.from_dense(ones(2, 2), FULL),
        "needs the base graphs of its draw as structure, found None; use pattern 'rbgp4'",
    ),
    "rbgp4-irregular": (
        lambda: Rbgp4.from_dense(ones(2, 2), UNEVEN, graphs(UNEVEN, FULL[:1, :1], (1, 1))),
        "in the outer one row 0 has 2 edges and row 1 has 1; draw it with pattern 'rbgp4'",
    ),
    "rbgp4-irregular-inner": (
        lambda: Rbgp4.from_dense(ones(2, 2), UNEVEN, graphs(FULL[:1, :1], UNEVEN, (2, 2))),
        "in the inner one row 0 has 2 edges",
    ),
    "rbgp4-other-mask": (
        lambda: Rbgp4.from_dense(ones(2, 2), UNEVEN, graphs(FULL, FULL[:1, :1], (1, 1))),
        "needs the mask that its base graphs make (2x2 with 4 entries), found 2x2 with 3; pass the mask and",
    ),
    "rbgp4-other-tile": (
        lambda: Rbgp4.from_dense(ones(2, 2), FULL, graphs(FULL, FULL[:1, :1], (2, 1))),
        "needs the mask that its base graphs make",
    ),
    "nm-no-structure": (
        lambda: Nm.from_dense(ones(2, 4), np.ones((2, 4), bool)),
        "needs (N, M) as structure, found None; use pattern 'nm', or pass structure=(2, 4)",
    ),
    "nm-does-not-divide": (
        lambda: Nm.from_dense(ones(2, 6), np.ones((2, 6), bool), (4, 4)),
        "4 does not divide the columns of a matrix of 2x6; use an M that does",
    ),
    "nm-uneven": (
        lambda: Nm.from_dense(ones(2, 8), np.ones((2, 8), bool), (2, 4)),
        "needs 2 of every 4 entries, but row 0 keeps 4 of columns 0 to 3; draw the mask with pattern 'nm'",
    ),
    "csr-too-many": (
        lambda: csr.offsets_of(np.array([2**31 - 1, 1]), "nonzeros"),
        "32-bit offsets reach 2147483647 nonzeros, this matrix has 2147483648; split it by rows",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_what_was_found_and_what_to_do(name):
    pack, sentence = REFUSED[name]
    with pytest.raises(FormatError) as refused:
        pack()
    assert sentence in str(refused.value)


def test_csr_and_bsr_look_at_their_offsets(monkeypatch):
    monkeypatch.setattr(csr, "INT32_LIMIT", 4)
    with pytest.raises(FormatError, match="reach 3 nonzeros, this matrix has 4"):
        Csr.from_dense(ones(2, 2), FULL)
    with pytest.raises(FormatError, match="reach 3 blocks, this matrix has 4"):
        Bsr.from_dense(ones(2, 2), FULL, (1, 1))
    assert Csr.from_dense(ones(2, 2), UNEVEN).nnz == 3


def test_2147483647_nonzeros_still_fit():
    assert csr.offsets_of(np.array([2**31 - 2, 1]), "nonzeros")[-1] == 2**31 - 1
