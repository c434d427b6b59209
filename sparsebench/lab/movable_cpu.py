"""How a launch on the CPU follows X and Y: by its arguments, or by the addresses among those of its C functions.

arguments  run is a partial over tensors or arrays (torch, oneDNN, numpy): it is called with today's instead
addresses  run calls C functions, which the toolchain handed out and listened to: every address in their arguments
           that lies in X or Y is set anew, those inside structures too; some 5 us a call
copies     anything else (movable.py)

Bodies in C keep what they need during a call - padded planes, slabs - in scratch that they ask the toolchain for. One
stretch of memory serves all layers, since no two run at once: a layer meets it as the one before left it, warm, as a
bench's rounds do, and as an engine would have it. Kept apart, each layer's was cold: some 10 us a layer of VGG19, batch
1, 4 % of its time.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# torch: its tensors are what layers of a network hand on.
import torch

from sparsebench.case import NUMPY_DTYPES, Case
from sparsebench.kernel import Launch
from sparsebench.lab.build import CpuToolchain
from sparsebench.lab.movable import Following, by_copies
from sparsebench.lab.operands import SCRATCH_AXES, in_layout, y_shape
from sparsebench.lab.tamper import LINE_BYTES, fenced

SCRATCH_BYTES = 2**28  # of addresses: only pages that are written take memory


class SharedScratch:
    """One stretch of memory for the scratch of all launches that never run at once.

    What one launch asks for lies apart, and the same again where it asks for the same; launches lie over each other.
    Launches are bound to addresses, which therefore stay: room is set aside before anybody knows how much is needed.
    """

    def __init__(self, room_bytes: int = SCRATCH_BYTES) -> None:
        self._room = np.frombuffer(mmap.mmap(-1, room_bytes), np.uint8)
        self._given: dict[tuple[tuple[int, ...], str], np.ndarray] = {}
        self._used_bytes = 0

    def next_launch(self) -> None:
        """What is asked for from now on is another launch's."""
        self._given, self._used_bytes = {}, 0

    def of(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Scratch of this launch, full of NaN; of its own where there is no more room."""
        if (shape, dtype) not in self._given:
            kind = np.dtype(NUMPY_DTYPES[dtype])
            start, size = self._used_bytes, int(np.prod(shape)) * kind.itemsize
            if start + size <= self._room.nbytes:
                self._given[shape, dtype] = self._room[start : start + size].view(kind).reshape(shape)
                self._used_bytes = -(-(start + size) // LINE_BYTES) * LINE_BYTES
            else:
                self._given[shape, dtype] = fenced(np.empty(shape, kind))
            self._given[shape, dtype].fill(np.nan)
        return self._given[shape, dtype]

    def spoil(self) -> None:
        """Fill this launch's scratch with NaN, as other launches may leave anything in it."""
        for scratch in self._given.values():
            scratch.fill(np.nan)


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
    """The toolchain of all layers of a network, which never run at once: they share their scratch.

    heard  what C functions were called with since it was cleared
    """

    alignment_bytes = LINE_BYTES

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.heard: list[tuple[Any, ...]] = []
        self._outputs: dict[tuple[tuple[int, ...], str], np.ndarray] = {}
        self._scratch = SharedScratch()
        self._places: dict[tuple[Any, ...], np.ndarray] = {}

    def c(self, body: Path, **macros: int) -> Any:
        """As CpuToolchain.c; its functions are listened to."""
        return Overheard(super().c(body, **macros), self.heard)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """The one buffer of this shape and dtype, full of NaN when it is made; scratch lies over other launches'."""
        if len(shape) == SCRATCH_AXES:
            return self._scratch.of(shape, dtype)
        if (shape, dtype) not in self._outputs:
            self._outputs[shape, dtype] = fenced(np.full(shape, np.nan, NUMPY_DTYPES[dtype]))
        return self._outputs[shape, dtype]

    def place(self, case: Case) -> np.ndarray:
        """An aligned array of activations in the layout of `case`, for a launch that is about to be prepared.

        One for all launches that ask for activations of its shape: moved, they read others.
        """
        self._scratch.next_launch()
        about = case.k, case.n, case.dtype, case.layout, case.conv
        if about not in self._places:
            self._places[about] = in_layout(case.activations(), case)
        return self._places[about]

    def ways(self, case: Case, launch: Launch, x: np.ndarray) -> Iterator[Following]:
        """The one way in which `launch` follows; nothing it left in its scratch is there any more when it does."""
        self.heard.clear()
        launch.run()
        calls, y = list(self.heard), launch.y
        self.heard.clear()
        self._scratch.spoil()
        if isinstance(launch.run, partial) and (by_arguments := _by_arguments(case, launch.run, x, y)):
            yield Following("arguments", by_arguments)
        elif y is not None and (words := [list(_words(calls, operand)) for operand in (x, y)]) and all(words):
            yield Following("addresses", _by_addresses(case, launch, *words))
        else:
            yield by_copies(launch, x)


class Word(NamedTuple):
    """One address among the arguments of a call: `offset` bytes into X or Y."""

    holder: Any
    name: str
    offset: int


# By arguments -------------------------------------------------------------------------------------------------------


def _by_arguments(case: Case, run: partial[Any], x: np.ndarray, y: Any) -> Callable[[Any], Any] | None:
    """`run` with today's X and a fresh Y in the places of its own; None where it does not take X as an argument."""
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
    shape, run = y_shape(case), launch.run

    def call(x: Any) -> Any:
        y = torch.empty(shape)
        for words, address in ((of_x, x.data_ptr()), (of_y, y.data_ptr())):
            for holder, name, offset in words:
                setattr(holder, name, address + offset)
        run()
        return y

    return call
