"""What all CUDA faces share: W packed once on the host, copied to the device, bound to launches; and macros by dtype.

A face says two things: `pack`, the arrays its body wants, in the body's order, from the packed format; and `bind`, the
launches over tensors of them. `device_product` makes of both the `prepare` of a Kernel. A copy of W for the cold clock
is then a copy on the device: nothing is packed twice.

Convolutions take the road of _conv.py: element offsets into zero-padded planes, no im2col.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import SparsebenchError
from sparsebench.kernel import CudaToolchain, Gpu, Launch, Limit

ELEMENTS: Mapping[str, str] = {"float32": "float", "float16": "f16", "bfloat16": "bf16"}  # include/elements.cuh
SHARED = ("../_device.py", "../include/ptx.cuh", "../include/elements.cuh")  # for Kernel.sources

INT32 = Limit(
    lambda case: max(case.m * case.k, case.k * case.n, case.m * case.n) < 2**31,
    "m*k, k*n and m*n must be below 2**31: offsets are 32-bit",
)


@dataclass(frozen=True, slots=True)
class Bound:
    """What `bind` makes: calls in order, and what the record should know. grid and block are the main launch's."""

    calls: Sequence[Callable[[], None]]
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    ran: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


Pack = Callable[[Case, Any, Gpu], Sequence[np.ndarray]]
# (case, packed, tensors of pack's arrays, x, y, toolchain) -> Bound
Bind = Callable[[Case, Any, Sequence[Any], Any, Any, CudaToolchain], Bound]
Prepare = Callable[[Case, Any, Any, CudaToolchain], Launch]


def shape_of_y(case: Case) -> tuple[int, ...]:
    """Shape of the output in the layout of `case`: [m, n], [n, m], or [batch, m, oh, ow]."""
    if case.conv is not None:
        return case.conv.batch, case.m, case.conv.oh, case.conv.ow
    return (case.m, case.n) if case.layout == "feature" else (case.n, case.m)


def device_product(pack: Pack, bind: Bind) -> Prepare:
    """The `prepare` of a kernel that packs W as `pack` says and launches what `bind` makes; gemm alone."""

    def prepare(case: Case, packed: Any, x: Any, toolchain: CudaToolchain) -> Launch:
        weights = [toolchain.tensor(array) for array in pack(case, packed, toolchain.gpu)]
        y = toolchain.output(shape_of_y(case), case.dtype)
        return _launch(case, packed, weights, x, y, toolchain, bind)

    return prepare


def _launch(
    case: Case, packed: Any, weights: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain, bind: Bind
) -> Launch:
    bound = bind(case, packed, weights, x, y, toolchain)

    def run() -> Any:
        for call in bound.calls:
            call()
        return y

    def again() -> Launch:
        return _launch(case, packed, [tensor.clone() for tensor in weights], x, y, toolchain, bind)

    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    return Launch(run, y, bound.ran, again, weight_bytes, bound.grid, bound.block, bound.facts)


def by_op(gemm: Prepare, conv: Prepare) -> Prepare:
    """The `prepare` that answers products with `gemm` and convolutions with `conv`."""

    def prepare(case: Case, packed: Any, x: Any, toolchain: CudaToolchain) -> Launch:
        return (gemm if case.conv is None else conv)(case, packed, x, toolchain)

    return prepare


def body_beside(face: str, name: str) -> Path:
    """The file `name` in the folder of the face whose __file__ is `face`; SparsebenchError when it is not there."""
    path = Path(face).with_name(name)
    if not path.is_file():
        raise SparsebenchError(f"the body {path.name} is not beside {Path(face).name}; reinstall sparsebench")
    return path


def ceil_div(units: int, size: int) -> int:
    """How many pieces of `size` cover `units`.

    >>> ceil_div(65, 64)
    2
    """
    return -(-units // size)


def columns_dtype(k: int) -> type[np.generic]:
    """The narrowest index that reaches k columns: uint16 up to 65536, else int32."""
    return np.uint16 if k <= 2**16 else np.int32
