"""How wrong a law is on what it has not seen, and the choices that this error decides.

Four errors are kept apart (HeldOut.how):

    cells   points left out and predicted from their neighbours
    levels  all points at one value of one axis left out, such as n = 64: what a value between swept ones costs
    shapes  whole matrices left out: what "a layer is known by its sparsity, block and n alone" costs
    edges   the outer quarter of each axis left out: what extrapolation costs

Folds are drawn with a fixed seed, so the same records give the same errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsebench.desk.cells import Form, Seen, cells_of, levels_of, surface_through
from sparsebench.desk.model import HeldOut

NOMINAL = 0.90
FOLDS = 10
LEAST_SHAPES = 3
MOST_LEVELS = 4  # of each axis that are left out in turn
FLOOR_SHARES = (0.0, 0.5, 0.8, 0.95)  # of the least time seen
FORMS = (
    Form(kind="thin_plate_spline"),
    Form(kind="linear"),
    Form(kind="thin_plate_spline", smoothing=0.01),
    Form(kind="linear", smoothing=0.1),
)
_GOOD_ENOUGH, _NOISE = 1.02, 1e-4  # a later form must be 2 % better, and by more than rounding
_FLOOR_PAYS = 1.10  # a floor must be 10 % better than none: it decides the time of every small layer

Fold = np.ndarray  # rows to leave out, bool [q]


@dataclass(frozen=True, eq=False)
class Residuals:
    """Held-out rows: measured and predicted seconds [q], and how far each lay from the points that were left.

    beyond, between  log units outside their box, and from the nearest value of each axis inside it, [q, d]
    outside          whether the row had to be extrapolated, bool [q]
    """

    measured_s: np.ndarray
    predicted_s: np.ndarray
    beyond: np.ndarray
    between: np.ndarray
    outside: np.ndarray

    @property
    def log(self) -> np.ndarray:
        """log(measured / predicted), [q]."""
        return np.asarray(np.log(self.measured_s / self.predicted_s))

    @property
    def inside(self) -> np.ndarray:
        """The logs of rows that were interpolated."""
        return np.asarray(self.log[~self.outside])

    @property
    def inside_times(self) -> np.ndarray:
        """(measured, predicted) seconds of rows that were interpolated, [q, 2]."""
        return np.asarray(np.column_stack([self.measured_s, self.predicted_s])[~self.outside])


def residuals(seen: Seen, folds: Iterable[Fold], form: Form) -> Residuals:
    """Every fold predicted from all other rows; a row in several folds comes back several times."""
    nothing = np.zeros(len(seen.time_s), bool)
    parts = [_predicted(seen[~fold], seen[fold], form) for fold in folds] or [_predicted(seen, seen[nothing], form)]
    return Residuals(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Residuals.__dataclass_fields__)
    )


def _predicted(known: Seen, asked: Seen, form: Form) -> Residuals:
    surface = surface_through(known, form)
    predicted_s = form.floor_s + asked.flops * np.exp(surface.at(asked.x))
    beyond = surface.beyond(asked.x)
    return Residuals(asked.time_s, predicted_s, beyond, surface.between(asked.x), np.any(beyond > 0, axis=1))


# --- what to leave out ------------------------------------------------------------------------------------------------


def cell_folds(seen: Seen) -> list[Fold]:
    """At most ten folds of whole cells; none when there is one cell."""
    return _folds(cells_of(seen.x))


def shape_folds(seen: Seen) -> list[Fold]:
    """At most ten folds of whole matrices; none when there are fewer than three."""
    return _folds(seen.shape) if len(np.unique(seen.shape)) >= LEAST_SHAPES else []


def level_folds(seen: Seen, axis: int) -> list[Fold]:
    """Each of at most four inner values of an axis; none when it has fewer than three values."""
    level = levels_of(seen.x[:, axis])
    inner = range(1, level.max())
    chosen = np.unique(np.linspace(1, level.max() - 1, MOST_LEVELS).round()) if len(inner) > MOST_LEVELS else inner
    return [level == number for number in chosen]


def edge_folds(seen: Seen, axis: int) -> list[Fold]:
    """The lowest and the highest quarter of an axis; none when it has one value."""
    x = seen.x[:, axis]
    quarter = (x.max() - x.min()) / 4
    return [x < x.min() + quarter, x > x.max() - quarter] if levels_of(x).max() else []


def _folds(group: np.ndarray) -> list[Fold]:
    groups, number = np.unique(group, return_inverse=True)
    count = min(FOLDS, len(groups))
    fold = (np.random.default_rng(0).permutation(len(groups)) % count)[number]
    return [fold == i for i in range(count)] if count > 1 else []


# --- what it tells ----------------------------------------------------------------------------------------------------


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


def drift(log: np.ndarray, distance: np.ndarray, known: float) -> float | None:
    """Log error per log unit of distance, beyond the error `known` at no distance; None where none was tried."""
    far = distance > 0
    if not far.any():
        return None
    return max(float(np.quantile(np.abs(log[far]), NOMINAL)) - known, 0.0) / float(np.median(distance[far]))


def summary(how: str, log: np.ndarray) -> HeldOut:
    """Errors of the residuals, relative to the measured time."""
    error = np.abs(np.expm1(-log))
    return HeldOut(
        how=how,
        n=len(log),
        mape=float(error.mean()),
        within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.10).mean()),
        p95=float(np.quantile(error, 0.95)),
    )


def choose(seen: Seen) -> Form:
    """The form with the least error: first its floor, on left-out shapes, then kind and smoothing, on levels too.

    Only matrices of different sizes at the same point tell a fixed cost from slow work, so without three shapes the
    floor is 0: a floor found between n = 1 and n = 197 alone once made every small layer take 80 us.
    """
    folds = shape_folds(seen)
    floors = [Form(share * float(seen.time_s.min()), "linear", 0.01) for share in FLOOR_SHARES]
    floor_s = (
        _simplest(floors, lambda form: _score(residuals(seen, folds, form)), _FLOOR_PAYS).floor_s if folds else 0.0
    )
    folds = (folds or cell_folds(seen)) + [fold for axis in range(len(seen.axes)) for fold in level_folds(seen, axis)]
    forms = [replace(form, floor_s=floor_s) for form in FORMS]
    return _simplest(forms, lambda form: _score(residuals(seen, folds, form)), _GOOD_ENOUGH) if folds else forms[0]


def _score(found: Residuals) -> float:
    return float(np.abs(found.inside if len(found.inside) else found.log).mean())


def _simplest(choices: Sequence[Form], score: Callable[[Form], float], good_enough: float) -> Form:
    """The first choice whose score is at most `good_enough` times the best."""
    scores = [score(choice) for choice in choices]
    most = good_enough * min(scores) + _NOISE
    return next(choice for choice, found in zip(choices, scores, strict=True) if found <= most)
