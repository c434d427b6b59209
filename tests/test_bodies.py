"""Laws special to the bodies of bsr, hbs, rbgp4 and condensed: each path through them, and that they agree.

What every kernel keeps stands in test_kernels.py. Data are small integers, so answers are exact and are compared bit
for bit.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import in_layout
from sparsebench.kernels.rbgp4._inner import spelled_out
from sparsebench.kernels.rbgp4.c import arguments

from sparsebench import Case, Launch, Machine, load_kernels
from sparsebench.formats import Bsr, Condensed, Format, Hbs, Rbgp4
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain
from sparsebench.lab.check import as_columns
from sparsebench.patterns import Levels

KERNELS = {kernel.name: kernel for kernel in load_kernels()}
MACHINE = Machine.here("cpu")
COLUMNS = (1, 2, 17, 65)  # a vector, few columns, one vector and a bit, one tile and a bit


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory):
    """One toolchain for all. -O1 compiles twice as fast, and which rows meet in a tile does not depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FLAGS", (*build.FLAGS, "-O1"))
        yield CpuToolchain(cache=tmp_path_factory.mktemp("bodies"))


def integers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """+-1 .. +-4, float32."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 5, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def any_mask(shape: tuple[int, int], block: tuple[int, int] = (1, 1), kept: float = 0.4, seed: int = 0) -> np.ndarray:
    """Blocks of a mask of this shape, each kept with this probability."""
    grid = np.random.default_rng(seed).random((shape[0] // block[0], shape[1] // block[1])) < kept
    return np.kron(grid, np.ones(block, bool))


def launched(name: str, packed: Format, x: np.ndarray, toolchain: CpuToolchain) -> tuple[Launch, Case]:
    """Kernel `name` ready to multiply `packed` with x [k, n], and the case in its layout."""
    case = KERNELS[name].native(Case(m=packed.shape[0], k=packed.shape[1], n=x.shape[1]))
    return KERNELS[name].prepare(case, packed, in_layout(x, case), toolchain), case


def product(name: str, packed: Format, x: np.ndarray, toolchain: CpuToolchain) -> np.ndarray:
    """Y [m, n] of one call."""
    launch, case = launched(name, packed, x, toolchain)
    return as_columns(np.asarray(launch.run()), case)


def assert_right(name: str, packed: Format, toolchain: CpuToolchain) -> None:
    """`name` multiplies `packed` exactly, for each number of columns."""
    dense = packed.to_dense().astype(np.float64)
    for n in COLUMNS:
        x = integers((packed.shape[1], n), seed=n)
        assert np.array_equal(product(name, packed, x, toolchain), dense @ x), f"n = {n}"


# ------------------------------------------------------------------------------------------------------------- bsr


@pytest.mark.parametrize("bh", range(1, 10))
@pytest.mark.parametrize("bw", [1, 2, 3, 4, 5, 8])
def test_bsr_of_every_block(bh, bw, toolchain):
    shape = 3 * bh, 7 * bw
    assert_right("bsr.c", Bsr.from_dense(integers(shape), any_mask(shape, (bh, bw)), (bh, bw)), toolchain)


@pytest.mark.parametrize("blocks", range(12))
def test_bsr_of_every_number_of_blocks_in_flight(blocks, toolchain):
    for bh, bw in ((4, 1), (1, 1), (1, 4), (2, 4)):
        dense = integers((bh, 12 * bw))
        mask = np.broadcast_to(np.arange(12 * bw) < blocks * bw, dense.shape)
        assert_right("bsr.c", Bsr.from_dense(dense, mask, (bh, bw)), toolchain)


def test_bsr_torch_takes_square_blocks_alone():
    why_not = KERNELS["bsr.torch"].why_not
    case = Case(m=8, k=8, n=2, pattern="block", params={"block": [4, 1]}, sparsity=0.5)
    assert why_not(replace(case, params={"block": [4, 4]}), MACHINE) is None
    assert why_not(case, MACHINE) == (
        "bsr.torch: blocks must be square: MKL, which torch calls, has no others; use bsr.c or bsr.scipy"
    )


# ------------------------------------------------------------------------------------------------------------- hbs


def hbs_of(blocks: list[tuple[int, int]], rows: int = 2, columns: int = 3, seed: int = 0) -> Hbs:
    """A matrix of disjoint random levels; `rows` x `columns` blocks of the first."""
    shape = blocks[0][0] * rows, blocks[0][1] * columns
    free, masks = np.ones(shape, bool), []
    for number, block in enumerate(blocks):
        masks.append(any_mask(shape, block, seed=seed + number) & free)
        free &= ~masks[-1]
    return Hbs.from_dense(integers(shape, seed), ~free, Levels(tuple(blocks), tuple(masks)))


CHAINS = (
    [(1, 1)],
    [(2, 1), (1, 1)],
    [(4, 1), (1, 1)],
    [(4, 4), (2, 2), (1, 1)],  # pairs of rows in a tile of four
    [(8, 1), (4, 1), (2, 1), (1, 1)],
    [(12, 6), (3, 3), (1, 1)],  # threes do not cut a tile of four
    [(6, 2), (2, 2)],
    [(6, 3), (3, 1)],
    [(16, 8), (16, 1), (8, 1), (1, 1)],
    [(5, 2), (5, 1)],
)


@pytest.mark.parametrize("blocks", CHAINS, ids=lambda blocks: "+".join(f"{bh}x{bw}" for bh, bw in blocks))
def test_hbs_of_levels_that_meet_and_that_do_not(blocks, toolchain):
    assert_right("hbs.c", hbs_of(blocks), toolchain)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hbs_is_the_sum_of_its_levels(data, toolchain):
    factors = st.tuples(st.integers(1, 4), st.integers(1, 3))
    blocks = [(1, 1)]
    for bh, bw in data.draw(st.lists(factors, max_size=3)):
        blocks.insert(0, (blocks[0][0] * bh, blocks[0][1] * bw))
    packed = hbs_of(blocks, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99)))
    assert all(high % low == 0 for (high, _), (low, _) in pairwise(blocks))
    x = integers((packed.shape[1], data.draw(st.integers(1, 70))))
    levels = [product("bsr.c", level, x, toolchain) for level in packed.levels]
    assert np.array_equal(product("hbs.c", packed, x, toolchain), np.sum(levels, axis=0))


def test_hbs_keeps_its_levels_alive(toolchain):
    packed = hbs_of([(4, 1), (1, 1)], rows=64, columns=512)
    x = integers((packed.shape[1], 8))
    y = packed.to_dense().astype(np.float64) @ x
    launch, _ = launched("hbs.c", packed, x, toolchain)
    del packed
    gc.collect()
    junk = [np.full(2**15, np.nan, np.float32) for _ in range(64)]  # takes the place of what was freed
    assert np.array_equal(launch.run(), y)
    assert len(junk) == 64


# ----------------------------------------------------------------------------------------------------------- rbgp4


def drawn_rbgp4(row_repeat: int, block: tuple[int, int], outer_sparsity: float = 0.5) -> tuple[Rbgp4, np.ndarray]:
    """A matrix of integers in 4 x 4 tiles of 4 x 4 inner vertices, two neighbours each, and its mask."""
    tile = [4 * row_repeat * block[0], 4 * block[1]]
    params = {"tile": tile, "row_repeat": row_repeat, "block": list(block), "outer_sparsity": outer_sparsity}
    sparsity = 1 - 0.5 * (1 - outer_sparsity)
    case = Case(m=4 * tile[0], k=4 * tile[1], n=1, pattern="rbgp4", params=params, sparsity=sparsity)
    draw = case.draw()
    return Rbgp4.from_dense(integers((case.m, case.k)), draw.mask, draw.structure), draw.mask


@pytest.mark.parametrize("row_repeat", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("block", [(1, 1), (2, 1), (1, 3), (3, 2), (4, 4)])
def test_rbgp4_of_every_number_of_rows_that_share_a_list(row_repeat, block, toolchain):
    for outer_sparsity in (0.0, 0.5):
        packed, _ = drawn_rbgp4(row_repeat, block, outer_sparsity)
        assert_right("rbgp4.c", packed, toolchain)


@pytest.mark.parametrize("edges", [1, 7, 8, 9, 16, 17])
def test_rbgp4_of_every_number_of_outer_edges_taken_together(edges, toolchain):
    outer = np.array([np.arange(edges), np.arange(1, edges + 1)], np.int32)
    inner = np.array([[0, 2, 3], [1, 2, 4]], np.int32)
    values = integers((2, edges, 8, 3))
    packed = Rbgp4(values, outer, inner, row_repeat=4, block=(1, 1), tile=(8, 5), shape=(16, 5 * (edges + 1)))
    assert_right("rbgp4.c", packed, toolchain)


def test_rbgp4_and_condensed_agree(toolchain):
    packed, mask = drawn_rbgp4(4, (1, 1))
    condensed = Condensed.from_dense(packed.to_dense(), mask)
    x = integers((packed.shape[1], 65))
    assert np.array_equal(product("rbgp4.c", packed, x, toolchain), product("condensed.c", condensed, x, toolchain))


def test_rbgp4_hands_the_body_each_list_once():
    packed, _ = drawn_rbgp4(8, (1, 2))
    *_, columns, rows, values = arguments(packed)
    assert values.array.size == packed.nnz
    assert columns.array.size * packed.row_repeat * packed.block[0] == packed.nnz
    assert sorted(rows.array.ravel().tolist()) == list(range(packed.shape[0]))


def test_inner_columns_are_spelled_out_block_by_block():
    assert spelled_out(np.array([[0, 2], [1, 3]]), 3).tolist() == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]


# ------------------------------------------------------------------------------------------------------- condensed


def condensed_of(m: int, k: int, fan_in: int, live: int) -> Condensed:
    """`live` of m rows, spread evenly, with `fan_in` entries each."""
    mask = np.zeros((m, k), bool)
    for row in np.linspace(0, m - 1, live).astype(int):
        mask[row, np.random.default_rng(row).choice(k, fan_in, replace=False)] = True
    return Condensed.from_dense(integers((m, k)), mask)


@pytest.mark.parametrize("fan_in", range(1, 22))
def test_condensed_of_every_fan_in(fan_in, toolchain):
    packed = condensed_of(6, 40, fan_in, 6)
    assert packed.columns.dtype == np.uint16
    assert_right("condensed.c", packed, toolchain)
    assert_right("condensed.c", replace(packed, columns=packed.columns.astype(np.int32)), toolchain)


def test_condensed_reads_16_bit_columns_as_unsigned(toolchain):
    assert_right("condensed.c", condensed_of(2, 65536, 60000, 2), toolchain)


@pytest.mark.parametrize("live", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize("name", ["condensed.c", "condensed.torch"])
def test_rows_that_are_off_are_zero_after_every_call(name, live, n, toolchain):
    packed = condensed_of(9, 12, 3, live)
    x = integers((12, n))
    launch, case = launched(name, packed, x, toolchain)
    for _ in range(2):
        if launch.y is not None:
            launch.y.fill(np.nan)
        assert np.array_equal(as_columns(np.asarray(launch.run()), case), packed.to_dense() @ x)


def test_condensed_torch_refuses_to_gather_more_than_two_gib():
    why_not = KERNELS["condensed.torch"].why_not
    case = Case(m=1024, k=4096, n=1024, pattern="constant_fan_in", sparsity=0.875, layout="batch")
    assert why_not(case, MACHINE) is None
    assert why_not(replace(case, n=1025), MACHINE) == (
        "condensed.torch: the activations it gathers, 4 * n * nonzeros bytes, must fit in 2 GiB; use condensed.c"
    )
