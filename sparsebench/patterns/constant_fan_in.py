"""The same number of nonzeros in every row that has any (SRigL, arXiv 2305.02299).

Rows may be switched off altogether ("neuron ablation"). The rows left then keep more entries each, so that the whole
matrix is as sparse as was asked:

    active = kept_units(ablated, m)            rows left
    f      = min(k, floor((1 - s) m k / active + 1/2))   entries in each of them

The achieved sparsity, 1 - active f / (m k), therefore differs from s by at most active / (2 m k), that is by half an
entry a row; only where active k < (1 - s) m k - the rows left are full and still too few - is it higher than asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsebench.errors import PatternError
from sparsebench.patterns.base import Draw, Pattern, checked_sparsity, kept_units, nearest
from sparsebench.patterns.grid import any_of, largest, magnitudes


@dataclass(frozen=True, slots=True)
class ConstantFanIn(Pattern):
    """f entries in each active row, none in the others; `ablated` is the share of rows switched off, in [0, 1)."""

    ablated: float = 0.0

    name: ClassVar[str] = "constant_fan_in"
    about: ClassVar[str] = "the same number of entries in every row; some rows may be off"

    def __post_init__(self) -> None:
        share = self.ablated
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise PatternError(f"ablated must be in [0, 1), found {share!r}; 0.25 switches a quarter of the rows off")

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when no row would be left, else None."""
        if kept_units(self.ablated, m):
            return None
        return f"ablated {self.ablated} leaves none of {m} rows on; choose a smaller share"

    def _size(self, m: int, k: int, sparsity: float | None) -> tuple[int, int]:
        """Active rows and entries in each; PatternError where no row is left."""
        self.demand(m, k, sparsity)
        active = kept_units(self.ablated, m)
        return active, min(k, nearest((1 - checked_sparsity(sparsity)) * (m * k / active)))

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Active rows, and the entries of each, chosen uniformly without replacement."""
        active, f = self._size(m, k, sparsity)
        mask = np.zeros((m, k), dtype=bool)
        first_f = np.broadcast_to(np.arange(k) < f, (active, k))
        mask[any_of(np.ones(m, dtype=bool), active, rng)] = rng.permuted(first_f, axis=1)
        return Draw(mask, facts={"active_rows": active, "fan_in": f})

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Of `weights` [m, k] the rows with the largest sum |w|, and in each its largest |w|; ties to the earlier."""
        m, k = weights.shape
        active, f = self._size(m, k, sparsity)
        rows = np.flatnonzero(largest(magnitudes(weights, (1, k)).ravel(), active))
        best = np.argsort(-np.abs(weights[rows]), axis=1, kind="stable")[:, :f]
        mask = np.zeros((m, k), dtype=bool)
        mask[rows[:, None], best] = True
        return Draw(mask, facts={"active_rows": active, "fan_in": f})
