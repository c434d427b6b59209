"""A whole network from models of single layers: every layer's dense and sparse time, their sums, and how sure.

A layer that stays dense is in both sums, with a reason. A layer that the plan prunes and no model knows is a
ModelError. What a network spends outside its layers is `rest`; nobody guesses it: `verify` measures it, as a share of
the dense layers, and without it there is no network speedup. It is about the same in both forms of a network, but not
quite: sparse convolutions hand activations on in another layout than libraries do, so each form has its own (rest.py).

Layouts. A network of torch hands a linear layer X as [n, k], the layout `batch`; times of a layer are total ones, so
where a kernel takes [k, n] alone, the change there and back is in them. Where no such times were measured, those of
activations kept as [k, n] speak instead, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# pandas: the layers are shown, sorted and exported as a frame.
import pandas as pd

from sparsebench.case import DType, Layout, Math
from sparsebench.desk.fitted import FittedModels, Place
from sparsebench.desk.images import Walk
from sparsebench.desk.layers import Asked, Interval, LayerPrediction, add_up, asked_of, walked
from sparsebench.network import Network
from sparsebench.plan import Plan
from sparsebench.rest import Lying, Rest


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
        return None if self.rest is None else self.rest.seconds(self.in_place * self.dense_s.value)

    @property
    def in_place(self) -> float:
        """How many times longer dense layers took in this network, under other plans, than alone; 1 where unknown."""
        alone_s, there_s = self.dense_s.value, self.rest.dense_layers_s if self.rest else None
        return there_s / alone_s if there_s and math.isfinite(alone_s) else 1.0

    @property
    def whole_s(self) -> tuple[float, float] | None:
        """(dense, planned) seconds of the whole network; None where its rest was never measured.

        Code and operands are colder amid other layers, and a machine has its hours: dense layers of four networks took
        up to 14 % more or 8 % less in place than alone, and sparse ones beside them as much, within some per cent.
        """
        if self.rest_s is None:
            return None
        dense_rest_s, planned_rest_s = self.rest_s
        share = self.in_place
        return share * self.dense_s.value + dense_rest_s, share * self.sparse_s.value + planned_rest_s

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
            "network_s": self.whole_s and [_plain(time_s) for time_s in self.whole_s],
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
    asked = [asked_of(fitted, place, entry) for entry in planned]
    walk = Walk()
    layers = walked(asked, walk)
    if rest and not any(layer.sparse for layer in layers):
        rest = rest.unpruned()
    elif rest:
        layers, rest = _whole(asked, walk.lying, layers, rest)
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


def _whole(
    asked: Sequence[Asked], lying: Lying, layers: tuple[LayerPrediction, ...], rest: Rest
) -> tuple[tuple[LayerPrediction, ...], Rest]:
    """Layers and rest of the planned network, which may leave images in three ways: the least of those that are known.

    Each layer's least, or all dense ones leaving [batch, c, h, w], or all channels last. What adds images up takes
    several times as long where they lie differently, and no layer's time says so: a way counts where the rest of a
    pruned network was measured that went it, else the one that the dense network went.
    """
    if not any(entry.images for entry in asked):
        return layers, rest.where("first")
    ways = [(lying, layers)]
    for walk in (Walk(to="first"), Walk(to="last")):
        found = walked(asked, walk)
        if walk.lying == walk.to:
            ways.append((walk.lying, found))
    known = [way for way in ways if way[0] in rest.lying] or [way for way in ways if way[0] == rest.dense_lying]
    dense_s = add_up((layer, layer.dense) for layer in layers).value

    def whole_s(way: tuple[Lying, tuple[LayerPrediction, ...]]) -> float:
        return add_up((x, x.chosen) for x in way[1]).value + rest.where(way[0]).planned * dense_s

    way = min(known or ways[:1], key=whole_s)
    return way[1], rest.where(way[0])


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
