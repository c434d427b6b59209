"""What all C faces share: pointers bound once, the buffer for Y, and a convolution as im2col and the family's product.

The convention for a C body is one function

    void NAME_f32(<arguments of the format>, int64_t n, const float* x, float* y)

with x [k, n] and y [m, n] contiguous and row-major, every entry of y written. Its arguments are ctypes objects made
once, since a call at n = 1 takes a few microseconds and converting nine Python values would take one of them.

A convolution is computed image by image: im2col into one buffer [k, oh * ow], then the product straight into
y[image] = [m, oh * ow], so Y is [batch, m, oh, ow]. The timed call includes im2col; a 1x1 convolution of stride 1
without padding has nothing to rearrange and skips it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case, Conv
from sparsebench.errors import SparsebenchError
from sparsebench.kernel import Launch, Limit, Toolchain, least_moved_bytes

SHARED = ("../_product.py", "../_im2col.c", "../include/vector.h")  # for Kernel.sources
IM2COL = Path(__file__).with_name("_im2col.c")

ONE_GROUP = Limit(
    lambda case: case.conv is None or case.conv.groups == 1,
    "groups must be 1: it multiplies one [m, k] matrix with all channels; use a dense kernel for grouped convolutions",
)

Argument = Any  # a ctypes object: pointer(array) or ctypes.c_int64(value)
Call = Callable[[], Any]


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """The address of `array` as a C argument, which keeps the array alive; SparsebenchError unless it is contiguous."""
    if not array.flags.c_contiguous:
        raise SparsebenchError(
            f"a C body needs contiguous row-major arrays, found strides {array.strides} for {array.shape}"
        )
    address = ctypes.c_void_p(array.ctypes.data)
    address.array = array  # type: ignore[attr-defined]
    return address


def integers(*values: int) -> tuple[ctypes.c_int64, ...]:
    """`values` as 64-bit C arguments."""
    return tuple(ctypes.c_int64(value) for value in values)


def c_product(body: Path, function: str, arguments: Callable[[Any], Sequence[Argument]]) -> Callable[..., Launch]:
    """The `prepare` of a kernel whose body is the C function `function` in `body`.

    `arguments` turns the packed matrix into the C arguments before n, x and y.
    """

    def prepare(case: Case, packed: Any, x: np.ndarray, toolchain: Toolchain) -> Launch:
        product = _void(toolchain.c(body), function)
        bound = partial(product, *arguments(packed))
        ran = "1 thread" if toolchain.threads > 1 else ""
        if case.conv is None:
            y = toolchain.output((case.m, case.n))
            return Launch(_returning(y, [partial(bound, *integers(case.n), pointer(x), pointer(y))]), y, ran)
        y = toolchain.output((case.conv.batch, case.m, case.conv.oh, case.conv.ow))
        return Launch(_returning(y, _image_calls(bound, case.conv, x, y, toolchain)), y, ran)

    return prepare


def _void(library: Any, name: str) -> Any:
    function = getattr(library, name)
    function.restype = None
    return function


def _returning(y: np.ndarray, calls: Sequence[Call]) -> Callable[[], np.ndarray]:
    """Run all `calls`, return y. One call has a path of its own: the loop would cost a tenth of a microsecond."""
    if len(calls) == 1:
        only = calls[0]

        def run_one() -> np.ndarray:
            only()
            return y

        return run_one

    def run_all() -> np.ndarray:
        for call in calls:
            call()
        return y

    return run_all


def _image_calls(
    product: Callable[..., Any], conv: Conv, x: np.ndarray, y: np.ndarray, toolchain: Toolchain
) -> list[Call]:
    """The calls that turn x [batch, c, h, w] into y [batch, m, oh, ow], in order."""
    (n,) = integers(conv.oh * conv.ow)
    if is_plain(conv):
        return [partial(product, n, pointer(image), pointer(plane)) for image, plane in zip(x, y, strict=True)]
    # Shared by all launches as Y is: what rotates is W alone. Two axes, so it is never Y's own buffer, which has four.
    columns = pointer(toolchain.output((conv.c * conv.kh * conv.kw, conv.oh * conv.ow)))
    shape = integers(conv.c, conv.h, conv.w, conv.kh, conv.kw, conv.stride, conv.padding, conv.oh, conv.ow)
    im2col = partial(_void(toolchain.c(IM2COL), "im2col_f32"), *shape)
    calls: list[Call] = []
    for image, plane in zip(x, y, strict=True):
        calls += [partial(im2col, pointer(image), columns), partial(product, n, columns, pointer(plane))]
    return calls


def is_plain(conv: Conv) -> bool:
    """Whether each image [c, h, w] already is the [k, oh * ow] matrix of this convolution."""
    return conv.kh == conv.kw == conv.stride == 1 and conv.padding == 0


def moved_bytes(case: Case, packed: Any) -> int:
    """Bytes a C body moves at least: W, X and Y once, and im2col's columns written and read."""
    columns = 0 if case.conv is None or is_plain(case.conv) else 2 * ITEM_BYTES[case.dtype] * case.k * case.n
    return least_moved_bytes(case, packed) + columns
