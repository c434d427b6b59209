"""Is the answer right? Two gates before the clock, both required, and the second once more after it on fresh inputs.

Integer gate. W's nonzeros and X are +-1..+-4. Every partial sum is an integer below 2**24, exact in fp32 whatever the
order of summation, so Y must equal the float64 reference, rounded once to the output's dtype, bit for bit. One lost,
doubled or misplaced nonzero cannot hide.

Precision gate. Zero-mean normal data; an entry of t terms may be off by 8 u sqrt(t) sqrt(sum (w x)^2) + u_out |y|:
rounding errors of random sign add like a random walk. True fp32 peaks near 0.15 of it. The usual worst-case bound
gamma(t) |w| |x| cannot fail: at 2,000 terms it lets TF32 pass as fp32 and lets a row lose a nonzero.

The reference is computed once a case in float64, densely, with numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsebench.case import Case, Conv, FileData
from sparsebench.patterns import Draw

# Unit roundoff of a multiply-add by math, and of the output by dtype. 2**-11 is what a tensor core's fp32 accumulation
# of 16-bit products needs too; three TF32 products carry 21 bits of each factor.
U_MATH: Mapping[str, float] = {"ieee": 2.0**-24, "tf32": 2.0**-11, "tf32x3": 2.0**-21}
U_OUT: Mapping[str, float] = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
WALK = 8.0  # standard deviations of the random walk that pass


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


def product(w: np.ndarray, x: np.ndarray, conv: Conv | None = None) -> np.ndarray:
    """W @ X in float64, [m, n]; with groups each group of rows meets its own share of the input channels."""
    w, columns = w.astype(np.float64), columns_of(x.astype(np.float64), conv)
    if conv is None or conv.groups == 1:
        return np.asarray(w @ columns)
    rows = w.reshape(conv.groups, -1, w.shape[1])
    return np.concatenate([part @ share for part, share in zip(rows, np.split(columns, conv.groups), strict=True)])


def allowance(
    w: np.ndarray, x: np.ndarray, y: np.ndarray, *, u: float, u_out: float, conv: Conv | None = None
) -> np.ndarray:
    """Largest |error| allowed in each entry of y [m, n] = w [m, k] @ x, for zero-mean data; [m, n]."""
    terms = np.count_nonzero(w, axis=1)[:, None]
    squares = product(np.square(w, dtype=np.float64), np.square(x, dtype=np.float64), conv)
    return np.asarray(WALK * u * np.sqrt(terms) * np.sqrt(squares) + u_out * np.abs(y))


def as_columns(y: np.ndarray, case: Case) -> np.ndarray:
    """A kernel's output in its native layout (kernel.Launch) as Y [m, n]; ValueError when it has another shape."""
    native: tuple[int, ...] = (case.m, case.n) if case.layout == "feature" else (case.n, case.m)
    if case.conv is not None:
        native = (case.conv.batch, case.m, case.conv.oh, case.conv.ow)
    if y.shape != native:
        raise ValueError(f"the output has shape {list(y.shape)}, {list(native)} was asked for")
    if case.conv is not None:
        return np.reshape(y.transpose(1, 0, 2, 3), (case.m, case.n))
    return y if case.layout == "feature" else np.transpose(y)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One set of operands with its float64 answer and what an answer may be off by (0 for integers).

    w [m, k], x as Case.activations gives it, y [m, n], allowed [m, n]
    """

    w: np.ndarray
    x: np.ndarray
    y: np.ndarray
    allowed: np.ndarray

    def judge(self, answer: Any, case: Case) -> Verdict:
        """Compare a kernel's output, in the native layout of `case`, with the reference, entry by entry."""
        try:
            found = as_columns(np.asarray(answer), case).astype(np.float64)
        except ValueError as other_shape:
            return Verdict(False, float("inf"), str(other_shape))
        if not np.isfinite(found).all():
            row, column = np.argwhere(~np.isfinite(found))[0]
            return Verdict(
                False, float("inf"), f"Y[{row}, {column}] is {found[row, column]}: never written, or overflowed"
            )
        error = np.abs(found - self.y)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(error == 0, 0.0, error / self.allowed)
        row, column = np.unravel_index(int(ratios.argmax()), ratios.shape)
        worst = float(ratios[row, column])
        if worst <= 1:
            return Verdict(True, worst)
        return Verdict(
            False,
            worst,
            f"Y[{row}, {column}] is {found[row, column]:.9g}, the float64 reference says {self.y[row, column]:.9g};"
            f" allowed is {self.allowed[row, column]:.3g}, {int((ratios > 1).sum())} of {ratios.size} entries are off",
        )


@dataclass(slots=True, eq=False)
class Reference:
    """The questions of one case, each answered once: integers and two of normal data (`fresh` 0 is the timed one)."""

    case: Case
    draw: Draw
    file: FileData | None = None
    _asked: dict[str, Question] = field(default_factory=dict)

    def integers(self) -> Question:
        """The integer gate's question: the answer is exact."""
        if "integers" not in self._asked:
            w, x = self.case.weights(self.draw, "integers"), self.case.activations("integers")
            y = product(w, x, self.case.conv)
            self._asked["integers"] = Question(w, x, _rounded(y, self.case.dtype), np.zeros_like(y))
        return self._asked["integers"]

    def normal(self, fresh: int = 0) -> Question:
        """The precision gate's question with the `fresh`-th activations; W is the same for all."""
        name = f"normal {fresh}"
        if name not in self._asked:
            w = self._asked["normal 0"].w if fresh else self.case.weights(self.draw, "normal", self.file)
            x = self.case.activations("normal", fresh)
            y = product(w, x, self.case.conv)
            u, u_out = U_MATH[self.case.math], U_OUT[self.case.dtype]
            self._asked[name] = Question(w, x, y, allowance(w, x, y, u=u, u_out=u_out, conv=self.case.conv))
        return self._asked[name]


def _rounded(y: np.ndarray, dtype: str) -> np.ndarray:
    """`y` rounded once, to nearest even, to the output's dtype, and back in float64."""
    if dtype != "bfloat16":
        return y.astype(dtype).astype(np.float64)
    bits = y.astype(np.float32).view(np.uint32)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return kept.astype(np.uint32).view(np.float32).astype(np.float64)
