"""irf as printed (HBsNN, arXiv 1808.03420, equations 1 to 3): seconds = (1 - s) x T_dense / irf(s, bh, bw).

Two arguments and no more: not n, not m or k. The dense time of the problem carries all the rest, and what that costs
stands in every table of errors. log irf is a Gaussian process over the logs of the kept share and the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.desk.hardware import Hardware
from sparsebench.desk.kriging import Kriging
from sparsebench.desk.law import Folds, Law
from sparsebench.desk.points import Points
from sparsebench.errors import ModelError


def paper_axes(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments that the paper gives irf: sparsity and block."""
    return tuple(axis for axis in axes if axis.startswith("sparsity") or axis in ("bh", "bw"))


@dataclass(frozen=True, eq=False)
class Irf(Law):
    """log irf over `axes`."""

    axes: tuple[str, ...]
    factor: Kriging

    name: ClassVar[str] = "irf"

    @property
    def needs_dense(self) -> bool:
        """It is a factor of the dense time."""
        return True

    @classmethod
    def fit(cls, points: Points, time_s: np.ndarray, hardware: Hardware) -> Self:
        """The factor through every point with a dense time; ModelError where a point has none, or no sparsity."""
        axes = paper_axes(points.axes)
        if not axes or not np.isfinite(points.dense_s).all():
            raise ModelError("irf needs the dense time of every problem and a sparsity; these have none")
        return cls(axes, Kriging.fit(points.along(axes), _log_irf(points, time_s)))

    def again(self, points: Points, time_s: np.ndarray) -> Self:
        """The factor through other times."""
        return replace(self, factor=self.factor.again(points.along(self.axes), _log_irf(points, time_s)))

    def seconds(self, points: Points) -> np.ndarray:
        """The dense seconds of each problem times its kept share over its factor, [q]."""
        return np.asarray(points.kept * points.dense_s / np.exp(self.factor.at(points.along(self.axes))))

    def left_out(self, points: Points, time_s: np.ndarray, folds: Folds) -> dict[str, np.ndarray]:
        """Seconds of rows left out."""
        log_irf = _log_irf(points, time_s)
        found = self.factor.left_out(points.along(self.axes), folds, lambda known: log_irf)
        return {how: points.kept * points.dense_s / np.exp(y) for how, y in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Axes and the process."""
        return {"axes": list(self.axes), "log_irf": self.factor.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
        return cls(tuple(data["axes"]), Kriging.from_json(data["log_irf"]))


def _log_irf(points: Points, time_s: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(points.kept * points.dense_s / time_s))
