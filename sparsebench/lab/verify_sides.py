"""One device as `verify` sees it: where networks live, how a forward pass is timed, whole and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from sparsebench.lab.clock import FOREIGN_SHARE, CpuClock
from sparsebench.lab.modules import CpuLap, Lap, Product
from sparsebench.lab.movable import MovingToolchain
from sparsebench.lab.movable_cpu import NetworkToolchain
from sparsebench.lab.probes import CoreShare
from sparsebench.lab.sides import CpuSide, Side
from sparsebench.rest import series

Products = Mapping[str, Mapping[str, Product]]  # of the networks that have some, by layer


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

    def rounds(
        self, networks: Mapping[str, Any], products: Products, inputs: Sequence[Any]
    ) -> Iterator[Mapping[str, float]]:
        """Rounds without end: seconds of each network and of its layers, networks in an order drawn for each round."""
        ...

    def answer(self, name: str, network: Any, inputs: Sequence[Any]) -> Any:
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

    def rounds(
        self, networks: Mapping[str, Any], products: Products, inputs: Sequence[Any]
    ) -> Iterator[Mapping[str, float]]:
        """Rounds without end."""
        clock, self._share = self._clock, CoreShare()
        while True:
            seen: dict[str, float] = {}
            for name in map(str, clock.rng.permutation(list(networks))):
                seen |= self._pass(name, networks[name], products.get(name, {}), inputs)
            yield seen

    def _pass(
        self, name: str, network: Any, products: Mapping[str, Product], inputs: Sequence[Any]
    ) -> Iterator[tuple[str, float]]:
        """One forward pass over cold weights: seconds of the whole and of each layer."""
        laps = {layer: product.lap for layer, product in products.items()}
        clock, spent = self._clock, {layer: lap for layer, lap in laps.items() if isinstance(lap, CpuLap)}
        for lap in spent.values():
            lap.spent_s = 0.0
        clock.overwrite_cache()
        clock.mark(name)
        start_s = clock.now_s()
        network(*inputs)
        yield name, clock.now_s() - start_s
        for layer, lap in spent.items():
            yield series(name, layer), lap.spent_s

    @property
    def _clock(self) -> CpuClock:
        clock = self.side.clock
        assert isinstance(clock, CpuClock)
        return clock

    def answer(self, name: str, network: Any, inputs: Sequence[Any]) -> Any:
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
