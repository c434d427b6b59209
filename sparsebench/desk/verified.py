"""Predicted against measured: records of a whole network beside what predict says of it, layer by layer.

Everything is read from the records, so the comparison can be made again without torch. The baseline is the faster of
the two dense networks that were run: each layer by its best kernel, or torch alone. All verifications of the same
network, plan and code count together, as one measurement: rest.py says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsebench import units
from sparsebench.case import Case
from sparsebench.desk.predict import NetworkPrediction
from sparsebench.errors import StoreError
from sparsebench.network import Network
from sparsebench.paired import Ratio, median, paired_ratio
from sparsebench.plan import Choice, Plan
from sparsebench.record import Record
from sparsebench.rest import (
    DENSE,
    PLANNED,
    TORCH,
    NetworkTimes,
    Rest,
    geometric_mean,
    rest_share,
    times_of,
    together,
)

SPEEDUP_WITHIN, SECONDS_WITHIN = 0.05, 0.10  # of what was measured: how near predictions are wanted


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster, in each verification."""

    each: tuple[float, ...]

    @property
    def value(self) -> float:
        """All together: the geometric mean."""
        return geometric_mean(self.each)

    @property
    def spread(self) -> float:
        """By how much the highest is above the lowest, as a share."""
        return max(self.each) / min(self.each) - 1

    @property
    def told(self) -> str:
        """Such as `over 3 verifications, spread 2.1 %`."""
        return f"over {len(self.each)} verifications, spread {100 * self.spread:.1f} %"


