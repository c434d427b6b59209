"""SparseLinear and SparseConv2d: layers of torch whose product one of this project's kernels computes.

They stand where torch's own stood, and activations flow between them as torch keeps them: [tokens, features] is the
`batch` layout, images are [batch, c, h, w]. A kernel that only takes [k, n] is handed a transposed copy, and its
answer is transposed back: that layout change is part of the layer's time, as it is part of what predict adds up. A
dense kernel makes a layer in the same way, so that the best dense network is built of the same parts.

A kernel's images lie as its layout has them: [batch, c, h, w], or with channels last (`batch`). X is brought there
where the layer before left it otherwise, and that is the layer's layout change; Y stays as the kernel leaves it. oneDNN
leaves channels last, and bringing each answer back would cost the best dense network of ResNet-50 a third of its time
(batch 1: 95 ms of convolutions so, 120 from and 166 from and to [c, h, w], one Cascade Lake core).

A layer is made for one shape of X: batch and tokens are fixed, because kernels are bound to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

# torch: the framework whose layers these replace.
import torch
from torch import nn

from sparsebench.case import Case
from sparsebench.errors import BadInput
from sparsebench.kernel import Kernel
from sparsebench.lab.movable import Movable, MovingToolchain, movable
from sparsebench.patterns import Draw


class Lap(Protocol):
    """Hears when a product begins and ends."""

    def begin(self) -> None:
        """X is there."""
        ...

    def end(self) -> None:
        """Y is there, or on its way."""
        ...


@dataclass(slots=True)
class CpuLap:
    """Adds up the seconds between begin and end since `spent_s` was set to 0."""

    spent_s: float = 0.0
    now_s: Callable[[], float] = time.perf_counter
    _start_s: float = 0.0

    def begin(self) -> None:
        """Start."""
        self._start_s = self.now_s()

    def end(self) -> None:
        """Stop."""
        self.spent_s += self.now_s() - self._start_s


@dataclass(slots=True, eq=False)
class Product:
    """W X of one layer by one kernel; `lap` hears of each.

    case      as the network asks it: layout `batch` for a linear layer
    pack_s    seconds from the dense matrix to a kernel ready to run
    nbytes    of the stored W; `nnz` entries of it
    """

    case: Case
    moved: Movable
    pack_s: float
    nbytes: int
    nnz: int
    lap: Lap = field(default_factory=CpuLap)

    @property
    def changes_layout(self) -> bool:
        """Whether X and Y, matrices, are transposed on their way."""
        return self.case.conv is None and self.moved.case.layout != self.case.layout

    def __call__(self, x: Any) -> Any:
        """Y of X: [n, m] of [n, k], contiguous; or [batch, m, oh, ow] of [batch, c, h, w], as the kernel leaves it."""
        self.lap.begin()
        y = self.moved(x.T.contiguous()).T.contiguous() if self.changes_layout else self.moved(x)
        self.lap.end()
        return y


def product_of(
    w: np.ndarray, draw: Draw, case: Case, kernel: Kernel, toolchain: MovingToolchain, lap: Lap | None = None
) -> Product:
    """The product of W [m, k], kept where `draw` says, by `kernel`, where `toolchain` runs it."""
    native = kernel.native(case)
    start_s = time.perf_counter()
    packed = kernel.format.from_dense(w, draw.mask, draw.structure)
    pack_s = time.perf_counter() - start_s
    moved = movable(kernel, native, packed, toolchain)
    return Product(case, moved, pack_s + moved.prepare_s, packed.nbytes, packed.nnz, lap or CpuLap())


class _KernelLayer(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """What both layers share: a product and the bias of the layer it replaces."""

    def __init__(self, product: Product, bias: Any = None) -> None:
        super().__init__()
        self.product, self.bias = product, bias

    def extra_repr(self) -> str:
        """For print(network)."""
        return f"{self.product.case.describe()}, {self.product.moved.kernel.name}"

    def _fits(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if shape != wanted:
            raise BadInput(
                f"{type(self).__name__} was made for activations {list(wanted)}, found {list(shape)}; a kernel is "
                f"bound to one batch and size, make another layer for these"
            )


class SparseLinear(_KernelLayer):
    """y = x W^T + bias for x [..., k], all dimensions but the last making n columns."""

    def forward(self, x: Any) -> Any:
        """[..., m] of x [..., k]."""
        case = self.product.case
        rows = x.reshape(-1, x.shape[-1])
        self._fits(tuple(rows.shape), (case.n, case.k))
        y = self.product(rows)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], case.m)


class SparseConv2d(_KernelLayer):
    """The convolution of x [batch, c, h, w] with filters that are the rows of W [m, c kh kw]."""

    def forward(self, x: Any) -> Any:
        """[batch, m, oh, ow] of x [batch, c, h, w]."""
        conv = self.product.case.conv
        assert conv is not None
        self._fits(tuple(x.shape), (conv.batch, conv.c, conv.h, conv.w))
        y = self.product(x)
        if self.bias is not None:
            y += self.bias.view(-1, 1, 1)
        return y


def matrix_of(layer: Any) -> np.ndarray:
    """W [m, k] of an nn.Linear or nn.Conv2d: over the same memory on the CPU, a copy of what is on a GPU."""
    weight: np.ndarray = layer.weight.detach().cpu().numpy()
    return weight.reshape(len(weight), -1)


def replacing(layer: Any, product: Any) -> Any:
    """The layer that computes `product` in the place of `layer`, an nn.Linear or nn.Conv2d, with its bias."""
    kind = SparseConv2d if isinstance(layer, nn.Conv2d) else SparseLinear
    return kind(product, None if layer.bias is None else layer.bias.detach())


def sparse_layer(layer: Any, case: Case, kernel: Kernel, draw: Draw, toolchain: MovingToolchain) -> Any:
    """`layer` pruned as `draw` says and run by `kernel`; BadInput unless it is the layer that `case` asks about."""
    _demand(layer, case)
    return replacing(layer, product_of(matrix_of(layer), draw, case, kernel, toolchain))


def _demand(layer: Any, case: Case) -> None:
    kind = nn.Conv2d if case.conv else nn.Linear
    if not isinstance(layer, kind) or matrix_of(layer).shape != (case.m, case.k):
        raise BadInput(
            f"the case asks for {kind.__name__} with W [{case.m}, {case.k}], found {layer}; give the layer of that case"
        )


__all__ = ["Product", "SparseConv2d", "SparseLinear", "matrix_of", "product_of", "replacing", "sparse_layer", "torch"]
