"""A surface through scattered points, and an honest answer to "was this measured near here?".

The surface is a straight trend in the (logarithmic) axes plus linear radial basis functions on what is left: in one
dimension that is the polygon through the points, in several it neither rings nor needs a complete grid, and a single
point or an axis with one value is no special case. Thin plates are a little better on smooth times and worse on dense
ones, which jump (published SRigL times, one batch left out: 4.2 % for 4.5 %, and 22 % for 17 %).

Outside the box of its points the surface is continued flat from the edge: throughputs saturate, trends do not go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

# scipy: radial basis functions on scattered points, which numpy lacks.
from scipy.interpolate import RBFInterpolator

NEAR = 0.5  # in units of an axis' range: the middle of the coarsest full grid (two values an axis) is still "near"
_SLACK = 0.02  # in log terms: 2 % beyond an edge is rounding (a block that does not divide evenly), not extrapolation


@dataclass(frozen=True, eq=False)
class Surface:
    """values [c] over points [c, d], axes named; smoothing 0 goes through every point."""

    axes: tuple[str, ...]
    points: np.ndarray
    values: np.ndarray
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
    def _trend(self) -> np.ndarray:
        """Coefficients of the straight trend, [1 + d]; of the least norm where the points do not fix them."""
        return np.asarray(np.linalg.lstsq(_with_one(self._unit_points), self.values, rcond=1e-10)[0])

    @cached_property
    def _bumps(self) -> RBFInterpolator:
        left = self.values - _with_one(self._unit_points) @ self._trend
        return RBFInterpolator(self._unit_points, left, kernel="linear", smoothing=self.smoothing, degree=0)

    def at(self, x: np.ndarray) -> np.ndarray:
        """The surface at x [q, d], clamped into the box; [q]."""
        unit = (np.clip(x, self.low, self.high) - self.low) / self._span
        trend = _with_one(unit) @ self._trend
        return np.asarray(trend if len(self.points) < 2 else trend + self._bumps(unit))

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """How far x [q, d] lies outside the box along each axis, in log units, never negative; [q, d]."""
        far = np.maximum(np.maximum(self.low - x, x - self.high), 0.0)
        return np.where(far > _SLACK, far, 0.0)

    def lonely(self, x: np.ndarray) -> np.ndarray:
        """Offsets [q, d] to the nearest point where none is near along every axis, else 0: holes inside the box."""
        unit = (np.clip(x, self.low, self.high) - self.low) / self._span
        offsets = np.abs(unit[:, None, :] - self._unit_points[None, :, :])
        nearest = offsets.max(axis=2, initial=0.0).argmin(axis=1)
        chosen = offsets[np.arange(len(unit)), nearest]
        return np.where(chosen.max(axis=1, initial=0.0)[:, None] > NEAR + 1e-9, chosen * self._span, 0.0)

    def why_outside(self, x: np.ndarray) -> str:
        """In words, where one point x [d] left what was measured; empty when it did not."""
        said = [
            f"{axis} {_plain(axis, x[i])} is outside the measured {_range(axis, self.low[i], self.high[i])}"
            for i, axis in enumerate(self.axes)
            if self.beyond(x[None])[0, i] > 0
        ]
        if not said and self.lonely(x[None]).any():
            where = ", ".join(f"{axis} {_plain(axis, value)}" for axis, value in zip(self.axes, x, strict=True))
            said = [f"no measured point is near {where}"]
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Axes, points and values: what `from_json` takes."""
        return {
            "axes": list(self.axes),
            "log_points": [[round(v, 12) for v in point] for point in self.points.tolist()],
            "log_values": [round(v, 12) for v in self.values.tolist()],
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The surface that `to_json` wrote."""
        axes = tuple(data["axes"])
        points = np.asarray(data["log_points"], dtype=float).reshape(-1, len(axes))
        return cls(axes, points, np.asarray(data["log_values"], dtype=float), float(data["smoothing"]))


def _with_one(unit: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(unit)), unit])


def _plain(axis: str, log_value: float) -> str:
    """The value of an axis for people: axes are logarithms, and a kept share is told as sparsity."""
    value = float(np.exp(log_value))
    return f"{100 * (1 - value):.4g} %" if axis.startswith("sparsity") else f"{value:.4g}"


def _range(axis: str, low: float, high: float) -> str:
    ends = sorted({_plain(axis, low), _plain(axis, high)}, key=lambda text: float(text.split()[0]))
    return " to ".join(ends)
