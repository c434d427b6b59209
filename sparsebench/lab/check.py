"""Is the answer right? Two gates before the clock, both required, and the second once more after it on fresh inputs.

Integer gate. W's nonzeros and X are +-1..+-4. Every partial sum is an integer below 2**24, exact in fp32 whatever the
order of summation, so Y must equal the float64 reference, rounded once to the output's dtype, bit for bit. One lost,
doubled or misplaced nonzero cannot hide.

Precision gate. Zero-mean normal data; an entry of t terms may be off by 8 u sqrt(t) sqrt(sum (w x)^2) + u_out |y|:
rounding errors of random sign add like a random walk. True fp32 peaks near 0.15 of it. The usual worst-case bound
gamma(t) |w| |x| cannot fail: at 2,000 terms it lets TF32 pass as fp32 and lets a row lose a nonzero.

The reference is computed once a case in float64, densely, on the device: by numpy here, by torch on a GPU
(device_check.py, tested against this one); of integers in float32, which holds each of their sums exactly. W and X are
rounded to the case's dtype before anyone sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case, Conv

# Unit roundoff of a multiply-add by math, and of the output by dtype. Three TF32 products carry 21 bits of each factor.
U_MATH: Mapping[str, float] = {"ieee": 2.0**-24, "tf32": 2.0**-11, "tf32x3": 2.0**-21}
# Products of 16-bit factors are exact in fp32; a tensor core then adds them with a few bits less than fp32 keeps and
# without rounding. 2**-21 leaves it three bits, and is still a thousand times less than a lost nonzero or fp16 sums.
U_16_BIT = 2.0**-21
U_OUT: Mapping[str, float] = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
MOST_INTEGER = 4  # of the integer gate's data
EXACT_FLOAT32 = 2**24  # integers up to here have no rounding
WALK = 8.0  # standard deviations of the random walk that pass


def unit_roundoff(case: Case) -> float:
    """The u of the precision gate for this case's math and dtype."""
    return U_MATH[case.math] if case.dtype == "float32" else U_16_BIT


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says: `ratio` is the largest |error| over its allowance, `reason` is empty when ok."""

    ok: bool
    ratio: float
    reason: str = ""


def columns_of(x: np.ndarray, conv: Conv | None) -> np.ndarray:
    """X as a matrix [k, n]: `x` itself, or im2col of x [batch, c, h, w] with rows in the order (c, kh, kw)."""
    if conv is None:
        return x
    padded = np.pad(x, ((0, 0), (0, 0), (conv.padding,) * 2, (conv.padding,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (conv.kh, conv.kw), axis=(2, 3))
    windows = windows[:, :, :: conv.stride, :: conv.stride]  # batch, c, oh, ow, kh, kw
    return windows.transpose(1, 4, 5, 0, 2, 3).reshape(conv.c * conv.kh * conv.kw, -1)


def product(w: np.ndarray, x: np.ndarray, conv: Conv | None = None, dtype: type = np.float64) -> np.ndarray:
    """W @ X in float64, [m, n]; with groups each group of rows meets its own share of the input channels.

    `dtype` float32 takes a third of the time, where it is as good: for small integers, and for what an error may be.
    """
    w, columns = w.astype(dtype, copy=False), columns_of(x.astype(dtype, copy=False), conv)
    if conv is None or conv.groups == 1:
        return np.asarray(w @ columns)
    rows = w.reshape(conv.groups, -1, w.shape[1])
    return np.concatenate([part @ share for part, share in zip(rows, np.split(columns, conv.groups), strict=True)])


def allowance(
    w: np.ndarray, x: np.ndarray, y: np.ndarray, *, u: float, u_out: float, conv: Conv | None = None
) -> np.ndarray:
    """Largest |error| allowed in each entry of y [m, n] = w [m, k] @ x, for zero-mean data; [m, n]."""
    terms = np.count_nonzero(w, axis=1)[:, None]
    squares = product(np.square(w), np.square(x), conv, np.float32)
    return np.asarray(WALK * u * np.sqrt(terms) * np.sqrt(squares) + u_out * np.abs(y))


def as_columns(y: np.ndarray, case: Case) -> np.ndarray:
    """A kernel's output in its native layout (kernel.Launch) as Y [m, n]; ValueError when it has another shape."""
    native: tuple[int, ...] = (case.m, case.n) if case.layout == "feature" else (case.n, case.m)
    if case.conv is not None:
        native = (case.conv.batch, case.m, case.conv.oh, case.conv.ow)
    if y.shape != native:
        raise ValueError(f"the output has shape {list(y.shape)}, {list(native)} was asked for")
    if case.conv is not None:
        order = (1, 0, 2, 3)
        return (y.permute(order) if hasattr(y, "permute") else y.transpose(order)).reshape(case.m, case.n)
    return y if case.layout == "feature" else y.T


@dataclass(frozen=True, slots=True)
class Worst:
    """The entry of an answer that is furthest off: by `ratio` times its allowance; `off` entries are beyond theirs."""

    row: int
    column: int
    found: float
    expected: float
    allowed: float
    ratio: float
    off: int


