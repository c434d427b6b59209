"""A Gaussian process over scattered points, as small numpy: the interpolator under the fitted laws.

    y(x) = mean + f(x) + noise,     cov f = s^2 Matern_5/2(|(x - x') / length|) + t^2 (1 + x . x') + g^2 [same group]

Points that agree in the columns `together` are a group, with an offset of its own: without it, what the timings of
one problem share would pass for a bend of f. The variance of the noise may be known up to a factor: some timings met
more quiet rounds than others. The lengths, one an axis, and s, t, g and noise maximise the marginal
likelihood (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.8 and 5.9). A fitted
law is a list of points and weights that anybody can read. scikit-learn has the same process, and tests hold this one
against it; but its gradient takes a matrix of points x points for each axis, ten times as long as the two products
below, and a fit tunes some eighty processes.

What a refit without some rows would predict for them follows from the one inverse that is there already (the same,
5.4.2, for blocks of rows): with b = K^-1 (y - mean), the weights of the others are b - K^-1[:, g] K^-1[g, g]^-1 b[g].
So every way of leaving rows out costs as much as a prediction, at hyperparameters that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np

# scipy: inverses of symmetric matrices at a third of the cost of numpy's general ones, distances, and the optimiser.
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

MOST_POINTS = 1000  # of a law: the inverse takes 0.1 s, its file some hundred KB
MOST_TUNED = 400  # of them that the hyperparameters are tuned on
# 12 steps on 250 points leave shapes of csr.c at 9.4 instead of 8.7 %, cells at 7.2 instead of 6.9 (864 timings, two
# runs fitted, a third judged; others gain up to 0.3). 40 steps on 1000 change another 0.1, and take ten times as long.
_STEPS = 25
_OVERSHOOT = 0.25  # of the range of the values: a process may swing past its points, kernels do not
_LEAST_NOISE = 1e-8
_HOPELESS = 1e12
_SAME = 1e-6

Target = Callable[[np.ndarray], np.ndarray]  # rows that may be learnt from, bool [q] -> y [q]


@dataclass(frozen=True, eq=False)
class Tuned:
    """Hyperparameters, for x in units of its spread along each axis and y in units of its own.

    lengths of axes along which nothing varied are infinite
    """

    centre: np.ndarray
    scale: np.ndarray
    lengths: np.ndarray
    smooth: float
    trend: float
    noise: float
    group: float = 0.0
    together: tuple[int, ...] = ()

    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """cov(f(a), f(b)) for a [p, d] and b [q, d] in plain units, [p, q]."""
        same = _same(a, b, self.together) if self.together else 0.0
        a, b = (a - self.centre) / self.scale, (b - self.centre) / self.scale
        far = math.sqrt(5) * cdist(a / self.lengths, b / self.lengths)
        matern = (1 + far + far**2 / 3) * np.exp(-far)
        return np.asarray(self.smooth * matern + self.trend * (1 + a @ b.T) + self.group * same)

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON data."""
        return {
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "lengths": self.lengths.tolist(),
            "smooth": self.smooth,
            "trend": self.trend,
            "noise": self.noise,
            "group": self.group,
            "together": list(self.together),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The numbers that `to_json` wrote."""
        centre, scale, lengths = (np.asarray(data[name], float) for name in ("centre", "scale", "lengths"))
        smooth, trend, noise, group = (float(data[name]) for name in ("smooth", "trend", "noise", "group"))
        return cls(centre, scale, lengths, smooth, trend, noise, group, tuple(data["together"]))


@dataclass(frozen=True, eq=False)
class Kriging:
    """A process through y at `points` [c, d].

    weights  K^-1 (y - mean), [c]
    low, high  between these every answer stays: the range of y, and a quarter of it on either side
    rows, inverse  which rows of the fit the points are, and K^-1: for `left_out`; empty when read from a file
    """

    tuned: Tuned
    points: np.ndarray
    weights: np.ndarray
    mean: float
    low: float
    high: float
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    inverse: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    @classmethod
    def fit(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        together: tuple[int, ...] = (),
        like: Tuned | None = None,
        noise: np.ndarray | None = None,
    ) -> Self:
        """The process through y [q] at x [q, d], or through at most MOST_POINTS of them.

        like   keeps its tuning
        noise  [q]  variances of the noise, over the tuned one; all 1 unless said
        """
        rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MOST_POINTS])
        share = np.ones(len(rows)) if noise is None else noise[rows]
        tuned = like or tune(x[rows], y[rows], together, share)
        inverse = _inverse(tuned.covariance(x[rows], x[rows]), tuned.noise * share + _LEAST_NOISE)
        mean, margin = float(y.mean()), _OVERSHOOT * float(np.ptp(y))
        weights = inverse @ (y[rows] - mean)
        return cls(tuned, x[rows], weights, mean, float(y.min()) - margin, float(y.max()) + margin, rows, inverse)

    def again(self, x: np.ndarray, y: np.ndarray, noise: np.ndarray | None = None) -> Self:
        """The process through other values, at the same hyperparameters."""
        return self.fit(x, y, like=self.tuned, noise=noise)

    def at(self, x: np.ndarray) -> np.ndarray:
        """y at x [q, d], clamped into the box of the points: beyond it the edge goes on flat; [q]."""
        x = np.clip(x, self.points.min(axis=0), self.points.max(axis=0))
        return self._told(self.mean + self.tuned.covariance(x, self.points) @ self.weights)

    def left_out(self, x: np.ndarray, folds: Mapping[str, np.ndarray], target: Target) -> dict[str, np.ndarray]:
        """For each way of leaving out, what a fit without a row's fold says of it, [q]; nan for rows in no fold.

        x        [q, d]  as fitted
        folds    {way: fold of each row [q], -1 for rows that are never left out}
        """
        across = self.tuned.covariance(x, self.points)
        found = {}
        for how, fold in folds.items():
            found[how] = np.full(len(x), np.nan)
            for number in range(fold.max(initial=-1) + 1):
                asked = fold == number
                found[how][asked] = self._without(asked, self._clamped(x, asked, across[asked]), target(~asked))
        return found

    def _clamped(self, x: np.ndarray, asked: np.ndarray, across: np.ndarray) -> np.ndarray:
        """`across` of the rows `asked`, those outside the box of all others taken to its edge, as `at` does."""
        inside = np.clip(x[asked], x[~asked].min(axis=0), x[~asked].max(axis=0))
        moved = (inside != x[asked]).any(axis=1)
        across[moved] = self.tuned.covariance(inside[moved], self.points)
        return across

    def _without(self, asked: np.ndarray, across: np.ndarray, y: np.ndarray) -> np.ndarray:
        mean, gone = float(y[~asked].mean()), np.flatnonzero(asked[self.rows])
        weights = self.inverse @ (y[self.rows] - mean)
        if len(gone):
            weights = weights - self.inverse[:, gone] @ np.linalg.solve(self.inverse[np.ix_(gone, gone)], weights[gone])
        return self._told(mean + across @ weights)

    def _told(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(y, self.low, self.high))

    def to_json(self) -> dict[str, Any]:
        """Hyperparameters, points and weights: what `from_json` takes."""
        return {
            "tuned": self.tuned.to_json(),
            "mean": self.mean,
            "range": [self.low, self.high],
            "points": [[round(v, 9) for v in point] for point in self.points.tolist()],
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The process that `to_json` wrote."""
        tuned = Tuned.from_json(data["tuned"])
        points = np.asarray(data["points"], float).reshape(-1, len(tuned.lengths))
        low, high = data["range"]
        return cls(tuned, points, np.asarray(data["weights"], float), float(data["mean"]), float(low), float(high))


def _inverted(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """(inverse, log of the determinant) of a symmetric positive matrix; LinAlgError where it is not."""
    lower, failed = dpotrf(covariance, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError(f"a covariance of {len(covariance)} points is not positive in row {failed}")
    half, _ = dpotri(lower, lower=1)
    inverse = np.tril(half) + np.tril(half, -1).T
    return np.asarray(inverse), 2 * float(np.log(np.diag(lower)).sum())


def _inverse(covariance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The inverse of `covariance` plus noise [c]; ten times as much of it where points all but agree."""
    try:
        return _inverted(covariance + np.diag(noise))[0]
    except np.linalg.LinAlgError:
        return _inverse(covariance, 10 * noise)


def _spread(y: np.ndarray) -> float:
    return float(y.std()) or 1.0


def _same(a: np.ndarray, b: np.ndarray, together: tuple[int, ...]) -> np.ndarray:
    """1 where points a [p, d] and b [q, d] are of one group, else 0, [p, q]."""
    return np.asarray(cdist(a[:, together], b[:, together], "chebyshev") < _SAME, float)


def tune(x: np.ndarray, y: np.ndarray, together: tuple[int, ...] = (), share: np.ndarray | None = None) -> Tuned:
    """Hyperparameters of greatest marginal likelihood for y [q] at x [q, d], from at most MOST_TUNED rows.

    share  [q]  variances of the noise, over the tuned one
    """
    centre, spread = x.mean(axis=0), x.std(axis=0)
    varied = spread > 1e-9
    scale = np.where(varied, spread, 1.0)
    height = _spread(y) ** 2
    lengths = np.full(x.shape[1], 1e6)
    if not varied.any() or len(x) < 3:
        return Tuned(centre, scale, lengths, height, 0.0, 1e-4 * height)
    some = np.random.default_rng(1).permutation(len(x))[:MOST_TUNED]
    same = _same(x[some], x[some], together) if together else np.eye(len(some))
    if same.sum() <= len(some):  # no two of a group: its offset cannot be told from noise
        together, same = (), np.zeros_like(same)
    unit = (x - centre)[:, varied][some] / scale[varied]
    share = np.ones(len(some)) if share is None else share[some]
    (smooth, trend, noise, group), lengths[varied] = _most_likely(unit, y[some], same, share)
    return Tuned(centre, scale, lengths, height * smooth, height * trend, height * noise, height * group, together)


def _most_likely(x: np.ndarray, y: np.ndarray, same: np.ndarray, share: np.ndarray) -> tuple[list[float], np.ndarray]:
    """((smooth, trend, noise, group), lengths) for y in units of its spread."""
    y = (y - y.mean()) / _spread(y)
    start = np.log([1.0, 0.3, 0.02, 0.05, *np.full(x.shape[1], 2.0)])
    ends = [(1e-3, 1e2), (1e-6, 1e2), (_LEAST_NOISE, 1.0), (1e-6, 10.0), *[(0.1, 1e2)] * x.shape[1]]
    found = minimize(
        partial(unlikely, x=x, y=y, same=same, share=share), start, jac=True, bounds=np.log(ends).tolist(),
        method="L-BFGS-B",        options={"maxiter": _STEPS},
    )  # fmt: skip
    best = np.exp(found.x)
    return best[:4].tolist(), best[4:]


def unlikely(
    theta: np.ndarray, x: np.ndarray, y: np.ndarray, same: np.ndarray, share: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minus the log marginal likelihood of y [q] at x [q, d], and its slope.

    theta  log of (s^2, t^2, noise, g^2, length of each axis)
    same   [q, q]  1 where two points are of one group
    share  [q]  variances of the noise, over the tuned one

    The slope along a length is a sum over pairs of b[p, q] (x[p] - x[q])^2, so that one product b @ x serves all axes.
    """
    smooth, trend, noise, group, *lengths = np.exp(theta)
    scaled = x / lengths
    far = math.sqrt(5) * cdist(scaled, scaled)
    decay, straight = np.exp(-far), 1 + x @ x.T
    matern = (1 + far + far**2 / 3) * decay
    covariance = smooth * matern + trend * straight + group * same + np.diag(noise * share + _LEAST_NOISE)
    try:
        inverse, log_det = _inverted(covariance)
    except np.linalg.LinAlgError:  # beyond what doubles can invert, hence not where the search shall go
        return _HOPELESS, np.zeros(len(theta))
    weights = inverse @ y
    likely = -(y @ weights) / 2 - log_det / 2 - len(x) / 2 * math.log(2 * math.pi)
    pull = np.outer(weights, weights) - inverse
    pairs = pull * (smooth * 5 / 3 * (1 + far) * decay)
    along = pairs.sum(axis=1) @ scaled**2 - (scaled * (pairs @ scaled)).sum(axis=0)
    heights = ((smooth, matern), (trend, straight), (noise, np.diag(share)), (group, same))
    return -likely, -np.array([*(height * (pull * part).sum() / 2 for height, part in heights), *along])
