"""Intervals that hold nine of ten timings of a new matrix: conformal prediction over groups, the shapes.

Timings of one matrix err together, so it is shapes that are exchangeable, not timings. With residuals r[g, i] = |log of
measured over predicted| of every left-out shape g, the half width is the (1 - alpha) quantile of

    sum over g, i of delta(r[g, i]) / ((G + 1) n_g)  +  delta(infinity) / (G + 1)

each shape weighing the same and the unseen one as much: hierarchical conformal prediction (Dunn, Wasserman and Ramdas,
arXiv 1809.07441; Lee, Barber and Willett, arXiv 2306.06342). Residuals are those of refits without the shape, as in the
jackknife+ and CV+ (Barber, Candes, Ramdas and Tibshirani, Annals of Statistics 49, 2021); the centre is the fit to
everything rather than the ten refits, which is that paper's jackknife: near it where one shape moves the law little,
and held against records by `coverage`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOMINAL = 0.90
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of held-out timings inside the intervals that the other shapes gave, and its 95 % shape bootstrap."""

    share: float
    low: float
    high: float
    shapes: int

    @property
    def holds(self) -> bool:
        """Whether what was promised lies inside the bootstrap interval."""
        return self.low <= NOMINAL <= self.high


def half_width(log: np.ndarray, group: np.ndarray) -> float | None:
    """The half width, in log terms, for residuals `log` [q] of the groups `group` [q]; None without residuals.

    With fewer than nine groups it is the largest residual, which holds less than nine of ten.
    """
    if not len(log):
        return None
    order = np.argsort(np.abs(log))
    _, number, members = np.unique(group, return_inverse=True, return_counts=True)
    weight = 1 / ((len(members) + 1) * members[number.reshape(-1)])
    reached = np.cumsum(weight[order])
    place = int(np.searchsorted(reached, NOMINAL - 1e-9))
    return float(np.abs(log)[order][min(place, len(log) - 1)])


def coverage(log: np.ndarray, group: np.ndarray) -> Coverage | None:
    """How many residuals of each group lie inside the half width of all other groups; None for fewer than two groups.

    Every shape weighs the same.
    """
    groups = np.unique(group)
    if len(groups) < 2:
        return None
    shares = []
    for one in groups:
        own = group == one
        width = half_width(log[~own], group[~own])
        shares.append(float((np.abs(log[own]) <= (width or 0.0)).mean()))
    rng = np.random.default_rng(0)
    means = np.array(shares)[rng.integers(0, len(shares), (_RESAMPLES, len(shares)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return Coverage(float(np.mean(shares)), low, high, len(groups))


def drift(log: np.ndarray, distance: np.ndarray, known: float) -> float | None:
    """Log error per log unit of distance, beyond the error `known` at no distance; None where none was tried."""
    far = distance > 0
    if not far.any():
        return None
    return max(float(np.quantile(np.abs(log[far]), NOMINAL)) - known, 0.0) / float(np.median(distance[far]))
