"""A roofline with a factor at each of its terms: what bytes and operations alone say of a time.

    seconds^p = sum over terms of (factor x term)^p          (p = 1: nothing overlaps; large: the slowest term rules)

After Williams, Waterman and Patterson (2009), whose bound is p = infinity with factors of 1. Terms are the launch, the
operations in whole tiles and waves, the rows of X that stored blocks read, and the bytes of W, X and Y, each over the
machine's measured peak; rows of X that do not fit the last-level cache cost memory once more. Factors are the least
non-negative squares of relative errors, and a factor that the timings cannot tell stays near 1, its peak; p and the
width of a tile are the best of a few. It knows m, k, n, sparsity and block by what they move, so it is the law to leave
the measured range with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

# scipy: non-negative least squares.
from scipy.optimize import nnls

from sparsebench.desk.hardware import Hardware
from sparsebench.desk.law import Folds, Law
from sparsebench.desk.points import Points

TERMS = ("launch", "flops", "reads", "spill", "weights", "inputs", "outputs", "rows")
OVERLAPS = (1.0, 2.0, 4.0)
WIDTHS = (1, 16, 64)
_LAUNCH_S, _ROW_S = 1e-6, 1e-9  # units of two terms that no peak measures
_TILE_ROWS, _STRIP = 64, 64
_HELD = 0.05  # a factor of 2 costs as much as one timing that is 5 % off


@dataclass(frozen=True, eq=False)
class Roofline(Law):
    """Factors of TERMS."""

    factors: np.ndarray
    overlap: float
    width: int
    hardware: Hardware

    name: ClassVar[str] = "roofline"

    @classmethod
    def fit(cls, points: Points, time_s: np.ndarray, hardware: Hardware) -> Self:
        """The factors of least relative error, at the best overlap and width."""
        tried = []
        for width in WIDTHS:
            terms = terms_of(points, hardware, width)
            for overlap in OVERLAPS:
                factors = _factors(terms, time_s, overlap)
                error = float(np.abs(np.log(_seconds(terms, factors, overlap) / time_s)).mean())
                tried.append((error, overlap, width, factors))
        _, overlap, width, factors = min(tried, key=lambda found: found[0])
        return cls(factors, overlap, width, hardware)

    def again(self, points: Points, time_s: np.ndarray) -> Self:
        """The factors of other times, at the same overlap and width."""
        return replace(self, factors=_factors(terms_of(points, self.hardware, self.width), time_s, self.overlap))

    def seconds(self, points: Points) -> np.ndarray:
        """Seconds at `points`, [q]."""
        return _seconds(terms_of(points, self.hardware, self.width), self.factors, self.overlap)

    def left_out(self, points: Points, time_s: np.ndarray, folds: Folds) -> dict[str, np.ndarray]:
        """Seconds of rows left out, factors refitted without them."""
        terms, found = terms_of(points, self.hardware, self.width), {}
        for how, fold in folds.items():
            found[how] = np.full(len(points), np.nan)
            for number in range(fold.max(initial=-1) + 1):
                asked = fold == number
                factors = _factors(terms[~asked], time_s[~asked], self.overlap)
                found[how][asked] = _seconds(terms[asked], factors, self.overlap)
        return found

    def log_of_fits(self, points: Points, time_s: np.ndarray, known: np.ndarray) -> np.ndarray:
        """log seconds of all points by factors fitted to the `known` ones alone, [q]."""
        terms = terms_of(points, self.hardware, self.width)
        return np.asarray(np.log(_seconds(terms, _factors(terms[known], time_s[known], self.overlap), self.overlap)))

    def to_json(self) -> dict[str, Any]:
        """Factors by term, overlap, width and peaks."""
        return {
            "factors": dict(zip(TERMS, self.factors.tolist(), strict=True)),
            "overlap": self.overlap,
            "width": self.width,
            "hardware": self.hardware.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
        factors = np.array([float(data["factors"][term]) for term in TERMS])
        return cls(factors, float(data["overlap"]), int(data["width"]), Hardware(**data["hardware"]))


def terms_of(points: Points, hardware: Hardware, width: int) -> np.ndarray:
    """Seconds of each term at the machine's peaks, [q, t]."""
    m, n, item = points.column("m"), points.column("n"), points.item_bytes
    columns = points.padded_columns(width)
    tiles = np.ceil(m / _TILE_ROWS) * np.ceil(columns / width)
    waves = np.ceil(tiles / hardware.processors) * hardware.processors / tiles
    reads_s = points.reads * columns * item / hardware.bytes_per_s
    inputs = points.input_items * item
    return np.column_stack(
        [
            np.full(len(points), _LAUNCH_S),
            points.flops * columns / n * waves / hardware.peak(points.dtype),
            reads_s,
            reads_s * np.maximum(0.0, 1 - hardware.cache_bytes / inputs),
            points.weight_bytes / hardware.bytes_per_s,
            inputs / hardware.bytes_per_s,
            m * n * item / hardware.bytes_per_s,
            m * np.ceil(n / _STRIP) * _ROW_S,
        ]
    )


def _factors(terms: np.ndarray, time_s: np.ndarray, overlap: float) -> np.ndarray:
    """Factors [t] >= 0 of least squared relative error in seconds^overlap, each held to 1 by a weight of _HELD."""
    scaled = np.vstack([(terms / time_s[:, None]) ** overlap, _HELD * np.eye(terms.shape[1])])
    aims = np.concatenate([np.ones(len(terms)), np.full(terms.shape[1], _HELD)])
    return np.asarray(nnls(scaled, aims)[0]) ** (1 / overlap)


def _seconds(terms: np.ndarray, factors: np.ndarray, overlap: float) -> np.ndarray:
    return np.asarray(np.maximum(((terms * factors) ** overlap).sum(axis=1) ** (1 / overlap), 1e-9))
