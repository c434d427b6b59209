"""Products of layers for tests: made by a kernel, and exactly."""

from __future__ import annotations

import torch
from torch import nn

from sparsebench.lab.modules import product_of


def made(case, kernel, toolchain):
    """W [m, k] of `case`, and its product by `kernel`."""
    draw = case.draw()
    w = case.weights(draw)
    return w, product_of(w, draw, case, kernel, toolchain)


def exact(w, case, x):
    """The product of W [m, k] with x as torch lays it out, in float64."""
    w, x = torch.from_numpy(w).double(), x.double()
    if case.conv is None:
        return x @ w.T
    filters = w.view(case.m, case.conv.c, case.conv.kh, case.conv.kw)
    return nn.functional.conv2d(x, filters, None, case.conv.stride, case.conv.padding)
