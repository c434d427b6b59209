"""A whole network on the device: built, pruned, run three times over - by torch, at its densest best, as planned.

Three networks share everything but the products of their layers, and hold the same masked weights, so one float64
forward pass judges all three: torch's own layers, the best dense kernel of each layer, the kernels of the plan. A dense
kernel takes the same time over zeros.

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
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from sparsebench.case import Case
from sparsebench.errors import Refused
from sparsebench.kernel import Kernel
from sparsebench.lab.check import Verdict
from sparsebench.lab.clock import FIRST_LOOK, LOOK_AGAIN
from sparsebench.lab.memory import give_back
from sparsebench.lab.modules import Product, matrix_of, product_of, replacing
from sparsebench.lab.ready import refuse
from sparsebench.lab.turns import Turns
from sparsebench.lab.verify_choice import Choice, Judge
from sparsebench.lab.verify_sides import InTurn, NetworkSide
from sparsebench.lab.wire import Verify, VerifyLayer
from sparsebench.paired import LEAST_ROUNDS, paired_ratio
from sparsebench.record import Protocol
from sparsebench.rest import CACHE, DENSE, PLANNED, TORCH

MARGIN, BESIDE_TORCH, U = 8, 16, 2.0**-24

Times = dict[str, list[float]]


def load_builder(path: Path) -> ModuleType:
    """The Python file beside a network: `build()` makes the module, `inputs(batch)` what it is called with."""
    spec = importlib.util.spec_from_file_location(f"sparsebench_network_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Refused(f"{path} was not found; it must define build() and inputs(batch) for the network beside it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in it look their module up
    spec.loader.exec_module(module)
    if missing := [name for name in ("build", "inputs") if not hasattr(module, name)]:
        raise Refused(f"{path} defines no {missing[0]}(); a network's builder has build() and inputs(batch)")
    return module


@dataclass(slots=True, eq=False)
class NetworkBench:
    """One network, planned: what a Verify request is answered with."""

    asked: Verify
    kernels: Mapping[str, Kernel]
    protocol: Protocol
    side: NetworkSide
    mark: Callable[[str], None] = lambda name: None
    turns: Turns | None = None
    _products: dict[str, dict[str, Product]] = field(default_factory=lambda: {DENSE: {}, PLANNED: {}})
    _terms: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Samples and all that a record says of them; WrongAnswer where an answer is beyond its bound."""
        with self.turns or nullcontext(), self.side.arithmetic():
            return self._facts()

    def _facts(self) -> dict[str, Any]:
        builder = load_builder(self.asked.builder)
        torch.manual_seed(self.asked.seed)
        model = builder.build().eval()
        inputs = [self._inputs(builder, fresh) for fresh in (0, 1)]
        networks = self._networks(model, inputs[0])
        error_ratio = self._checked(networks, model, inputs[0])
        give_back()
        clocks = {"before_mhz": self.side.side.clocks()["mhz"]}
        samples, stop = self._timed(networks, inputs[0])
        flags, clocks = self.side.doubts(), clocks | self._clocks_after()
        copies = {name: network.held for name, network in networks.items()}
        error_ratio = max(error_ratio, self._checked(networks, model, inputs[1], copies))
        planned = [self._products[PLANNED][layer.name] for layer in self.asked.layers]
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
        planned, dense = (self._products[side][layer.name] for side in (PLANNED, DENSE))
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

    # Building ---------------------------------------------------------------------------------------------------------

    def _networks(self, model: Any, inputs: Sequence[Any]) -> dict[str, InTurn]:
        """The three networks; `model` itself, pruned, is torch's. It is pruned before it leaves the CPU."""
        layers = dict(model.named_modules())
        pruned = [(entry, *self._pruned(number, entry, layers)) for number, entry in enumerate(self.asked.layers)]
        self.side.home(model)
        made: dict[str, dict[int, Any]] = {DENSE: {}, PLANNED: {}}
        choices: dict[str, dict[str, tuple[Any, Choice]]] = {DENSE: {}, PLANNED: {}}
        judge = Judge(self.side.side)
        for entry, layer, w, draw in pruned:
            for side in made:
                if side == PLANNED and entry.sparse is not None:
                    product = self._products[side][entry.name] = self._product(w, draw, entry.sparse, entry.kernel)
                    made[side][id(layer)] = replacing(layer, product)
                    continue
                choice = Choice(entry.dense, entry.dense_kernels, partial(self._dense, entry, w, draw), judge)
                made[side][id(layer)] = replacing(layer, choice)
                choices[side][entry.name] = made[side][id(layer)], choice
        networks = {side: with_layers(model, made[side]) for side in made}
        for side, network in networks.items():
            self._settle(side, network, choices[side], inputs)
        in_torch = self._of_torch(model, sum(w.nbytes for _, _, w, _ in pruned))
        found = {TORCH: in_torch, **{side: self._in_turn(side, network) for side, network in networks.items()}}
        self._hold(found.values())
        return found

    def _of_torch(self, model: Any, weight_bytes: int) -> InTurn:
        copies = self.side.copies(weight_bytes)
        return InTurn([model, *(copy.deepcopy(model) for _ in range(1, copies))], (), weight_bytes, copies)

    def _in_turn(self, side: str, network: Any) -> InTurn:
        products = list(self._products[side].values())
        weight_bytes = sum(product.nbytes for product in products)
        return InTurn([network], products, weight_bytes, self.side.copies(weight_bytes))

    def _hold(self, networks: Iterable[InTurn]) -> None:
        """Have products hold as many copies as their networks take in turn.

        Two networks share a product where they run a layer by the same dense kernel. It takes another copy in each pass
        of either, and holds as many as that of the two asks for which wants more.
        """
        wanted: dict[int, tuple[Product, int]] = {}
        for network in networks:
            for product in network.products:
                _, most = wanted.get(id(product), (product, 0))
                wanted[id(product)] = product, max(most, network.copies)
        for product, copies in wanted.values():
            self.mark(product.moved.kernel.name)
            product.moved.hold(copies)
            give_back()

    def _pruned(self, number: int, entry: VerifyLayer, layers: Mapping[str, Any]) -> tuple[Any, np.ndarray, Any]:
        """(The layer, its pruned W, the draw of its mask)."""
        layer = layers.get(entry.name)
        _demand(entry, layer)
        asked = replace(entry.sparse or entry.dense, seed=self.asked.seed + number)
        draw = asked.draw()
        w = _prune(layer, asked, draw.mask)
        self._terms += entry.calls * draw.mask.sum() / len(w)
        return layer, w, draw

    def _product(self, w: np.ndarray, draw: Any, case: Case, kernel: str) -> Product:
        self.mark(kernel)
        return product_of(w, draw, case, self.kernels[kernel], self.side.toolchain, self.side.lap())

    def _dense(self, entry: VerifyLayer, w: np.ndarray, draw: Any, kernel: str) -> Product:
        """The dense product of a layer by `kernel`: one for both networks, where both choose it."""
        known = self._products[DENSE].get(entry.name)
        return known if known and known.moved.kernel.name == kernel else self._product(w, draw, entry.dense, kernel)

    def _settle(
        self, side: str, network: Any, choices: Mapping[str, tuple[Any, Choice]], inputs: Sequence[Any]
    ) -> None:
        """Let a forward pass decide which dense kernels run the layers of `network`."""
        if any(len(choice.names) > 1 for _, choice in choices.values()):
            network(*inputs)
        for name, (module, choice) in choices.items():
            module.product = self._products[side][name] = choice.settled()
        give_back()

    # Checking ---------------------------------------------------------------------------------------------------------

    def _checked(
        self, networks: Mapping[str, InTurn], model: Any, inputs: Sequence[Any], copies: Mapping[str, int] | None = None
    ) -> float:
        """The worst error over its bound, of so many copies of each network; WrongAnswer names who is beyond it."""
        exact = copy.deepcopy(model).double()
        want = exact(*[x.double() if x.is_floating_point() else x for x in inputs])
        del exact
        allowed, worst = MARGIN * U * math.sqrt(self._terms), 0.0
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
            for seen in self.side.rounds(networks, self._products, inputs):
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


