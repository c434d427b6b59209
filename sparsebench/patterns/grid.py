"""A matrix as a grid of equal blocks: rank them, choose some, spread the choice back over the entries.

Unstructured, block and hierarchical are the same three steps with different blocks, so the steps stand here once.
A choice always has exactly the size that was asked for: ties are broken by position, the earlier block is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsebench.errors import PatternError

Shape = tuple[int, int]


def checked_pair(value: Any, what: str) -> Shape:
    """`value` as (rows, columns); PatternError unless it is two whole numbers of at least 1."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in pair):
        raise PatternError(f"{what} must be two whole numbers of at least 1, [rows, columns], found {value!r}")
    return pair


def name_of(block: Shape) -> str:
    """A block's name in sentences.

    >>> name_of((4, 1))
    '4x1'
    """
    return f"{block[0]}x{block[1]}"


def misfit(m: int, k: int, block: Shape, what: str = "block") -> str | None:
    """Why `block` does not divide a matrix [m, k], as a sentence, or None when it does.

    >>> misfit(30, 64, (4, 1))
    'block 4x1 does not divide 30x64: 30 rows are not a multiple of 4'
    """
    for size, part, side in ((m, block[0], "rows"), (k, block[1], "columns")):
        if size % part:
            return f"{what} {name_of(block)} does not divide {m}x{k}: {size} {side} are not a multiple of {part}"
    return None


def magnitudes(weights: np.ndarray, block: Shape = (1, 1)) -> np.ndarray:
    """Sum of |w| in each block, float64 [m / bh, k / bw] (HBsNN, section 2.3); PatternError on weights not finite."""
    m, k = weights.shape
    bh, bw = block
    sums: np.ndarray = np.abs(weights).reshape(m // bh, bh, k // bw, bw).sum(axis=(1, 3), dtype=np.float64)
    if not np.isfinite(sums).all():
        row, column = np.argwhere(~np.isfinite(sums))[0] * block
        raise PatternError(
            f"weights must be finite to be ranked, the block at row {row}, column {column} is not; mend them"
        )
    return sums


def largest(scores: np.ndarray, kept: int) -> np.ndarray:
    """True at exactly the `kept` largest scores, bool in the shape of `scores`; ties go to the earlier position."""
    chosen = np.zeros(scores.size, dtype=bool)
    if kept:
        flat = scores.ravel()
        threshold = np.partition(flat, flat.size - kept)[flat.size - kept]
        chosen = flat > threshold
        ties = np.flatnonzero(flat == threshold)
        chosen[ties[: kept - np.count_nonzero(chosen)]] = True
    return chosen.reshape(scores.shape)


def any_of(free: np.ndarray, kept: int, rng: np.random.Generator) -> np.ndarray:
    """True at `kept` of the places where `free` is true, uniform without replacement; bool in the shape of `free`."""
    chosen = np.zeros(free.size, dtype=bool)
    chosen[rng.choice(np.flatnonzero(free), kept, replace=False, shuffle=False)] = True
    return chosen.reshape(free.shape)


def spread(grid: np.ndarray, block: Shape) -> np.ndarray:
    """Every entry of `grid` repeated over its block: [m / bh, k / bw] -> [m, k]."""
    return grid.repeat(block[0], axis=0).repeat(block[1], axis=1)
