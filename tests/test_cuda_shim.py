"""What the shim (cuda_on_cpu) makes of CUDA C++ is what CUDA and the PTX ISA say, compared with numpy.

The bodies are tests/data/shim/meanings.cu and language.cu. What it must refuse is in test_cuda_shim_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_laws import ORDERS
from cuda_on_cpu.toolchain import A100, H100, ShimError
from shim_cases import DATA, needs_shim

pytestmark = [pytest.mark.shim, needs_shim]

MEANINGS, LANGUAGE = DATA / "meanings.cu", DATA / "language.cu"
LANES = np.arange(32)
GROUP, THREAD = LANES // 4, LANES % 4  # g and t of the PTX ISA's tables


# ------------------------------------------------------------------------------------------------ exchange of a warp


@pytest.mark.parametrize("width", [32, 16, 8, 2])
@pytest.mark.parametrize("delta", [0, 1, 3, 8, 17, 31])
def test_exchange(delta, width, shim):
    toolchain = shim(order=delta)
    x = np.random.default_rng(delta).integers(0, 32, 32).astype(np.int32)
    y = toolchain.tensor(np.zeros((9, 32), np.int32))
    toolchain.cuda(MEANINGS, "exchange").bind((1,), (32,), [toolchain.tensor(x), y, delta, width])()

    start = LANES // width * width
    up, down, across = LANES - delta, LANES + delta, LANES ^ delta
    right = [
        x[start + delta % width],
        x[np.where(up < start, LANES, up)],
        x[np.where(down < start + width, down, LANES) % 32],
        x[np.where(across < start + width, across, LANES)],  # an earlier group may be read, a later one not
        np.full(32, (x % 2 << LANES).sum()).astype(np.uint32).view(np.int32)[:32],
        np.full(32, (x == delta).any()),
        np.full(32, (x != delta).all()),
        np.full(32, x.sum()),
    ]
    assert np.array_equal(y.numpy()[:8], np.stack([row.astype(np.int32) for row in right]))
    assert np.array_equal(y.numpy()[8, :4], x.reshape(8, 4).sum(axis=0))


def test_lanes_that_have_left_neither_vote_nor_show(shim):
    toolchain = shim()
    y = toolchain.tensor(np.zeros((2, 32), np.int32))
    toolchain.cuda(MEANINGS, "without_the_last").bind((1,), (32,), [y, 20])()
    assert (y.numpy()[0, :20] == 2**20 - 1).all()
    assert y.numpy()[1, :20].tolist() == [*range(1, 20), -1]
    assert not y.numpy()[:, 20:].any()


# ------------------------------------------------------------------------------------------------------ tensor cores


def halves(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Registers of two 16-bit elements each."""
    return low.view(np.uint16).astype(np.uint32) | high.view(np.uint16).astype(np.uint32) << 16