@dataclass(frozen=True, slots=True)
class Measured:
    """What verifications of one network under one plan say together; torch_s is torch's own whole network.

    records  of the same question and code, the newest last
    """

    records: tuple[Record, ...]
    dense: NetworkTimes
    planned: NetworkTimes
    torch_s: float

    @classmethod
    def of(cls, *records: Record) -> Measured:
        """The times in ok records of a whole network; StoreError where some are missing."""
        dense, planned, torch = (
            together([_times(record, side) for record in records]) for side in (DENSE, PLANNED, TORCH)
        )
        return cls(records, dense, planned, torch.whole_s)

    @property
    def record(self) -> Record:
        """The newest."""
        return self.records[-1]

    @property
    def speedup(self) -> Speedup:
        """How many times faster the planned network is than the faster dense one."""
        return self.over(self.baseline)

    @property
    def baseline(self) -> str:
        """Which dense network was the faster one."""
        return DENSE if self.dense.whole_s <= self.torch_s else TORCH

    def over(self, baseline: str) -> Speedup:
        """How many times faster the planned network is than `baseline`, in quiet rounds of either."""
        return Speedup(tuple(_over(record, baseline) for record in self.records))

    @property
    def own(self) -> Ratio:
        """The newest verification's own speedup over the baseline, all rounds paired, and its interval."""
        return paired_ratio(self.record.times_s(kernel=self.baseline), self.record.times_s(kernel=PLANNED))

    @property
    def rest(self) -> Rest:
        """The rest of its dense network, for want of one that other plans left, as that of both forms."""
        share = median([rest_share(record, DENSE) or 0.0 for record in self.records])
        return Rest(share, share)

    def kernels(self, name: str) -> tuple[str, str]:
        """(dense kernel, planned kernel) that ran layer `name` in the newest verification."""
        about = self.record.facts["layers"][name]
        return about["dense_kernel"], about["kernel"]

    def plan(self, network: Network) -> Plan:
        """The plan that was run, with the kernels that ran it."""
        chosen = self.record.case.params["plan"]
        return Plan(
            network,
            {
                name: Choice(about["pattern"], about["params"], about["sparsity"], about["kernel"])
                for name, about in chosen.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Off:
    """One figure, predicted and measured."""

    predicted: float
    measured: float

    @property
    def share(self) -> float:
        """How far off the prediction was, as a share of what was measured: 0.05 is 5 % too much."""
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        return f"{round(100 * self.share, 1) + 0.0:+.1f} %"  # + 0.0: nothing is off by -0.0 %


@dataclass(frozen=True, slots=True)
class Against:
    """A prediction beside the measurement of the same network and plan."""

    prediction: NetworkPrediction
    measured: Measured

    @property
    def layers(self) -> Mapping[str, tuple[Off, Off]]:
        """(dense, planned) seconds of each layer, all its calls together."""
        return {
            entry.layer.name: (
                Off(entry.layer.calls * entry.dense.time_s, self.measured.dense.layers_s[entry.layer.name]),
                Off(entry.layer.calls * entry.chosen.time_s, self.measured.planned.layers_s[entry.layer.name]),
            )
            for entry in self.prediction.layers
        }

    @property
    def dense_s(self) -> Off:
        """Seconds of all layers, dense."""
        return Off(self.prediction.dense_s.value, sum(self.measured.dense.layers_s.values()))

    @property
    def planned_s(self) -> Off:
        """Seconds of all layers, as planned."""
        return Off(self.prediction.sparse_s.value, sum(self.measured.planned.layers_s.values()))

    @property
    def whole_s(self) -> tuple[Off, Off] | None:
        """(dense, planned) seconds of the whole network; None where the prediction knew no rest."""
        predicted = self.prediction.whole_s
        if predicted is None:
            return None
        return Off(predicted[0], self.measured.dense.whole_s), Off(predicted[1], self.measured.planned.whole_s)

    @property
    def speedup(self) -> Off | None:
        """The whole network's speedup over the network of best dense kernels, which is what predict speaks of."""
        predicted = self.prediction.network_speedup
        return None if predicted is None else Off(predicted.value, self.measured.over(DENSE).value)

    def to_json(self) -> dict[str, Any]:
        """Predicted, measured and how far off, as JSON data."""
        whole = self.whole_s
        return {
            "layers": {name: [_json(dense), _json(planned)] for name, (dense, planned) in self.layers.items()},
            "dense_s": _json(self.dense_s),
            "planned_s": _json(self.planned_s),
            "whole_dense_s": _json(whole[0] if whole else None),
            "whole_planned_s": _json(whole[1] if whole else None),
            "speedup": _json(self.speedup),
        }


def _times(record: Record, side: str) -> NetworkTimes:
    if (found := times_of(record, side)) is None:
        raise StoreError(f"the record of {record.case.describe()} lacks one of the three networks; verify it again")
    return found


def _over(record: Record, baseline: str) -> float:
    """How many times faster the planned network was, each in its quiet rounds."""
    return _times(record, baseline).whole_s / _times(record, PLANNED).whole_s


def _json(off: Off | None) -> dict[str, float] | None:
    return None if off is None else {"predicted": off.predicted, "measured": off.measured, "off": off.share}


def named_baselines(records: Iterable[Record]) -> dict[Any, tuple[str, ...]]:
    """The dense kernels that the newest run of a problem named its fastest, by the problem's identity."""
    found: dict[Any, tuple[str, tuple[str, ...]]] = {}
    for record in records:
        if record.case.kind == "layer" and record.outcome == "ok" and record.baselines:
            about = record.case.problem.identity
            if about not in found or record.started_at >= found[about][0]:
                found[about] = record.started_at, tuple(record.baselines)
    return {about: names for about, (_, names) in found.items()}


def in_network(network: Network) -> Callable[[Case], bool]:
    """Whether a case asks about the shape of a layer of `network`, whatever its batch: what a fit may be kept from."""
    shapes = {_shape(layer.case()) for layer in network.layers}
    return lambda case: case.kind == "layer" and _shape(case) in shapes


def _shape(case: Case) -> tuple[Any, ...]:
    conv = case.conv
    return case.m, case.k, (conv.c, conv.h, conv.w, conv.kh, conv.kw, conv.stride, conv.padding) if conv else None


def layer_rows(columns: Mapping[str, Against], measured: Measured) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row a layer: kernels, measured seconds dense and planned, and how far off each prediction was of both."""
    head = ("layer", "dense kernel", "kernel", "dense", "planned", "speedup")
    offs = {name: against.layers for name, against in columns.items()}
    rows = []
    for layer, dense_s in measured.dense.layers_s.items():
        planned_s = measured.planned.layers_s[layer]
        told = tuple(f"{dense}, {planned}" for dense, planned in (off[layer] for off in offs.values()))
        times = units.seconds(dense_s), units.seconds(planned_s), f"{dense_s / planned_s:.2f}x"
        rows.append((layer, *measured.kernels(layer), *times, *told))
    return (*head, *(f"{name}: off" for name in columns)), rows


def _told(measured: Measured) -> str:
    """The speedup: of one verification with its interval; of several together, and then the newest alone."""
    speedup, own, baseline = measured.speedup, measured.own, measured.baseline
    if len(speedup.each) == 1:
        return f"{own} as fast as {baseline}, {speedup.value:.2f}x in quiet rounds"
    return f"{speedup.value:.2f}x as fast as {baseline} {speedup.told}; in this run {own}"


def lines_on(columns: Mapping[str, Against], measured: Measured) -> list[str]:
    """What `verify` says below its table: sums, the network's speedup, and how far off each prediction was."""
    dense, planned, record = measured.dense, measured.planned, measured.record
    sums = [sum(side.layers_s.values()) for side in (dense, planned)]
    lines = [
        f"Layers: {units.seconds(sums[0])} dense, {units.seconds(sums[1])} as planned; "
        f"rest: {units.seconds(dense.rest_s)} and {units.seconds(planned.rest_s)}",
        f"Whole: {units.seconds(dense.whole_s)} by the best dense kernels, {units.seconds(measured.torch_s)} by torch "
        f"alone, {units.seconds(planned.whole_s)} as planned: {_told(measured)}",
        f"Output: {100 * (record.error_ratio or 0):.2g} % of the error that is allowed",
    ]
    for name, against in columns.items():
        told = f"Predicted {name}: layers off by {against.dense_s} dense and {against.planned_s} planned"
        if (whole := against.whole_s) and (speedup := against.speedup):
            told += f"; whole by {whole[0]} and {whole[1]}; speedup {speedup.predicted:.2f}x, off by {speedup}"
        lines.append(told)
    return lines
