"""dense.fp8, dense.int8, dense.int4: dense products that round W, or W and X, to fewer bits: rivals of other accuracy.

They move two to four times fewer bytes than bf16, so who thinks of a sparse product will think of them. They are never
baselines, and every record of theirs says what they round to.

Scales are powers of two, the largest that keep a row's largest entry in range. A user's scales are up to twice finer
and cost the same time; powers of two scale without rounding, so small integers stay what they are and the integer gate
stays exact: a lost nonzero shows in a quantised product as it does in any other. fp8 sums keep about 14 bits on
sm_90 (pytorch issue 147971); the integers' stay below 2**13.

What rounding costs, as the standard deviation of w x / (w x)'s error over normal data (Kernel.unit_roundoff):
  fp8   each factor is off by at most 2**-4, evenly: 2**-4 / sqrt(3), and there are two: 2**-4 sqrt(2/3) = .051
  int8  a step is at most 1/64 of the row's largest entry, which is 4.5 sigma in rows of 11,008: .0703 sigma; errors
        evenly up to half a step have .0703 / sqrt(12) = .0203, and there are two factors: .0287
  int4  W alone; a step is at most a quarter of the largest of 128 entries, 4 sigma at most: 1 / sqrt(12) = .289
Each product is rounded once whatever the order of the sum, so the error of an entry of Y is this times
sqrt(sum (w x)^2): there is no factor sqrt(t) in it, and with one the gate could not fail.

X is quantised in every call, by torch's own kernels one after another, and that is timed. A fused quantiser would be
faster; under a CUDA graph each of these costs its pass over X and about a microsecond [unverified].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.errors import Refused
from sparsebench.formats import Dense
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit

from .._device import ceil_div, shape_of_y
from .._switches import SOURCES, Asked, launch_of

GROUP = 128  # entries of W that share an int4 scale
INNER_TILES = 8  # of 16 columns each: how torch's int4 kernel wants W packed
LEAST_ROWS = 32  # torch's int8 product wants more than 16 rows of X; zeros fill them up
SCALE_ROWS = 256  # scales are kept in wholes of this: a row-wise fp8 kernel read past their end (pytorch issue 133334)


def _exponents(values: Any, largest_bit: int) -> Any:
    """Powers of two [rows, 1], float32: each row of |values| / scale is below 2**largest_bit.

    Rows of zeros, and in float16 of less than 2**-8, get the scale of that: its reciprocal must be a number there too.
    """
    import torch

    least = 2.0**-8 if values.dtype == torch.float16 else 2.0**-100
    largest = torch.linalg.vector_norm(values, float("inf"), dim=-1, keepdim=True, dtype=torch.float32)
    power = largest.clamp_min_(least).view(torch.int32).bitwise_and_(0x7F800000).view(torch.float32)
    return power.mul_(2.0 ** (1 - largest_bit))


def _room_for_scales(rows: int, like: Any) -> Any:
    """Room for a float32 scale a row, [rows or more, 1], beside `like`."""
    import torch

    return torch.ones(ceil_div(rows, SCALE_ROWS) * SCALE_ROWS, 1, device=like.device)


# ------------------------------------------------------------------------------------------------------------- fp8


def prepare_fp8(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
    """torch._scaled_mm of e4m3 factors, a scale for each row of W and of x [n, k]; Refused below sm_89."""
    import torch

    if toolchain.gpu.sm < 89:
        raise Refused(f"dense.fp8 needs sm_89 or newer, this GPU is sm_{toolchain.gpu.sm}; use dense.int8")
    y = toolchain.output(shape_of_y(case), case.dtype)
    w = toolchain.tensor(packed.values)
    w_room, x_scales = _room_for_scales(case.m, w), _room_for_scales(case.n, x)[: case.n]
    w_scales = w_room[: case.m].copy_(_exponents(w, 8))
    w8 = (w.float() / w_scales).to(torch.float8_e4m3fn)
    x8 = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)

    def bind(w8: Any, w_room: Any) -> Callable[[], Any]:
        scale_b = w_room[: case.m].t()
        multiply = partial(
            torch._scaled_mm, x8, w8.t(), scale_a=x_scales, scale_b=scale_b, out_dtype=x.dtype,
            use_fast_accum=True, out=y,
        )  # fmt: skip

        def run() -> Any:
            x8.copy_(x * quantised_by(x, x_scales, 8))
            multiply()
            return y

        return run

    return launch_of(Asked(bind), [w8, w_room], y, toolchain.device)


def quantised_by(x: Any, scales: Any, largest_bit: int) -> Any:
    """What x [rows, k] is to be multiplied with, [rows, 1] of its dtype; the scales themselves go into `scales`.

    Both are powers of two, so the 16-bit product with x is exact.
    """
    power = _exponents(x, largest_bit)
    scales.copy_(power)
    return power.reciprocal_().to(x.dtype)


# ------------------------------------------------------------------------------------------------------------ int8


def prepare_int8(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
    """torch._int_mm of int8 factors into int32, then the scales of both; x [n, k], filled up to 32 rows with zeros."""
    import torch

    y = toolchain.output(shape_of_y(case), case.dtype)
    w = toolchain.tensor(packed.values)
    w_scales = _exponents(w, 7)
    w8 = (w.float() / w_scales).round_().clamp_(max=127).to(torch.int8)
    rows = max(case.n, LEAST_ROWS)
    x8 = torch.zeros((rows, case.k), dtype=torch.int8, device=x.device)
    sums = torch.empty((rows, case.m), dtype=torch.int32, device=x.device)
    x_scales = _room_for_scales(case.n, x)[: case.n]

    def bind(w8: Any, w_scales: Any) -> Callable[[], Any]:
        multiply = partial(torch._int_mm, x8, w8.t(), out=sums)
        scale_columns = w_scales.view(1, -1)

        def run() -> Any:
            scaled = x * quantised_by(x, x_scales, 7)
            x8[: case.n].copy_(scaled.round_().clamp_(max=127))
            multiply()
            return torch.mul(sums[: case.n] * x_scales, scale_columns, out=y)

        return run

    return launch_of(Asked(bind), [w8, w_scales], y, toolchain.device)


# ------------------------------------------------------------------------------------------------------------ int4


def int4_of(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W [m, k] as numbers 0..15 that stand for -8..7 (uint8 [m, k]), and their scales, float32 [m, k / 128]."""
    m, k = w.shape
    groups = w.astype(np.float32).reshape(m, k // GROUP, GROUP)
    _, exponents = np.frexp(np.maximum(np.abs(groups).max(axis=-1), np.float32(2.0**-100)))
    scales = np.ldexp(np.float32(1), exponents - 3)  # the largest of a group is below 2**exponent
    numbers = np.clip(np.rint(groups / scales[..., None]), -8, 7) + 8
    return numbers.astype(np.uint8).reshape(m, k), scales


def prepare_int4(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
    """torch._weight_int4pack_mm of x [n, k] as it is and W in int4, a scale for 128 entries; torch allocates Y."""
    import torch

    if toolchain.gpu.sm < 80:
        raise Refused(f"dense.int4 needs sm_80 or newer, this GPU is sm_{toolchain.gpu.sm}; use dense.int8")
    numbers, scales = int4_of(packed.values)
    zeros = np.zeros_like(scales)
    scales_and_zeros = toolchain.tensor(np.stack([scales.T, zeros.T], axis=-1)).to(x.dtype)  # [k / 128, m, 2]
    if toolchain.device == "cuda":
        pairs = toolchain.tensor(numbers[:, ::2] << 4 | numbers[:, 1::2])
        w4, multiply = torch._convert_weight_to_int4pack(pairs, INNER_TILES), torch._weight_int4pack_mm
    else:
        whole = toolchain.tensor(numbers.astype(np.int32))
        w4, multiply = torch._convert_weight_to_int4pack_for_cpu(whole, 1), torch._weight_int4pack_mm_for_cpu
    return launch_of(
        Asked(lambda w4, scaled: partial(multiply, x, w4, GROUP, scaled)), [w4, scales_and_zeros], None,
        toolchain.device,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the table


def eight_bit_bytes(case: Case, packed: Dense) -> int:
    """W in bytes with a scale a row; X read, its bytes written and read; Y written once."""
    item = ITEM_BYTES[case.dtype]
    return case.m * (case.k + 4) + case.k * case.n * (item + 2) + 4 * case.n + item * case.m * case.n


def int8_bytes(case: Case, packed: Dense) -> int:
    """What any 8-bit product moves, and Y's int32 sums written and read."""
    return eight_bit_bytes(case, packed) + 8 * case.m * case.n


def int4_bytes(case: Case, packed: Dense) -> int:
    """W in half bytes with 4 bytes of scale and zero for 128 entries; X and Y once."""
    return case.m * case.k // 2 + 4 * case.m * case.k // GROUP + ITEM_BYTES[case.dtype] * case.n * (case.k + case.m)


def _wholes(m: int, k: int) -> Limit:
    return Limit(
        lambda case: case.m % m == 0 and case.k % k == 0,
        f"m must be a multiple of {m} and k of {k}: torch's kernel takes no others",
    )


def _kernel(name: str, prepare: Callable[..., Launch], lossy: str, u: float, about: str, **more: Any) -> Kernel:
    return Kernel(
        name=name,
        format=Dense,
        prepare=prepare,
        about=f"different accuracy: {about}",
        source="torch (BSD-3-Clause) with CUTLASS, cuBLASLt or its own kernel",
        lossy=lossy,
        unit_roundoff=u,
        layouts=("batch",),
        devices=("cuda",),
        needs=("torch",),
        sources=(*SOURCES, "../_device.py"),
        **more,
    )


KERNELS = [
    _kernel(
        "dense.fp8", prepare_fp8, "fp8 e4m3", 2**-4 * sqrt(2 / 3), "W and X in fp8 e4m3, a scale a row",
        dtypes=("bfloat16",), limits=(_wholes(16, 16),), moved_bytes=eight_bit_bytes,
    ),
    _kernel(
        "dense.int8", prepare_int8, "int8", 4.5 / 64 * sqrt(2 / 12), "W and X in int8, a scale a row",
        dtypes=("bfloat16", "float16"), limits=(_wholes(8, 16),), moved_bytes=int8_bytes,
    ),
    _kernel(
        "dense.int4", prepare_int4, "int4 weights", sqrt(1 / 12), f"W alone in int4, a scale for {GROUP} entries",
        dtypes=("bfloat16",), limits=(_wholes(8, GROUP),), moved_bytes=int4_bytes,
    ),
]  # fmt: skip
