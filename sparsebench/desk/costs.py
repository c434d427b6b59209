"""What pruning a network costs beside time: bytes of its weights, and packing, as calls until it is paid back.

Bytes need no measurement: the format that a kernel reads is packed here, once for each distinct matrix of a plan, and
asked for its size. Packing time is a record's; a matrix that was never packed takes as many seconds for a weight as
the same kernel took for others (the median), since packing reads every weight once.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from sparsebench import units
from sparsebench.case import ITEM_BYTES, NUMPY_DTYPES, Case, canonical
from sparsebench.desk.layers import LayerPrediction
from sparsebench.desk.observe import is_dense_kernel
from sparsebench.desk.predict import NetworkPrediction
from sparsebench.formats import FORMATS
from sparsebench.kernel import load_kernels
from sparsebench.paired import median
from sparsebench.record import Record

PackSeconds = Mapping[str, float]  # kernel -> seconds for each weight of the dense matrix


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes of all weights, dense and as planned, and seconds of packing those that are pruned; None: unknown.

    pays_back_calls  forward passes after which packing is paid; infinite where the plan saves no time
    """

    dense_bytes: int
    planned_bytes: int
    pack_s: float | None
    pays_back_calls: float | None

    def __str__(self) -> str:
        share = self.planned_bytes / self.dense_bytes
        sizes = f"{units.size(self.planned_bytes)} of {units.size(self.dense_bytes)} dense"
        told = f"Weights: {sizes} ({units.percent(share)})"
        if self.pack_s is None or self.pays_back_calls is None:
            return f"{told}; packing was never timed for these kernels"
        if math.isinf(self.pays_back_calls):
            return f"{told}; packing takes {units.seconds(self.pack_s)}, which nothing pays back"
        calls = max(1, math.ceil(self.pays_back_calls))
        return f"{told}; packing takes {units.seconds(self.pack_s)}, paid back after {calls} forward passes"

    def to_json(self) -> dict[str, float | None]:
        """As JSON data; null where unknown or never."""
        calls = self.pays_back_calls
        return {
            "dense_bytes": self.dense_bytes,
            "planned_bytes": self.planned_bytes,
            "pack_s": self.pack_s,
            "pays_back_calls": None if calls is None or math.isinf(calls) else calls,
        }


def pack_seconds(records: Iterable[Record], machine: str) -> PackSeconds:
    """Seconds that each sparse kernel takes to pack one weight of a dense matrix on `machine`: medians over records."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        timed = record.outcome == "ok" and record.case.kind == "layer" and not is_dense_kernel(record.kernel)
        if timed and record.machine == machine and record.pack_s is not None:
            found[record.kernel].append(record.pack_s / (record.case.m * record.case.k))
    return {kernel: median(values) for kernel, values in found.items()}


def costs(prediction: NetworkPrediction, packing: PackSeconds) -> Costs:
    """The costs of a predicted plan. Each layer has one W, however often it is called."""
    dense = sum(_dense_bytes(entry.case) for entry in prediction.layers)
    planned = sum(_planned_bytes(entry) for entry in prediction.layers)
    packs = [_pack_s(entry, packing) for entry in prediction.layers if entry.sparse]
    known = [time_s for time_s in packs if time_s is not None]
    pack_s = sum(known) if len(known) == len(packs) else None
    saved_s = prediction.dense_s.value - prediction.sparse_s.value
    calls = None if pack_s is None else pack_s / saved_s if saved_s > 0 else math.inf
    return Costs(dense, planned, pack_s, calls)


def _dense_bytes(case: Case) -> int:
    return case.m * case.k * ITEM_BYTES[case.dtype]


def _kernels_of(entry: LayerPrediction) -> list[str]:
    return [name.strip() for name in entry.chosen.kernel.split("+")]


def _planned_bytes(entry: LayerPrediction) -> int:
    if not entry.sparse:
        return _dense_bytes(entry.case)
    names = _kernels_of(entry)
    name = "hbs" if len(names) > 1 else _format_name(names[0])
    return stored_bytes(replace(entry.case, n=1, conv=None, op="gemm", layout="feature"), name)


def _format_name(kernel: str) -> str:
    """The format a kernel reads; a plugin's is the first part of its name."""
    known = {each.name: each.format.name for each in load_kernels()}
    return known.get(kernel, kernel.split(".")[0])


def stored_bytes(case: Case, format_name: str) -> int:
    """Bytes of W of `case` in a format, its mask drawn as the lab draws it."""
    return _stored(canonical(case.to_json()), format_name)


@lru_cache(maxsize=4096)
def _stored(case_text: str, format_name: str) -> int:
    case = Case.from_json(json.loads(case_text))
    draw = case.draw()
    w = case.weights(draw).astype(NUMPY_DTYPES[case.dtype], copy=False)
    return FORMATS[format_name].from_dense(w, draw.mask, draw.structure).nbytes


def _pack_s(entry: LayerPrediction, packing: PackSeconds) -> float | None:
    rates = [packing.get(name) for name in _kernels_of(entry)]
    known = [rate for rate in rates if rate is not None]
    return sum(known) * entry.case.m * entry.case.k if len(known) == len(rates) else None
