"""seconds = floor_s + flops x exp(surface(x)): the law under both irf and the dense times, and how wrong it is.

Why this form, for sparse kernels and dense ones alike: seconds per flop are smooth in the logarithms of kept share,
block and n, while the fixed part (launch, threads, an empty loop) is not, and rules tiny layers. The floor, and the
kind and smoothing of the surface, are chosen from short lists by the held-out error itself, the first within 2 % of the
best: two choices out of four and four, so the errors printed stay all but honest.

The interval at a measured point is the wider of what left-out shapes and left-out cells showed. It widens with the
distance to the nearest measured value of each axis, by what left-out levels showed, and outside the box by what
left-out edges showed; it is without end where no extrapolation could be tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from sparsebench.desk.cells import Seen, surface_through
from sparsebench.desk.held_out import (
    Residuals,
    bracket,
    cell_folds,
    choose,
    drift,
    edge_folds,
    level_folds,
    residuals,
    shape_folds,
    summary,
)
from sparsebench.desk.model import HeldOut, Prediction
from sparsebench.desk.surface import Surface

_UNKNOWN = "too few points to hold any out, so the error is unknown"


@dataclass(frozen=True, slots=True)
class Drift:
    """How much wider the interval gets along one axis, in log error per log unit; None where that was never tried.

    between  for the distance to the nearest measured value, inside the box
    beyond   for the distance to the box
    """

    between: float | None
    beyond: float | None


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted law.

    low, high  log residuals that bracket nine of ten held-out observations; None when nothing could be held out
    drifts     by axis
    held_out_times  (measured, predicted) seconds [q, 2] by HeldOut.how, for plots; not kept in JSON
    """

    surface: Surface
    floor_s: float
    low: float | None
    high: float | None
    drifts: tuple[Drift, ...]
    held_out: tuple[HeldOut, ...]
    observations: int
    shapes: int
    held_out_times: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def fit(cls, seen: Seen) -> Self:
        """The law through `seen`; at least one observation."""
        form = choose(seen)
        axes = range(len(seen.axes))
        shapes, cells = (residuals(seen, folds(seen), form) for folds in (shape_folds, cell_folds))
        levels = [residuals(seen, level_folds(seen, axis), form) for axis in axes]
        edges = [residuals(seen, edge_folds(seen, axis), form) for axis in axes]
        low, high = _wider(bracket(shapes.inside), bracket(cells.inside))
        told = {
            "cells": cells.inside,
            "shapes": shapes.inside,
            "levels": np.concatenate([found.inside for found in levels]),
            "edges": np.concatenate([found.log[found.beyond[:, axis] > 0] for axis, found in enumerate(edges)]),
        }
        return cls(
            surface=surface_through(seen, form),
            floor_s=form.floor_s,
            low=low,
            high=high,
            drifts=tuple(_drift(axis, levels[axis], edges[axis], max(-(low or 0.0), high or 0.0)) for axis in axes),
            held_out=tuple(summary(how, log) for how, log in told.items() if len(log)),
            observations=len(seen.time_s),
            shapes=len(np.unique(seen.shape)),
            held_out_times={"cells": cells.inside_times, "shapes": shapes.inside_times},
        )

    def predict(self, x: np.ndarray, flops: float) -> Prediction:
        """The time of `flops` useful operations at the point x [d]."""
        time_s = self.floor_s + flops * float(np.exp(self.surface.at(x[None])[0]))
        why, away = self.surface.why_outside(x), self._widening(x)
        if self.low is None or self.high is None or away is None:
            return Prediction(time_s, 0.0, math.inf, bool(why), why=why or _UNKNOWN)
        low_s, high_s = time_s * math.exp(self.low - away), time_s * math.exp(self.high + away)
        return Prediction(time_s, low_s, high_s, bool(why), why=why)

    def _widening(self, x: np.ndarray) -> float | None:
        """Log error to add at x: drift times distance, over axes; None where the drift of an axis left is unknown."""
        beyond, inside = self.surface.beyond(x[None])[0].tolist(), self.surface.between(x[None])[0].tolist()
        away = 0.0
        for rate, out, inner in zip(self.drifts, beyond, inside, strict=True):
            between = rate.beyond if rate.between is None else rate.between
            if (out > 0 and rate.beyond is None) or (inner > 0 and between is None):
                return None
            away += out * (rate.beyond or 0.0) + inner * (between or 0.0)
        return away

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {
            "floor_s": self.floor_s,
            "interval_log": [self.low, self.high],
            "drifts": [asdict(drift) for drift in self.drifts],
            "held_out": [asdict(errors) for errors in self.held_out],
            "observations": self.observations,
            "shapes": self.shapes,
            "surface": self.surface.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
        low, high = data["interval_log"]
        return cls(
            surface=Surface.from_json(data["surface"]),
            floor_s=float(data["floor_s"]),
            low=low,
            high=high,
            drifts=tuple(Drift(**drift) for drift in data["drifts"]),
            held_out=tuple(HeldOut(**errors) for errors in data["held_out"]),
            observations=int(data["observations"]),
            shapes=int(data["shapes"]),
        )


def _drift(axis: int, levels: Residuals, edges: Residuals, known: float) -> Drift:
    return Drift(
        between=drift(levels.log, levels.between[:, axis], known),
        beyond=drift(edges.log, edges.beyond[:, axis], known),
    )


def _wider(*brackets: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    """The lowest low and the highest high: a layer may be a new matrix at a new point."""
    lows, highs = zip(*brackets, strict=True)
    return min((v for v in lows if v is not None), default=None), max((v for v in highs if v is not None), default=None)
