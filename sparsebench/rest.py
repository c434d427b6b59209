"""A network as one record: what it takes as a whole, layer by layer in place, and the rest that is in no layer.

`verify` makes one such record for each network, batch and plan: its case has kind `rest`, n is the batch, the source
names the network and the sha256 of its layers, and params hold the plan, kernels included. The rounds of `samples` time
three networks that compute the same, each as a whole and, after a space, by layer:

    network.planned   layers as the plan has them          network.planned blocks.0.mlp.fc1
    network.dense     each layer by the best dense kernel  network.dense blocks.0.mlp.fc1
    network.torch     torch alone, its layers not timed: they would have to be taken apart

A layer's time is that of its kernel and its layout change. All else is the rest: norms, activations, products of two
activations, biases, and the calls of Python between them. Plans change none of its operations, but how activations lie:
behind a sparse convolution as [b, c, h, w], behind a library's often as [b, h, w, c], which norms and pools read faster
or slower (VGG19, batch 16, one Cascade Lake core: 20 ms dense, 41 in 4x1 blocks). So a dense and a pruned network have
a rest each, and what other plans left stands for a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsebench.case import Case, Source, digest
from sparsebench.network import Network
from sparsebench.paired import median
from sparsebench.record import Record

PLANNED, DENSE, TORCH = "network.planned", "network.dense", "network.torch"
CACHE = "weights_cold"  # each forward pass meets its weights cold: the cache is written over before it


def rest_case(network: Network, batch: int, plan: Mapping[str, Any]) -> Case:
    """The question "what does `network` take as `plan` has it?"; `plan` is what became of each layer that changed."""
    source = Source(network.name, None, layers_digest(network))
    return Case(kind="rest", m=1, k=1, n=batch, params={"plan": dict(plan)}, source=source)


def layers_digest(network: Network) -> str:
    """sha256 of the layers, in hex: a network whose file changed is another one."""
    return digest([asdict(layer) for layer in network.layers])


def series(side: str, layer: str) -> str:
    """The name in `samples` of a layer in one of the three networks."""
    return f"{side} {layer}"


def is_rest(record: Record) -> bool:
    """Whether `record` is of a whole network: then it is no timing of a kernel."""
    return record.case.kind == "rest"


@dataclass(frozen=True, slots=True)
class NetworkTimes:
    """Median seconds of one of the three networks: as a whole, of each layer in place (all calls), and the rest."""

    whole_s: float
    layers_s: Mapping[str, float]
    rest_s: float


def times_of(record: Record, side: str) -> NetworkTimes | None:
    """The times of network `side` in an ok record of a whole network; None where it was not timed."""
    samples = record.samples.get(record.protocol.cache[0], {})
    if not len(whole_s := samples.get(side, ())):
        return None
    layers = {
        name.removeprefix(f"{side} "): times_s for name, times_s in samples.items() if name.startswith(f"{side} ")
    }
    rest_s = np.asarray(whole_s) - sum((np.asarray(times_s) for times_s in layers.values()), np.zeros(len(whole_s)))
    return NetworkTimes(
        median(whole_s), {name: median(times_s) for name, times_s in layers.items()}, median(rest_s.tolist())
    )


@dataclass(frozen=True, slots=True)
class Rest:
    """Seconds of a network outside its layers, dense and pruned."""

    dense_s: float
    planned_s: float


def measured_rest(
    records: Iterable[Record], network: Network, batch: int, machine: str, threads: int = 1, but: str | None = None
) -> Rest | None:
    """The rest of `network`: medians over plans; None where never measured.

    Where no plan that prunes anything was measured, the rest of a pruned network is taken as that of the dense one.

    but  the key of a record to leave out, so that a plan is not predicted from its own measurement
    """
    about = network.name, layers_digest(network)
    found = [
        record
        for record in records
        if is_rest(record) and record.outcome == "ok" and record.key != but and record.machine == machine
        if record.case.source and (record.case.source.file, record.case.source.sha256) == about
        if record.case.n == batch and record.protocol.threads == threads
    ]
    dense = [times.rest_s for record in found if (times := times_of(record, DENSE))]
    pruned = [record for record in found if record.case.params["plan"]]
    planned = [times.rest_s for record in pruned if (times := times_of(record, PLANNED))]
    return Rest(median(dense), median(planned or dense)) if dense else None
