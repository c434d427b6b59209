"""dense.onednn_nhwc: oneDNN's convolution of images with channels last, as it hands them on itself.

A network whose convolutions are oneDNN's keeps its images so, and no layer but the first is handed [b, c, h, w]. Where
planes are large and filters 1x1 that is another baseline: 28 ms instead of 83 for 256 to 64 channels of 56x56, batch
16 (one core of an Emerald Rapids, in the same rounds). Alone, asked for images as [b, c, h, w], its layout change of X
and Y counts in its total.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, Toolchain

from .onednn import ISA, SOURCE, bound_convolution
from .torch import DTYPES, filters, tensor


def prepare(case: Case, packed: Dense, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """oneDNN's convolution of x [batch, c, h, w], which lies as [batch, h, w, c]; so does Y."""
    return Launch(partial(bound_convolution(case, tensor(filters(case, packed))), tensor(x)), ran="weights packed")


KERNELS = [
    Kernel(
        name="dense.onednn_nhwc",
        format=Dense,
        prepare=prepare,
        about="oneDNN's convolution of images with channels last, weights packed beforehand",
        source=SOURCE,
        dtypes=DTYPES,
        layouts=("batch",),
        ops=("conv2d",),
        needs=("torch",),
        isa=ISA,
        sources=("onednn.py", "torch.py"),
    ),
]
