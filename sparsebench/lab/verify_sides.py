"""One device as `verify` sees it: where networks live, how a forward pass is timed, whole and layer by layer.

On a CPU weights are cold as they are for `run`: a network has its weights several times over, twice the last-level
cache in all, and passes take the copies in turn. All else is as a network meets it that runs again and again: a pass
over another copy, which nobody times, comes first. Writing the cache over before each pass would be simpler and asks
another question: all code was cold then too, Python's own included, which cost the first call of each kernel of a pass
65 to 140 us (VGG19, batch 1: a fifth of all its layers; Zen 3). Where a pass is so long that this is nothing it is
timed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from sparsebench.lab.clock import CpuClock, copies_needed
from sparsebench.lab.interleaved import FOREIGN_SHARE
from sparsebench.lab.modules import CpuLap, Lap, Product
from sparsebench.lab.movable import MovingToolchain
from sparsebench.lab.movable_cpu import NetworkToolchain
from sparsebench.lab.probes import CoreShare
from sparsebench.lab.sides import CpuSide, Side
from sparsebench.rest import series

WARMED_BELOW_S = 0.5  # a pass that takes longer is not warmed up for

Products = Mapping[str, Mapping[str, Product]]  # of the networks that have some, by layer


@dataclass(slots=True, eq=False)
class InTurn:
    """A network over several copies of its weights: all passes between two calls of `next_copy` are over the same one.

    networks      modules that are copies of each other, or one whose products hold copies of their own
    weight_bytes  of one copy
    copies        how many there are
    """

    networks: Sequence[Any]
    products: Sequence[Product]
    weight_bytes: int
    copies: int
    _turn: int = 0

    def next_copy(self) -> None:
        """Turn to the copy that has rested longest."""
        self._turn = (self._turn + 1) % self.copies
        for product in self.products:
            product.moved.next_copy()

    @property
    def held(self) -> int:
        """The most copies that any part of it holds: as many passes see each at least once."""
        return max(self.copies, *(len(product.moved.copies) for product in self.products), 1)

    def wraps_within(self, cache_bytes: int) -> bool:
        """Whether the copy after this one starts a new turn over copies that all fit into twice the cache."""
        return self._turn == self.copies - 1 and self.weight_bytes * self.copies < 2 * cache_bytes

    def __call__(self, *inputs: Any) -> Any:
        return self.networks[self._turn % len(self.networks)](*inputs)


class NetworkSide(Protocol):
    """What verify needs of a device."""

    @property
    def side(self) -> Side:
        """The device as a bench sees it."""
        ...

    @property
    def toolchain(self) -> MovingToolchain:
        """One for all layers of all networks."""
        ...

    def arithmetic(self) -> AbstractContextManager[Any]:
        """While it is entered torch computes as the cases ask: float32 in ieee, nothing rounded to less."""
        ...

    def home(self, thing: Any) -> Any:
        """A module or tensor, brought where networks live."""
        ...

    def lap(self) -> Lap:
        """What hears of one product's calls."""
        ...

    def copies(self, weight_bytes: int) -> int:
        """How many copies of weights of so many bytes a network's passes should take in turn."""
        ...

    def rounds(
        self, networks: Mapping[str, InTurn], products: Products, inputs: Sequence[Any]
    ) -> Iterator[Mapping[str, float]]:
        """Rounds without end: seconds of each network and of its layers, networks in an order drawn for each round."""
        ...

    def away(self, time_s: float) -> None:
        """Amid the rounds this process waited so long for its turn."""
        ...

    def answer(self, name: str, network: InTurn, inputs: Sequence[Any]) -> Any:
        """What network `name` answers, run as the latest rounds ran it."""
        ...

    def doubts(self) -> list[str]:
        """What disturbed the latest rounds, as flags of a record."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a record should say of how the latest rounds were timed."""
        ...


@dataclass(slots=True)
class CpuNetworkSide:
    """This process's core: passes one after the other, layers by two readings of the clock within the same pass."""

    side: CpuSide
    toolchain: NetworkToolchain = field(init=False)
    _took_s: dict[str, float] = field(default_factory=dict)  # the latest pass of each network
    _share: CoreShare | None = None

    def __post_init__(self) -> None:
        self.toolchain = NetworkToolchain(self.side.threads)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """torch computes float32 in ieee on CPUs unless it is told otherwise."""
        return nullcontext()

    def home(self, thing: Any) -> Any:
        """Where it was built."""
        return thing

    def lap(self) -> CpuLap:
        """Two readings of the clock."""
        return CpuLap()

    def copies(self, weight_bytes: int) -> int:
        """As many as `run` takes of a W."""
        return copies_needed(weight_bytes, self.side.cache_bytes)

    def rounds(
        self, networks: Mapping[str, InTurn], products: Products, inputs: Sequence[Any]
    ) -> Iterator[Mapping[str, float]]:
        """Rounds without end."""
        clock, self._share = self._clock, CoreShare()
        while True:
            seen: dict[str, float] = {}
            for name in map(str, clock.rng.permutation(list(networks))):
                seen |= self._pass(name, networks[name], products.get(name, {}), inputs)
            yield seen

    def _pass(
        self, name: str, network: InTurn, products: Mapping[str, Product], inputs: Sequence[Any]
    ) -> Iterator[tuple[str, float]]:
        """One forward pass over cold weights: seconds of the whole and of each layer."""
        laps = {layer: product.lap for layer, product in products.items()}
        clock, spent = self._clock, {layer: lap for layer, lap in laps.items() if isinstance(lap, CpuLap)}
        clock.mark(name)
        if self._took_s.get(name, 0.0) < WARMED_BELOW_S:
            self._next_copy(network)
            network(*inputs)
        self._next_copy(network)
        for lap in spent.values():
            lap.spent_s = 0.0
        start_s = clock.now_s()
        network(*inputs)
        self._took_s[name] = clock.now_s() - start_s
        yield name, self._took_s[name]
        for layer, lap in spent.items():
            yield series(name, layer), lap.spent_s

    def _next_copy(self, network: InTurn) -> None:
        if network.wraps_within(self.side.cache_bytes):
            self._clock.overwrite_cache()
        network.next_copy()

    @property
    def _clock(self) -> CpuClock:
        clock = self.side.clock
        assert isinstance(clock, CpuClock)
        return clock

    def away(self, time_s: float) -> None:
        """Nothing was lost in that time."""
        if self._share:
            self._share.skip(time_s)

    def answer(self, name: str, network: InTurn, inputs: Sequence[Any]) -> Any:
        """A forward pass."""
        return network(*inputs)

    def doubts(self) -> list[str]:
        """Where other work had the core, or the host of a virtual machine."""
        lost, stolen = self._share.lost() if self._share else (0.0, 0.0)
        found = {"preempted": lost, "stolen": stolen}
        return [f"{what}:{part:.0%}" for what, part in found.items() if part > FOREIGN_SHARE]

    def facts(self) -> dict[str, Any]:
        """Nothing: there is one way."""
        return {}
