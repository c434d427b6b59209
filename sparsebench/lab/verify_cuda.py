"""Whole networks on a GPU: forward passes as replays of CUDA graphs between events, as `run` times single launches.

A pass is captured as it is: every launch, copy and product of torch in it, with the addresses it had, between two event
nodes behind what washes the L2. So the host is in no time, as it is in none of what `predict` adds up; what a network
takes when torch enqueues it anew each time stands beside it in the record's facts (`eager_s`): at batch 1 the host is
then most of it. Where one of the networks cannot be captured all are enqueued anew, the GPU waiting for the host, which
counts; `clock` in the facts says which way it went.

Layers are timed in passes of their own, by events around each product, so that nothing but kernels is in the time of
the whole. Those events cost what they cost around the single launch of a bench, and go out of the rest: sums of layers
and rest are the whole, and what predict adds up has the same events in each term.

The float64 pass that judges all three runs on the GPU too, as the gates' references do: float64 there is no rounded
version of anything, and 16 images of ViT-B/16 are 560 GFLOP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

# torch: networks are its modules, events and graphs its own.
import torch

from sparsebench.lab.cuda_clock import Call, CudaClock, NotCapturable, Sample, Sampler, flooder
from sparsebench.lab.cuda_side import CudaSide
from sparsebench.lab.modules import Product
from sparsebench.lab.movable_cuda import NetworkCudaToolchain
from sparsebench.lab.verify_sides import InTurn, Products
from sparsebench.rest import series

EAGER_ROUNDS = 7


class Event(Protocol):
    """A point of the stream (torch.cuda.Event)."""

    def record(self) -> None:
        """Put it on the current stream."""
        ...

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from here to `end`."""
        ...


def cuda_event() -> Event:
    """An event that a graph holds as a node of its own."""
    event: Event = torch.cuda.Event(enable_timing=True, external=True)
    return event


@dataclass(slots=True)
class EventLap:
    """Events before and after each call of a product, while it is open."""

    event: Callable[[], Event] = cuda_event
    _pairs: list[tuple[Event, Event]] | None = None

    def open(self) -> None:
        """Record events from now on."""
        self._pairs = []

    def close(self) -> list[tuple[Event, Event]]:
        """The events since it was opened; none from now on."""
        pairs, self._pairs = self._pairs or [], None
        return pairs

    def begin(self) -> None:
        """X is there, in the order of the stream."""
        if self._pairs is not None:
            self._pairs.append((self.event(), self.event()))
            self._pairs[-1][0].record()

    def end(self) -> None:
        """Y is there."""
        if self._pairs is not None:
            self._pairs[-1][1].record()


class EagerSample:
    """A pass enqueued anew each time while the GPU waits for the host, whose time counts (cuda_clock.Sample)."""

    def __init__(self, before: Call, call: Call, loops: int) -> None:
        self.before, self.call = before, call
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def enqueue(self) -> None:
        """Prepare the cache, wait, and put the pass on the current stream."""
        self.before()
        torch.cuda.synchronize()
        self._start.record()
        self.call()
        self._end.record()

    def time_s(self) -> float:
        """Seconds of its latest run."""
        return float(self._start.elapsed_time(self._end)) * 1e-3


class Pass:
    """One network's forward pass, ready to be run again and again; `y` is its latest answer.

    laps  of its layers, where it is taken apart; a pass without them is timed as a whole
    """

    def __init__(
        self,
        name: str,
        network: Any,
        inputs: Sequence[Any],
        laps: Mapping[str, EventLap],
        make: Callable[[Call], Sample],
    ) -> None:
        self.name, self._network, self._inputs, self._laps = name, network, inputs, laps
        self._pairs: dict[str, list[tuple[Event, Event]]] = {}
        self.y: Any = None
        self.sample = make(self._forward)

    def _forward(self) -> None:
        for lap in self._laps.values():
            lap.open()
        try:
            self.y = self._network(*self._inputs)
        finally:
            self._pairs = {layer: lap.close() for layer, lap in self._laps.items()}

    def times_s(self) -> Iterator[tuple[str, float]]:
        """Seconds of the whole, or of each layer (all calls), in the latest run; only after a synchronisation."""
        if not self._laps:
            yield self.name, self.sample.time_s()
        for layer, pairs in self._pairs.items():
            yield series(self.name, layer), 1e-3 * sum(start.elapsed_time(end) for start, end in pairs)


