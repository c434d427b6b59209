"""Whole blocks kept or dropped. A draw's structure is the block, so that formats need not guess it from the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsebench.patterns.base import Draw, Pattern, checked_sparsity, kept_units
from sparsebench.patterns.grid import Shape, any_of, checked_pair, largest, magnitudes, misfit, name_of, spread


@dataclass(frozen=True, slots=True)
class Block(Pattern):
    """Blocks of bh rows and bw columns on a fixed grid, exactly kept_units(sparsity, blocks) of them."""

    block: Shape

    name: ClassVar[str] = "block"
    about: ClassVar[str] = "whole blocks of one size on a fixed grid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", checked_pair(self.block, "block"))

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when the block does not divide [m, k], else None."""
        return misfit(m, k, self.block)

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Blocks chosen uniformly, without replacement."""
        self.demand(m, k, sparsity)
        free = np.ones((m // self.block[0], k // self.block[1]), dtype=bool)
        return self._spread(any_of(free, kept_units(checked_sparsity(sparsity), free.size), rng))

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """The blocks of `weights` [m, k] with the largest sum |w| (HBsNN, section 2.3); ties go to the earlier."""
        m, k = weights.shape
        self.demand(m, k, sparsity)
        sums = magnitudes(weights, self.block)
        return self._spread(largest(sums, kept_units(checked_sparsity(sparsity), sums.size)))

    def _spread(self, grid: np.ndarray) -> Draw:
        kept = int(np.count_nonzero(grid))
        return Draw(spread(grid, self.block), self.block, {"block": name_of(self.block), "kept_blocks": kept})

    def blocks(self) -> tuple[tuple[float | None, int, int], ...]:
        """One level with the case's own sparsity."""
        return ((None, *self.block),)
