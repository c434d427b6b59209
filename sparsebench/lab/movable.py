"""A launch is bound to the addresses of X and Y; inside a network both are elsewhere in every call. It follows them.

A kernel's face binds everything before the timed call, which is right for a bench, where X and Y stay. In a network the
layer before decides where X lies, and Y must be a fresh tensor, since another layer may still read the last one.
Copying both takes its time: 26 ms instead of 15 for a convolution of 64 channels of 56x56, batch 16, in 4x1 blocks at
90 %, and 20 to 30 % more for layers of ViT-B/16. So a launch is moved, in the first of these ways that fits:

    arguments  it is called with today's tensors in the place of its own (movable_cpu.py, movable_cuda.py)
    addresses  the addresses among the arguments of its C functions are set anew (movable_cpu.py)
    copies     anything else: X is copied to where the launch reads, Y from where it writes; that is part of its time

A network's weights are met cold, so a product may hold several copies of W, each with a launch of its own, and take
another in each pass (verify_sides.py).

The moved launch of the first copy must answer as the one that stays does, and to -X the opposite, or MovedWrong is
raised before anything is timed: neither an X left where it was nor an answer left in memory that is used again can do
that, nor anything that a call left in scratch, which layers share on a CPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import SparsebenchError
from sparsebench.formats import Format
from sparsebench.kernel import Kernel, Launch
from sparsebench.lab.operands import lying_as

Way = Literal["arguments", "addresses", "copies"]
ALIKE = 1e-4  # of the largest entry: sums may be taken in another order at another address


class MovedWrong(SparsebenchError):
    """A launch answers otherwise when X and Y lie elsewhere; the message names the kernel."""


class Following(NamedTuple):
    """A way to run a launch on tensors that lie anywhere: call(X) is Y."""

    way: Way
    call: Callable[[Any], Any]


class MovingToolchain(Protocol):
    """A toolchain of all layers of a network, whose launches can follow X and Y."""

    alignment_bytes: int  # where X must start

    def place(self, case: Case) -> Any:
        """Activations as the layout of `case` stores them, where a kernel reads them that is prepared next."""
        ...

    def ways(self, case: Case, launch: Launch, x: Any) -> Iterator[Following]:
        """How `launch`, prepared with `x`, can follow; the best way first. The first that answers rightly is taken."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """A launch over one copy of W, of tensors that lie anywhere.

    case             in the kernel's native layout
    prepare_s        seconds that the kernel's `prepare` took
    alignment_bytes  where X must start
    """

    following: Following
    case: Case
    prepare_s: float
    alignment_bytes: int
    # What the launch points to, and the launch, which nobody else may run: it may hold the addresses of the last call.
    _stays: tuple[Any, ...] = field(default=(), repr=False)

    def __call__(self, x: Any) -> Any:
        """Y of X, a tensor of the native shape; brought first to where and how the launch expects it to lie."""
        x = lying_as(x, self.case)
        return self.following.call(x if x.data_ptr() % self.alignment_bytes == 0 else x.clone())


@dataclass(slots=True, eq=False)
class Movable:
    """The product of one layer by one kernel, of tensors that lie anywhere: call it with X, get Y, a fresh tensor.

    case    in the kernel's native layout: X is [k, n], [n, k] or [batch, c, h, w], Y [m, n], [n, m] or
            [batch, m, oh, ow]; images lie as that layout has them, X is brought there
    copies  one for each copy of W; `next_copy` says that the calls to come are for the next of them
    """

    kernel: Kernel
    case: Case
    copies: list[Moved]
    _bind: Callable[[Format, Way | None], Moved] = field(repr=False)
    _packed: Format = field(repr=False)
    _turn: int = 0

    @property
    def way(self) -> Way:
        """How it follows X and Y."""
        return self.copies[0].following.way

    @property
    def prepare_s(self) -> float:
        """Seconds that the kernel's `prepare` took."""
        return self.copies[0].prepare_s

    def __call__(self, x: Any) -> Any:
        """Y of X, a tensor of the native shape."""
        return self.copies[self._turn](x)

    def hold(self, copies: int) -> None:
        """Have so many copies of W, at least one."""
        del self.copies[max(copies, 1) :]
        self._turn %= len(self.copies)
        while len(self.copies) < copies:
            self.copies.append(self._bind(copy.deepcopy(self._packed), self.way))

    def next_copy(self) -> None:
        """Turn to the copy that has rested longest."""
        self._turn = (self._turn + 1) % len(self.copies)


def movable(kernel: Kernel, case: Case, packed: Format, toolchain: MovingToolchain) -> Movable:
    """`kernel` on `case` (in its native layout), able to follow X and Y; MovedWrong if it then answers otherwise."""

    def bind(packed: Format, known: Way | None = None) -> Moved:
        return moved(kernel, case, packed, toolchain, known)

    return Movable(kernel, case, [bind(packed)], bind, packed)


def moved(kernel: Kernel, case: Case, packed: Format, toolchain: MovingToolchain, known: Way | None = None) -> Moved:
    """A launch of `kernel` over `packed`, moved in the first way in which it answers as it does where it stays.

    known  the way that was found for another copy of the same W: it is taken, and the answer not looked at. Whoever
           runs the copy checks it; a look would leave holes of the size of X and Y in memory, for each of 30 copies
    """
    x = toolchain.place(case)
    start_s = time.perf_counter()
    launch = kernel.prepare(case, packed, x, toolchain)
    prepare_s = time.perf_counter() - start_s

    def made(following: Following) -> Moved:
        return Moved(following, case, prepare_s, toolchain.alignment_bytes, (x, launch))

    if known is not None:
        return made(next(following for following in toolchain.ways(case, launch, x) if following.way == known))
    first, values = as_tensor(launch.run()).clone(), as_tensor(x).clone()
    wrong = ""
    for following in toolchain.ways(case, launch, x):
        found = made(following)
        if not (wrong := _other_answer(found, values, first)):
            return found
    raise MovedWrong(
        f"{kernel.name} on {case.describe()} answers otherwise when X and Y lie elsewhere ({wrong}); this is a bug of "
        f"sparsebench/lab/movable*.py or of the kernel"
    )


def as_tensor(array: Any) -> Any:
    """A tensor over the same memory."""
    import torch

    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def by_copies(launch: Launch, x: Any) -> Following:
    """X is copied to where `launch` reads it, `x`, and Y from where it writes; on a GPU in the order of the stream."""
    place = as_tensor(x)

    def call(x: Any) -> Any:
        place.copy_(x)
        return as_tensor(launch.run()).clone()

    return Following("copies", call)


def _other_answer(made: Moved, x: Any, first: Any) -> str:
    """How Y of -X and of X, both elsewhere, differ from -first and first; empty where they do not."""
    for sign in (-1, 1):
        found = made(sign * x)
        off = float((found - sign * first).abs().max())
        if not off <= ALIKE * float(first.abs().max()):  # which NaN and infinity are not either
            return f"by {made.following.way}: Y of {'-' if sign < 0 else ''}X is off by {off:.3g}"
    return ""
