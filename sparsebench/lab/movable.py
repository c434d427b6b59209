"""A launch is bound to the addresses of X and Y; inside a network both are elsewhere in every call. It follows them.

A kernel's face binds everything before the timed call, which is right for a bench, where X and Y stay. In a network the
layer before decides where X lies, and Y must be a fresh tensor, since another layer may still read the last one.
Copying both takes its time: 26 ms instead of 15 for a convolution of 64 channels of 56x56, batch 16, in 4x1 blocks at
90 %, and 20 to 30 % more for layers of ViT-B/16. So a launch is moved, in the first of these ways that fits:

    arguments  run is a partial over tensors or arrays (torch, oneDNN, numpy): it is called with today's instead
    addresses  run calls C functions, which the toolchain handed out and listened to: every address in their arguments
               that lies in X or Y is set anew, those inside structures too
    copies     anything else: X is copied to where the launch reads, Y from where it writes; that is part of its time

A moved launch must answer as the launch that stays does, or MovedWrong is raised before anything is timed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case
from sparsebench.errors import SparsebenchError
from sparsebench.formats import Format
from sparsebench.kernel import Kernel, Launch
from sparsebench.lab.build import CpuToolchain
from sparsebench.lab.tamper import LINE_BYTES, fenced

Way = Literal["arguments", "addresses", "copies"]
ALIKE = 1e-4  # of the largest entry: sums may be taken in another order at another address


class MovedWrong(SparsebenchError):
    """A launch answers otherwise when X and Y lie elsewhere; the message names the kernel."""


class Listened:
    """A C function that adds what it is called with to `heard`; what is set on it is set on the function."""

    _function: Any
    _heard: list[tuple[Any, ...]]

    def __init__(self, function: Any, heard: list[tuple[Any, ...]]) -> None:
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "_heard", heard)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._function, name, value)  # restype, argtypes

    def __call__(self, *args: Any) -> Any:
        self._heard.append(args)
        return self._function(*args)


class Overheard:
    """A C library of Listened functions."""

    def __init__(self, library: Any, heard: list[tuple[Any, ...]]) -> None:
        self._library, self._heard = library, heard

    def __getattr__(self, name: str) -> Listened:
        found = Listened(getattr(self._library, name), self._heard)
        self.__dict__[name] = found
        return found


class NetworkToolchain(CpuToolchain):
    """The toolchain of all layers of a network: their scratch is shared, since they never run at once.

    heard  what C functions were called with since it was cleared
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.heard: list[tuple[Any, ...]] = []
        self._rooms: dict[tuple[tuple[int, ...], str], np.ndarray] = {}

    def c(self, body: Path, **macros: int) -> Any:
        """As CpuToolchain.c; its functions are listened to."""
        return Overheard(super().c(body, **macros), self.heard)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """The one buffer of this shape and dtype, filled with NaN when it is made."""
        if (shape, dtype) not in self._rooms:
            self._rooms[shape, dtype] = fenced(np.full(shape, np.nan, NUMPY_DTYPES[dtype]))
        return self._rooms[shape, dtype]


class Word(NamedTuple):
    """One address among the arguments of a call: `offset` bytes into X or Y."""

    holder: Any
    name: str
    offset: int


@dataclass(slots=True, eq=False)
class Movable:
    """The product of one layer by one kernel, of tensors that lie anywhere: call it with X, get Y, a fresh tensor.

    case       in the kernel's native layout: X is [k, n], [n, k] or [batch, c, h, w], Y [m, n], [n, m] or
               [batch, m, oh, ow]
    prepare_s  seconds that the kernel's `prepare` took
    way        how it follows X and Y
    """

    kernel: Kernel
    case: Case
    prepare_s: float
    way: Way
    call: Callable[[Any], Any]
    # What the launch points to, and the launch, which nobody else may run: it holds the addresses of the last call.
    _stays: tuple[Any, ...] = field(default=(), repr=False)

    def __call__(self, x: Any) -> Any:
        """Y of X, a contiguous tensor of the native shape."""
        return self.call(x)


def movable(kernel: Kernel, case: Case, packed: Format, toolchain: NetworkToolchain) -> Movable:
    """`kernel` on `case` (in its native layout), able to follow X and Y; MovedWrong if it then answers otherwise."""
    import torch

    x = fenced(case_x(case))
    start_s = time.perf_counter()
    launch = kernel.prepare(case, packed, x, toolchain)
    prepare_s = time.perf_counter() - start_s
    toolchain.heard.clear()
    first = torch.from_numpy(np.array(_array(launch.run())))
    calls = list(toolchain.heard)
    way, call = _moving(case, launch, x, calls)
    made = Movable(kernel, case, prepare_s, way, call, (x, launch))
    toolchain.heard.clear()
    _refuse_other_answers(made, torch.from_numpy(x.copy()), first)
    return made


def case_x(case: Case) -> np.ndarray:
    """Activations of `case` as its layout stores them."""
    x = case.activations()
    return x if case.conv is not None or case.layout == "feature" else np.ascontiguousarray(x.T)


def y_shape(case: Case) -> tuple[int, ...]:
    """The shape of Y as the layout of `case` stores it."""
    if case.conv is not None:
        return case.conv.batch, case.m, case.conv.oh, case.conv.ow
    return (case.m, case.n) if case.layout == "feature" else (case.n, case.m)


