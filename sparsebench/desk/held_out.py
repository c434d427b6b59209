"""How wrong a law is on what it has not seen. Three errors are kept apart (HeldOut.how):

    cells   points left out and predicted from their neighbours: what interpolation costs
    shapes  whole matrices left out: what "a layer is known by its sparsity, block and n alone" costs
    edges   the outer quarter of each axis left out: what extrapolation costs, and its drift per log unit

Folds are drawn with a fixed seed, so the same records give the same errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsebench.desk.cells import Seen, cells_of, surface_through
from sparsebench.desk.model import HeldOut

NOMINAL = 0.90
FOLDS = 10
LEAST_SHAPES = 3
FLOOR_SHARES = (0.0, 0.5, 0.8, 0.9, 0.95)  # of the least time seen
SMOOTHINGS = (0.0, 0.01, 0.1)
_GOOD_ENOUGH, _NOISE = 1.02, 1e-4  # a later choice must be 2 % better, and by more than rounding


@dataclass(frozen=True, eq=False)
class Residuals:
    """Held-out rows: measured and predicted seconds [q], and how far beyond the points left each lay [q, d]."""

    measured_s: np.ndarray
    predicted_s: np.ndarray
    beyond: np.ndarray
    outside: np.ndarray

    @property
    def log(self) -> np.ndarray:
        """log(measured / predicted), [q]."""
        return np.asarray(np.log(self.measured_s / self.predicted_s))

    @property
    def inside(self) -> np.ndarray:
        """The logs of rows that were interpolated."""
        return self.log[~self.outside]

    @property
    def inside_times(self) -> np.ndarray:
        """(measured, predicted) seconds of rows that were interpolated, [q, 2]."""
        return np.column_stack([self.measured_s, self.predicted_s])[~self.outside]


def residuals(seen: Seen, folds: Sequence[np.ndarray], floor_s: float, smoothing: float) -> Residuals:
    """Every fold (rows [q] of bool) predicted from all other rows."""
    predicted_s = np.full(len(seen.time_s), np.nan)
    beyond, outside = np.zeros(seen.x.shape), np.zeros(len(predicted_s), bool)
    for fold in folds:
        surface, asked = surface_through(seen[~fold], floor_s, smoothing), seen[fold]
        predicted_s[fold] = floor_s + asked.flops * np.exp(surface.at(asked.x))
        beyond[fold] = surface.beyond(asked.x)
        outside[fold] = (beyond[fold] > 0).any(axis=1) | (surface.lonely(asked.x) > 0).any(axis=1)
    held = np.isfinite(predicted_s)
    return Residuals(seen.time_s[held], predicted_s[held], beyond[held], outside[held])


def cell_folds(seen: Seen) -> list[np.ndarray]:
    """At most ten folds of whole cells; none when there is one cell."""
    return _folds(cells_of(seen.x))


def shape_folds(seen: Seen) -> list[np.ndarray]:
    """At most ten folds of whole matrices; none when there are fewer than three."""
    return _folds(seen.shape) if len(np.unique(seen.shape)) >= LEAST_SHAPES else []


def _folds(group: np.ndarray) -> list[np.ndarray]:
    groups, number = np.unique(group, return_inverse=True)
    count = min(FOLDS, len(groups))
    fold = (np.random.default_rng(0).permutation(len(groups)) % count)[number]
    return [fold == i for i in range(count)] if count > 1 else []


def edge_folds(x: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """The lowest and the highest quarter of an axis; nothing when the axis has one value."""
    low, high = x[:, axis].min(), x[:, axis].max()
    if high - low > 0.1:
        yield x[:, axis] < low + (high - low) / 4
        yield x[:, axis] > high - (high - low) / 4


def edge_errors(seen: Seen, floor_s: float, smoothing: float) -> tuple[np.ndarray, tuple[float | None, ...]]:
    """Residuals of extrapolated rows, and by axis the log error per log unit beyond the points (None: never seen)."""
    logs, drift = [np.empty(0)], list[float | None]()
    for axis in range(len(seen.axes)):
        found = residuals(seen, list(edge_folds(seen.x, axis)), floor_s, smoothing)
        away = found.beyond[:, axis] > 0
        logs.append(found.log[away])
        drift.append(_drift(found.log[away], found.beyond[away, axis]))
    return np.concatenate(logs), tuple(drift)


def _drift(log: np.ndarray, distance: np.ndarray) -> float | None:
    return float(np.quantile(np.abs(log), NOMINAL) / np.median(distance)) if len(log) else None


def bracket(log: np.ndarray) -> tuple[float | None, float | None]:
    """Log residuals between which the next one falls nine times of ten; (None, None) without residuals.

    Order statistics with the finite-sample correction of conformal prediction: ranks (n + 1) x 5 % and (n + 1) x 95 %.
    With fewer than 19 residuals that is their whole range, which holds less than nine of ten.
    """
    if not len(log):
        return None, None
    ordered, tail = np.sort(log), (1 - NOMINAL) / 2
    low = max(int(np.floor((len(log) + 1) * tail)) - 1, 0)
    high = min(int(np.ceil((len(log) + 1) * (1 - tail))) - 1, len(log) - 1)
    return min(float(ordered[low]), 0.0), max(float(ordered[high]), 0.0)


def summary(how: str, log: np.ndarray) -> HeldOut:
    """Errors of the residuals, relative to the measured time."""
    error = np.abs(np.expm1(-log))
    return HeldOut(
        how=how, n=len(log), mape=float(error.mean()), within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.10).mean()), p95=float(np.quantile(error, 0.95)),
    )  # fmt: skip


def choose(seen: Seen) -> tuple[float, float]:
    """(floor_s, smoothing) with the least held-out error over shapes, or over cells where shapes are too few."""
    folds = shape_folds(seen) or cell_folds(seen)
    if not folds:
        return 0.0, 0.0
    floors_s = [share * float(seen.time_s.min()) for share in FLOOR_SHARES]
    floor_s = _simplest(floors_s, lambda floor_s: _score(residuals(seen, folds, floor_s, SMOOTHINGS[1])))
    return floor_s, _simplest(SMOOTHINGS, lambda smoothing: _score(residuals(seen, folds, floor_s, smoothing)))


def _score(found: Residuals) -> float:
    return float(np.abs(found.inside if len(found.inside) else found.log).mean())


def _simplest(choices: Sequence[float], score: Callable[[float], float]) -> float:
    """The first choice that is within 2 % of the best."""
    scores = [score(choice) for choice in choices]
    good_enough = _GOOD_ENOUGH * min(scores) + _NOISE
    return next(choice for choice, found in zip(choices, scores, strict=True) if found <= good_enough)
