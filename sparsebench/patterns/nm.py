"""N of every M consecutive entries of a row: what sparse tensor cores multiply (2 of 4 since sm_80).

Groups lie along a row of W [m, k], that is along the inputs, as torch.sparse.to_sparse_semi_structured wants them. The
params fix the sparsity, 1 - N / M; a case may leave it out or repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparsebench.errors import PatternError
from sparsebench.patterns.base import Draw, Pattern
from sparsebench.patterns.grid import Shape, magnitudes

AGREE = 1e-6  # how far a case's sparsity may be from 1 - N / M: decimal fractions are not exact


@dataclass(frozen=True, slots=True)
class Nm(Pattern):
    """nm = (N, M): exactly N of M consecutive entries of a row. A draw's structure is nm."""

    nm: Shape

    name: ClassVar[str] = "nm"
    about: ClassVar[str] = "N of every M consecutive entries of a row, such as 2 of 4"

    def __post_init__(self) -> None:
        object.__setattr__(self, "nm", checked_nm(self.nm))

    @property
    def sparsity(self) -> float:
        """1 - N / M."""
        return 1 - self.nm[0] / self.nm[1]

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when M does not divide the columns, or another sparsity is asked for; else None."""
        kept, group = self.nm
        if k % group:
            return f"groups of {group} do not fill the rows of {m}x{k}: {k} columns are not a multiple of {group}"
        if sparsity is not None and abs(sparsity - self.sparsity) > AGREE:
            return f"{kept} of {group} makes sparsity {self.sparsity:.6g}, {sparsity} was asked for; leave it out"
        return None

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """N places of each group, uniform without replacement."""
        self.demand(m, k, sparsity)
        kept, group = self.nm
        first = np.broadcast_to(np.arange(group) < kept, (m, k // group, group))
        return self._of(rng.permuted(first, axis=2))

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """The N largest |w| of each group of `weights` [m, k]; ties go to the earlier."""
        m, k = weights.shape
        self.demand(m, k, sparsity)
        kept, group = self.nm
        sizes = magnitudes(weights).reshape(m, k // group, group)
        mask = np.zeros(sizes.shape, dtype=bool)
        np.put_along_axis(mask, np.argsort(-sizes, axis=2, kind="stable")[:, :, :kept], True, axis=2)
        return self._of(mask)

    def _of(self, groups: np.ndarray) -> Draw:
        return Draw(groups.reshape(len(groups), -1), self.nm, {"nm": f"{self.nm[0]}:{self.nm[1]}"})

    def blocks(self) -> tuple[tuple[float | None, int, int], ...]:
        """One level of single entries with its own sparsity."""
        return ((self.sparsity, 1, 1),)


def checked_nm(value: Any) -> Shape:
    """`value` as (N, M); PatternError unless it is two whole numbers with 1 <= N <= M."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    whole = len(pair) == 2 and all(isinstance(size, int) and not isinstance(size, bool) for size in pair)
    if not whole or not 1 <= pair[0] <= pair[1]:
        raise PatternError(f"nm must be two whole numbers [N, M] with 1 <= N <= M, such as [2, 4], found {value!r}")
    return pair
