"""dense.onednn, dense.onednn_conv: oneDNN with weights laid out for it beforehand, the fastest dense product in torch.

It reached 220-250 GFLOP/s a core where F.linear reached 105-110 (measured, Zen 5): a ratio to F.linear alone would
flatter every sparse kernel twofold. The operators are those that torch.compile puts in for frozen CPU models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import MissingNeed
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, Toolchain

from .torch import DTYPES, filters, tensor

SOURCE = "oneDNN (Apache-2.0) through torch (BSD-3-Clause)"
# What torch asks of a processor before it packs weights in bfloat16. AVX-NE-CONVERT would do too; nobody looks for it.
ISA = {"bfloat16": ("avx512bw", "avx512vl")}
NO_FUSION: tuple[str, list[Any], str] = ("none", [], "")  # nothing is computed on Y after the product


def operators(*names: str) -> list[Any]:
    """These operators of torch.ops.mkldnn; MissingNeed where this torch was built without oneDNN or lost them."""
    # torch: it ships oneDNN and the operators that keep packed weights.
    import torch

    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        raise MissingNeed(
            f"needs a torch with oneDNN and its operators {', '.join(names)}; this is {torch.__version__}"
        )
    return [getattr(torch.ops.mkldnn, name).default for name in names]


def bound_linear(case: Case, w: Any) -> Callable[[Any], Any]:
    """oneDNN's inner product of a tensor [n, k] with `w` [m, k], packed here; it allocates Y itself."""
    pack, linear = operators("_reorder_linear_weight", "_linear_pointwise")
    packed = pack(w, case.n)
    return lambda x: linear(x, packed, None, *NO_FUSION)


def bound_convolution(case: Case, w: Any) -> Callable[[Any], Any]:
    """oneDNN's convolution of a tensor [batch, c, h, w] with filters `w`, packed here; it allocates Y itself."""
    pack, convolution = operators("_reorder_convolution_weight", "_convolution_pointwise")
    conv = case.conv
    assert conv is not None
    geometry = [conv.padding] * 2, [conv.stride] * 2, [1, 1], conv.groups
    packed = pack(w, *geometry, [conv.batch, conv.c, conv.h, conv.w])
    return lambda x: convolution(x, packed, None, *geometry, *NO_FUSION)


def prepare_linear(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's inner product of x [n, k]."""
    return Launch(partial(bound_linear(case, tensor(packed.values)), tensor(x)), ran="weights packed")


def prepare_conv(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's convolution of x [batch, c, h, w]."""
    return Launch(partial(bound_convolution(case, tensor(filters(case, packed))), tensor(x)), ran="weights packed")


KERNELS = [
    Kernel(
        name="dense.onednn",
        format=Dense,
        prepare=prepare_linear,
        about="oneDNN's inner product on activations [n, k], weights packed beforehand",
        source=SOURCE,
        dtypes=DTYPES,
        layouts=("batch",),
        needs=("torch",),
        isa=ISA,
        sources=("torch.py",),
    ),
    Kernel(
        name="dense.onednn_conv",
        format=Dense,
        prepare=prepare_conv,
        about="oneDNN's convolution, weights packed beforehand",
        source=SOURCE,
        dtypes=DTYPES,
        ops=("conv2d",),
        needs=("torch",),
        isa=ISA,
        sources=("torch.py",),
    ),
]
