"""The layers of a network as models of single layers tell them, each where it stands, and their sum.

Images. Between convolutions they lie as [batch, c, h, w] or with channels last, and each layer takes what is least
where it stands, with what it costs to bring X there (images.py). So a layer that stays dense may take another time
beside sparse ones than in the dense network.

How intervals add up. Errors of layers that one kernel runs are taken as fully shared (a law that is 5 % off for one
layer of a network is 5 % off for its sisters), errors of different kernels and of the dense side as independent. So
half widths add within a kernel and root-sum-square between kernels. That is wider than independence would make it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sparsebench import units
from sparsebench.case import Case
from sparsebench.desk.fitted import FittedModels, Place
from sparsebench.desk.images import AsImages, Walk
from sparsebench.desk.irf import irf
from sparsebench.desk.model import Prediction
from sparsebench.desk.observe import DENSE, kept_share
from sparsebench.errors import ModelError
from sparsebench.network import Layer
from sparsebench.plan import Planned

HARDLY_KNOWN = 10.0  # times its low end that an interval reaches, and more
UNPLANNED, UNPRUNABLE, MISFIT = "not in the plan", "must stay dense (prunable: false)", "stays dense"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the interval that should hold it nine times of ten; high may be infinite: unknown."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        told = units.ratio(self.value, self.low, self.high)
        return told if self.high < HARDLY_KNOWN * self.low else f"{told}, hardly known"


@dataclass(frozen=True, slots=True)
class LayerPrediction:
    """One layer, times of one call in seconds. `sparse` and `irf` are None where it stays dense; `why` says why.

    dense   in the network whose layers are all dense
    stays   where it stays dense: in the planned network, if images lie otherwise there
    """

    layer: Layer
    case: Case
    dense: Prediction
    sparse: Prediction | None
    irf: float | None
    why: str
    stays: Prediction | None = None

    @property
    def chosen(self) -> Prediction:
        """What the layer becomes: its sparse kernel, or the dense one."""
        return self.sparse or self.stays or self.dense

    @property
    def extrapolated(self) -> bool:
        """Whether either side left what was measured."""
        return self.dense.extrapolated or self.chosen.extrapolated


class Asked(NamedTuple):
    """One layer and what models say of it, wherever it stands; `sparse` is None where it stays dense, for `reason`."""

    planned: Planned
    dense: Prediction
    images: AsImages | None
    sparse: Prediction | None
    reason: str


def asked_of(fitted: FittedModels, place: Place, planned: Planned) -> Asked:
    """What the models of `place` say of a layer; ModelError names it where none knows it."""
    layer, dense_case, case, kernel = planned
    try:
        dense, images = fitted.dense_time(dense_case, place), fitted.as_images(dense_case, place)
        if reason := _why_dense(layer, case):
            return Asked(planned, dense, images, None, reason)
        assert case is not None
        return Asked(planned, dense, images, fitted.sparse_time(case, place, kernel), "")
    except ModelError as error:
        raise ModelError(f"layer {layer.name}: {error}") from None


def walked(asked: Sequence[Asked], own_walk: Walk) -> tuple[LayerPrediction, ...]:
    """Every layer where it stands, in the dense network and along `own_walk`."""
    dense_walk = Walk()
    return tuple(_layer(entry, dense_walk, own_walk) for entry in asked)


def _layer(asked: Asked, dense_walk: Walk, own_walk: Walk) -> LayerPrediction:
    layer, dense_case, case, _ = asked.planned
    dense = dense_walk.dense(dense_case, asked.dense, asked.images)
    if asked.sparse is None or case is None:
        stays = own_walk.dense(dense_case, asked.dense, asked.images)
        why = "; ".join(filter(None, (asked.reason, stays.why)))
        return LayerPrediction(layer, case or dense_case, dense, None, None, why, stays)
    sparse = own_walk.sparse(dense_case, asked.sparse, asked.images)
    why = "; ".join(filter(None, dict.fromkeys((sparse.why, dense.why))))
    return LayerPrediction(layer, case, dense, sparse, irf(kept_share(case), dense.time_s, sparse.time_s), why)


def _why_dense(layer: Layer, case: Case | None) -> str | None:
    """Why a layer stays dense, or None when it does not."""
    if case is None or case.pattern == DENSE:
        return UNPLANNED if layer.prunable else UNPRUNABLE
    reason = case.pattern_object.why_not(case.m, case.k, case.sparsity)
    return f"{MISFIT}: {reason}" if reason else None


def add_up(parts: Iterable[tuple[LayerPrediction, Prediction]]) -> Interval:
    """Seconds of all calls together: half widths add within a kernel, root-sum-square between kernels."""
    total, down, up = 0.0, defaultdict[str, float](float), defaultdict[str, float](float)
    for entry, guess in parts:
        total += entry.layer.calls * guess.time_s
        down[guess.kernel] += entry.layer.calls * (guess.time_s - guess.low_s)
        up[guess.kernel] += entry.layer.calls * (guess.high_s - guess.time_s)
    return Interval(total, max(total - math.hypot(*down.values()), 0.0), total + math.hypot(*up.values()))
