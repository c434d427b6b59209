"""Observations as arrays, and the cells they fall into: what a surface is drawn through.

Several matrices, seeds and files that meet at one point of (sparsity, block, n) are one cell. Its value is the median
of their seconds per flop, each weighted by the share of its time that is work at all: a time that is nearly all launch
says little about the kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsebench.desk.surface import Kind, Surface

_SAME_POINT = 0.01  # in log terms: sparsities that rounding to whole blocks moved apart are one cell


@dataclass(frozen=True, eq=False)
class Seen:
    """Observations: x [q, d] in logs, flops [q], time_s [q], shape [q] (numbers of the distinct matrices)."""

    axes: tuple[str, ...]
    x: np.ndarray
    flops: np.ndarray
    time_s: np.ndarray
    shape: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Seen:
        return Seen(self.axes, self.x[rows], self.flops[rows], self.time_s[rows], self.shape[rows])


def cells_of(x: np.ndarray) -> np.ndarray:
    """The number of each row's cell, [q]: rows within 1 % of each other along every axis share one."""
    steps = np.column_stack([levels_of(column) for column in x.T]) if x.shape[1] else np.zeros((len(x), 1), int)
    return np.asarray(np.unique(steps, axis=0, return_inverse=True)[1]).reshape(-1)


def levels_of(column: np.ndarray) -> np.ndarray:
    """Numbers of the distinct values of an axis; a run of values within 1 % of its first counts as one."""
    levels, start, number = np.unique(column), -math.inf, -1
    numbers = np.empty(len(levels), int)
    for i, level in enumerate(levels):
        if level - start > _SAME_POINT:
            start, number = level, number + 1
        numbers[i] = number
    return np.asarray(numbers[np.searchsorted(levels, column)])


@dataclass(frozen=True, slots=True)
class Form:
    """What is chosen about a law rather than fitted: its floor in seconds, and the surface's kind and smoothing."""

    floor_s: float = 0.0
    kind: Kind = "linear"
    smoothing: float = 0.0


def surface_through(seen: Seen, form: Form) -> Surface:
    """log((time_s - floor_s) / flops) over the cells of `seen`."""
    cell = cells_of(seen.x)
    work_s = np.maximum(seen.time_s - form.floor_s, 1e-3 * seen.time_s)
    values = weighted_medians(np.log(work_s / seen.flops), work_s / seen.time_s, cell)
    members = np.bincount(cell)
    points = np.empty((len(members), len(seen.axes)))
    for i, column in enumerate(seen.x.T):
        points[:, i] = np.bincount(cell, column) / members
    return Surface(seen.axes, points, values, form.kind, form.smoothing)


def weighted_medians(values: np.ndarray, weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The weighted median of `values` in each group 0..g-1; between two values where the weights split evenly.

    >>> weighted_medians(np.array([1.0, 9.0, 5.0, 7.0]), np.ones(4), np.array([0, 0, 1, 0])).tolist()
    [7.0, 5.0]
    """
    order = np.lexsort((values, group))
    values, weights, group = values[order], weights[order], group[order]
    starts = np.searchsorted(group, np.arange(group[-1] + 1))
    ends = np.append(starts[1:], len(values)) - 1
    total = np.cumsum(weights)
    middle = (np.append(0.0, total)[starts] + total[ends]) / 2
    slack = 1e-9 * weights.min()
    lower = np.clip(np.searchsorted(total, middle - slack), starts, ends)
    upper = np.clip(np.searchsorted(total, middle + slack), starts, ends)
    return np.asarray((values[lower] + values[upper]) / 2)