@dataclass(slots=True)
class CudaNetworkSide:
    """The current CUDA device. `way` is "graph" or "eager": how the latest rounds were run.

    `toolchain`, `eager` and `event` can be replaced, as the clock's samplers can, to run without a GPU.
    """

    side: CudaSide
    toolchain: NetworkCudaToolchain
    eager: Sampler = EagerSample
    event: Callable[[], Event] = cuda_event
    way: str = "graph"
    _why: str = ""
    _inputs: Sequence[Any] = ()
    _wholes: dict[str, Pass] = field(default_factory=dict)
    _eager_s: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, side: CudaSide) -> CudaNetworkSide:
        """With the lab's own toolchain, samplers and events."""
        # Now, since what is first called in a capture lies in that graph's memory.
        side.clock.flood = side.clock.flood or flooder(side.cache_bytes)
        return cls(side, NetworkCudaToolchain(side.toolchain()))

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """TF32 off, which torch's convolutions take by default."""
        cudnn: Any = torch.backends.cudnn
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
        try:
            cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
            yield
        finally:
            cudnn.allow_tf32 = before[0]
            torch.set_float32_matmul_precision(before[1])

    def home(self, thing: Any) -> Any:
        """On the device; a module's tensors are moved in place."""
        return thing.to(self.side.device)

    def lap(self) -> EventLap:
        """Events on the current stream."""
        return EventLap(self.event)

    def copies(self, weight_bytes: int) -> int:
        """One: what washes the L2 is in the graph, before the pass."""
        return 1

    def rounds(
        self, networks: Mapping[str, InTurn], products: Products, inputs: Sequence[Any]
    ) -> Iterator[Mapping[str, float]]:
        """Rounds without end; every pass once, enqueued in an order drawn for each round."""
        clock, passes = self._clock, self._prepared(networks, products, inputs)
        clock.throttle.begin()
        while True:
            clock.release()
            for i in clock.rng.permutation(len(passes)):
                clock.mark(passes[i].name)
                passes[i].sample.enqueue()
            clock.synchronize()
            clock.throttle.after_round()
            yield dict(timed for each in passes for timed in each.times_s())

    def away(self, time_s: float) -> None:
        """Nothing: what held the clock is asked round by round."""

    def answer(self, name: str, network: InTurn, inputs: Sequence[Any]) -> Any:
        """What a replay of its graph answers to these inputs, where there is one; else a forward pass."""
        if self.way != "graph" or name not in self._wholes:
            return network(*inputs)
        for place, values in zip(self._inputs, inputs, strict=True):
            place.copy_(values)
        self._wholes[name].sample.enqueue()
        return self._wholes[name].y.clone()

    def doubts(self) -> list[str]:
        """What held the GPU's clock."""
        return list(self.side.clock.doubts())

    def facts(self) -> dict[str, Any]:
        """How passes were run; the other way's seconds, or why graphs were not to be had."""
        other = {"eager_s": self._eager_s} if self.way == "graph" else {"not_capturable": self._why}
        return {"clock": self.way, **other}

    @property
    def _clock(self) -> CudaClock:
        return self.side.clock

    def _prepared(self, networks: Mapping[str, Any], products: Products, inputs: Sequence[Any]) -> list[Pass]:
        """All passes by graphs if all can be captured, else all enqueued anew; every network ran before (warm)."""
        flood = self._clock.flood
        assert flood is not None

        def by(make: Sampler) -> list[Pass]:
            return self._passes(networks, products, inputs, lambda call: make(flood, call, 1))

        try:
            self.way, self._inputs = "graph", inputs
            passes = by(self._clock.graph)
        except NotCapturable as error:
            self.way, self._why = "eager", str(error).strip().split("\n", 1)[0]
            return by(self.eager)
        self._eager_s = self._eagerly(networks, inputs, flood)
        return passes

    def _passes(
        self,
        networks: Mapping[str, Any],
        products: Products,
        inputs: Sequence[Any],
        make: Callable[[Call], Sample],
    ) -> list[Pass]:
        self._wholes = {}
        for name, network in networks.items():
            self._clock.mark(name)
            self._wholes[name] = Pass(name, network, inputs, {}, make)
        apart = [
            Pass(name, networks[name], inputs, {layer: _lap_of(product) for layer, product in own.items()}, make)
            for name, own in products.items()
            if own
        ]
        return [*self._wholes.values(), *apart]

    def _eagerly(self, networks: Mapping[str, Any], inputs: Sequence[Any], flood: Call) -> dict[str, float]:
        """Median seconds of each network enqueued anew: for the facts alone."""
        times_s: dict[str, list[float]] = {name: [] for name in networks}
        passes = [
            Pass(name, network, inputs, {}, lambda call: self.eager(flood, call, 1))
            for name, network in networks.items()
        ]
        for _ in range(EAGER_ROUNDS):
            for each in passes:
                self._clock.mark(each.name)
                each.sample.enqueue()
                self._clock.synchronize()
                times_s[each.name].append(each.sample.time_s())
        return {name: float(np.median(found)) for name, found in times_s.items()}


def _lap_of(product: Product) -> EventLap:
    assert isinstance(product.lap, EventLap)
    return product.lap
