"""The questions of one case: operands with their float64 answers, each made once and asked of every kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sparsebench.case import NUMPY_DTYPES, Case, Data, FileData, canonical, kept_of
from sparsebench.lab.check import NUMPY, U_OUT, Arithmetic, Question, unit_roundoff
from sparsebench.lab.matrices import Matrices, bytes_of
from sparsebench.patterns import Draw

FRESH_COLUMNS = 32  # of X that differ, in the question after the clock


def rounded_operand(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values`, float32, rounded to what `dtype` can hold; still float32."""
    return values if dtype == "float32" else values.astype(NUMPY_DTYPES[dtype]).astype(np.float32)


@dataclass(slots=True, eq=False)
class Reference:
    """The questions of one case, each answered once: integers and two of normal data (`fresh` 0 is the timed one).

    `u` replaces the unit roundoff of the case for a kernel that rounds its operands (Kernel.lossy). Its scales are
    powers of two, so the integer gate stays exact for it.
    """

    case: Case
    draw: Draw
    file: FileData | None = None
    arithmetic: Arithmetic = NUMPY
    u: float | None = None
    matrices: Matrices = field(default_factory=Matrices)
    _asked: dict[str, Question] = field(default_factory=dict)

    def integers(self) -> Question:
        """The integer gate's question: the answer is exact."""
        if "integers" not in self._asked:
            self._asked["integers"] = self._question("integers", 0, exact=True)
        return self._asked["integers"]

    def normal(self, fresh: int = 0) -> Question:
        """The precision gate's question with the `fresh`-th activations; W is the same for all."""
        name = f"normal {fresh}"
        if name not in self._asked:
            self._asked[name] = self._question("normal", fresh, exact=False)
        return self._asked[name]

    @property
    def held_bytes(self) -> int:
        """What its operands and answers take."""
        return sum(map(bytes_of, self._asked.values()))

    def loosened(self, u: float | None) -> Reference:
        """The same questions for a kernel that rounds its operands with unit roundoff `u`."""
        return replace(self, u=u, _asked={})

    def _operand(self, what: str, key: Any, data: Data, make: Callable[[], np.ndarray]) -> np.ndarray:
        case = self.case
        return self.matrices.get((what, key, data, case.dtype), lambda: rounded_operand(make(), case.dtype))

    def _question(self, data: Data, fresh: int, *, exact: bool) -> Question:
        case, numbers = self.case, self.arithmetic
        whole = (case.seed, case.m, case.k, case.source)
        values = self.matrices.get(("values", whole, data), lambda: case.values(data, self.file))
        w = self._operand("w", weights_key(case), data, lambda: kept_of(values, self.draw))
        at = (case.seed, case.m, case.k, case.n, case.source, case.conv, fresh)
        x = self._operand("x", at, data, lambda: case.activations(data, fresh))
        if fresh:
            return self._repeated(w, x)
        if exact:
            y = numbers.integers(w, x, case.conv)
            return Question(w, x, numbers.rounded(y, case.dtype), 0 * y, numbers)
        return self._answered(w, x)

    def _answered(self, w: np.ndarray, x: np.ndarray) -> Question:
        case, numbers = self.case, self.arithmetic
        y = numbers.product(w, x, case.conv)
        u = unit_roundoff(case) if self.u is None else self.u
        return Question(w, x, y, numbers.allowance(w, x, y, u, U_OUT[case.dtype], case.conv), numbers)

    def _repeated(self, w: np.ndarray, x: np.ndarray) -> Question:
        """The first samples of x again and again, so that a fresh question costs a part of the first one's products."""
        if self.case.conv is None:
            samples = columns = np.arange(self.case.n) % FRESH_COLUMNS
            few, all_x = x[:, :FRESH_COLUMNS], x[:, samples]
        else:
            few, all_x = x[:1], np.repeat(x[:1], len(x), axis=0)
            columns = np.arange(self.case.n) % (self.case.n // len(x))
        part = self._answered(w, few)
        return replace(part, x=all_x, y=part.y[:, columns], allowed=part.allowed[:, columns])


def weights_key(case: Case) -> str:
    """What a case's mask and weights depend on, as one text: cases that share it meet the same W."""
    about = (case.m, case.k, case.pattern, dict(case.params), case.sparsity, case.seed)
    return canonical([*about, asdict(case.source) if case.source else None])
