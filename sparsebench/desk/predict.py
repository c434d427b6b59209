"""A whole network from models of single layers: every layer's dense and sparse time, their sums, and how sure.

How intervals add up. Errors of layers that one kernel runs are taken as fully shared (a law that is 5 % off for one
layer of a network is 5 % off for its sisters), errors of different kernels and of the dense side as independent. So
half widths add within a kernel and root-sum-square between kernels. That is wider than independence would make it.

A layer that stays dense is in both sums, with a reason. A layer that the plan prunes and no model knows is a
ModelError. What a network spends outside its layers is `rest`; nobody guesses it: `verify` measures it, as a share of
the dense layers, and without it there is no network speedup. It is about the same in both forms of a network, but not
quite: sparse convolutions hand activations on in another layout than libraries do, so each form has its own (rest.py).

Images. Between convolutions they lie as [batch, c, h, w] or with channels last, and each layer takes what is least
where it stands, with what it costs to bring X there (images.py). So a layer that stays dense may take another time
beside sparse ones than in the dense network.

Layouts. A network of torch hands a linear layer X as [n, k], the layout `batch`; times of a layer are total ones, so
where a kernel takes [k, n] alone, the change there and back is in them. Where no such times were measured, those of
activations kept as [k, n] speak instead, and the verdict says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# pandas: the layers are shown, sorted and exported as a frame.
import pandas as pd

from sparsebench import units
from sparsebench.case import Case, DType, Layout, Math
from sparsebench.desk.fitted import FittedModels, Place
from sparsebench.desk.images import AsImages, Walk
from sparsebench.desk.irf import irf
from sparsebench.desk.model import Prediction
from sparsebench.desk.observe import DENSE, kept_share
from sparsebench.errors import ModelError
from sparsebench.network import Layer, Network
from sparsebench.plan import Plan, Planned
from sparsebench.rest import Rest, lying_of

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


@dataclass(frozen=True, slots=True)
class NetworkPrediction:
    """Layers and their sums for one batch.

    rest  what is outside the layers, dense and as planned; None where never measured
    """

    network: str
    place: Place
    batch: int
    layers: tuple[LayerPrediction, ...]
    rest: Rest | None = None
    layout: Layout = "batch"

    @property
    def dense_s(self) -> Interval:
        """Seconds of all layers, dense."""
        return add_up((layer, layer.dense) for layer in self.layers)

    @property
    def sparse_s(self) -> Interval:
        """Seconds of all layers as planned, those that stay dense included."""
        return add_up((layer, layer.chosen) for layer in self.layers)

    @property
    def rest_s(self) -> tuple[float, float] | None:
        """(dense, planned) seconds outside the layers; None where never measured."""
        return None if self.rest is None else self.rest.seconds(self.dense_s.value)

    @property
    def layers_speedup(self) -> Interval:
        """Dense over planned time of the layers alone."""
        return _speedup(self.layers, Rest(0.0, 0.0))

    @property
    def network_speedup(self) -> Interval | None:
        """Dense over planned time of the whole network; None where the rest is unknown."""
        return None if self.rest is None else _speedup(self.layers, self.rest)

    def frame(self) -> pd.DataFrame:
        """A row for each layer, in the order they run."""
        return pd.DataFrame([_row(layer) for layer in self.layers])

    def to_json(self) -> dict[str, Any]:
        """Layers and sums as JSON data; an unknown bound is null."""
        return {
            "network": self.network,
            "machine": self.place.machine,
            "cache": self.place.cache,
            "threads": self.place.threads,
            "batch": self.batch,
            "layout": self.layout,
            "layers": [{name: _plain(value) for name, value in _row(layer).items()} for layer in self.layers],
            "dense_s": _triple(self.dense_s),
            "sparse_s": _triple(self.sparse_s),
            "layers_speedup": _triple(self.layers_speedup),
            "rest_s": self.rest_s and self.rest_s[0],
            "planned_rest_s": self.rest_s and self.rest_s[1],
            "network_speedup": _triple(self.network_speedup),
        }


def predict(
    network: Network,
    fitted: FittedModels,
    plan: Plan,
    *,
    batch: int = 1,
    dtype: DType = "float32",
    math: Math = "ieee",
    layout: Layout | None = None,
    machine: str | None = None,
    cache: str | None = None,
    threads: int = 1,
    rest: Rest | None = None,
) -> NetworkPrediction:
    """The times of `network` as `plan` prunes it; ModelError names the layer that no model knows.

    layout  of activations between linear layers; None is torch's own, `batch`, where that was measured
    """
    place = fitted.place(machine, cache, threads)
    layout = layout or measured_layout(fitted, place, dtype, math)
    planned = plan.cases(network, batch, dtype, math, layout)
    asked = [_asked(fitted, place, entry) for entry in planned]
    layers = _walked(asked, Walk())
    if rest and not any(layer.sparse for layer in layers):
        rest = Rest(rest.dense, rest.dense)
    elif rest:
        layers, rest = _whole(network, asked, layers, rest)
    return NetworkPrediction(network.name, place, batch, layers, rest, layout)


def measured_layout(fitted: FittedModels, place: Place, dtype: DType, math: Math) -> Layout:
    """`batch`, as a network of torch asks, where dense products were measured so or not at all; else `feature`."""
    asked = (place.machine, place.cache, place.threads, "gemm", dtype, math)
    found = {
        known.layout
        for known in fitted.dense
        if (known.machine, known.cache, known.threads, known.op, known.dtype, known.math) == asked
    }
    return "feature" if found == {"feature"} else "batch"


class _Asked(NamedTuple):
    """One layer and what models say of it, wherever it stands; `sparse` is None where it stays dense, for `reason`."""

    planned: Planned
    dense: Prediction
    images: AsImages | None
    sparse: Prediction | None
    reason: str


def _asked(fitted: FittedModels, place: Place, planned: Planned) -> _Asked:
    layer, dense_case, case, kernel = planned
    try:
        dense, images = fitted.dense_time(dense_case, place), fitted.as_images(dense_case, place)
        if reason := _why_dense(layer, case):
            return _Asked(planned, dense, images, None, reason)
        assert case is not None
        return _Asked(planned, dense, images, fitted.sparse_time(case, place, kernel), "")
    except ModelError as error:
        raise ModelError(f"layer {layer.name}: {error}") from None


def _walked(asked: Sequence[_Asked], own_walk: Walk) -> tuple[LayerPrediction, ...]:
    """Every layer where it stands, in the dense network and along `own_walk`."""
    dense_walk = Walk()
    return tuple(_layer(entry, dense_walk, own_walk) for entry in asked)


def _layer(asked: _Asked, dense_walk: Walk, own_walk: Walk) -> LayerPrediction:
    layer, dense_case, case, _ = asked.planned
    dense = dense_walk.dense(dense_case, asked.dense, asked.images)
    if asked.sparse is None or case is None:
        stays = own_walk.dense(dense_case, asked.dense, asked.images)
        why = "; ".join(filter(None, (asked.reason, stays.why)))
        return LayerPrediction(layer, case or dense_case, dense, None, None, why, stays)
    sparse = own_walk.sparse(dense_case, asked.sparse, asked.images)
    why = "; ".join(filter(None, dict.fromkeys((sparse.why, dense.why))))
    return LayerPrediction(layer, case, dense, sparse, irf(kept_share(case), dense.time_s, sparse.time_s), why)


def _whole(
    network: Network, asked: Sequence[_Asked], layers: tuple[LayerPrediction, ...], rest: Rest
) -> tuple[tuple[LayerPrediction, ...], Rest]:
    """Layers and rest of the planned network: each layer's least time, or all images as [batch, c, h, w], if less."""
    ways = [(layers, rest.where(lying_of(network, {each.layer.name: each.chosen.kernel for each in layers})))]
    if any(entry.images for entry in asked):
        ways.append((_walked(asked, Walk(plain=True)), rest.where("first")))
    dense_s = add_up((layer, layer.dense) for layer in layers).value
    return min(ways, key=lambda way: add_up((x, x.chosen) for x in way[0]).value + way[1].planned * dense_s)


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


