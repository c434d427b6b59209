"""Every law on every case that the tests ask of CUDA C++ bodies, as trials that mutation.py can run again and again.

A trial prepares once: what is drawn, packed and bound is kept, and a rerun only launches, with whatever machine code
its functions have by then. Tensors of activations and all outputs are as at the start again.
"""

from __future__ import annotations

import ctypes
import random
import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import test_cuda_blocks as blocks
import test_cuda_bodies as bodies
import test_cuda_conv as convs
import test_cuda_rbgp4 as graphs
import test_cuda_slab as slabs
from cuda_cases import KERNELS, units
from cuda_laws import (
    ORDERS,
    Asked,
    again_reads_its_own_copy,
    broken,
    identity_returns_w,
    integers_are_exact,
    normal_data_and_unused_rows,
)
from cuda_on_cpu.toolchain import Order, ShimFunction, ShimToolchain, filled_with_nan, unit_of
from sparsebench.kernels import _conv

from sparsebench import Case, Kernel, Launch
from sparsebench.lab.build import include_folder

SOURCES = include_folder().resolve().parent  # kernels/
INCLUDED = re.compile(r'^#line 1 "(\w+\.cuh)"$', re.MULTILINE)
CONVOLUTIONS = [SOURCES / name for name in ("_conv.cu", "_conv_staged.cu", "_pad.cu")]
BY_NAME = {kernel.name: kernel for kernel in KERNELS}

Law = Callable[[Asked], str]


class Replayed(Asked):
    """What a law asks, remembered: the second time it gets the same tensors and launches, and nothing is packed."""

    def begin(self) -> None:
        """Everything as it was before the law was asked."""
        self._turns = {"tensor": 0, "launch": 0}
        for tensor in self.toolchain._outputs.values():
            filled_with_nan(tensor)

    def tensor(self, x: np.ndarray) -> Any:
        kept, bits = self._kept("tensor", lambda: with_bits(super(Replayed, self).tensor(x)))
        ctypes.memmove(kept.data_ptr(), bits, len(bits))
        return kept

    def prepared(self, w: np.ndarray, x: Any) -> Launch:
        launch: Launch = self._kept("launch", lambda: super(Replayed, self).prepared(w, x))
        return replace(launch, again=launch.again and (lambda: self._kept("launch", launch.again)))

    def _kept(self, what: str, make: Callable[[], Any]) -> Any:
        memory: list[Any] = self.__dict__.setdefault(f"_{what}s", [])
        turn = self._turns[what]
        self._turns[what] += 1
        if turn == len(memory):
            memory.append(make())
        return memory[turn]


def with_bits(tensor: Any) -> tuple[Any, bytes]:
    return tensor, ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size())


@dataclass
class Trial:
    """One law on one case; `functions` are those asked for, each with what it was compiled from."""

    name: str
    asked: Replayed
    law: Law
    functions: list[tuple[ShimFunction, Path, str, dict[str, Any]]] = field(default_factory=list)

    def run(self) -> str:
        """How the law was broken, or nothing."""
        self.asked.begin()
        return next(broken(self.name, lambda: self.law(self.asked)), "")

    def prepare(self) -> None:
        """Run, and run again, with the bodies as they are; AssertionError where the law is broken."""
        said = self.run() or self.run()
        assert not said, f"without any fault, {said}"
        toolchain = self.asked.toolchain
        self.functions = [(toolchain.cuda(*of), *of) for of in list(toolchain.asked)]

    @property
    def files(self) -> frozenset[str]:
        """Paths below kernels/ of all that the trial's functions may be made of."""
        kernel = self.asked.kernel
        bodies = CONVOLUTIONS if self.asked.case.conv else [Path(kernel.home or "").parent / (kernel.body or "")]
        return frozenset().union(*map(sources_of, bodies))