def with_layers(model: Any, layers: Mapping[int, Any]) -> Any:
    """`model` with the modules of these ids replaced; all parameters but theirs are the same tensors."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, {**shared, **layers})


def relative_error(y: Any, want: Any) -> float:
    """The largest |y - want| / |want| of a sample, in the Euclidean norm; infinite where y is not finite."""
    y, want = (tensor.double().flatten(1) for tensor in (y, want))
    error = float(((y - want).norm(dim=1) / want.norm(dim=1)).max())
    return error if math.isfinite(error) else math.inf


def _known(samples: Times, precision: float) -> bool:
    """Whether the planned network's ratio to the faster of the dense ones is known so well."""
    best = min((DENSE, TORCH), key=lambda name: float(np.median(samples[name])))
    return paired_ratio(samples[best], samples[PLANNED]).half_width <= precision


def _prune(layer: Any, case: Case, mask: np.ndarray) -> np.ndarray:
    """Give `layer` the case's own random weights where `mask` allows; W [m, k] over the layer's memory.

    Scaled by the terms of a row, so that neither depth nor sparsity makes activations vanish: numbers below 1e-38 take
    a processor a hundred times as long.
    """
    terms = max(mask.sum() / len(mask), 1.0)
    gain = math.sqrt(2 / terms) if case.conv else math.sqrt(1 / terms)
    w = matrix_of(layer)
    w[...] = np.where(mask, case.values() * np.float32(gain), np.float32(0))
    return w


def _demand(entry: VerifyLayer, layer: Any) -> None:
    """Refused unless `layer` is what the network's file says of it."""
    case, kind = entry.dense, torch.nn.Conv2d if entry.dense.conv else torch.nn.Linear
    if not isinstance(layer, kind):
        found = "nothing of that name" if layer is None else type(layer).__name__
        raise Refused(f"layer {entry.name} must be a {kind.__name__} of the built network, found {found}")
    if (shape := matrix_of(layer).shape) != (case.m, case.k):
        raise Refused(
            f"layer {entry.name} has W [{case.m}, {case.k}] in the network's file, but {list(shape)} as built"
        )