class Arithmetic(Protocol):
    """Float64 where the answers are: arrays of numpy, or tensors on a GPU."""

    def product(self, w: np.ndarray, x: np.ndarray, conv: Conv | None) -> Any:
        """W @ X, [m, n]."""
        ...

    def integers(self, w: np.ndarray, x: np.ndarray, conv: Conv | None) -> Any:
        """W @ X of small integers, exactly."""
        ...

    def rounded(self, y: Any, dtype: str) -> Any:
        """`y` rounded once to `dtype`, in float64."""
        ...

    def allowance(self, w: np.ndarray, x: np.ndarray, y: Any, u: float, u_out: float, conv: Conv | None) -> Any:
        """Largest |error| allowed in each entry of y."""
        ...

    def answer(self, answer: Any) -> Any:
        """A kernel's output in float64."""
        ...

    def worst(self, found: Any, y: Any, allowed: Any) -> Worst:
        """The worst entry of `found`, all [m, n]; one that is not finite has ratio infinity."""
        ...

    def by_columns(self, y: Any, signs: np.ndarray) -> Any:
        """`y` [m, n] with its columns times `signs` [n]."""
        ...


class NumpyArithmetic:
    """Float64 by numpy."""

    def product(self, w: np.ndarray, x: np.ndarray, conv: Conv | None) -> np.ndarray:
        """W @ X, [m, n]."""
        return product(w, x, conv)

    def integers(self, w: np.ndarray, x: np.ndarray, conv: Conv | None) -> np.ndarray:
        """W @ X of small integers: float32 holds every partial sum, so that its order does not matter either."""
        exact = w.shape[1] * MOST_INTEGER**2 < EXACT_FLOAT32
        return product(w, x, conv, np.float32 if exact else np.float64).astype(np.float64)

    def rounded(self, y: np.ndarray, dtype: str) -> np.ndarray:
        """`y` rounded once to `dtype`; by way of float32, as kernels do. Integers are exact there."""
        return y.astype(np.float32).astype(NUMPY_DTYPES[dtype]).astype(np.float64)

    def allowance(
        self, w: np.ndarray, x: np.ndarray, y: np.ndarray, u: float, u_out: float, conv: Conv | None
    ) -> np.ndarray:
        """Largest |error| allowed in each entry of y."""
        return allowance(w, x, y, u=u, u_out=u_out, conv=conv)

    def answer(self, answer: Any) -> np.ndarray:
        """A kernel's output in float64."""
        if hasattr(answer, "detach"):
            answer = answer.detach().double().cpu()  # numpy cannot read torch's bfloat16
        return np.asarray(answer, np.float64)

    def worst(self, found: np.ndarray, y: np.ndarray, allowed: np.ndarray) -> Worst:
        """The worst entry of `found`. Right answers, which are most, are known to be so in half the passes."""
        ratios = np.subtract(found, y)
        if not ratios.any():
            return Worst(0, 0, float(found[0, 0]), float(y[0, 0]), float(allowed[0, 0]), 0.0, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(np.abs(ratios, out=ratios), allowed, out=ratios)
        at = divmod(int(ratios.argmax()), ratios.shape[1])  # of the first NaN, if there is one
        off = 0
        if not ratios[at] <= 1:
            ratios[found == y] = 0
            ratios[np.isnan(ratios) | ~np.isfinite(found)] = np.inf
            at, off = divmod(int(ratios.argmax()), ratios.shape[1]), int((ratios > 1).sum())
        return Worst(at[0], at[1], float(found[at]), float(y[at]), float(allowed[at]), float(ratios[at]), off)

    def by_columns(self, y: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """`y` with its columns times `signs`."""
        return np.asarray(y * signs)


NUMPY = NumpyArithmetic()


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One set of operands with its float64 answer and what an answer may be off by (0 for integers).

    w [m, k], x as Case.activations gives it, y [m, n], allowed [m, n]
    """

    w: np.ndarray
    x: np.ndarray
    y: Any
    allowed: Any
    arithmetic: Arithmetic = NUMPY

    def turned(self, signs: np.ndarray) -> Question:
        """This question where the samples behind each column of Y have these signs, [n]. Its `x` and `w` stay."""
        return replace(self, y=self.arithmetic.by_columns(self.y, signs))

    def judge(self, answer: Any, case: Case, columns: slice = slice(None)) -> Verdict:
        """Compare a kernel's output, in the native layout of `case`, with the reference, entry by entry.

        Or these columns of Y alone.
        """
        try:
            found = self.arithmetic.answer(as_columns(answer, case)[:, columns])
        except ValueError as other_shape:
            return Verdict(False, float("inf"), str(other_shape))
        worst = self.arithmetic.worst(found, self.y[:, columns], self.allowed[:, columns])
        entry = f"Y[{worst.row}, {worst.column + (columns.start or 0)}] is"
        if not np.isfinite(worst.found):
            return Verdict(False, float("inf"), f"{entry} {worst.found}: never written, or overflowed")
        if worst.ratio <= 1:
            return Verdict(True, worst.ratio)
        return Verdict(
            False,
            worst.ratio,
            f"{entry} {worst.found:.9g}, the float64 reference says {worst.expected:.9g};"
            f" allowed is {worst.allowed:.3g}, {worst.off} of {found.shape[0] * found.shape[1]} entries are off",
        )
