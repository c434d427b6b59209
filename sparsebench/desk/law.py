"""seconds = floor_s + flops x exp(surface(x)): the law under both irf and the dense times, and how wrong it is.

Why this form, for sparse kernels and dense ones alike: seconds per flop are smooth in the logarithms of kept share,
block and n, while the fixed part (launch, threads, an empty loop) is not, and rules tiny layers. `floor_s` and the
smoothing are chosen from short lists by the held-out error itself, the simplest within 2 % of the best; those are two
choices out of five and three values, so the errors printed stay all but honest.

The interval of a prediction inside is the wider of what left-out shapes and left-out cells showed; outside it widens
further by the drift per log unit that the edges showed, and is without end where no extrapolation could be tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from sparsebench.desk.cells import Seen, surface_through
from sparsebench.desk.held_out import bracket, cell_folds, choose, edge_errors, residuals, shape_folds, summary
from sparsebench.desk.model import HeldOut, Prediction
from sparsebench.desk.surface import Surface

_UNKNOWN = "too few points to hold any out, so the error is unknown"


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted law.

    low, high  log residuals that bracket nine of ten held-out observations; None when nothing could be held out
    drift      log error per log unit beyond the box, by axis; None where no extrapolation could be tried
    held_out_times  (measured, predicted) seconds [q, 2] by HeldOut.how, for plots; not kept in JSON
    """

    surface: Surface
    floor_s: float
    low: float | None
    high: float | None
    drift: tuple[float | None, ...]
    held_out: tuple[HeldOut, ...]
    observations: int
    shapes: int
    held_out_times: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def fit(cls, seen: Seen) -> Self:
        """The law through `seen`; at least one observation."""
        floor_s, smoothing = choose(seen)
        shapes, cells = (residuals(seen, folds, floor_s, smoothing) for folds in (shape_folds(seen), cell_folds(seen)))
        edges, drift = edge_errors(seen, floor_s, smoothing)
        low, high = _wider(bracket(shapes.inside), bracket(cells.inside))
        told = (("cells", cells.inside), ("shapes", shapes.inside), ("edges", edges))
        return cls(
            surface=surface_through(seen, floor_s, smoothing),
            floor_s=floor_s,
            low=low,
            high=high,
            drift=drift,
            held_out=tuple(summary(how, log) for how, log in told if len(log)),
            observations=len(seen.time_s),
            shapes=len(np.unique(seen.shape)),
            held_out_times={"cells": cells.inside_times, "shapes": shapes.inside_times},
        )

    def predict(self, x: np.ndarray, flops: float) -> Prediction:
        """The time of `flops` useful operations at the point x [d]."""
        time_s = self.floor_s + flops * float(np.exp(self.surface.at(x[None])[0]))
        why, away = self.surface.why_outside(x), self._drift_at(x)
        if self.low is None or self.high is None or away is None:
            return Prediction(time_s, 0.0, math.inf, bool(why), why=why or _UNKNOWN)
        low_s, high_s = time_s * math.exp(self.low - away), time_s * math.exp(self.high + away)
        return Prediction(time_s, low_s, high_s, bool(why), why=why)

    def _drift_at(self, x: np.ndarray) -> float | None:
        """Log error to add at x: drift times the distance left; None where an axis was left whose drift is unknown."""
        far = np.maximum(self.surface.beyond(x[None])[0], self.surface.lonely(x[None])[0])
        away = 0.0
        for rate, distance in zip(self.drift, far.tolist(), strict=True):
            if distance > 0 and rate is None:
                return None
            away += (rate or 0.0) * distance
        return away

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {
            "floor_s": self.floor_s,
            "interval_log": [self.low, self.high],
            "drift_per_log_unit": list(self.drift),
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
            drift=tuple(data["drift_per_log_unit"]),
            held_out=tuple(HeldOut(**errors) for errors in data["held_out"]),
            observations=int(data["observations"]),
            shapes=int(data["shapes"]),
        )


def _wider(*brackets: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    """The lowest low and the highest high: a layer may be a new matrix at a new point."""
    lows, highs = zip(*brackets, strict=True)
    return min((v for v in lows if v is not None), default=None), max((v for v in highs if v is not None), default=None)
