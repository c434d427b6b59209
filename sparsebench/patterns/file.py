"""The mask that a file brings (sources.py reads it). No law draws it: Case.draw takes it from the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsebench.errors import PatternError
from sparsebench.patterns.base import Draw, Pattern


@dataclass(frozen=True, slots=True)
class FromFile(Pattern):
    """Where a really pruned layer has its nonzeros. Takes no sparsity: the file fixes it."""

    name: ClassVar[str] = "file"
    about: ClassVar[str] = "the nonzeros of a problem's own file"
    prunes: ClassVar[bool] = False

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when a sparsity is asked for, else None."""
        if sparsity is None:
            return None
        return f"the file fixes the sparsity, {sparsity} was asked for; leave sparsity out, or name another pattern"

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Never a draw: PatternError says where the mask comes from."""
        self.demand(m, k, sparsity)
        raise PatternError(
            f"pattern file takes its mask [{m}, {k}] from a problem with matrices or weights, and found no file; "
            f"give the problem one, or choose another pattern"
        )
