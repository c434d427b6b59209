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
or slower (VGG19, batch 16, one Cascade Lake core: 20 ms dense, 41 in 4x1 blocks; the one pool of ResNet-50, batch 1, an
Emerald Rapids core: 0.6 ms with channels last, 8 without), and two that lie differently are added up more slowly than
either kind. So a dense and a pruned network have a rest each, and what other plans left, those first whose images lay
alike, stands for a new one.

The rest is kept as a share: of what the dense layers took in the same record. Seconds would not do: a machine is in
another state some minutes later (18 to 25 ms for one network within six), and the rest with it.

Such a state lasts as long as a verification, whose rounds therefore say little of the next one: each is one draw. All
that ask the same of the same code are taken together, means over verifications of trimmed means over rounds.

Of these only the quiet ones count, in which the pass took at most 1.15 times its tenth percentile: what else runs on
the core slows dense and sparse passes differently, and pairs of passes as little as pairs of layers (desk/quiet.py).
Each of the three has its own, since a round of three passes outlasts such a state.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsebench.case import Case, Source, digest
from sparsebench.kernel import leaves_channels_last
from sparsebench.network import Network
from sparsebench.paired import median, quiet, trimmed_mean, usual
from sparsebench.record import Record
from sparsebench.store import read_lines

PLANNED, DENSE, TORCH = "network.planned", "network.dense", "network.torch"
LEAST_PASSES = 3  # quiet ones, or as many of the fastest
CACHE = "weights_cold"  # each forward pass meets its weights cold, and nothing else (lab/verify_sides.py)


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


# Verifications ------------------------------------------------------------------------------------------------------


def verifications(results: Path, machine: str | None = None) -> list[Record]:
    """Every record of a whole network in `results`, in the order of their lines; not only the newest of each key."""
    paths = sorted(results.glob(f"{machine or '*'}/verify-*.jsonl"))
    return [record for path in paths for record in read_lines(path) if is_rest(record)]


def runs_of(newest: Record, records: Iterable[Record]) -> list[Record]:
    """The ok records among `records` that asked what `newest` did, of the same code, in their order."""
    return [record for record in records if record.outcome == "ok" and _same_code(record, newest)]


def _same_code(one: Record, other: Record) -> bool:
    """Whether two verifications differ at most in which dense kernels were found the fastest, as they stood."""
    if _asked(one) != _asked(other):
        return False
    if one.key == other.key:
        return True
    found, known = one.facts.get("sources", {}), other.facts.get("sources", {})  # {kernel that ran: its source_sha}
    both = found.keys() & known.keys()
    return bool(both) and all(found[name] == known[name] for name in both)


def _asked(record: Record) -> tuple[Any, ...]:
    """The question, where and how it was asked, and what built the network."""
    about = record.case, record.machine, record.protocol, record.versions, record.baselines.get(TORCH)
    return *about, only_weights_were_cold(record)


def only_weights_were_cold(record: Record) -> bool:
    """Whether passes took copies of the weights in turn; before they did, code and all else was cold on a CPU too."""
    return "copies" in record.facts


# Times --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetworkTimes:
    """Seconds of one of the three networks: as a whole, of each layer in place (all calls), and the rest."""

    whole_s: float
    layers_s: Mapping[str, float]
    rest_s: float


def times_of(record: Record, side: str) -> NetworkTimes | None:
    """The times of network `side` in an ok record of a whole network; None where it was not timed."""
    whole_s, layers_s = _rounds_of(record, side)
    if not len(whole_s):
        return None
    rests_s = [whole - sum(layers) for whole, *layers in zip(whole_s, *layers_s.values(), strict=True)]
    return NetworkTimes(
        steady(whole_s), {name: steady(times_s) for name, times_s in layers_s.items()}, trimmed_mean(rests_s)
    )


def steady(rounds: Sequence[float] | np.ndarray) -> float:
    """What rounds of so many seconds come to: the trimmed mean of their logarithms."""
    return float(np.exp(trimmed_mean(np.log(rounds).tolist())))


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one value above 0."""
    return float(np.exp(np.mean(np.log(values))))


def together(runs: Sequence[NetworkTimes]) -> NetworkTimes:
    """Verifications of the same network as one: geometric means, and the mean of the rest, which may be below 0."""
    return NetworkTimes(
        geometric_mean([times.whole_s for times in runs]),
        {name: geometric_mean([times.layers_s[name] for times in runs]) for name in runs[0].layers_s},
        float(np.mean([times.rest_s for times in runs])),
    )


def _rounds_of(record: Record, side: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Seconds of each quiet round: of the whole network `side`, and of its layers by name."""
    samples = record.samples.get(record.protocol.cache[0], {})
    start, whole_s = series(side, ""), np.asarray(samples.get(side, ()), float)
    if not len(whole_s):
        return whole_s, {}
    count = quiet(whole_s, usual(whole_s), LEAST_PASSES)
    layers_s = {
        name.removeprefix(start): np.asarray(times_s, float)[count]
        for name, times_s in samples.items()
        if name.startswith(start)
    }
    return whole_s[count], layers_s


