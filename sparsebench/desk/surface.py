"""A surface through scattered points, and an honest answer to "was this measured near here?".

The surface is a plane plus radial basis functions, thin plates or cones (`kind`), whichever predicts left-out points
better: plates suit sparse kernels, whose times are smooth, cones suit dense libraries, whose times jump (published
SRigL times, one n left out: 4.3 % for 5.8 %, and 23 % for 19 %). Neither needs a complete grid. Axes are logarithms,
scaled to their range; directions in which the points do not spread are dropped, so one n or one block needs no care.

Outside the box of its points the surface is continued flat from the edge: throughputs saturate, trends do not go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

# scipy: radial basis functions on scattered points, which numpy lacks.
from scipy.interpolate import RBFInterpolator

Kind = Literal["linear", "thin_plate_spline"]  # cones, plates

NEAR = 0.5  # in units of an axis' range: the middle of the coarsest full grid (two values an axis) is still "near"
_FLAT = 0.01  # a direction in which the points spread by less than 1 % of their range says nothing
_OVERSHOOT = 0.25  # of the range of the values: plates may swing past their points, kernels do not
_SLACK = 0.02  # in log terms: 2 % beyond an edge is rounding (a block that does not divide evenly), not extrapolation


@dataclass(frozen=True, eq=False)
class Surface:
    """values [c] over points [c, d], axes named; smoothing 0 goes through every point."""

    axes: tuple[str, ...]
    points: np.ndarray
    values: np.ndarray
    kind: Kind = "linear"
    smoothing: float = 0.0

    @cached_property
    def low(self) -> np.ndarray:
        """The lower edge of the box, [d]."""
        return np.asarray(self.points.min(axis=0))

    @cached_property
    def high(self) -> np.ndarray:
        """The upper edge of the box, [d]."""
        return np.asarray(self.points.max(axis=0))

    @cached_property
    def _span(self) -> np.ndarray:
        return np.where(self.high > self.low, self.high - self.low, 1.0)

    @cached_property
    def _unit_points(self) -> np.ndarray:
        return np.asarray((self.points - self.low) / self._span)

    @cached_property
    def _directions(self) -> np.ndarray:
        """Orthonormal directions [d, r] in which the points spread; r may be 0."""
        if len(self.points) < 2 or not self.axes:
            return np.zeros((len(self.axes), 0))
        _, spread, directions = np.linalg.svd(self._unit_points - self._unit_points.mean(axis=0), full_matrices=False)
        return np.asarray(directions[spread > _FLAT * np.sqrt(len(self.points))].T)

    @cached_property
    def _through(self) -> RBFInterpolator:
        return RBFInterpolator(
            self._unit_points @ self._directions, self.values, kernel=self.kind, smoothing=self.smoothing, degree=1
        )

    def at(self, x: np.ndarray) -> np.ndarray:
        """The surface at x [q, d], clamped into the box; [q]. Never far outside the range of the values themselves."""
        if not self._directions.shape[1]:
            return np.full(len(x), self.values.mean())
        unit = (np.clip(x, self.low, self.high) - self.low) / self._span
        least, most = self.values.min(), self.values.max()
        margin = _OVERSHOOT * (most - least)
        return np.asarray(np.clip(self._through(unit @ self._directions), least - margin, most + margin))

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """How far x [q, d] lies outside what was measured along each axis, in log units, never negative; [q, d].

        Measured along an axis means: the range of the points that are near along all other axes. So a corner of the box
        without a point is outside, as is a hole between blocks 4x1 and 16x16 when 16x1 is asked.
        """
        unit = (np.clip(x, self.low, self.high) - self.low) / self._span
        offsets = np.abs(unit[:, None, :] - self._unit_points)
        far = np.empty(x.shape)
        for axis in range(len(self.axes)):
            near = np.delete(offsets, axis, axis=2).max(axis=2, initial=0.0) <= NEAR + 1e-9
            low = np.where(near, self.points[:, axis], np.inf).min(axis=1)
            high = np.where(near, self.points[:, axis], -np.inf).max(axis=1)
            alone = offsets[np.arange(len(x)), offsets.max(axis=2).argmin(axis=1), axis] * self._span[axis]
            gap = np.maximum(np.maximum(low - x[:, axis], x[:, axis] - high), 0.0)
            far[:, axis] = np.where(near.any(axis=1), gap, alone)
        return np.where(far > _SLACK, far, 0.0)

    def between(self, x: np.ndarray) -> np.ndarray:
        """How far x [q, d] lies from the nearest measured value of each axis, in log units, inside the box; [q, d]."""
        clipped, away = np.clip(x, self.low, self.high), np.empty(x.shape)
        for i in range(len(self.axes)):
            levels = np.unique(self.points[:, i])
            away[:, i] = np.abs(clipped[:, i, None] - levels).min(axis=1)
        return np.where(away > _SLACK, away, 0.0)

    def why_outside(self, x: np.ndarray) -> str:
        """In words, where one point x [d] left what was measured; empty when it did not."""
        outside_box = np.maximum(self.low - x, x - self.high) > _SLACK
        said = [
            f"{axis} {_plain(axis, x[i])} is outside the measured {_range(axis, self.low[i], self.high[i])}"
            for i, axis in enumerate(self.axes)
            if outside_box[i]
        ]
        if not said and self.beyond(x[None]).any():
            where = ", ".join(f"{axis} {_plain(axis, value)}" for axis, value in zip(self.axes, x, strict=True))
            said = [f"no measured points surround {where}"]
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Axes, points and values: what `from_json` takes."""
        return {
            "axes": list(self.axes),
            "log_points": [[round(v, 12) for v in point] for point in self.points.tolist()],
            "log_values": [round(v, 12) for v in self.values.tolist()],
            "kind": self.kind,
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The surface that `to_json` wrote."""
        axes = tuple(data["axes"])
        points = np.asarray(data["log_points"], dtype=float).reshape(-1, len(axes))
        values = np.asarray(data["log_values"], dtype=float)
        return cls(axes, points, values, data["kind"], float(data["smoothing"]))


def _plain(axis: str, log_value: float) -> str:
    """The value of an axis for people: axes are logarithms, and a kept share is told as sparsity."""
    value = float(np.exp(log_value))
    return f"{100 * (1 - value):.4g} %" if axis.startswith("sparsity") else f"{round(value, 1):.15g}"


def _range(axis: str, low: float, high: float) -> str:
    ends = sorted({_plain(axis, low), _plain(axis, high)}, key=lambda text: float(text.split()[0]))
    return " to ".join(ends)
