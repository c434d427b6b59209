"""bsr.cuda, hbs.cuda and hbs.levels: what is special to row groups. The laws of all bodies are test_cuda_bodies.py's.

Streams are read back here by a decoder of its own, which follows the contract of include/row_group.cuh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cuda_laws import Asked, integers_are_exact, normal_data_and_unused_rows
from cuda_on_cpu.toolchain import A100, H100
from kernel_cases import levels
from sparsebench.kernels import _group_choice as choice
from sparsebench.kernels._group_streams import macros, packed_streams
from sparsebench.kernels._group_tiles import Blocks, Tile, expected_blocks, shared_bytes, stored_blocks, walked
from sparsebench.kernels.bsr import cuda as bsr
from sparsebench.kernels.hbs import cuda as hbs
from sparsebench.kernels.hbs import levels as one_each

from sparsebench import Case, load_kernels
from sparsebench.case import NUMPY_DTYPES
from sparsebench.formats import Bsr, Hbs

pytestmark = pytest.mark.shim

KERNELS = {kernel.name: kernel for kernel in load_kernels()}
STREAM = 8

THREE = ((16, 16, 0.75), (4, 4, 0.9), (1, 1, 0.95))
PAPER = ((4, 1, 0.8), (1, 1, 0.8))
ODD = ((6, 10, 0.8), (3, 5, 0.8), (1, 5, 0.9))


def block(bh: int, bw: int, m: int, k: int, n: int, sparsity: float = 0.7, **fields) -> Case:
    return Case(m=m, k=k, n=n, pattern="block", params={"block": [bh, bw]}, sparsity=sparsity, **fields)


def nested(m: int, k: int, n: int, *of, **fields) -> Case:
    return Case(m=m, k=k, n=n, pattern="hierarchical", params=levels(*of), **fields)


def stored(case: Case) -> tuple[Bsr | Hbs, np.ndarray]:
    """W of `case` in its format, and dense."""
    draw = case.draw()
    w = case.weights(draw).astype(NUMPY_DTYPES[case.dtype])
    return (Hbs if case.pattern == "hierarchical" else Bsr).from_dense(w, draw.mask, draw.structure), w


def matrices(packed: Bsr | Hbs) -> Sequence[Bsr]:
    return packed.levels if isinstance(packed, Hbs) else [packed]


# ----------------------------------------------------------------------------------------------------------- streams


def read_back(tile: Tile, case: Case, packed: Bsr | Hbs, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """W from streams; AssertionError where a group is cut short, an entry is met twice, or padding has a value."""
    records, columns, values = arrays
    blocks = [Blocks(*matrix.block, len(matrix.block_columns)) for matrix in matrices(packed)]
    dense, seen = np.zeros((case.m, case.k), values.dtype), np.zeros((case.m, case.k), int)
    for record in records:
        row, column_at, value_at, *ends = map(int, record)
        for level in walked(tile, case, blocks):
            first, steps = 0, ends[tile.rows // level.rows - 1]
            for number in range(tile.rows // level.rows):
                top = row + number * level.rows
                for c in range(first * level.step, ends[number] * level.step):
                    column = int(columns[column_at + c // level.width]) * level.width + c % level.width
                    entry = values[value_at + c * level.rows :][: level.rows]
                    old = dense[top : top + level.rows, column]
                    assert not (entry.astype(bool) & old.astype(bool)).any()
                    dense[top : top + level.rows, column] = np.where(entry.astype(bool), entry, old)
                    seen[top : top + level.rows, column] += 1
                first = ends[number]
            del ends[: tile.rows // level.rows]
            column_at += -(-(steps * level.step // level.width) // STREAM) * STREAM
            value_at += -(-steps * level.step * level.rows // STREAM) * STREAM
    named = sum(matrix.to_dense().astype(bool) for matrix in matrices(packed)) > 0
    assert not (seen[~named & (seen > 0)]).any(), "padding names a column that its rows do not own"
    return dense


STREAMED = (
    block(4, 1, 28, 33, 17),
    block(1, 4, 6, 32, 3, layout="batch"),
    block(16, 16, 64, 48, 8, dtype="bfloat16"),
    block(17, 1, 51, 40, 4),
    block(1, 64, 8, 192, 24, layout="batch", dtype="float16"),
    block(4, 4, 8, 8, 8, sparsity=0.99),
    nested(32, 64, 17, *THREE),
    nested(18, 30, 5, *ODD, layout="batch"),
    nested(28, 40, 64, *PAPER, dtype="bfloat16", layout="batch"),
)


@pytest.mark.parametrize("case", STREAMED, ids=Case.describe)
def test_streams_hold_w_whole_whatever_the_tile(case):
    packed, w = stored(case)
    tiles = choice.ranked(case, stored_blocks(packed), H100)
    for tile in tiles[:: max(1, len(tiles) // 6)]:
        arrays = packed_streams(tile, case, matrices(packed))
        assert np.array_equal(read_back(tile, case, packed, arrays), w)


def test_a_nudged_column_is_noticed():
    case = STREAMED[0]
    packed, w = stored(case)
    tile = bsr.choose(case, packed, H100)
    records, columns, values = packed_streams(tile, case, [packed])
    columns[0] = (columns[0] + 1) % case.k
    try:
        assert not np.array_equal(read_back(tile, case, packed, (records, columns, values)), w)
    except AssertionError:
        return


def test_longest_bundles_first_and_every_row_once():
    case = block(1, 1, 37, 60, 4, sparsity=0.8, dtype="bfloat16", layout="batch", seed=3)
    packed, _ = stored(case)
    packed = Bsr.from_dense(
        *(a * (np.arange(37)[:, None] > 5) for a in (packed.to_dense(), packed.to_dense() != 0)), (1, 1)
    )
    tile = Tile(rows=1, lanes=1, vector=4, pieces=1, warps=4, slab=True, bundle=8)
    records, _, _ = packed_streams(tile, case, [packed])
    assert len(records) % tile.bundle == 0
    assert sorted(records[records[:, 0] < case.m, 0]) == list(range(case.m))
    bundles = records.reshape(-1, tile.bundle, records.shape[1])
    work = bundles[:, :, 3].sum(axis=1)
    assert (np.diff(work) <= 0).all()
    assert work[-1] < work[0]
    assert (np.diff(bundles[:, :, 0], axis=1) >= 0).all(), "a bundle's rows are not neighbours"


def test_columns_are_16_bit_as_far_as_blocks_of_columns_reach():
    tile = Tile(rows=1, lanes=1, vector=1, pieces=1, warps=4, slab=False)
    for bw, k, narrow in ((1, 65536, True), (1, 65537, False), (2, 131072, True), (2, 131074, False)):
        case = block(1, bw, 2, k, 1, sparsity=0.999)
        packed, _ = stored(case)
        _, columns, _ = packed_streams(tile, case, [packed])
        assert (columns.dtype == np.uint16) == narrow == bool(macros(tile, case, [packed])["NARROW"])


# ------------------------------------------------------------------------------------------------------------- tiles

SHAPES = ((768, 3072), (512, 4608), (4096, 4096), (12, 100_000))
CASES = [
    case
    for (m, k), n, dtype, layout in product(SHAPES, (1, 17, 256), ("float32", "bfloat16"), ("feature", "batch"))
    for case in (
        block(4, 1, m, k, n, 0.9, dtype=dtype, layout=layout),
        nested(m, k, n, *PAPER, dtype=dtype, layout=layout),
    )
]


@pytest.mark.parametrize("gpu", [H100, A100], ids=("h100", "a100"))
def test_candidates_fit_and_keep_the_demands_of_the_body(gpu):
    for case in CASES:
        tiles = choice.candidates(case, gpu)
        assert tiles
        assert len(set(tiles)) == len(tiles)
        for tile in tiles:
            assert shared_bytes(tile, case) <= gpu.shared_bytes
            assert tile.rows * tile.vector * tile.pieces <= choice.MOST_SUMS
            assert case.m % tile.rows == 0
            assert 32 % tile.lanes == 0
            assert tile.slab or case.n % tile.vector == 0
            for level in walked(tile, case, expected_blocks(case)):
                assert level.width % level.step == 0 or level.step % level.width == 0


def test_no_2_byte_stores_when_m_or_n_allow():
    for case in CASES:
        item = 2 if case.dtype != "float32" else 4
        if item == 2 and (case.m if case.layout == "batch" else case.n) % 2 == 0:
            packed = [Bsr(np.zeros((0, 4, 1)), np.zeros(0, int), np.zeros(case.m // 4 + 1, int), case.k, 0)]
            for tile in choice.ranked(case, expected_blocks(case), H100):
                given = macros(tile, case, packed)
                direct = case.layout == "feature" and tile.lanes == 32
                stored_together = given["VECTOR"] if direct else given["STORE"]
                assert stored_together > 1 or tile.columns == 1


def test_choice_knows_the_matrix_and_is_pure():
    case = block(4, 1, 64, 256, 256, sparsity=0.9)
    packed, _ = stored(case)
    assert bsr.choose(case, packed, H100) == bsr.choose(case, packed, H100)
    assert bsr.choose(case, packed, H100) == choice.ranked(case, stored_blocks(packed), H100)[0]
    assert bsr.candidates is hbs.candidates
    many = nested(32, 64, 8, *THREE)
    assert [len(tiles) for tiles in one_each.candidates(many, H100)[:2]] == [3, 3]
    assert one_each.choose(many, stored(many)[0], H100) == tuple(
        choice.ranked(many, [blocks], H100)[0] for blocks in stored_blocks(stored(many)[0])
    )


def test_large_products_read_each_x_for_several_rows():
    assert bsr.candidates(block(4, 1, 4096, 4096, 2048, 0.9), H100)[0].rows == 4
    assert bsr.candidates(block(8, 8, 4096, 4096, 2048, 0.5), H100)[0].rows >= 4
    assert bsr.candidates(block(4, 1, 4096, 4096, 2048, 0.9, layout="batch"), H100)[0].slab


# ------------------------------------------------------------------------------------------------------------ bodies

BODIES = (  # tiles that small cases would not choose: (kernel, case, tile)
    ("bsr.cuda", block(4, 1, 28, 33, 136), Tile(4, 32, 4, 1, 4, slab=False, parts=2)),
    ("bsr.cuda", block(8, 8, 40, 64, 72), Tile(8, 4, 4, 2, 4, slab=False, parts=1)),
    ("bsr.cuda", block(2, 2, 26, 40, 65), Tile(2, 16, 1, 4, 4, slab=False, parts=3)),
    ("bsr.cuda", block(4, 1, 26 * 4, 33, 260), Tile(4, 32, 2, 2, 4, slab=False, parts=3)),
    ("bsr.cuda", block(2, 2, 34, 40, 260, dtype="bfloat16"), Tile(2, 32, 4, 2, 4, slab=True, parts=2)),
    ("bsr.cuda", block(16, 1, 48, 40, 24, dtype="float16"), Tile(16, 2, 4, 1, 4, slab=False, parts=1)),
    ("bsr.cuda", block(1, 1, 37, 50, 9, dtype="bfloat16", layout="batch"), Tile(1, 1, 4, 2, 16, slab=True, bundle=1)),
    ("bsr.cuda", block(1, 1, 44, 56, 40, dtype="bfloat16", layout="batch"), Tile(1, 4, 8, 1, 8, slab=True, bundle=4)),
    ("bsr.cuda", block(1, 1, 3, 70001, 2, 0.999, layout="batch"), Tile(1, 2, 1, 1, 4, slab=False)),
    ("hbs.cuda", nested(32, 64, 40, *THREE), Tile(8, 8, 4, 1, 4, slab=False, parts=1)),
    (
        "hbs.cuda",
        nested(32, 64, 33, *THREE, dtype="float16", layout="batch"),
        Tile(4, 32, 2, 1, 8, slab=True, bundle=2),
    ),
    ("hbs.cuda", nested(18, 30, 16, *ODD, dtype="bfloat16"), Tile(6, 2, 8, 1, 4, slab=True, parts=2)),
)


@pytest.mark.parametrize("name, case, tile", BODIES, ids=lambda of: of.describe() if isinstance(of, Case) else None)
def test_tiles_that_small_cases_do_not_choose(name, case, tile, shim):
    face = {"bsr.cuda": bsr, "hbs.cuda": hbs}[name]
    asked = Asked(replace(KERNELS[name], prepare=face.prepared_with(tile)), case, shim())
    assert integers_are_exact(asked, "ascending", "descending", 5) == ""
    assert normal_data_and_unused_rows(asked, 6) == ""


# ------------------------------------------------------------------------------------------------------------ levels


def test_levels_round_once(shim):
    """(1 + 2**-8) + 2**-8 is 1 + 2**-7 in bfloat16; rounded between the levels it would stay 1."""
    case = nested(4, 8, 1, (4, 1, 0.75), (1, 1, 0.75), dtype="bfloat16")
    draw = case.draw()
    coarse, fine = draw.structure.masks
    first_of_fine = fine & (np.cumsum(fine, axis=1) == 1)
    w = (coarse | first_of_fine).astype(NUMPY_DTYPES["bfloat16"])
    x = np.full((8, 1), 2.0**-8, np.float32)
    x[np.flatnonzero(coarse[0])[0]] = 1
    toolchain = shim()
    packed = Hbs.from_dense(w, draw.mask, draw.structure)
    launch = KERNELS["hbs.levels"].prepare(case, packed, toolchain.tensor(x.astype(w.dtype)), toolchain)
    expected = np.where(fine.any(axis=1, keepdims=True), 1 + 2.0**-7, 1)
    assert expected.max() > 1
    assert np.array_equal(launch.run().float().numpy(), expected)
    assert launch.ran == "2 launches"


@pytest.mark.parametrize("dtype, kept", [("float32", 0), ("bfloat16", 1)])
def test_sums_between_levels_are_float32(dtype, kept, shim):
    case = nested(32, 64, 8, *THREE, dtype=dtype)
    packed, _ = stored(case)
    toolchain = shim()
    x = toolchain.tensor(np.ones((64, 8), NUMPY_DTYPES[dtype]))
    KERNELS["hbs.levels"].prepare(case, packed, x, toolchain)
    defines = [(asked["ADD"], asked["KEEP"]) for _, _, asked in toolchain.asked]
    assert defines == [(0, kept), (1, kept), (1, 0)]


def test_moved_bytes_count_the_accumulation():
    case = nested(32, 64, 8, *THREE)
    packed, _ = stored(case)
    fused, apart = (KERNELS[name].moved_bytes(case, packed) for name in ("hbs.cuda", "hbs.levels"))
    assert apart - fused == 4 * 64 * 8 * 2 + 8 * 32 * 8 * 2  # X twice more; sums written and read twice


def test_each_limit_is_a_sentence():
    big = block(4, 1, 2**16, 2**16, 1, 0.99)
    for name in ("bsr.cuda", "hbs.cuda", "hbs.levels"):
        assert any("32-bit" in limit.reason and not limit.holds(big) for limit in KERNELS[name].limits)
    assert "conv2d" not in KERNELS["hbs.levels"].ops
