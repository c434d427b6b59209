"""rbgp4.cuda and rbgp4.mma: packing, choice of tiles, limits, and the laws where tiles are not the chosen ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_cases import GPU
from cuda_laws import Asked, integers_are_exact, normal_data_and_unused_rows
from cuda_on_cpu.toolchain import A100, H100
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import Problem
from sparsebench.kernels.rbgp4 import cuda, mma
from sparsebench.kernels.rbgp4._tiles import Sizes, stores

from sparsebench import Case, load_kernels
from sparsebench.case import NUMPY_DTYPES
from sparsebench.formats import Rbgp4

pytestmark = pytest.mark.shim

KERNELS = {kernel.name: kernel for kernel in load_kernels()}
CUDA, MMA = KERNELS["rbgp4.cuda"], KERNELS["rbgp4.mma"]

# V = 16, 32, 48, 64, 128: all that a warp may hold, whole and in pieces; runs of whole steps and padded ones.
RBGP4_WIDE = (
    Problem("graphs-v16", 256, 128, 0.75, {"tile": [64, 32], "row_repeat": 16, "outer_sparsity": 0.5}),
    Problem("graphs-v32", 256, 48, 0.5, {"tile": [128, 24], "row_repeat": 8, "block": [4, 3]}),
    Problem("graphs-v48", 192, 40, 0.5, {"tile": [192, 20], "row_repeat": 48}),
    Problem("graphs-v64", 256, 64, 0.5, {"tile": [256, 32], "row_repeat": 64}),
    Problem("graphs-v128", 256, 20, 0.0, {"tile": [256, 10], "row_repeat": 128}),
)
NARROW = (
    Problem("graphs-v4", 128, 64, 0.75, {"tile": [32, 16], "row_repeat": 4, "outer_sparsity": 0.5}),
    Problem("graphs-v6", 48, 40, 0.5, {"tile": [24, 20], "row_repeat": 2, "block": [3, 5]}),
)
THREE = (  # edges, of which two slices have one too few at the end
    Problem("graphs-v4-three", 64, 48, 0.5, {"tile": [32, 16], "row_repeat": 4}),
    Problem("graphs-v16-three", 128, 96, 0.5, {"tile": [64, 32], "row_repeat": 16}),
)
LONG = Problem("graphs-long", 32, 320, 0.0, {"tile": [32, 160], "row_repeat": 16})  # ten steps of mma.sync
LAYER = {"tile": [256, 64], "row_repeat": 64, "outer_sparsity": 0.75}


def case_of(problem: Problem, n: int, dtype: str = "float32", layout: str = "feature", math: str = "ieee") -> Case:
    asked = Case(m=problem.m, k=problem.k, n=n, pattern="rbgp4", params=problem.params, sparsity=problem.sparsity)
    return replace(asked, dtype=dtype, layout=layout, math=math)  # type: ignore[arg-type]


def packed_of(case: Case) -> Rbgp4:
    draw = case.draw()
    weights = case.weights(draw, "integers").astype(NUMPY_DTYPES[case.dtype])
    return Rbgp4.from_dense(weights, draw.mask, draw.structure)


def breach(kernel: Any, case: Case, shim: Any, order: Any) -> str:
    asked = Asked(kernel, case, shim())
    return integers_are_exact(asked, order) or normal_data_and_unused_rows(asked, order)


def wide_case(turn: int) -> tuple[str, int, Any]:
    """Layout, columns and order of threads that the turn-th wide list meets."""
    return (
        ("feature", 17, "ascending"),
        ("batch", 40, "descending"),
        ("feature", 72, turn),
        ("batch", 9, "ascending"),
    )[turn % 4]


# ------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize(
    ("dtype", "math"), [("bfloat16", "ieee"), ("float16", "ieee"), ("float32", "tf32"), ("float32", "tf32x3")]
)
def test_wide_lists_on_tensor_cores(dtype, math, shim):
    first = ("bfloat16", "float16", "tf32", "tf32x3").index(dtype if math == "ieee" else math)
    for turn, problem in enumerate(RBGP4_WIDE, start=first):
        layout, n, order = wide_case(turn)
        case = case_of(problem, n, dtype, layout, math)
        assert MMA.why_not(case, GPU) is None
        assert breach(MMA, case, shim, order) == "", f"{problem.label} {layout} n={n}"


# Tiles that nobody chose: parts of a tile row across inner rows and across the rows of a list, through blocks (v6),
# slices that are not all busy, warps side by side, rings of every length, rows that take two loads, and no staging.
TILES: list[tuple[Any, Problem, Any]] = [
    (CUDA, NARROW[0], cuda.Tile(4, 4, 1, 3, 1, 1, 2)),
    (CUDA, NARROW[0], cuda.Tile(2, 8, 1, 8, 1, 2, 3)),
    (CUDA, NARROW[0], cuda.Tile(4, 2, 2, 8, 1, 2, 2)),
    (CUDA, NARROW[1], cuda.Tile(4, 4, 1, 2, 1, 2, 2)),
    (CUDA, NARROW[1], cuda.Tile(8, 64, 1, 1, 1, 1, 0)),
    (CUDA, NARROW[0], cuda.Tile(2, 32, 1, 1, 1, 1, 0)),
    (CUDA, THREE[0], cuda.Tile(4, 4, 1, 8, 1, 2, 2)),
    (CUDA, RBGP4_WIDE[0], cuda.Tile(8, 4, 1, 2, 2, 1, 3)),
    (MMA, RBGP4_WIDE[0], mma.Tile(16, 32, 2, 3, 1, 2, 4)),
    (MMA, THREE[1], mma.Tile(16, 16, 2, 4, 1, 2, 2)),
    (MMA, RBGP4_WIDE[1], mma.Tile(16, 64, 2, 2, 1, 1, 2)),
    (MMA, LONG, mma.Tile(16, 32, 1, 2, 1, 1, 2)),
    (MMA, RBGP4_WIDE[1], mma.Tile(16, 64, 1, 4, 1, 1, 2)),
    (MMA, RBGP4_WIDE[3], mma.Tile(32, 16, 4, 2, 1, 2, 3)),
]


@pytest.mark.parametrize("number", range(len(TILES)))
def test_any_tile_keeps_the_laws(number, shim):
    for kernel, case, order in of_tile(number):
        assert breach(kernel, case, shim, order) == "", case.layout


def of_tile(number: int) -> Iterator[tuple[Any, Case, Any]]:
    """(kernel, case, order of threads) that the number-th tile meets."""
    kernel, problem, tile = TILES[number]
    module, dtype = (cuda, "float32") if kernel is CUDA else (mma, "bfloat16")
    for layout, order in (("feature", "descending"), ("batch", 7)):
        case = case_of(problem, (36, 34)[number % 2], dtype, layout)  # copies of 8 bytes, or of 4
        yield replace(kernel, prepare=module.prepared_with(tile)), case, order


# ---------------------------------------------------------------------------------------------------------- packing


@given(st.data(), st.sampled_from((4, 8)))
def test_dealt_groups_meet_each_residue_as_evenly_as_can_be(data, group):
    columns = data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=40, unique=True))
    length = -(-len(columns) // (2 * group)) * 2 * group
    places = mma.dealt(np.array([sorted(columns)]), group, length)[0]
    assert sorted(places[places >= 0]) == list(range(len(columns)))
    residues = np.array(sorted(columns)) % group
    most = np.bincount(residues).max()
    groups = length // group
    for at in places.reshape(-1, group):
        held = residues[at[at >= 0]]
        assert len(held) == 0 or np.bincount(held).max() <= -(-most // groups)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=40, unique=True), st.sampled_from((4, 8)))
def test_padding_repeats_columns_of_the_list(columns, group):
    lists = np.array([sorted(columns)])
    length = -(-len(columns) // (2 * group)) * 2 * group
    places = mma.dealt(lists, group, length)
    listed = mma.gathered(lists, places, group)
    assert set(listed[0]) == set(columns)
    assert np.array_equal(listed[places >= 0], lists[0][places[places >= 0]])


@pytest.mark.parametrize("step", [8, 16])
def test_fragment_order_is_that_of_the_instruction(step):
    tile = np.arange(16 * step).reshape(16, step)
    lanes, pair = mma.in_fragment_order(tile), step // 8
    for lane in range(32):
        g, t = divmod(lane, 4)
        for register in range(4):
            row, first = g + 8 * (register % 2), (register // 2) * step // 2 + t * pair
            assert list(lanes[lane, register]) == list(tile[row, first : first + pair])


@pytest.mark.parametrize("problem", [*NARROW, RBGP4_WIDE[1]], ids=lambda problem: problem.label)
def test_a_part_is_one_run_of_its_edges(problem):
    """Column by column, what spmm.cu multiplies with a row of X is what the dense matrix holds there."""
    case = case_of(problem, 5)
    packed, dense = packed_of(case), packed_of(case).to_dense()
    tile = cuda.Tile(4, 1, 1, 3, 2, 1, 2)
    values, outer, lists = cuda.packed_by(tile, case, packed)
    sizes = Sizes.of(packed)
    run = lists.shape[1] * 4
    flat = lists.transpose(0, 2, 1, 3).reshape(-1, run)
    rebuilt = np.zeros_like(dense)
    for o, ip, rp, j, e, i, p, r in np.argwhere(values):
        inner, v = ip * tile.inners + i, (rp * tile.pieces + p) * tile.rows + r
        row = o * packed.tile[0] + (v // sizes.bh * sizes.u_i + inner) * sizes.bh + v % sizes.bh
        rebuilt[row, outer[o, j] * sizes.tk + flat[inner, e]] = values[o, ip, rp, j, e, i, p, r]
    assert np.array_equal(rebuilt, dense)


# ------------------------------------------------------------------------------------------------- choice and limits


def layer(n: int, dtype: str, layout: str, math: str = "ieee", **params: Any) -> Case:
    return case_of(Problem("layer", 2048, 1024, 0.875, LAYER | params), n, dtype, layout, math)


@pytest.mark.parametrize("gpu", [H100, A100], ids=["h100", "a100"])
@pytest.mark.parametrize("layout", ["feature", "batch"])
def test_candidates_fit_and_the_first_is_chosen(gpu, layout):
    for n in (1, 48, 2048):
        for module, dtype, math in ((cuda, "float32", "ieee"), (mma, "bfloat16", "ieee"), (mma, "float32", "tf32")):
            case = layer(n, dtype, layout, math)
            packed = packed_of(case)
            sizes, tiles = Sizes.of(packed), module.candidates(case, packed, gpu)
            assert len(set(tiles)) == len(tiles) > 3
            assert tiles[0] == module.choose(case, packed, gpu)
            assert all(module.shared_bytes(sizes, tile, case) <= gpu.shared_bytes for tile in tiles if tile.stages)
            assert all(tile.threads <= 512 for tile in tiles)


def test_large_n_gets_the_tile_that_the_docstring_promises():
    case = layer(2048, "bfloat16", "feature")
    tile = mma.choose(case, packed_of(case), H100)
    assert (tile.rows, tile.warp_n, tile.columns, tile.slots, tile.stages) == (64, 64, 128, 256, 3)
    narrower = layer(2048, "bfloat16", "feature", row_repeat=32)
    tile = mma.choose(narrower, packed_of(narrower), H100)
    assert (tile.rows, tile.warp_n, tile.columns, tile.slots) == (32, 128, 128, 256)


def test_few_columns_are_shared_out_by_edges():
    case = layer(1, "float32", "feature", row_repeat=4)
    tile = cuda.choose(case, packed_of(case), H100)
    assert cuda.columns_of(tile, case) == 1
    assert tile.slices > 1


def test_a_tile_too_large_for_shared_memory_is_not_staged():
    case = case_of(Problem("huge", 16, 16384, 0.0, {"tile": [8, 16384], "row_repeat": 4}), 9)
    tile = cuda.choose(case, packed_of(case), A100)
    assert tile.stages == 0


@pytest.mark.parametrize(("dtype", "tk"), [("bfloat16", 1024), ("float32", 384)])
def test_the_largest_tile_that_limits_allow_fits(dtype, tk):
    math = "tf32" if dtype == "float32" else "ieee"
    for repeat in (16, 64, 112):
        problem = Problem("widest", 2 * repeat, 2 * tk, 0.0, {"tile": [2 * repeat, tk], "row_repeat": repeat})
        case = case_of(problem, 100, dtype, "batch", math)
        assert MMA.why_not(case, GPU) is None
        assert mma.candidates(case, packed_of(case), A100)


def test_stores_along_m_are_whole_where_parts_are():
    case = layer(64, "bfloat16", "batch")
    packed = packed_of(case)
    assert stores(Sizes.of(packed), mma.Tile(64, 64, 2, 4, 1, 1, 3), case) == (1, 8)
    assert stores(Sizes.of(packed), mma.Tile(64, 64, 2, 2, 1, 1, 3), case) == (1, 2)
    blocks = layer(64, "bfloat16", "batch", row_repeat=8, block=[8, 1])
    assert stores(Sizes.of(packed_of(blocks)), mma.Tile(64, 64, 2, 4, 1, 1, 3), blocks) == (8, 8)
    through = case_of(NARROW[1], 8, "float32", "batch")
    assert stores(Sizes.of(packed_of(through)), cuda.Tile(4, 4, 1, 2, 1, 2, 2), through) == (1, 1)


def test_the_record_says_v(shim):
    case = case_of(RBGP4_WIDE[0], 8, "bfloat16")
    asked = Asked(MMA, case, shim())
    question = asked.reference.integers()
    launch = asked.prepared(question.w, asked.tensor(question.x))
    assert launch.facts["V"] == 16
    assert {"shared_bytes", "stages", "columns", "rows"} <= set(launch.facts)
    assert launch.block[0] % 32 == 0


@pytest.mark.parametrize(
    ("problem", "asked", "sentence"),
    [
        (RBGP4_WIDE[0], {}, r"rbgp4\.mma: tensor cores take float32 as math tf32 or tf32x3"),
        (NARROW[0], {"dtype": "float16"}, r"rbgp4\.mma: row_repeat x block rows must be a multiple of 16"),
        (
            Problem("wide", 32, 2048, 0.0, {"tile": [32, 2048], "row_repeat": 32}),
            {"dtype": "bfloat16"},
            r"rbgp4\.mma: a tile may have 1024 columns \(float32: 384\)",
        ),
    ],
)
def test_limits_are_sentences(problem, asked, sentence):
    said = MMA.why_not(case_of(problem, 8, **asked), GPU)
    assert said is not None
    assert re.search(sentence, said)