def _moving(
    case: Case, launch: Launch, x: np.ndarray, calls: Sequence[tuple[Any, ...]]
) -> tuple[Way, Callable[[Any], Any]]:
    y = launch.y
    if isinstance(launch.run, partial) and (by_arguments := _by_arguments(case, launch.run, x, y)):
        return "arguments", by_arguments
    if y is not None and (words := [list(_words(calls, operand)) for operand in (x, y)]) and all(words):
        return "addresses", _by_addresses(case, launch, *words)
    return "copies", _by_copies(launch, x)


# By arguments -------------------------------------------------------------------------------------------------------


def _by_arguments(case: Case, run: partial[Any], x: np.ndarray, y: Any) -> Callable[[Any], Any] | None:
    """`run` with today's X and a fresh Y in the places of its own; None where it does not take X as an argument."""
    import torch

    named: dict[int | str, Any] = dict(enumerate(run.args))
    named.update(run.keywords)
    of_x = [name for name, value in named.items() if _is(value, x)]
    of_y = [name for name, value in named.items() if y is not None and _is(value, y)]
    if len(of_x) != 1 or len(of_y) != (y is not None):
        return None
    as_arrays, shape = isinstance(named[of_x[0]], np.ndarray), y_shape(case)
    args, keywords = list(run.args), dict(run.keywords)

    def put(name: int | str, value: Any) -> None:
        if isinstance(name, int):
            args[name] = value
        else:
            keywords[name] = value

    def call(x: Any) -> Any:
        put(of_x[0], x.numpy() if as_arrays else x)
        fresh = torch.empty(shape) if of_y else None
        if fresh is not None:
            put(of_y[0], fresh.numpy() if as_arrays else fresh)
        found = run.func(*args, **keywords)
        put(of_x[0], None)
        return found if fresh is None else fresh

    return call


def _is(value: Any, array: np.ndarray) -> bool:
    """Whether `value`, a tensor or an array, is all of `array`."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data == array.ctypes.data and value.shape == array.shape
    return hasattr(value, "data_ptr") and value.data_ptr() == array.ctypes.data and tuple(value.shape) == array.shape


# By addresses -------------------------------------------------------------------------------------------------------


def _words(calls: Sequence[tuple[Any, ...]], operand: np.ndarray) -> Iterator[Word]:
    """Every address in the arguments of `calls` that lies in `operand`, each place once."""
    seen: set[tuple[int, str]] = set()
    for holder, name in (place for args in calls for argument in args for place in _places(argument)):
        offset = (getattr(holder, name) or 0) - operand.ctypes.data
        if 0 <= offset < operand.nbytes and (id(holder), name) not in seen:
            seen.add((id(holder), name))
            yield Word(holder, name, offset)


def _places(argument: Any) -> Iterator[tuple[Any, str]]:
    """Where addresses stand in a C argument: in itself, or in the structures it points to."""
    if isinstance(argument, ctypes.c_void_p):
        yield argument, "value"
    held = getattr(argument, "_obj", argument)  # what byref() points to
    for struct in held if isinstance(held, ctypes.Array) else [held]:
        for name, kind, *_ in getattr(struct, "_fields_", ()):
            if kind is ctypes.c_void_p:
                yield struct, name


def _by_addresses(case: Case, launch: Launch, of_x: Sequence[Word], of_y: Sequence[Word]) -> Callable[[Any], Any]:
    import torch

    shape, run = y_shape(case), launch.run

    def call(x: Any) -> Any:
        y = torch.empty(shape)
        for words, address in ((of_x, x.data_ptr()), (of_y, y.data_ptr())):
            for holder, name, offset in words:
                setattr(holder, name, address + offset)
        run()
        return y

    return call


# By copies ----------------------------------------------------------------------------------------------------------


def _by_copies(launch: Launch, x: np.ndarray) -> Callable[[Any], Any]:
    import torch

    place = torch.from_numpy(x)

    def call(x: Any) -> Any:
        place.copy_(x)
        found = launch.run()
        return torch.from_numpy(np.array(found)) if isinstance(found, np.ndarray) else found.clone()

    return call


def _refuse_other_answers(made: Movable, x: Any, first: Any) -> None:
    """Y of the same values elsewhere, twice, must be what it was."""
    import torch

    for values in (x, x.clone()):
        found = made(aligned(values))
        worst = float((found - first).abs().max())
        if not worst <= ALIKE * float(first.abs().max()) or not torch.isfinite(found).all():
            raise MovedWrong(
                f"{made.kernel.name} on {made.case.describe()} answers otherwise when X and Y lie elsewhere (by "
                f"{made.way}): Y is off by {worst:.3g}; this is a bug of sparsebench/lab/movable.py or of the kernel"
            )


def aligned(x: Any) -> Any:
    """`x` itself where it is contiguous and starts at a cache line, as kernels expect; else a copy that does."""
    x = x.contiguous()
    return x if x.data_ptr() % LINE_BYTES == 0 else x.clone()


def _array(y: Any) -> np.ndarray:
    return y if isinstance(y, np.ndarray) else y.numpy()