Lying = Literal["first", "last", "both"]  # where channels are in the images that dense convolutions leave
FEW = 0.05  # of all entries of images that a network's convolutions leave


def lying_of(network: Network, kernels: Mapping[str, str]) -> Lying:
    """How the layers that dense kernels run leave images; `kernels` by layer. Sparse ones leave `first`."""
    sizes = {layer.name: layer.m * layer.n * layer.calls for layer in network.layers if layer.conv}
    dense = {name: size for name, size in sizes.items() if kernels[name].startswith("dense.")}
    last = sum(size for name, size in dense.items() if leaves_channels_last(kernels[name]))
    return lying(last, sum(dense.values()) - last, sum(sizes.values()))


def lying(last: int, first: int, entries: int) -> Lying:
    """Of the `entries` of all images, so many that dense layers leave with channels last and first."""
    few = FEW * entries
    return "first" if last <= few else "last" if first <= few else "both"


# The rest -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rest:
    """What a network spends outside its layers, dense and pruned: shares of the seconds of its dense layers.

    lying  pruned again, by how layers that stay dense leave images: that of plans under which they left them so
    dense_lying  how those of the dense network did, where they are known
    dense_layers_s  what its layers took in place, where verifications of other plans tell
    """

    dense: float
    planned: float
    lying: Mapping[Lying, float] = field(default_factory=dict)
    dense_lying: Lying | None = None
    dense_layers_s: float | None = None

    def where(self, lying: Lying) -> Rest:
        """That of a network whose dense layers leave images so, where a pruned one was measured whose layers did."""
        return Rest(self.dense, self.lying.get(lying, self.planned), dense_layers_s=self.dense_layers_s)

    def unpruned(self) -> Rest:
        """That of the dense network in both forms."""
        return Rest(self.dense, self.dense, dense_layers_s=self.dense_layers_s)

    def seconds(self, dense_layers_s: float) -> tuple[float, float]:
        """(dense, planned) seconds of a network whose dense layers take so many."""
        return self.dense * dense_layers_s, self.planned * dense_layers_s


def rest_share(record: Record, side: str) -> float | None:
    """The rest of network `side` as a share of the dense layers in the same record; None where one was not timed."""
    own, dense = times_of(record, side), times_of(record, DENSE)
    if own is None or dense is None or not dense.layers_s:
        return None
    return own.rest_s / sum(dense.layers_s.values())


def measured_rest(
    records: Iterable[Record], network: Network, batch: int, machine: str, threads: int = 1, but: Case | None = None
) -> Rest | None:
    """The rest of `network`: medians over all verifications of its plans; None where never measured.

    Where no plan that prunes anything was measured, the rest of a pruned network is taken as that of the dense one.
    Verifications in which code was cold too count only where there are no others.

    but  a case to leave out, so that a plan is not predicted from its own measurements
    """
    about = network.name, layers_digest(network)
    found = [
        record
        for record in records
        if is_rest(record) and record.outcome == "ok" and record.case != but and record.machine == machine
        if record.case.source and (record.case.source.file, record.case.source.sha256) == about
        if record.case.n == batch and record.protocol.threads == threads
    ]
    found = [record for record in found if only_weights_were_cold(record)] or found
    dense = [share for record in found if (share := rest_share(record, DENSE)) is not None]
    if not dense:
        return None
    times = [times for record in found if (times := times_of(record, DENSE)) and times.layers_s]
    layers_s = geometric_mean([sum(each.layers_s.values()) for each in times])
    pruned = [record for record in found if record.case.params["plan"]]
    planned = [(record, share) for record in pruned if (share := rest_share(record, PLANNED)) is not None]
    shares: dict[Lying, list[float]] = defaultdict(list)
    for record, share in planned:
        shares[lying_of(network, _ran(record, "kernel"))].append(share)
    lying = {how: median(found) for how, found in shares.items()}
    ways = Counter(lying_of(network, _ran(record, "dense_kernel")) for record in found)
    planned_share = median([share for _, share in planned] or dense)
    return Rest(median(dense), planned_share, lying, ways.most_common(1)[0][0], layers_s)


def _ran(record: Record, side: str) -> dict[str, str]:
    """The kernel that ran each layer: `kernel` in the planned network, `dense_kernel` in the dense one."""
    return {name: about[side] for name, about in record.facts["layers"].items()}
