"""The law that speaks for one part of one setting: chosen among all by left-out shapes, with an interval that holds.

Every law is fitted to the first run of the timings and judged on the second, where there are two; the one with the
least mean |log error| of the paired ratio on left-out shapes speaks, the simpler of two that are within 2 %. An error
counts as MOST at most, since the few shapes at the ends of the range must be extrapolated, and a law that goes astray
there says so. Four choices from one list of errors leave the errors printed all but honest. The hyperparameters of
the chosen one are kept, and it is fitted again to both runs.

The interval is conformal over shapes (conformal.py). It widens with the distance to the nearest measured value of each
axis, by what left-out values of that axis showed, and outside what was measured by what left-out ends showed. It is
without end where no extrapolation could be tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from sparsebench.desk.conformal import Coverage, coverage, drift, half_width
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.held_out import Away, Told, errors, told
from sparsebench.desk.irf_n import IrfN
from sparsebench.desk.irf_paper import Irf
from sparsebench.desk.law import Law
from sparsebench.desk.learned import Learned
from sparsebench.desk.model import HeldOut, Prediction
from sparsebench.desk.points import Points, Seen
from sparsebench.desk.reach import Reach
from sparsebench.desk.roofline import Roofline
from sparsebench.desk.splits import splits
from sparsebench.errors import ModelError

LAWS: Mapping[str, type[Law]] = {law.name: law for law in (Irf, IrfN, Roofline, Learned)}  # the simplest first
BEST = "best"
MOST = 0.5  # in log terms
_GOOD_ENOUGH, _NOISE = 1.02, 1e-4  # a later law must be 2 % better, and by more than rounding
_UNKNOWN = "too few points to hold any out, so the error is unknown"
_WAYS = {"sparsity": "sparsities", "bh": "blocks", "bw": "blocks", "n": "ns"}  # the way that tries an axis; else shapes


@dataclass(frozen=True, slots=True)
class Drift:
    """How much wider the interval gets along one axis, in log error per log unit; None where that was never tried.

    between  for the distance to the nearest measured value, inside the box
    beyond   for the distance to what was measured
    """

    between: float | None
    beyond: float | None


@dataclass(frozen=True, eq=False)
class Judged:
    """A chosen law and what its word is worth.

    half_log    half the interval inside the measured range, in log terms; None when nothing could be held out
    drifts      by axis
    rivals      errors of every law that was tried, by name
    told, seen  what each law said of timings left out, and those timings: for tables and plots, not kept in JSON
    """

    law: Law
    reach: Reach
    half_log: float | None
    drifts: tuple[Drift, ...]
    rivals: Mapping[str, tuple[HeldOut, ...]]
    observations: int
    shapes: int
    told: Mapping[str, Mapping[str, Told]] = field(default_factory=dict)
    seen: Seen | None = None

    @classmethod
    def fit(cls, seen: Seen, hardware: Hardware, law: str = BEST) -> Self:
        """The law of that name through `seen`, or the best of all; ModelError where none can be fitted."""
        folds = splits(seen)
        away = Away.of(seen, folds)
        fitted = _fitted(seen, hardware, list(LAWS) if law == BEST else [law])
        found = {name: told(seen, away, one.left_out(seen.first, seen.first_s, folds)) for name, one in fitted.items()}
        rivals = {name: _errors(ways, seen) for name, ways in found.items()}
        chosen = _best(found, seen)
        inside = _inside(found[chosen], seen)
        return cls(
            law=fitted[chosen] if seen.first is seen.points else fitted[chosen].again(seen.points, seen.time_s),
            reach=Reach.of(*seen.points.located),
            half_log=half_width(*inside),
            drifts=_drifts(seen, away, found[chosen], half_width(*inside) or 0.0),
            rivals=rivals,
            observations=len(seen.row),
            shapes=len(np.unique(seen.shape)),
            told=found,
            seen=seen,
        )

    @property
    def held_out(self) -> tuple[HeldOut, ...]:
        """Errors of the law that speaks."""
        return self.rivals[self.law.name]

    @property
    def held_out_times(self) -> Mapping[str, np.ndarray]:
        """(measured, predicted) seconds [o, 2] of that law, by way of leaving out."""
        if self.seen is None:
            return {}
        pairs = {how: (self.seen.judged_s, found.predicted_s) for how, found in self.told[self.law.name].items()}
        return {how: np.column_stack(pair)[np.isfinite(pair[1])] for how, pair in pairs.items()}

    @property
    def coverage(self) -> Coverage | None:
        """How many timings of left-out shapes, inside the measured range, the intervals of all others held."""
        if self.seen is None or "shapes" not in self.told.get(self.law.name, {}):
            return None
        return coverage(*_inside(self.told[self.law.name], self.seen))

    def predict(self, points: Points) -> list[Prediction]:
        """The time at each of `points`."""
        _, located = points.located
        beyond, between = self.reach.beyond(located), self.reach.between(located)
        return [
            self._one(time_s, self.reach.why_outside(x, out), self._widening(out, inner))
            for time_s, x, out, inner in zip(self.law.seconds(points).tolist(), located, beyond, between, strict=True)
        ]

    def _one(self, time_s: float, why: str, away: float | None) -> Prediction:
        if self.half_log is None or away is None:
            return Prediction(time_s, 0.0, math.inf, bool(why), why=why or _UNKNOWN)
        wide = math.exp(self.half_log + away)
        return Prediction(time_s, time_s / wide, time_s * wide, bool(why), why=why)

    def _widening(self, beyond: np.ndarray, between: np.ndarray) -> float | None:
        """Log error to add: drift times distance, over axes; None where the drift of an axis left is unknown."""
        away = 0.0
        for rate, out, inner in zip(self.drifts, beyond.tolist(), between.tolist(), strict=True):
            inside = rate.beyond if rate.between is None else rate.between
            if (out > 0 and rate.beyond is None) or (inner > 0 and inside is None):
                return None
            away += out * (rate.beyond or 0.0) + inner * (inside or 0.0)
        return away

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {
            "law": self.law.name,
            "interval_log": self.half_log,
            "drifts": [asdict(one) for one in self.drifts],
            "held_out": {name: [asdict(found) for found in ways] for name, ways in self.rivals.items()},
            "observations": self.observations,
            "shapes": self.shapes,
            "reach": self.reach.to_json(),
            "fitted": self.law.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        return cls(
            law=LAWS[data["law"]].from_json(data["fitted"]),
            reach=Reach.from_json(data["reach"]),
            half_log=data["interval_log"],
            drifts=tuple(Drift(**one) for one in data["drifts"]),
            rivals={name: tuple(HeldOut(**found) for found in ways) for name, ways in data["held_out"].items()},
            observations=int(data["observations"]),
            shapes=int(data["shapes"]),
        )


def _fitted(seen: Seen, hardware: Hardware, names: Sequence[str]) -> dict[str, Law]:
    """Each law that can carry the first run of `seen`; ModelError where none can."""
    found, reasons = dict[str, Law](), []
    for name in names:
        try:
            found[name] = LAWS[name].fit(seen.first, seen.first_s, hardware)
        except ModelError as error:
            reasons.append(str(error))
    if not found:
        raise ModelError("; ".join(reasons))
    return found


def _errors(ways: Mapping[str, Told], seen: Seen) -> tuple[HeldOut, ...]:
    return tuple(found for one in ways.values() if (found := errors(one, seen)))


def _best(found: Mapping[str, Mapping[str, Told]], seen: Seen) -> str:
    """The first law within 2 % of the least mean |log error|, on shapes, or cells where there are too few shapes."""
    scores = {name: _score(ways, seen) for name, ways in found.items()}
    known = {name: score for name, score in scores.items() if math.isfinite(score)}
    if not known:
        return next((name for name in found if name != Roofline.name), next(iter(found)))
    most = _GOOD_ENOUGH * min(known.values()) + _NOISE
    return next(name for name, score in known.items() if score <= most)


def _score(ways: Mapping[str, Told], seen: Seen) -> float:
    one = ways.get("shapes") or ways.get("cells")
    log = np.abs(one.log(seen)) if one else np.empty(0)
    known = log[np.isfinite(log)]
    return float(np.minimum(known, MOST).mean()) if len(known) else math.inf


def _inside(ways: Mapping[str, Told], seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """(residuals, their shapes) of left-out shapes that were interpolated; else of cells."""
    found = next((ways[how] for how in ("shapes", "cells") if how in ways), None)
    if found is None:
        return np.empty(0), np.empty(0, int)
    known = np.isfinite(found.predicted_s)
    inside = ~found.outside & known
    if not inside.any():
        inside = known
    group = seen.shape[seen.row] if found.how == "shapes" else seen.row
    return found.log(seen)[inside], group[inside]


def _drifts(seen: Seen, away: Away, ways: Mapping[str, Told], known: float) -> tuple[Drift, ...]:
    return tuple(_drift(number, axis, seen, away, ways, known) for number, axis in enumerate(seen.points.located[0]))


def _drift(number: int, axis: str, seen: Seen, away: Away, ways: Mapping[str, Told], known: float) -> Drift:
    """The drift along one axis, from the way of leaving out that tries it."""
    how = _WAYS.get(axis.split()[0], "shapes")
    if how not in ways:
        return Drift(None, None)
    log, row = ways[how].log(seen), seen.row
    beyond, between = away.beyond[how][row], away.between[how][row]
    tried = ~beyond.any(axis=1)
    inner = drift(log[tried], between[tried, number], known)
    # Left-out shapes are new in m and k already: the interval knows what that costs.
    return Drift(0.0 if how == "shapes" else inner, drift(log, beyond[:, number], known))
