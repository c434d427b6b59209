"""dense.torch, dense.torch_mm, dense.torch_conv: what a user of torch has without sparsity.

Two products, because either can be far behind the other: `W @ X` with X [k, n] took 770-790 us at n = 2..8 where
F.linear took 99-240 us (measured, 2048x512, one Zen 5 core).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, Toolchain

SOURCE = "torch (BSD-3-Clause) with the BLAS it was built with"
DTYPES = ("float32", "bfloat16")


def tensors(*arrays: np.ndarray) -> tuple[Any, ...]:
    """Tensors over the same memory."""
    return tuple(tensor(array) for array in arrays)


def tensor(array: np.ndarray) -> Any:
    """A tensor over the same memory; torch takes numpy's bfloat16 only as 16-bit integers."""
    # torch: the framework whose dense product every sparse kernel has to beat.
    import torch

    if array.dtype == NUMPY_DTYPES["bfloat16"]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def prepare_linear(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """F.linear of x [n, k] into one buffer [n, m]."""
    import torch

    linear: Any = torch.nn.functional.linear  # its stub does not know `out`
    y = toolchain.output((case.n, case.m), case.dtype)
    x_, w, y_ = tensors(x, packed.values, y)
    return Launch(partial(linear, x_, w, out=y_), y)


def prepare_mm(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """torch.mm of W and x [k, n] into one buffer [m, n]."""
    import torch

    y = toolchain.output((case.m, case.n), case.dtype)
    w, x_, y_ = tensors(packed.values, x, y)
    return Launch(partial(torch.mm, w, x_, out=y_), y)


def filters(case: Case, packed: Dense) -> np.ndarray:
    """W as the filters of this convolution, [m, c / groups, kh, kw]; the memory is the same."""
    assert case.conv is not None
    return packed.values.reshape(case.m, -1, case.conv.kh, case.conv.kw)


def prepare_conv(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """F.conv2d of x [batch, c, h, w]; torch allocates Y itself."""
    import torch

    assert case.conv is not None
    x_, w = tensors(x, filters(case, packed))
    geometry = [case.conv.stride] * 2, [case.conv.padding] * 2, [1, 1]
    backend = torch._C._select_conv_backend(x_, w, None, *geometry, False, [0, 0], case.conv.groups)
    return Launch(partial(torch.conv2d, x_, w, None, *geometry, case.conv.groups), ran=backend.name)


KERNELS = [
    Kernel(
        name="dense.torch",
        format=Dense,
        prepare=prepare_linear,
        about="F.linear on activations [n, k], torch's own layout",
        source=SOURCE,
        dtypes=DTYPES,
        layouts=("batch",),
        needs=("torch",),
    ),
    Kernel(
        name="dense.torch_mm",
        format=Dense,
        prepare=prepare_mm,
        about="torch.mm(W, X) on activations [k, n]",
        source=SOURCE,
        dtypes=DTYPES,
        needs=("torch",),
    ),
    Kernel(
        name="dense.torch_conv",
        format=Dense,
        prepare=prepare_conv,
        about="F.conv2d, with the library torch picks for the shape",
        source="torch (BSD-3-Clause), mostly oneDNN",
        ops=("conv2d",),
        dtypes=DTYPES,
        needs=("torch",),
    ),
]
