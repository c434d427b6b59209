"""irf with n and a launch: seconds = launch_s + padded flops x exp(f(sparsity, bh, bw, n)).

log time is smooth in log n but for the kernel's tiles: work is that of whole tiles of `tile` columns, so that time
steps where one more begins. The launch and the tile are chosen from short lists, by the error on left-out shapes: only
matrices of different sizes at one point tell a fixed cost from slow work. f is a Gaussian process.

At a fixed shape a matrix with more nonzeros never takes less time: along the kept share the answer is the running
maximum over GRID points, straight in logs between them. Nothing is taken as monotone in n, m, k or the block.

For dense kernels, which have no sparsity, f is over (n, m, k).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.desk.hardware import Hardware
from sparsebench.desk.irf_paper import paper_axes
from sparsebench.desk.kriging import Kriging, Target, Tuned
from sparsebench.desk.law import Folds, Law
from sparsebench.desk.points import Points
from sparsebench.desk.splits import shape_folds

TILES = (1, 16, 64)
LAUNCH_SHARES = (0.0, 0.5, 0.8, 0.95)  # of the least time seen
GRID = 17
_PAYS = 1.05  # a launch or a tile must be 5 % better than none


@dataclass(frozen=True, eq=False)
class IrfN(Law):
    """log seconds per padded flop over `axes`; `ladder` are the logs of kept shares between which time may not fall."""

    axes: tuple[str, ...]
    launch_s: float
    tile: int
    rate: Kriging
    ladder: np.ndarray

    name: ClassVar[str] = "irf_n"

    @classmethod
    def fit(cls, points: Points, time_s: np.ndarray, hardware: Hardware) -> Self:
        """The law through every point, its launch and tile the best of a few."""
        axes = (*paper_axes(points.axes), "n") if paper_axes(points.axes) else points.axes
        x, kept = points.along(axes), np.log(points.kept)
        ranged = axes[0] == "sparsity" and np.ptp(kept) > 1e-9
        ladder = np.linspace(kept.min(), kept.max(), GRID) if ranged else kept[:1]
        shapes = np.unique(points.along(("m", "k")), axis=0, return_inverse=True)[1].reshape(-1)
        fold = shape_folds(shapes)
        launch_s, tile = (0.0, 1) if fold is None else _choice(points, time_s, x, fold)
        return cls(axes, launch_s, tile, Kriging.fit(x, _log_rate(points, time_s, launch_s, tile)), ladder)

    def again(self, points: Points, time_s: np.ndarray) -> Self:
        """The law through other times, with the same launch and tile."""
        log_rate = _log_rate(points, time_s, self.launch_s, self.tile)
        return replace(self, rate=self.rate.again(points.along(self.axes), log_rate))

    def seconds(self, points: Points) -> np.ndarray:
        """Seconds at `points`, [q]."""
        if len(self.ladder) < 2:
            return self._free(points)
        kept = np.clip(np.log(points.kept), self.ladder[0], self.ladder[-1])
        rungs = np.stack([np.log(self._free(_keeping(points, self.axes, step))) for step in self.ladder], axis=1)
        rungs = np.maximum.accumulate(rungs, axis=1)
        inside = np.array([np.interp(at, self.ladder, row) for at, row in zip(kept, rungs, strict=True)])
        work_s = np.exp(inside) - self.launch_s
        return np.asarray(self.launch_s + work_s * points.kept / np.exp(kept))

    def _free(self, points: Points) -> np.ndarray:
        """Seconds before they may not fall along the kept share."""
        flops = points.flops * _padding(points, self.tile)
        return np.asarray(self.launch_s + flops * np.exp(self.rate.at(points.along(self.axes))))

    def left_out(self, points: Points, time_s: np.ndarray, folds: Folds) -> dict[str, np.ndarray]:
        """Seconds of rows left out, before they may not fall along the kept share."""
        log_rate = _log_rate(points, time_s, self.launch_s, self.tile)
        found = self.rate.left_out(points.along(self.axes), folds, _constant(log_rate))
        flops = points.flops * _padding(points, self.tile)
        return {how: self.launch_s + flops * np.exp(y) for how, y in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Axes, launch, tile and the process."""
        return {
            "axes": list(self.axes),
            "launch_s": self.launch_s,
            "tile": self.tile,
            "log_rate": self.rate.to_json(),
            "ladder": self.ladder.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
        return cls(
            tuple(data["axes"]), float(data["launch_s"]), int(data["tile"]), Kriging.from_json(data["log_rate"]),
            np.asarray(data["ladder"], float),
        )  # fmt: skip


def _padding(points: Points, tile: int) -> np.ndarray:
    """Columns that are worked on over columns, [q]."""
    return np.asarray(points.padded_columns(tile) / points.column("n"))


def _log_rate(points: Points, time_s: np.ndarray, launch_s: float, tile: int) -> np.ndarray:
    """log seconds per padded flop, [q]; a time below the launch is taken as nearly all launch."""
    work_s = np.maximum(time_s - launch_s, 1e-3 * time_s)
    return np.asarray(np.log(work_s / (points.flops * _padding(points, tile))))


def _constant(y: np.ndarray) -> Target:
    return lambda known: y


def _keeping(points: Points, axes: Sequence[str], log_kept: float) -> Points:
    """The same points at another kept share."""
    x = points.x.copy()
    x[:, points.axes.index("sparsity")] = log_kept
    return replace(points, x=x, kept=np.full(len(points), math.exp(log_kept)))


def _choice(points: Points, time_s: np.ndarray, x: np.ndarray, fold: np.ndarray) -> tuple[float, int]:
    """(launch_s, tile): the first of the simplest whose error on left-out shapes is within 5 % of the best."""
    varied = x.std(axis=0) > 1e-9
    plain = Tuned(x.mean(axis=0), np.where(varied, x.std(axis=0), 1.0), np.where(varied, 2.0, 1e6), 1.0, 0.3, 0.02)
    draft = replace(Kriging.fit(x, np.log(time_s), like=plain), low=-math.inf, high=math.inf)
    choices = [(share * float(time_s.min()), tile) for tile in TILES for share in LAUNCH_SHARES]
    scores = []
    for launch_s, tile in choices:
        told = draft.left_out(x, {"": fold}, _constant(_log_rate(points, time_s, launch_s, tile)))[""]
        seconds = launch_s + points.flops * _padding(points, tile) * np.exp(told)
        scores.append(float(np.nanmean(np.abs(np.log(seconds / time_s)))))
    return next(choice for choice, score in zip(choices, scores, strict=True) if score <= _PAYS * min(scores) + 1e-4)
