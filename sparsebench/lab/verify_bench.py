"""A whole network on the device: run three times over - by torch, at its densest best, as planned - checked and timed.

Three networks share everything but the products of their layers, and hold the same masked weights (verify_build.py), so
one float64 forward pass judges all three: torch's own layers, the best dense kernel of each layer, the kernels of the
plan. A dense kernel takes the same time over zeros.

The check. Each sample's answer is held against y64, that of the same masked network in float64, in the Euclidean norm:

    torch's layers   |y - y64| <= 8 u sqrt(sum of t over all calls) |y64|       t terms a row, u = 2^-24
    dense, planned   |y - y64| <= 16 max(|torch's y - y64|, u |y64|)

The first is what rounding can do when independent layers add up like their squares, and norms and activations pass a
relative error on as it is; it is loose, since libraries add in many lanes: torch came to 1 % of it. The second is what
another order of the same sums may do. Measured on four networks, 90 % pruned: 2 to 6e-7 by torch, up to 3.7 times that
by the others, and by one weight doubled amid the layers 1e-5 of ResNet-50, 3e-4 of VGG19, 8e-5 of ViT-B/16, 2e-3 of
BERT-base.

Rounds run the three in random order, each over cold weights, as the law of `weights_cold` has it. Python's garbage
collector rests. How a pass is run and timed, and how weights are made cold, is its device's (verify_sides.py,
verify_cuda.py); all else is one for all. Where passes take copies of the weights in turn the answer of each copy is
checked after the clock.

Verifications that run at the same time on one core take turns (turns.py): each builds and checks in one turn, and times
its rounds in many.
"""

from __future__ import annotations

import copy
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch

from sparsebench.kernel import Kernel
from sparsebench.lab.check import Verdict
from sparsebench.lab.interleaved import FIRST_LOOK, LOOK_AGAIN
from sparsebench.lab.memory import give_back
from sparsebench.lab.ready import refuse
from sparsebench.lab.turns import Turns
from sparsebench.lab.verify_build import Building, load_builder
from sparsebench.lab.verify_sides import InTurn, NetworkSide
from sparsebench.lab.wire import Verify, VerifyLayer
from sparsebench.paired import LEAST_ROUNDS, paired_ratio
from sparsebench.record import Protocol
from sparsebench.rest import CACHE, DENSE, PLANNED, TORCH

MARGIN, BESIDE_TORCH, U = 8, 16, 2.0**-24

Times = dict[str, list[float]]


