"""Nonzeros anywhere: fine-grained pruning, and the hardest pattern to run fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsebench.patterns.base import Draw, Pattern, checked_sparsity, kept_units
from sparsebench.patterns.grid import any_of, largest, magnitudes


@dataclass(frozen=True, slots=True)
class Unstructured(Pattern):
    """Any entries, exactly kept_units(sparsity, m k) of them."""

    name: ClassVar[str] = "unstructured"
    about: ClassVar[str] = "any entries, chosen one by one"

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Entries chosen uniformly, without replacement."""
        kept = kept_units(checked_sparsity(sparsity), m * k)
        return Draw(any_of(np.ones((m, k), dtype=bool), kept, rng))

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """The largest magnitudes of `weights` [m, k]; ties go to the earlier position, row by row."""
        return Draw(largest(magnitudes(weights), kept_units(checked_sparsity(sparsity), weights.size)))
