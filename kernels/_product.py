"""What all C faces share: one column goes to the format's own body, more to _product.c, a convolution to _planes.c.

The convention for a C body of one column is one function

    void NAME_vector(<arguments of the format>, const int64_t* shares, int64_t threads, const item* x, item* y,
                     float* room)

with x [k] and y [m], every entry of y written; thread t has rows (or block rows) shares[t] .. shares[t + 1] - 1. An
item is a float or a bfloat16 (include/items.h), and `room` is for the latter. Arguments are ctypes objects made once,
since a call takes a few microseconds and converting nine Python values would take one of them.

Activations [n, k] are turned on their way into a slab, and Y on its way out of one, strip by strip in the caches. A
convolution reads padded planes (_planes.py); the timed call includes the copy into them. A 1x1 convolution of stride 1
without padding is a product of W with each image as it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case, Conv
from sparsebench.errors import SparsebenchError
from sparsebench.kernel import Launch, Limit, Toolchain, least_moved_bytes

from ._bound import ITEM_MACROS, STRIPS, bound
from ._planes import PLANES_SOURCES, Geometry, convolution
from ._row_groups import RowGroups, row_groups
from ._strips import Lists, height_of, shares

SHARED = (  # for Kernel.sources
    *("../_product.py", *(f"../include/{name}.h" for name in ("vector", "items", "threads"))),
    *(*STRIPS, *PLANES_SOURCES),
)

ONE_GROUP = Limit(
    lambda case: case.conv is None or case.conv.groups == 1,
    "groups must be 1: it multiplies one [m, k] matrix with all channels; use a dense kernel for grouped convolutions",
)

C_DTYPES = tuple(ITEM_MACROS)
MOST_LANES = 16  # of a vector, and of a run that is widened

Argument = Any  # a ctypes object: pointer(array) or ctypes.c_int64(value)
Call = Callable[[], Any]
# What makes the calls over a copy of W, one for each product with it; and what a record should say of them.
Bound = tuple[Callable[[], Sequence[Call]], dict[str, Any]]


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


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One product of a launch: the first writes Y, the others add to it.

    packed     a matrix that _row_groups.py knows
    arguments  makes, of a copy of it, the arguments of the body for one column, those before shares
    work       makes the nonzeros of each row that such a body takes as one, [rows]
    lists      makes the lists that _product.c takes for more columns
    """

    packed: Any
    arguments: Callable[[Any], Sequence[Argument]]
    work: Callable[[], np.ndarray]
    lists: Callable[[], Lists]


def c_product(
    body: Path,
    function: str,
    arguments: Callable[[Any], Sequence[Argument]],
    work: Callable[[Any], np.ndarray],
    lists: Callable[[Any], Lists],
) -> Callable[..., Launch]:
    """The `prepare` of a kernel in one pass, whose body for one column is the C function `function` in `body`."""

    def prepare(case: Case, packed: Any, x: np.ndarray, toolchain: Toolchain) -> Launch:
        one = Pass(packed, arguments, partial(work, packed), partial(lists, packed))
        return launched([one], body, function, case, x, toolchain)

    return prepare


def launched(
    passes: Sequence[Pass], body: Path, function: str, case: Case, x: np.ndarray, toolchain: Toolchain
) -> Launch:
    """A launch of all passes into one Y."""
    turned = case.layout == "batch" and case.conv is None

    def product(n: int, xs: Iterable[np.ndarray], ys: Iterable[np.ndarray]) -> list[Bound]:
        places = [(pointer(x), pointer(y)) for x, y in zip(xs, ys, strict=True)]
        if n > 1:
            return [bound(one.lists(), n, case.dtype, places, toolchain, turned, adds) for adds, one in _adding(passes)]
        call = _void(toolchain.c(body, **ITEM_MACROS[case.dtype]), function)
        room = pointer(toolchain.output((1, 1, 1, 1, case.m + case.k + 2 * MOST_LANES)))
        return [(partial(_vectors, call, one, toolchain.threads, places, room), {}) for one in passes]

    if case.conv is not None:
        return _convolution(product, passes, case, x, toolchain)
    y = toolchain.output((case.n, case.m) if turned else (case.m, case.n), case.dtype)
    return _launch(product(case.n, [x], [y]), y, "")


def _vectors(
    call: Any, one: Pass, threads: int, places: Sequence[tuple[Argument, Argument]], room: Argument
) -> list[Call]:
    """A call of the body for one column from and to each of `places`, all over one copy of W."""
    weights = (*one.arguments(deepcopy(one.packed)), *shared(one.work(), threads))
    return [partial(call, *weights, x, y, room) for x, y in places]


def shared(work: np.ndarray, threads: int) -> tuple[Argument, ...]:
    """Where each thread starts, so that all have about as many nonzeros, and how many threads there are."""
    threads = max(1, min(threads, len(work)))
    return pointer(shares(work + 1, threads)), *integers(threads)


def _adding(passes: Sequence[Pass]) -> Iterator[tuple[bool, Pass]]:
    """Each pass, and whether it adds to what is there."""
    return ((index > 0, one) for index, one in enumerate(passes))


def _launch(found: Sequence[Bound], y: np.ndarray, ran: str) -> Launch:
    """All passes of the first product, then those of the next, over one copy of W; the facts are the first pass's."""

    def launch() -> Launch:
        by_product = zip(*(make() for make, _ in found), strict=True)
        return Launch(_returning(y, list(chain(*by_product))), y, ran, again=launch, facts=found[0][1])

    return launch()


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


def _convolution(product: Any, passes: Sequence[Pass], case: Case, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """x [batch, c, h, w] to y [batch, m, oh, ow]: image by image where each is a product already, else from planes.

    All images are multiplied with the same copy of W. With one each, which was so for long, csr.c on 512x2048 at 7x7,
    batch 16, streamed 26 MB of lists where 1.6 will do, and kept twelve times the memory.
    """
    conv = case.conv
    assert conv is not None
    y = toolchain.output((conv.batch, case.m, conv.oh, conv.ow), case.dtype)
    if is_plain(conv):
        return _launch(product(conv.oh * conv.ow, x, y), y, "a product an image")
    found = [
        convolution(cut_of(one.packed), conv, case.dtype, pointer(x), pointer(y), toolchain, adds)
        for adds, one in _adding(passes)
    ]
    return _launch(found, y, "direct, from padded planes")


def cut_of(packed: Any) -> RowGroups:
    """`packed` as groups of rows, as high as bodies take them."""
    return row_groups(packed, height_of(packed))


def is_plain(conv: Conv) -> bool:
    """Whether each image [c, h, w] already is the [k, oh * ow] matrix of this convolution."""
    return conv.kh == conv.kw == conv.stride == 1 and conv.padding == 0


def moved_bytes(case: Case, packed: Any) -> int:
    """Bytes a C body moves at least: W, X and Y once, and a convolution's planes written and read."""
    if case.conv is None or is_plain(case.conv):
        return least_moved_bytes(case, packed)
    geometry = Geometry(case.conv)
    return least_moved_bytes(case, packed) + 2 * ITEM_BYTES[case.dtype] * case.conv.c * geometry.positions