def _speedup(layers: Sequence[LayerPrediction], rest: Rest) -> Interval:
    """(a + b + rest) / (c + beta b + rest): a the pruned layers dense, c the same layers sparse, b those in both forms.

    beta is what layers that stay dense take beside sparse ones, as a share. Each rest is its share of a + b, and moves
    with them.
    """
    pruned = [layer for layer in layers if layer.sparse]
    a = add_up((layer, layer.dense) for layer in pruned)
    b = add_up((layer, layer.dense) for layer in layers if not layer.sparse)
    c = add_up((layer, layer.chosen) for layer in pruned)
    beside = add_up((layer, layer.chosen) for layer in layers if not layer.sparse).value
    beta = beside / b.value if b.value and math.isfinite(b.value) else 1.0

    def ratio(a_s: float, b_s: float, c_s: float) -> float:
        return _ratio(rest, a_s, b_s, c_s, beta)

    middle = ratio(a.value, b.value, c.value)
    moved = [
        *(ratio(end, b.value, c.value) for end in (a.low, a.high)),
        *(ratio(a.value, end, c.value) for end in (b.low, b.high)),
        *(ratio(a.value, b.value, end) for end in (c.low, c.high)),
    ]
    logs = [math.log(ratio / middle) if ratio > 0 else -math.inf for ratio in moved]
    low, high = math.hypot(*(min(log, 0.0) for log in logs)), math.hypot(*(max(log, 0.0) for log in logs))
    return Interval(middle, middle * math.exp(-low), middle * math.exp(high))


def _ratio(rest: Rest, a: float, b: float, c: float, beta: float = 1.0) -> float:
    """(a + b + rest) / (c + beta b + rest), its limit where one of them is infinite."""
    if math.isinf(b):
        return (1 + rest.dense) / (beta + rest.planned)
    if math.isinf(a):
        return (1 + rest.dense) / rest.planned if rest.planned > 0 else math.inf
    dense_rest, planned_rest = rest.seconds(a + b)
    planned = c + beta * b + planned_rest
    return (a + b + dense_rest) / planned if planned > 0 else math.inf


def _row(entry: LayerPrediction) -> dict[str, Any]:
    case, chosen = entry.case, entry.chosen
    return {
        "layer": entry.layer.name,
        "calls": entry.layer.calls,
        "case": case.describe(),
        "kernel": chosen.kernel,
        "dense_kernel": entry.dense.kernel,
        "dense_s": entry.dense.time_s,
        "dense_measured": entry.dense.measured,
        "measured": chosen.measured,
        "time_s": chosen.time_s,
        "low_s": chosen.low_s,
        "high_s": chosen.high_s,
        "speedup": entry.dense.time_s / chosen.time_s,
        "irf": entry.irf,
        "extrapolated": entry.extrapolated,
        "stays_dense": entry.sparse is None,
        "why": entry.why,
    }


def _plain(value: Any) -> Any:
    """JSON knows no infinity: null stands for an unknown bound."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _triple(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_plain(value) for value in (interval.value, interval.low, interval.high)]
