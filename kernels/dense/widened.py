"""dense.widened, dense.widened_mm, dense.widened_conv: bfloat16 on a processor that only multiplies float32.

Without instructions for bfloat16 a library widens each weight again in every call. Who knows that the weights stay
keeps them in float32, widens the activations and rounds the answer: twice the bytes of W, and 2-4.5 times faster than
the bfloat16 products of torch and oneDNN from n = 8 on (measured, 768x3072, one AVX-512 core without AVX512_BF16); at
n = 1 half as fast. The conversions of X and Y are inside the timed call; that of W is packing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, Toolchain, least_moved_bytes

from .onednn import SOURCE, bound_convolution, bound_linear
from .torch import SOURCE as TORCH_SOURCE
from .torch import filters, tensor

WIDE_BYTES = 4


def prepare_linear(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's float32 inner product of x [n, k], rounded into one buffer [n, m]."""
    y = toolchain.output((case.n, case.m), case.dtype)
    return widened(lambda: bound_linear(case, tensor(packed.values).float()), x, y, WIDE_BYTES * packed.values.size)


def prepare_mm(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """torch.mm of W in float32 and x [k, n], rounded into one buffer [m, n]."""
    # torch: its product takes activations as they are here, [k, n], without a layout change.
    import torch

    wide_y = torch.empty(case.m, case.n)

    def pack() -> Callable[[Any], Any]:
        w = tensor(packed.values).float()
        return lambda wide: torch.mm(w, wide, out=wide_y)

    y = toolchain.output((case.m, case.n), case.dtype)
    return widened(pack, x, y, WIDE_BYTES * packed.values.size)


def prepare_conv(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's float32 convolution of x [batch, c, h, w], rounded into one buffer."""
    assert case.conv is not None
    y = toolchain.output((case.conv.batch, case.m, case.conv.oh, case.conv.ow), case.dtype)
    w = filters(case, packed)
    return widened(lambda: bound_convolution(case, tensor(w).float()), x, y, WIDE_BYTES * w.size)


def widened(pack: Callable[[], Callable[[Any], Any]], x: np.ndarray, y: np.ndarray, weight_bytes: int) -> Launch:
    """The float32 product that `pack` binds to its weights, from `x` to `y`, both bfloat16."""
    x_, y_ = tensor(x), tensor(y)
    wide = x_.float()

    def launch() -> Launch:
        product = pack()

        def run() -> np.ndarray:
            wide.copy_(x_)
            y_.copy_(product(wide))
            return y

        # Launches over other copies of W share `wide`: a rotation over W must not cool it.
        return Launch(run, y, "float32", again=launch, weight_bytes=weight_bytes)

    return launch()


def moved_bytes(case: Case, packed: Dense) -> int:
    """W in float32; X and Y once in bfloat16, and each written and read in float32."""
    y_entries = case.m * case.n
    x_entries = case.k * case.n if case.conv is None else case.conv.batch * case.conv.c * case.conv.h * case.conv.w
    wide_bytes = WIDE_BYTES * (packed.values.size + 2 * x_entries + 2 * y_entries)
    return least_moved_bytes(case, packed) - packed.nbytes + wide_bytes


KERNELS = [
    Kernel(
        name="dense.widened",
        format=Dense,
        prepare=prepare_linear,
        about="oneDNN's float32 product on activations [n, k], W kept in float32, x widened and y rounded in each call",
        source=SOURCE,
        moved_bytes=moved_bytes,
        dtypes=("bfloat16",),
        layouts=("batch",),
        needs=("torch",),
        sources=("onednn.py", "torch.py"),
    ),
    Kernel(
        name="dense.widened_mm",
        format=Dense,
        prepare=prepare_mm,
        about="torch.mm in float32 on activations [k, n], W kept in float32, X widened and Y rounded in each call",
        source=TORCH_SOURCE,
        moved_bytes=moved_bytes,
        dtypes=("bfloat16",),
        needs=("torch",),
        sources=("torch.py",),
    ),
    Kernel(
        name="dense.widened_conv",
        format=Dense,
        prepare=prepare_conv,
        about="oneDNN's float32 convolution, W kept in float32, x widened and y rounded in each call",
        source=SOURCE,
        moved_bytes=moved_bytes,
        ops=("conv2d",),
        dtypes=("bfloat16",),
        needs=("torch",),
        sources=("onednn.py", "torch.py"),
    ),
]
