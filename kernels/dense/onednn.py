"""dense.onednn, dense.onednn_conv: oneDNN with weights laid out for it beforehand, the fastest dense product in torch.

It reached 220-250 GFLOP/s a core where F.linear reached 105-110 (measured, Zen 5): a ratio to F.linear alone would
flatter every sparse kernel twofold. The operators are those that torch.compile puts in for frozen CPU models.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import MissingNeed
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, Toolchain

from .torch import filters, tensors

SOURCE = "oneDNN (Apache-2.0) through torch (BSD-3-Clause)"
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


def prepare_linear(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's inner product of x [n, k]; it allocates Y itself."""
    pack, linear = operators("_reorder_linear_weight", "_linear_pointwise")
    x_, w = tensors(x, packed.values)
    return Launch(partial(linear, x_, pack(w, case.n), None, *NO_FUSION), ran="weights packed")


def prepare_conv(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's convolution of x [batch, c, h, w]; it allocates Y itself."""
    pack, convolution = operators("_reorder_convolution_weight", "_convolution_pointwise")
    assert case.conv is not None
    x_, w = tensors(x, filters(case, packed))
    geometry = [case.conv.padding] * 2, [case.conv.stride] * 2, [1, 1], case.conv.groups
    filters_ = pack(w, *geometry, list(x.shape))
    return Launch(partial(convolution, x_, filters_, None, *geometry, *NO_FUSION), ran="weights packed")


KERNELS = [
    Kernel(
        name="dense.onednn",
        format=Dense,
        prepare=prepare_linear,
        about="oneDNN's inner product on activations [n, k], weights packed beforehand",
        source=SOURCE,
        layouts=("batch",),
        needs=("torch",),
    ),
    Kernel(
        name="dense.onednn_conv",
        format=Dense,
        prepare=prepare_conv,
        about="oneDNN's convolution, weights packed beforehand",
        source=SOURCE,
        ops=("conv2d",),
        needs=("torch",),
    ),
]
