"""Laws that every CUDA C++ body keeps, checked on the CPU by the shim (cuda_on_cpu).

Each law says in a sentence how it was broken, or nothing. The shim adds its own to every launch: buffers between pages
without access, no byte read or written past an end, shared memory and Y full of NaN at the start, no race, no barrier
that a thread misses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda_on_cpu.toolchain import Order, ShimToolchain, filled_with_nan

from sparsebench import Case, Kernel, Launch
from sparsebench.case import NUMPY_DTYPES
from sparsebench.lab.check import Question, as_columns
from sparsebench.lab.operands import in_layout
from sparsebench.lab.reference import Reference
from sparsebench.patterns import Draw

ORDERS: tuple[Order, ...] = ("ascending", "descending", 1, 2, 3)


@dataclass
class Asked:
    """A kernel and a case, with what laws share: the draw, the questions, and a toolchain of its own."""

    kernel: Kernel
    case: Case
    toolchain: ShimToolchain
    draw: Draw = field(init=False)
    reference: Reference = field(init=False)

    def __post_init__(self) -> None:
        self.draw = self.case.draw()
        self.reference = Reference(self.case, self.draw)

    def tensor(self, x: np.ndarray) -> Any:
        """X as the kernel gets it: on the device, in the case's layout and dtype."""
        return self.toolchain.tensor(in_layout(x, self.case).astype(NUMPY_DTYPES[self.case.dtype]))

    def prepared(self, w: np.ndarray, x: Any) -> Launch:
        """The kernel ready to multiply `w` with the tensor `x`."""
        stored = w.astype(NUMPY_DTYPES[self.case.dtype])
        packed = self.kernel.format.from_dense(stored, self.draw.mask, self.draw.structure)
        return self.kernel.prepare(self.case, packed, x, self.toolchain)

    def answer(self, launch: Launch, order: Order) -> Any:
        """Y of one call that finds NaN in it, threads in this order."""
        self.toolchain.order = order
        if launch.y is not None:
            filled_with_nan(launch.y)
        return launch.run()

    def columns(self, y: Any) -> np.ndarray:
        """Y [m, n] in float64."""
        return np.asarray(as_columns(y.double().numpy(), self.case))

    def judged(self, question: Question, launch: Launch, order: Order) -> str:
        """What the gate says about one answer."""
        verdict = question.judge(self.answer(launch, order), self.case)
        return "" if verdict.ok else f"order {order}: {verdict.reason}"


def integers_are_exact(asked: Asked, *orders: Order) -> str:
    """Small integers come out bit for bit, whatever the order of threads."""
    question = asked.reference.integers()
    launch = asked.prepared(question.w, asked.tensor(question.x))
    return next((said for order in orders if (said := asked.judged(question, launch, order))), "")


def normal_data_and_unused_rows(asked: Asked, *orders: Order) -> str:
    """Normal data is within its bound; then X is NaN where no nonzero of W meets it, and Y stays finite."""
    question = asked.reference.normal()
    x = asked.tensor(question.x)
    launch = asked.prepared(question.w, x)
    for order in orders:
        if said := asked.judged(question, launch, order):
            return said
    unused = ~asked.draw.mask.any(axis=0)
    if asked.case.conv is not None or not unused.any():
        return ""
    x[unused if asked.case.layout == "feature" else (slice(None), unused)] = float("nan")
    y = asked.columns(asked.answer(launch, orders[0]))
    return "" if np.isfinite(y).all() else f"{int(np.isnan(y).sum())} entries of Y met a row of X that W never names"


def identity_returns_w(asked: Asked, order: Order = "descending") -> str:
    """X = identity returns W bit for bit; W has the bits that a TF32 kernel reads, where it is one."""
    w = asked.reference.normal().w
    if asked.case.math != "ieee":
        w = (w.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    launch = asked.prepared(w, asked.tensor(np.eye(asked.case.k, dtype=np.float32)))
    y = asked.columns(asked.answer(launch, order))
    wrong = np.argwhere(y != w)
    return f"Y{wrong[0].tolist()} is {y[tuple(wrong[0])]}, W is {w[tuple(wrong[0])]}" if len(wrong) else ""


def again_reads_its_own_copy(asked: Asked) -> str:
    """A launch made by `again` answers the same, and the first one still does."""
    question = asked.reference.integers()
    launch = asked.prepared(question.w, asked.tensor(question.x))
    if launch.again is None:
        return ""
    other = launch.again()
    return asked.judged(question, other, "ascending") or asked.judged(question, launch, "ascending")


Law = Callable[[], str]


def broken(label: str, law: Law) -> Iterator[str]:
    """Nothing, or the label with how `law` was broken; errors of the shim and of faces are breaches too."""
    try:
        said = law()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    if said:
        yield f"{label}: {said}"