@lru_cache(maxsize=4096)
def loaded(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


@lru_cache
def sources_of(body: Path) -> frozenset[str]:
    """Paths below kernels/ of a body and all it includes."""
    included = INCLUDED.findall(unit_of(body, "any", {}))
    return frozenset({str(body.resolve().relative_to(SOURCES)), *(f"include/{name}" for name in included)})


# ------------------------------------------------------------------------------------------------------- what is asked

Shim = Callable[..., ShimToolchain]


def all_trials(shim: Shim) -> Iterator[Trial]:
    """Tiles that differ the most first, then those that faces choose; not prepared."""
    yield from of_slabs(shim)
    yield from of_blocks(shim)
    yield from of_graphs(shim)
    yield from of_convolutions(shim)
    general = list(of_all_bodies(shim))
    random.Random(0).shuffle(general)
    yield from general


def laws_on(label: str, kernel: Kernel, case: Case, toolchain: ShimToolchain, laws: dict[str, Law]) -> Iterator[Trial]:
    first = Replayed(kernel, case, toolchain)
    for name, law in laws.items():
        yield Trial(f"{label} {name}", copy(first), law)


def gates(orders: Sequence[Order], normal: Order | None = None) -> dict[str, Law]:
    """Integers in these orders of threads; normal data in `normal`, or the first of them."""
    return {
        "integers": lambda asked: integers_are_exact(asked, *orders),
        "normal": lambda asked: normal_data_and_unused_rows(asked, orders[0] if normal is None else normal),
    }


IDENTITY: dict[str, Law] = {"identity": identity_returns_w, "again": again_reads_its_own_copy}


def of_all_bodies(shim: Shim) -> Iterator[Trial]:
    for unit in units():
        for turn, (law, label, case) in enumerate(bodies.checks(unit)):
            orders = [ORDERS[(turn + i) % len(ORDERS)] for i in range(2)]
            toolchain = shim(side="start" if turn % 4 == 3 else "end")
            laws = IDENTITY if law == "identity" else gates(orders)
            yield from laws_on(f"{unit} {label}", unit.kernel, case, toolchain, laws)


def of_slabs(shim: Shim) -> Iterator[Trial]:
    for number, (name, way) in enumerate(slabs.WAYS.items()):
        toolchain = shim(gpu=way.gpu, side="start" if number % 3 == 2 else "end")
        yield from laws_on(f"slab {name}", way.kernel, way.case, toolchain, gates(slabs.orders_of(number), number))


def of_blocks(shim: Shim) -> Iterator[Trial]:
    faces = {"bsr.cuda": blocks.bsr, "hbs.cuda": blocks.hbs}
    for name, case, tile in blocks.BODIES:
        kernel = replace(BY_NAME[name], prepare=faces[name].prepared_with(tile))
        yield from laws_on(f"{case.describe()} {tile}", kernel, case, shim(), gates(["ascending", "descending", 5], 6))


def of_graphs(shim: Shim) -> Iterator[Trial]:
    for number in range(len(graphs.TILES)):
        for kernel, case, order in graphs.of_tile(number):
            yield from laws_on(f"{case.describe()} tile {number}", kernel, case, shim(), gates([order]))
    maths = (("bfloat16", "ieee"), ("float16", "ieee"), ("float32", "tf32"), ("float32", "tf32x3"))
    for first, (dtype, math) in enumerate(maths):
        for turn, problem in enumerate(graphs.RBGP4_WIDE, start=first):
            layout, n, order = graphs.wide_case(turn)
            case = graphs.case_of(problem, n, dtype, layout, math)
            yield from laws_on(f"{problem.label} {dtype} {math}", graphs.MMA, case, shim(), gates([order]))


def of_convolutions(shim: Shim) -> Iterator[Trial]:
    for number, (name, (_, tile)) in enumerate(convs.WAYS.items()):
        case, most, toolchain = convs.way_case(number, name, shim)
        kernel = convolving(case.pattern, convs.staged_with(tile, most))
        yield from laws_on(f"conv {name}", kernel, case, toolchain, gates(["ascending", "descending"], number))
    for conv, m, tile in convs.WIDE:
        kernel = convolving("unstructured", partial(_conv.from_planes, tile=tile))
        case = convs.asked("unstructured", conv, m)
        yield from laws_on(f"planes {tile}", kernel, case, shim(), gates(["ascending", "descending"]))
    for (number, pattern), prepare in product(enumerate(convs.ASKED), (_conv.convolution, _conv.from_planes)):
        for case, turn in convs.geometries(number, pattern, prepare):
            kernel, label = convolving(pattern, prepare), f"{pattern} {case.conv} {prepare.__name__}"
            yield from laws_on(label, kernel, case, shim(), gates([turn], "descending"))


def convolving(pattern: str, prepare: Any) -> Kernel:
    """A kernel of the format that stores `pattern`, whose convolutions are `prepare`'s."""
    of = next(kernel for kernel in KERNELS if kernel.format is convs.STORED_BY[pattern])
    return replace(of, prepare=prepare)
