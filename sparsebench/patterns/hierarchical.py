"""Hierarchical block sparsity (HBS): coarse blocks for speed, and finer ones for the large weights those miss.

Source: Vooturi, Mudigere, Avancha, "Hierarchical Block Sparse Neural Networks" (arXiv 1808.03420), sections 2.2 and
2.3. Level i ranks its blocks by sum |w| of what levels before it left, I_i, and keeps the best as M_i; then
I_(i+1) = I_i - M_i. So no entry is in two levels, and blocks of a level divide those of the level before.

sparsity_i is the pruned share of *all* blocks of level i, hence 1 - s = sum of (1 - s_i): 63 and 97 make 60.
A block of level i lies inside one block of each coarser level, so it is taken as a whole or free as a whole; taken
ones never compete. The number kept is kept_units(sparsity_i, blocks), whatever the ties and however many zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from sparsebench.errors import PatternError
from sparsebench.patterns.base import Draw, Pattern, checked_sparsity, kept_units, nearest
from sparsebench.patterns.grid import Shape, any_of, checked_pair, largest, magnitudes, misfit, name_of, spread
from sparsebench.units import percent

AGREE = 1e-6  # how far the sparsity of a case may be from that of its levels: decimal fractions are not exact


Choice = Callable[[np.ndarray, "Level", int], np.ndarray]  # (free blocks, level, how many) -> chosen blocks


@dataclass(frozen=True, slots=True)
class Level:
    """One level: blocks of (rows, columns), and the pruned share of all of them."""

    block: Shape
    sparsity: float


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """The structure of a hierarchical draw, coarse to fine.

    blocks  (bh, bw) of each level
    masks   bool [m, k] each; disjoint, their union is the draw's mask
    """

    blocks: tuple[Shape, ...]
    masks: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True)
class Hierarchical(Pattern):
    """Disjoint levels of blocks. The params fix the sparsity; a case may leave it out or repeat it."""

    levels: tuple[Level, ...]

    name: ClassVar[str] = "hierarchical"
    about: ClassVar[str] = "disjoint levels of ever smaller blocks (HBsNN)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _checked_levels(self.levels))

    @property
    def sparsity(self) -> float:
        """Sparsity of all levels together: 1 - s = sum of (1 - s_i)."""
        return 1 - sum(1 - level.sparsity for level in self.levels)

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when a block does not divide [m, k], a level finds too few free blocks, or `sparsity` differs."""
        if reason := misfit(m, k, self.levels[0].block):
            return reason
        if sparsity is not None and abs(sparsity - self.sparsity) > AGREE:
            return f"its levels make sparsity {self.sparsity:.6g}, {sparsity} was asked for; leave it out"
        return self._too_few(m, k)

    def _too_few(self, m: int, k: int) -> str | None:
        """The level that should keep more blocks than earlier ones leave, as a sentence: rounding can do it."""
        taken = 0
        for number, level in enumerate(self.levels, start=1):
            area = level.block[0] * level.block[1]
            blocks = m * k // area
            kept, free = kept_units(level.sparsity, blocks), blocks - taken // area
            if kept > free:
                what = f"{kept} of {blocks} blocks {name_of(level.block)}"
                return f"level {number} should keep {what}, but earlier levels leave {free}; prune more"
            taken += kept * area
        return None

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Level by level, blocks chosen uniformly among those that earlier levels left free."""
        return self._draw(m, k, sparsity, lambda free, level, kept: any_of(free, kept, rng))

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Level by level, the free blocks of `weights` [m, k] with the largest sum |w|; ties go to the earlier."""

        def best(free: np.ndarray, level: Level, kept: int) -> np.ndarray:
            return largest(np.where(free, magnitudes(weights, level.block), -1.0), kept)  # below any sum |w|

        m, k = weights.shape
        return self._draw(m, k, sparsity, best)

    def _draw(self, m: int, k: int, sparsity: float | None, choose: Choice) -> Draw:
        self.demand(m, k, sparsity)
        left, masks = np.ones((m, k), dtype=bool), []
        for level in self.levels:
            bh, bw = level.block
            free = left[::bh, ::bw]  # a block is free as a whole or not at all
            mask = spread(choose(free, level, kept_units(level.sparsity, free.size)), level.block)
            masks.append(mask)
            left = left & ~mask
        facts = {"levels_nnz": [int(np.count_nonzero(mask)) for mask in masks]}
        return Draw(~left, Levels(tuple(level.block for level in self.levels), tuple(masks)), facts)

    def blocks(self) -> tuple[tuple[float | None, int, int], ...]:
        """Each level with its own sparsity."""
        return tuple((level.sparsity, *level.block) for level in self.levels)


def _checked_levels(given: Any) -> tuple[Level, ...]:
    """Levels from YAML's list of {block, sparsity}; PatternError names the level that is wrong."""
    if not isinstance(given, list | tuple) or not given:
        raise PatternError(f"levels must be a list of at least one {{block, sparsity}}, found {given!r}")
    levels = tuple(_checked_level(number, entry) for number, entry in enumerate(given, start=1))
    for number, (coarse, fine) in enumerate(pairwise(levels), start=2):
        if coarse.block[0] % fine.block[0] or coarse.block[1] % fine.block[1]:
            raise PatternError(
                f"blocks of a level must divide those of the level before: {name_of(fine.block)} of level {number} "
                f"does not divide {name_of(coarse.block)} of level {number - 1}"
            )
    kept = [1 - level.sparsity for level in levels]
    if sum(kept) > 1 + AGREE:
        shares = " + ".join(percent(share) for share in kept)
        raise PatternError(f"levels keep {shares} = {percent(sum(kept))} of the weights, more than all; prune more")
    return levels


def _checked_level(number: int, entry: Any) -> Level:
    if isinstance(entry, Level):
        entry = {"block": entry.block, "sparsity": entry.sparsity}
    if not isinstance(entry, Mapping) or set(entry) != {"block", "sparsity"}:
        raise PatternError(f"level {number} must be {{block: [rows, columns], sparsity: s}}, found {entry!r}")
    try:
        return Level(checked_pair(entry["block"], "block"), checked_sparsity(entry["sparsity"]))
    except PatternError as error:
        raise PatternError(f"level {number}: {error}") from None


def top_entries(weights: np.ndarray, top: float) -> np.ndarray:
    """True at the largest `top` share of |weights| [m, k], at least one entry; ties go to the earlier position."""
    return largest(magnitudes(weights), max(1, nearest(top * weights.size)))


def retained_share(
    weights: np.ndarray, mask: np.ndarray, tops: Sequence[float] = (0.1, 0.2, 0.3, 0.4)
) -> tuple[float, ...]:
    """Share of the largest 10, 20, 30 and 40 % of |weights| [m, k] that `mask` keeps (HBsNN, table 2).

    >>> retained_share(np.arange(10.0)[None], np.arange(10)[None] > 7)
    (1.0, 1.0, 0.6666666666666666, 0.5)
    """
    return tuple(float(mask[top_entries(weights, top)].mean()) for top in tops)
