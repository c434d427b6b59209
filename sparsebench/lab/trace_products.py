"""One product of a forward pass, with or without a weight, as numbers; and why a network cannot say some of them.

Y[m, n] = W[m, k] @ X[k, n], whichever side W stands on. A convolution over a line is one over a plane of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# flop_registry: torch's own formula for each operation, attention kernels included.
from torch.utils.flop_counter import flop_registry

from sparsebench.case import Conv
from sparsebench.lab.trace_weights import Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product that ran.

    macs     its multiply-adds, None where nobody can count them
    weight   None where it multiplied two activations
    m, k, n  its size; for a convolution (`conv`, of batch 1) n is one image's
    times    images of a convolution
    trouble  why no layer can say it, or None
    """

    macs: int | None
    weight: Weight | None = None
    m: int = 0
    k: int = 0
    n: int = 0
    times: int = 1
    conv: Conv | None = None
    trouble: str | None = None


def of_matrix(weight: Weight, w: torch.Tensor, columns: int) -> Product:
    """The product of W [m, k], or of one row [k], with so many columns of data."""
    m, k = (1, *w.shape)[-2:]
    trouble = _no_floats(w) or (None if columns else "no column of this sample came to it")
    return Product(weight=weight, m=m, k=k, n=columns, macs=m * k * columns, trouble=trouble)


def of_convolution(weight: Weight, args: Sequence[Any], out: torch.Tensor) -> Product:
    """The product of the arguments of aten.convolution."""
    x, w, _, stride, padding, dilation, transposed, _, groups = args
    kernel, size = list(w.shape[2:]), list(x.shape[2:])
    if trouble := _no_floats(w) or _trouble(kernel, stride, padding, dilation, transposed):
        return Product(weight=weight, macs=macs_of(torch.ops.aten.convolution, args, {}, out), trouble=trouble)
    (kh, kw), (h, wide) = ([1, *sides][-2:] for sides in (kernel, size))
    conv = Conv(x.shape[1], h, wide, kh, kw, stride[0], padding[0], groups)
    m, k, n, times = w.shape[0], w.shape[1] * kh * kw, conv.oh * conv.ow, x.shape[0]
    return Product(weight=weight, m=m, k=k, n=n, times=times, conv=conv, macs=m * k * n * times)


def macs_of(packet: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Multiply-adds of an operation by torch's own formula."""
    return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2


def _no_floats(w: torch.Tensor) -> str | None:
    if w.is_floating_point():
        return None
    return f"its weights are {str(w.dtype).removeprefix('torch.')}, and kernels here multiply floats"


def _trouble(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool
) -> str | None:
    """Why a network cannot say this convolution, or None."""
    if transposed:
        return "it is a transposed convolution, and a network has none"
    if len(kernel) > 2:
        return f"it is a convolution over {len(kernel)} dimensions, and a network has those of planes"
    if len(kernel) == 1 and padding[0]:
        return f"it is a convolution over a line with padding {padding[0]}, and a network pads rows and columns alike"
    if any(step > 1 and side > 1 for step, side in zip(dilation, kernel, strict=True)):
        return f"its dilation is {'x'.join(map(str, dilation))}, and a network has none"
    for what, pair in (("stride", stride), ("padding", padding)):
        if len(set(pair)) > 1:
            return f"its {what} is {pair[0]} for rows and {pair[1]} for columns, and a network has one number for both"
    return None