def registers_16(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of mma.m16n8k16: a [16, 16] and b [16, 8] as [32, 4] and [32, 2] (PTX ISA, 9.7.14.5.8)."""
    of_a = [
        halves(a[GROUP + 8 * (i % 2), 2 * THREAD + 8 * (i // 2)], a[GROUP + 8 * (i % 2), 2 * THREAD + 8 * (i // 2) + 1])
        for i in range(4)
    ]
    of_b = [halves(b[2 * THREAD + 8 * i, GROUP], b[2 * THREAD + 8 * i + 1, GROUP]) for i in range(2)]
    return np.stack(of_a, axis=1), np.stack(of_b, axis=1)


def registers_tf32(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of mma.m16n8k8: a [16, 8] and b [8, 8] (PTX ISA, 9.7.14.5.7)."""
    of_a = [a[GROUP + 8 * (i % 2), THREAD + 4 * (i // 2)] for i in range(4)]
    of_b = [b[THREAD + 4 * i, GROUP] for i in range(2)]
    return np.stack(of_a, axis=1).view(np.uint32), np.stack(of_b, axis=1).view(np.uint32)


def sums(d: np.ndarray) -> np.ndarray:
    """d [16, 8] as the lanes hold it, [32, 4]."""
    return np.stack([d[GROUP + 8 * (i // 2), 2 * THREAD + i % 2] for i in range(4)], axis=1)


@pytest.mark.parametrize("draw", range(3))
@pytest.mark.parametrize("kind, dtype, depth", [(0, np.float16, 16), (1, ml_dtypes.bfloat16, 16), (2, np.float32, 8)])
def test_multiply_add(kind, dtype, depth, draw, shim):
    toolchain, rng = shim(order=draw), np.random.default_rng(draw)
    a, b = rng.standard_normal((16, depth)).astype(dtype), rng.standard_normal((depth, 8)).astype(dtype)
    d = rng.standard_normal((16, 8)).astype(np.float32)
    of_a, of_b = (registers_tf32 if kind == 2 else registers_16)(a, b)
    y = toolchain.tensor(sums(d))
    registers = [toolchain.tensor(r.view(np.int32)) for r in (of_a, of_b)]
    toolchain.cuda(MEANINGS, "matrices").bind((1,), (32,), [*registers, y, kind])()
    if kind == 2:  # a tensor core does not read the low 13 bits
        a, b = ((m.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for m in (a, b))
    right = d + a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(y.numpy(), sums(right), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("draw", range(3))
def test_load_matrices(draw, transposed, shim):
    toolchain, rng = shim(order=draw), np.random.default_rng(draw)
    tiles = rng.permutation(2**16)[: 64 * 8].astype(np.uint16).reshape(64, 8)
    rows = rng.integers(0, 64, 32).astype(np.int32)
    out = toolchain.tensor(np.zeros((32, 4), np.int32))
    arguments = [toolchain.tensor(tiles), toolchain.tensor(rows), out, transposed]
    toolchain.cuda(MEANINGS, "tiles").bind((1,), (32,), arguments)()
    for i in range(4):
        matrix = tiles[rows[8 * i : 8 * i + 8]]
        matrix = matrix.T if transposed else matrix
        right = halves(matrix[GROUP, 2 * THREAD].copy(), matrix[GROUP, 2 * THREAD + 1].copy())
        assert np.array_equal(out.numpy()[:, i].view(np.uint32), right), f"matrix {i}"


# ---------------------------------------------------------------------------------------------------------- rounding


def interesting() -> np.ndarray:
    """Bits of floats: every exponent and sign, with mantissas at and beside every tie of 7, 10 and 13 dropped bits."""
    ends = [0, 1, 2, 3, 5]
    for bit in range(10, 24):
        ends += [2 ** (bit - 1) + near for near in (-1, 0, 1)] + [2**bit + 2 ** (bit - 1) + near for near in (-1, 0, 1)]
    ends += [0x7FFFFF - near for near in (0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000)]
    mantissas = np.unique([*ends, *np.random.default_rng(0).integers(0, 2**23, 64)]) & 0x7FFFFF
    exponents = np.arange(512, dtype=np.int64) << 23  # the sign is the ninth bit
    return (exponents[:, None] | mantissas).ravel().astype(np.uint32)


def test_rounding(shim):
    toolchain, bits = shim(), interesting()
    x = bits.view(np.float32)
    half, brain = (toolchain.scratch(name, x.shape, "int16") for name in ("half", "brain"))
    tf32 = toolchain.scratch("tf32", x.shape, "int32")
    toolchain.cuda(MEANINGS, "narrowed").bind((7,), (96,), [toolchain.tensor(x), half, brain, tf32, len(x)])()

    nan = np.isnan(x)
    with np.errstate(over="ignore", invalid="ignore"):
        right = [x.astype(np.float16).view(np.uint16), x.astype(ml_dtypes.bfloat16).view(np.uint16)]
    for found, wanted in zip((half, brain), right, strict=True):
        found = found.numpy().view(np.uint16)
        assert np.array_equal(found[~nan], wanted[~nan])
        assert (found[nan] == 0x7FFF).all()  # PTX ISA, cvt: the canonical NaN
    found = tf32.numpy().view(np.uint32)
    assert np.array_equal(found[~nan], to_tf32(bits[~nan]))
    assert (found[nan] == 0x7FFFFFFF).all()


def to_tf32(bits: np.ndarray) -> np.ndarray:
    """Bits of finite floats and infinities with 10 bits of mantissa, to nearest, ties away from zero."""
    size = (bits & 0x7FFFFFFF).astype(np.int64)
    rounded = np.where(size == 0x7F800000, size, (size // 0x2000 + (size % 0x2000 >= 0x1000)) * 0x2000)
    return (rounded.astype(np.uint32) | (bits & np.uint32(0x80000000))).astype(np.uint32)


def test_widening_is_exact_for_all_values(shim):
    toolchain, bits = shim(), np.arange(2**16, dtype=np.uint16)
    half, brain = (toolchain.scratch(name, bits.shape) for name in ("half", "brain"))
    toolchain.cuda(MEANINGS, "widened").bind((256,), (256,), [half, brain])()
    for found, dtype in ((half, np.float16), (brain, ml_dtypes.bfloat16)):
        right = bits.view(dtype).astype(np.float32)
        np.testing.assert_array_equal(found.numpy(), right)
        assert np.array_equal(np.signbit(found.numpy()), np.signbit(right))


# ------------------------------------------------------------------------------------------------------ the language


@pytest.mark.parametrize("order", ORDERS)
def test_grids_and_blocks_of_three_dimensions(order, shim):
    toolchain, grid, block = shim(order=order), (3, 2, 4), (5, 3, 2)
    y = toolchain.scratch("y", (24 * 30, 8), "int32")
    toolchain.cuda(LANGUAGE, "places").bind(grid, block, [y])()
    right = np.stack(np.unravel_index(np.arange(720), (*grid[::-1], *block[::-1])), axis=1)[:, [2, 1, 0, 5, 4, 3]]
    assert np.array_equal(y.numpy()[:, :6], right)
    assert (y.numpy()[:, 6] == 30204).all()
    assert (y.numpy()[:, 7] == 50302).all()


def scaled(toolchain: Any, n: int, defines: Mapping[str, Any], **sizes: Any) -> np.ndarray:
    x = toolchain.tensor(np.arange(4 * n, dtype=np.float32))
    y = toolchain.output((4 * n,))
    sizes = {"block": (64,), "shared_bytes": 64 * 16, **sizes}
    function = toolchain.cuda(LANGUAGE, "scaled", defines)
    arguments = [x, y, n, 3.0, np.int64(2**42)]
    function.bind((2,), sizes["block"], arguments, sizes["shared_bytes"])()
    return y.numpy().reshape(n, 4).copy()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 300])
def test_words_of_the_language(n, shim):
    """Templates, macros, constants, vectors, static and dynamic shared memory, steps of a grid; ints of 64 bits."""
    y = scaled(shim(order=1), n, {"FACTOR": "3.0f"})
    assert np.array_equal(y, 3 * np.arange(4 * n).reshape(n, 4) + 1111 + 4)


def test_macros_make_another_function(shim):
    toolchain = shim()
    one, two = scaled(toolchain, 8, {}), scaled(toolchain, 8, {"FACTOR": "2.0f"})
    assert np.array_equal(two[:, 0] - one[:, 0], 4 * np.arange(8))
    assert [defines for _, _, defines in toolchain.asked] == [{}, {"FACTOR": "2.0f"}]


def test_launch_bounds_and_shared_memory_of_the_gpu(shim):
    with pytest.raises(ShimError, match=r"block \(65, 1, 1\) is beyond its __launch_bounds__ of 64"):
        scaled(shim(), 8, {}, block=(65,))
    scaled(shim(gpu=H100), 8, {}, shared_bytes=A100.shared_bytes)
    with pytest.raises(ShimError, match="and 16 of static shared memory, a block may have 166912"):
        scaled(shim(gpu=A100), 8, {}, shared_bytes=A100.shared_bytes)


def turns(toolchain: Any) -> np.ndarray:
    """When each of 2 x 96 threads had its first and its second turn."""
    count, y = toolchain.tensor(np.zeros(1, np.int32)), toolchain.scratch("y", (2, 192), "int32")
    toolchain.cuda(LANGUAGE, "turns").bind((2,), (96,), [count, y])()
    return y.numpy().copy()


def test_orders_differ_and_each_is_always_the_same(shim):
    toolchain = shim()
    orders = ["ascending", "descending", 1, 2, 3, 4]
    runs = []
    for order in [*orders, *orders[::-1]]:  # what ran before must not matter
        toolchain.order = order
        runs.append(turns(toolchain))
    first, second = runs[:6], runs[6:][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({run.tobytes() for run in first}) == len(orders)
    ascending, descending = first[:2]
    assert np.array_equal(ascending, np.arange(384).reshape(2, 2, 96).transpose(1, 0, 2).reshape(2, 192))
    assert np.array_equal(descending[:, ::-1], ascending)
