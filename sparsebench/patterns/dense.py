"""Every entry may be a nonzero: the pattern of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsebench.patterns.base import Draw, Pattern


@dataclass(frozen=True, slots=True)
class Dense(Pattern):
    """All of the matrix. Takes no sparsity."""

    name: ClassVar[str] = "dense"
    about: ClassVar[str] = "every entry; what all others are measured against"
    prunes: ClassVar[bool] = False

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when a sparsity above 0 is asked for, else None."""
        return f"dense keeps every weight, sparsity {sparsity} was asked for; leave sparsity out" if sparsity else None

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """The full mask; PatternError when `sparsity` is above 0."""
        self.demand(m, k, sparsity)
        return Draw(np.ones((m, k), dtype=bool))

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """The full mask, whatever the weights are."""
        m, k = weights.shape
        return self.draw(m, k, sparsity, rng)
