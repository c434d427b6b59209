"""How wrong a law is on timings it has not seen, of every way of leaving out, beside the timings' own noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# pandas: ranks that share ties (scipy.stats takes a second to load, which nothing else here asks for).
import pandas as pd

from sparsebench.desk.model import HeldOut
from sparsebench.desk.points import Seen
from sparsebench.desk.reach import Reach


@dataclass(frozen=True, eq=False)
class Told:
    """What a law said of every timing without the timing's fold.

    how          the way of leaving out
    predicted_s  [o]  seconds; nan for timings in no fold
    outside      [o]  whether the timing lay outside what its fold had left, so that the law had to extrapolate
    """

    how: str
    predicted_s: np.ndarray
    outside: np.ndarray

    def log(self, seen: Seen) -> np.ndarray:
        """log(measured / predicted) of the paired ratio's time, [o]."""
        return np.asarray(np.log(seen.judged_s / self.predicted_s))


@dataclass(frozen=True, eq=False)
class Away:
    """Of each row and way of leaving out: log units outside what its fold had left, and between it, [q, d]."""

    beyond: Mapping[str, np.ndarray]
    between: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, seen: Seen, folds: Mapping[str, np.ndarray]) -> Away:
        """Distances of each row from all rows of other folds."""
        beyond, between = {}, {}
        axes, x = seen.points.located
        for how, fold in folds.items():
            beyond[how], between[how] = np.zeros(x.shape), np.zeros(x.shape)
            for number in range(fold.max(initial=-1) + 1):
                asked = fold == number
                left = Reach.of(axes, x[~asked])
                beyond[how][asked], between[how][asked] = left.beyond(x[asked]), left.between(x[asked])
        return cls(beyond, between)


def told(seen: Seen, away: Away, predicted_s: Mapping[str, np.ndarray]) -> dict[str, Told]:
    """What was predicted of each row [q] by each way of leaving out, for every timing of the row."""
    outside = {how: np.asarray(beyond.any(axis=1)) for how, beyond in away.beyond.items()}
    return {how: Told(how, by_row[seen.row], outside[how][seen.row]) for how, by_row in predicted_s.items()}


def errors(found: Told, seen: Seen) -> HeldOut | None:
    """The errors of one way of leaving out; None where nothing was predicted."""
    known = np.isfinite(found.predicted_s)
    if not known.any():
        return None
    predicted_s, judged_s = found.predicted_s[known], seen.judged_s[known]
    error = np.abs(judged_s / predicted_s - 1)  # of the ratio dense / sparse, whose dense side is the same
    seconds = np.abs(predicted_s / seen.plain_s[known] - 1)
    return HeldOut(
        how=found.how,
        n=int(known.sum()),
        extrapolated=float(found.outside[known].mean()),
        mape=float(error.mean()),
        within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.10).mean()),
        p95=float(np.quantile(error, 0.95)),
        rank=_rank(predicted_s, judged_s),
        seconds_mape=float(seconds.mean()),
    )


def _rank(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's correlation; None where either side is all one value."""
    a, b = pd.Series(a).rank().to_numpy(), pd.Series(b).rank().to_numpy()
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else None
