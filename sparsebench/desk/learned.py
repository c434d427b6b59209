"""What the roofline leaves, learned: seconds = roofline x exp(g(features)), g a Gaussian process.

Features are the axes of the points and sizes made of them: nonzeros, nonzeros a row, the bytes of W, X and Y together,
operations a byte, whether there is one column (for which kernels have a body of their own), by how much whole tiles of
16 and 64 columns exceed n, and the dense surprise: how much longer the best dense kernel took on the same problem than
its own law expects. That one is measured for every layer anyway, and knows of its caches and its moment what sizes do
not: on 45 matrices timed on a busy two-core machine the surprise took the mean error on left-out shapes from 21 to 13 %
(dense seconds a flop instead: to 15 %). What tiles leave empty took it from 9.7 to 8.5 % for blocks and from 12.8 to
11.8 % for csr.c (54 shapes, the means of two runs).

Timings of one problem share an effect of their own. Far from all points g falls back to its mean, so the law falls
back to the roofline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.desk.hardware import Hardware
from sparsebench.desk.kriging import Kriging
from sparsebench.desk.law import Folds, Law
from sparsebench.desk.points import CONVOLUTION, Points
from sparsebench.desk.roofline import Roofline

TILES = (16, 64)  # columns that kernels take at a time: a vector or a warp's fragment, and a strip or a block's tile
PROBLEM = ("n", "m", "k", *CONVOLUTION)  # what timings of one problem have in common


@dataclass(frozen=True, eq=False)
class Learned(Law):
    """A roofline and the process of log(seconds / roofline)."""

    roofline: Roofline
    rest: Kriging

    name: ClassVar[str] = "learned"

    @property
    def needs_dense(self) -> bool:
        """The dense surprise is a feature."""
        return True

    @classmethod
    def fit(cls, points: Points, time_s: np.ndarray, hardware: Hardware) -> Self:
        """The process through what the roofline of the same points leaves."""
        roofline = Roofline.fit(points, time_s, hardware)
        problem = [points.axes.index(axis) for axis in PROBLEM if axis in points.axes]
        rest = np.log(time_s / roofline.seconds(points))
        return cls(roofline, Kriging.fit(features(points), rest, tuple(problem), noise=points.noise))

    def again(self, points: Points, time_s: np.ndarray) -> Self:
        """The law through other times."""
        roofline = self.roofline.again(points, time_s)
        rest = np.log(time_s / roofline.seconds(points))
        return replace(self, roofline=roofline, rest=self.rest.again(features(points), rest, points.noise))

    def seconds(self, points: Points) -> np.ndarray:
        """Seconds at `points`, [q]."""
        return np.asarray(self.roofline.seconds(points) * np.exp(self.rest.at(features(points))))

    def left_out(self, points: Points, time_s: np.ndarray, folds: Folds) -> dict[str, np.ndarray]:
        """Seconds of rows left out, of roofline and process alike."""

        def rest(known: np.ndarray) -> np.ndarray:
            return np.asarray(np.log(time_s) - self.roofline.log_of_fits(points, time_s, known))

        found = self.rest.left_out(features(points), folds, rest)
        base = self.roofline.left_out(points, time_s, folds)
        return {how: base[how] * np.exp(y) for how, y in found.items()}

    def to_json(self) -> dict[str, Any]:
        """The roofline and the process."""
        return {"roofline": self.roofline.to_json(), "log_rest": self.rest.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
        return cls(Roofline.from_json(data["roofline"]), Kriging.from_json(data["log_rest"]))


def features(points: Points) -> np.ndarray:
    """What the process sees of `points`, [q, f]; the axes first."""
    m, n, item = points.column("m"), points.column("n"), points.item_bytes
    moved = points.weight_bytes + item * (points.input_items + m * n)
    made = [np.log(points.nnz), np.log(points.nnz / m), np.log(moved), np.log(points.flops / moved), 2.0 * (n < 1.5)]
    widths = [n, *(points.padded_columns(tile) for tile in TILES)]
    empty = [np.log(wide / narrow) for narrow, wide in pairwise(widths)]
    return np.column_stack([points.x, *made, *empty, points.surprise, points.ways])