@dataclass(slots=True, eq=False)
class NetworkBench:
    """One network, planned: what a Verify request is answered with."""

    asked: Verify
    kernels: Mapping[str, Kernel]
    protocol: Protocol
    side: NetworkSide
    mark: Callable[[str], None] = lambda name: None
    turns: Turns | None = None
    building: Building = field(init=False)

    def __post_init__(self) -> None:
        self.building = Building(self.asked, self.kernels, self.side, self.mark)

    def facts(self) -> dict[str, Any]:
        """Samples and all that a record says of them; WrongAnswer where an answer is beyond its bound."""
        with self.turns or nullcontext(), self.side.arithmetic():
            return self._facts()

    def _facts(self) -> dict[str, Any]:
        builder = load_builder(self.asked.builder)
        torch.manual_seed(self.asked.seed)
        model = builder.build().eval()
        inputs = [self._inputs(builder, fresh) for fresh in (0, 1)]
        networks = self.building.networks(model, inputs[0])
        error_ratio = self._checked(networks, model, inputs[0])
        give_back()
        clocks = {"before_mhz": self.side.side.clocks()["mhz"]}
        samples, stop = self._timed(networks, inputs[0])
        flags, clocks = self.side.doubts(), clocks | self._clocks_after()
        copies = {name: network.held for name, network in networks.items()}
        error_ratio = max(error_ratio, self._checked(networks, model, inputs[1], copies))
        planned = [self.building.products[PLANNED][layer.name] for layer in self.asked.layers]
        return {
            "samples": {CACHE: samples},
            "stop": stop,
            "flags": flags,
            "error_ratio": error_ratio,
            "clocks": clocks,
            "nnz": sum(product.nnz for product in planned),
            "format_bytes": sum(product.nbytes for product in planned),
            "pack_s": sum(product.pack_s for product in planned),
            "facts": {
                "layers": {layer.name: self._about(layer) for layer in self.asked.layers},
                "copies": copies,
                **self.side.facts(),
            },
        }

    def _clocks_after(self) -> dict[str, Any]:
        now = dict(self.side.side.clocks())
        return {"after_mhz": now.pop("mhz"), **now, **self.side.side.clock.clocks()}

    def _inputs(self, builder: ModuleType, fresh: int) -> tuple[Any, ...]:
        torch.manual_seed(self.asked.seed + 1 + fresh)
        return tuple(self.side.home(given) for given in builder.inputs(self.asked.batch))

    def _about(self, layer: VerifyLayer) -> dict[str, Any]:
        planned, dense = (self.building.products[side][layer.name] for side in (PLANNED, DENSE))
        return {
            "kernel": planned.moved.kernel.name,
            "dense_kernel": dense.moved.kernel.name,
            "format_bytes": planned.nbytes,
            "dense_bytes": dense.nbytes,
            "nnz": planned.nnz,
            "pack_s": planned.pack_s,
            "follows": planned.moved.way,
            "changes_layout": planned.changes_layout,
        }

    # Checking ---------------------------------------------------------------------------------------------------------

    def _checked(
        self, networks: Mapping[str, InTurn], model: Any, inputs: Sequence[Any], copies: Mapping[str, int] | None = None
    ) -> float:
        """The worst error over its bound, of so many copies of each network; WrongAnswer names who is beyond it."""
        exact = copy.deepcopy(model).double()
        want = exact(*[x.double() if x.is_floating_point() else x for x in inputs])
        del exact
        allowed, worst = MARGIN * U * math.sqrt(self.building.terms), 0.0
        for name in (TORCH, DENSE, PLANNED):
            self.mark(name)
            error = 0.0
            for _ in range(copies[name] if copies else 1):
                error = max(error, relative_error(self.side.answer(name, networks[name], inputs), want))
                networks[name].next_copy()
            ratio = error / allowed
            told = f"{name} is off by {error:.2e} of its answer, {allowed:.2e} is allowed"
            refuse("whole network against float64", Verdict(ratio <= 1, ratio, told))
            worst = max(worst, ratio)
            if name == TORCH:
                allowed = BESIDE_TORCH * max(error, U)
        return worst

    # Timing -----------------------------------------------------------------------------------------------------------

    def _timed(self, networks: Mapping[str, InTurn], inputs: Sequence[Any]) -> tuple[Times, str]:
        """Seconds of each round, and why it stopped."""
        samples: Times = {}
        look, done, deadline_s = FIRST_LOOK, 0, time.perf_counter() + self.protocol.budget_s
        gc.collect()
        gc.disable()
        try:
            for seen in self.side.rounds(networks, self.building.products, inputs):
                done += 1
                for what, time_s in seen.items():
                    samples.setdefault(what, []).append(time_s)
                if done >= look:
                    look = int(done * LOOK_AGAIN) + 1
                    if _known(samples, self.protocol.precision):
                        return samples, "precision"
                if done >= LEAST_ROUNDS and time.perf_counter() >= deadline_s:
                    return samples, "budget"
                if self.turns and (waited_s := self.turns.pass_on()):
                    deadline_s += waited_s
                    self.side.away(waited_s)
        finally:
            gc.enable()
        raise AssertionError("rounds() never ends")


def relative_error(y: Any, want: Any) -> float:
    """The largest |y - want| / |want| of a sample, in the Euclidean norm; infinite where y is not finite."""
    y, want = (tensor.double().flatten(1) for tensor in (y, want))
    error = float(((y - want).norm(dim=1) / want.norm(dim=1)).max())
    return error if math.isfinite(error) else math.inf


def _known(samples: Times, precision: float) -> bool:
    """Whether the planned network's ratio to the faster of the dense ones is known so well."""
    best = min((DENSE, TORCH), key=lambda name: float(np.median(samples[name])))
    return paired_ratio(samples[best], samples[PLANNED]).half_width <= precision
