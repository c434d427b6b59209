"""The three networks that `verify` runs, built: pruned, with a product of ours for each layer, over copies of weights.

They share everything but the products of their layers, and hold the same masked weights. Dense layers choose their
kernels where they stand, in a first forward pass (verify_choice.py).
"""

from __future__ import annotations

import copy
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

# torch: the framework of the networks that are run.
import torch

from sparsebench.case import Case
from sparsebench.errors import Refused
from sparsebench.kernel import Kernel, is_torchs, leaves_channels_last
from sparsebench.lab.memory import give_back
from sparsebench.lab.modules import Product, matrix_of, product_of, replacing
from sparsebench.lab.verify_choice import Choice, Judge
from sparsebench.lab.verify_sides import InTurn, NetworkSide
from sparsebench.lab.wire import Verify, VerifyLayer
from sparsebench.rest import DENSE, PLANNED, TORCH


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
class Building:
    """What a Verify request asks to be run, built on one device.

    products  of the layers of the dense and of the planned network, by name, once `networks` has made them
    terms     of all rows that an output passes through, on average: what rounding errors of a whole pass grow with
    """

    asked: Verify
    kernels: Mapping[str, Kernel]
    side: NetworkSide
    mark: Callable[[str], None] = lambda name: None
    products: dict[str, dict[str, Product]] = field(default_factory=lambda: {DENSE: {}, PLANNED: {}})
    terms: float = 0.0

    def networks(self, model: Any, inputs: Sequence[Any]) -> dict[str, InTurn]:
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
                    product = self.products[side][entry.name] = self._product(w, draw, entry.sparse, entry.kernel)
                    made[side][id(layer)] = replacing(layer, product)
                    continue
                choice = Choice(entry.dense, entry.dense_kernels, partial(self._dense, entry, w, draw), judge)
                made[side][id(layer)] = replacing(layer, choice)
                choices[side][entry.name] = made[side][id(layer)], choice
        networks = {side: with_layers(model, made[side]) for side in made}
        for side, network in networks.items():
            self._settle(side, network, choices[side], inputs, judge)
        in_torch = self._of_torch(model, sum(w.nbytes for _, _, w, _ in pruned))
        found = {TORCH: in_torch, **{side: self._in_turn(side, network) for side, network in networks.items()}}
        self._hold(found.values())
        return found

    def _of_torch(self, model: Any, weight_bytes: int) -> InTurn:
        copies = self.side.copies(weight_bytes)
        return InTurn([model, *(copy.deepcopy(model) for _ in range(1, copies))], (), weight_bytes, copies)

    def _in_turn(self, side: str, network: Any) -> InTurn:
        products = list(self.products[side].values())
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
        self.terms += entry.calls * draw.mask.sum() / len(w)
        return layer, w, draw

    def _product(self, w: np.ndarray, draw: Any, case: Case, kernel: str) -> Product:
        self.mark(kernel)
        return product_of(w, draw, case, self.kernels[kernel], self.side.toolchain, self.side.lap())

    def _dense(self, entry: VerifyLayer, w: np.ndarray, draw: Any, kernel: str) -> Product:
        """The dense product of a layer by `kernel`: one for both networks, where both choose it."""
        known = self.products[DENSE].get(entry.name)
        return known if known and known.moved.kernel.name == kernel else self._product(w, draw, entry.dense, kernel)

    def _settle(
        self, side: str, network: Any, choices: Mapping[str, tuple[Any, Choice]], inputs: Sequence[Any], judge: Judge
    ) -> None:
        """Let forward passes decide which dense kernels run the layers of `network`."""
        ways = [self._chosen(network, choices, inputs)]
        for may, convolutions in ((_leaves_first, True), (leaves_channels_last, True), (is_torchs, False)):
            fewer = {
                name: (module, choice.among(may))
                for name, (module, choice) in choices.items()
                if choice.case.conv or not convolutions
            }
            asked = {name: (module, choice) for name, (module, choice) in fewer.items() if choice}
            other = any(not may(ways[0][name].moved.kernel.name) for name in fewer)
            if other and len(asked) == len(fewer):
                ways.append(self._chosen(network, {**choices, **asked}, inputs))
        modules = {name: module for name, (module, _) in choices.items()}
        passes = [{modules[name]: product for name, product in way.items()} for way in ways]
        found = ways[judge.faster_pass(network, passes, inputs)]
        for name, (module, _) in choices.items():
            module.product = self.products[side][name] = found[name]
        give_back()

    def _chosen(
        self, network: Any, choices: Mapping[str, tuple[Any, Choice]], inputs: Sequence[Any]
    ) -> dict[str, Product]:
        """What each layer chooses where it stands, in the order they run."""
        for module, choice in choices.values():
            module.product = choice
        if any(len(choice.names) > 1 for _, choice in choices.values()):
            network(*inputs)
        return {name: choice.settled() for name, (_, choice) in choices.items()}


def _leaves_first(kernel: str) -> bool:
    """Whether it leaves images as [batch, c, h, w]."""
    return not leaves_channels_last(kernel)


def with_layers(model: Any, layers: Mapping[int, Any]) -> Any:
    """`model` with the modules of these ids replaced; all parameters but theirs are the same tensors."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, {**shared, **layers})


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
