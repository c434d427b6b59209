"""An honest answer to "was this measured near here?": how far a question lies from what was, along each axis.

Axes are logarithms. Inside the box of the measured points a question may still be alone: a corner without a point, a
hole between blocks 4x1 and 16x16 when 16x1 is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

NEAR = 0.5  # in units of an axis' range: the middle of the coarsest full grid (two values an axis) is still "near"
MOST_POINTS = 400  # that a question is compared with
_SLACK = 0.02  # in log terms: 2 % beyond an edge is rounding (a block that does not divide evenly), not extrapolation
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Reach:
    """What was measured: points [c, d] along named axes. low, high [d] are the edges of their box."""

    axes: tuple[str, ...]
    points: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, axes: tuple[str, ...], x: np.ndarray) -> Self:
        """The reach of measured x [q, d], of which at most MOST_POINTS are kept."""
        distinct = np.unique(x.round(9), axis=0)
        kept = np.sort(np.random.default_rng(2).permutation(len(distinct))[:MOST_POINTS])
        return cls(axes, distinct[kept], x.min(axis=0), x.max(axis=0))

    @cached_property
    def _span(self) -> np.ndarray:
        return np.where(self.high > self.low, self.high - self.low, 1.0)

    @cached_property
    def _levels(self) -> list[np.ndarray]:
        return [np.unique(column) for column in self.points.T]

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """How far x [q, d] lies outside what was measured along each axis, in log units, never negative; [q, d].

        Measured along an axis means: the range of the points that are near along all other axes.
        """
        parts = [self._beyond(x[start : start + _CHUNK]) for start in range(0, len(x), _CHUNK)]
        return np.concatenate(parts) if parts else np.empty(x.shape)

    def _beyond(self, x: np.ndarray) -> np.ndarray:
        clipped = np.clip(x, self.low, self.high)
        offsets = np.abs(clipped[:, None, :] - self.points) / self._span
        near = offsets <= NEAR + 1e-9
        misses = (~near).sum(axis=2)
        worst = offsets.max(axis=2).argmin(axis=1)
        far = np.empty(x.shape)
        for axis in range(len(self.axes)):
            beside = misses - ~near[:, :, axis] == 0  # near along all other axes
            low = np.where(beside, self.points[:, axis], np.inf).min(axis=1)
            high = np.where(beside, self.points[:, axis], -np.inf).max(axis=1)
            alone = offsets[np.arange(len(x)), worst, axis] * self._span[axis]
            gap = np.maximum(np.maximum(low - clipped[:, axis], clipped[:, axis] - high), 0.0)
            far[:, axis] = np.where(beside.any(axis=1), gap, alone)
        far += np.abs(x - clipped)
        return np.where(far > _SLACK, far, 0.0)

    def between(self, x: np.ndarray) -> np.ndarray:
        """How far x [q, d] lies from the nearest measured value of each axis, in log units, inside the box; [q, d]."""
        clipped, away = np.clip(x, self.low, self.high), np.empty(x.shape)
        for axis, levels in enumerate(self._levels):
            place = np.clip(np.searchsorted(levels, clipped[:, axis]), 1, max(len(levels) - 1, 1))
            sides = (levels[place - 1], levels[np.minimum(place, len(levels) - 1)])
            away[:, axis] = np.minimum(*(np.abs(clipped[:, axis] - side) for side in sides))
        return np.where(away > _SLACK, away, 0.0)

    def why_outside(self, x: np.ndarray, beyond: np.ndarray) -> str:
        """In words, where one point x [d], `beyond` [d] what was measured, left it; empty when it did not."""
        outside_box = np.maximum(self.low - x, x - self.high) > _SLACK
        said = [
            f"{axis} {_plain(axis, x[i])} is outside the measured {_range(axis, self.low[i], self.high[i])}"
            for i, axis in enumerate(self.axes)
            if outside_box[i]
        ]
        if not said and beyond.any():
            where = ", ".join(f"{axis} {_plain(axis, value)}" for axis, value in zip(self.axes, x, strict=True))
            said = [f"no measured points surround {where}"]
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Axes, points and box: what `from_json` takes."""
        return {
            "axes": list(self.axes),
            "log_points": self.points.tolist(),
            "log_low": self.low.tolist(),
            "log_high": self.high.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The reach that `to_json` wrote."""
        axes = tuple(data["axes"])
        points = np.asarray(data["log_points"], float).reshape(-1, len(axes))
        return cls(axes, points, np.asarray(data["log_low"], float), np.asarray(data["log_high"], float))


def _plain(axis: str, log_value: float) -> str:
    """The value of an axis for people: axes are logarithms, and a kept share is told as sparsity."""
    value = float(np.exp(log_value))
    return f"{100 * (1 - value):.4g} %" if axis.startswith("sparsity") else f"{round(value, 1):.15g}"


def _range(axis: str, low: float, high: float) -> str:
    ends = sorted({_plain(axis, low), _plain(axis, high)}, key=lambda text: float(text.split()[0]))
    return " to ".join(ends)
