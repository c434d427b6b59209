"""Which dense kernel a layer gets: decided where the layer stands, on X as the layer before hands it on.

Alone, over X as [b, c, h, w], torch's convolution of 512 channels of 4x4 (batch 16) was as fast as oneDNN's; behind one
of oneDNN's, which answers in channels_last, it took 36 ms instead of 16, and the best dense VGG19 was slower than plain
torch. And on X brought back to [b, c, h, w], which takes a tenth of a millisecond, it was faster than either (2x2: 9 ms
instead of 16). So all kernels that can run a convolution, each with what it takes to bring X to its layout, are timed
in the first forward pass of each network, in the order of its layers. A product of matrices finds X as it was timed,
so there those that a run named are enough.

What is least for each layer alone may leave images so that what follows is slow, and no layer's time says so: a pool
over 112x112 of 64 channels takes 0.6 ms where they are last and 8 where they are first, and two images that lie
differently are added up at a fraction of the speed. Which of two near-equal kernels a layer gets is chance, so that the
same dense ResNet-50 took 78 or 98 ms (batch 1, one Emerald Rapids core). So whole networks are held against each other,
pass by pass: each layer's least, all convolutions leaving [batch, c, h, w], all leaving channels last, and all layers
by torch. What counts is what rivals take where nothing slows them, the tenth percentile of rounds: a neighbour on the
core slows one kernel more than another, and who is fastest beside it is chance too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from sparsebench.case import Case
from sparsebench.errors import MissingNeed, Refused
from sparsebench.kernel import Launch
from sparsebench.lab.clock import Contestant, Rotation
from sparsebench.lab.modules import Product
from sparsebench.lab.sides import Side
from sparsebench.paired import usual
from sparsebench.rest import CACHE

SCREEN_ROUNDS = 16
COPIES = 4  # of W that rivals take in turn; code is cold too in one round of so many, when the cache was written over
HOPELESS = 2.0  # times the fastest of a first round: not timed again
PASS_ROUNDS, PASS_HOPELESS = 12, 1.2  # of whole passes, whose times differ less
LONG_S = 1.0  # a pass that takes longer sees enough of the machine at once

Make = Callable[[str], Product]


@dataclass(slots=True, eq=False)
class Judge:
    """Times rivals that meet their weights cold, once for each problem and way in which X lies."""

    side: Side
    _best: dict[Any, str] = field(default_factory=dict)

    def fastest(self, case: Case, names: Sequence[str], make: Make, x: Any) -> Product:
        """The product, made by `make`, that takes least on `x`; Refused where none can be made."""
        if len(names) == 1:
            return make(names[0])
        about = case.identity, x.stride(), tuple(names)
        if about in self._best:
            return make(self._best[about])
        rivals = dict(_makeable(names, make))
        if not rivals:
            raise Refused(f"no dense kernel can run {case.describe()} here")
        first = self._usual(rivals, x, COPIES)
        hopeful = {name: each for name, each in rivals.items() if first[name] <= HOPELESS * min(first.values())}
        times_s = self._usual(hopeful, x, SCREEN_ROUNDS) if len(hopeful) > 1 else first
        self._best[about] = min(hopeful, key=lambda name: times_s[name])
        return rivals[self._best[about]]

    def faster_pass(self, network: Any, assignments: Sequence[Mapping[Any, Product]], inputs: Sequence[Any]) -> int:
        """The number of the assignment, products by module of `network`, with which its forward passes take least."""
        passes = {str(number): _Pass(network, products, inputs) for number, products in enumerate(assignments)}
        if len(passes) == 1:
            return 0
        times_s = self._usual(passes, inputs[0], COPIES)
        least_s = min(times_s.values())
        near = {name: each for name, each in passes.items() if times_s[name] <= PASS_HOPELESS * least_s}
        if len(near) > 1 and least_s < LONG_S:
            times_s = self._usual(near, inputs[0], PASS_ROUNDS)
        return int(min(times_s, key=times_s.__getitem__))

    def _usual(self, rivals: Mapping[str, Any], x: Any, rounds: int) -> dict[str, float]:
        """Usual seconds of each in so many rounds, but for those in which code was cold."""
        contestants = []
        for name, product in rivals.items():
            product.moved.hold(COPIES)
            launches = [Launch(partial(_next, product, x)) for _ in range(COPIES)]
            contestants.append(Contestant(name, Rotation(launches, weight_bytes=1), x))
        seen = list(islice(self.side.clock.rounds(contestants, [CACHE]), rounds))
        warm = [times_s[CACHE] for number, times_s in enumerate(seen) if number % COPIES]
        return {name: usual([times_s[name] for times_s in warm]) for name in rivals}


@dataclass(slots=True, eq=False)
class _Pass:
    """A forward pass, with these products in these modules, as a rival; it takes their copies of W in turn."""

    network: Any
    products: Mapping[Any, Product]
    inputs: Sequence[Any]

    @property
    def moved(self) -> _Pass:
        return self

    def hold(self, copies: int) -> None:
        for product in self.products.values():
            product.moved.hold(copies)

    def next_copy(self) -> None:
        for product in self.products.values():
            product.moved.next_copy()

    def __call__(self, x: Any) -> Any:
        for module, product in self.products.items():
            module.product = product
        return self.network(*self.inputs)


def _next(product: Product, x: Any) -> Any:
    """Y by the copy of W that has rested longest."""
    product.moved.next_copy()
    return product(x)


def _makeable(names: Sequence[str], make: Make) -> Iterator[tuple[str, Product]]:
    for name in names:
        try:
            yield name, make(name)
        except (MissingNeed, Refused):
            continue


@dataclass(slots=True, eq=False)
class Choice:
    """Stands for a product until its first call, which decides which of `names` it is."""

    case: Case
    names: Sequence[str]
    make: Make
    judge: Judge
    chosen: Product | None = None

    def __call__(self, x: Any) -> Any:
        if self.chosen is None:
            self.chosen = self.judge.fastest(self.case, self.names, self.make, x)
        return self.chosen(x)

    def among(self, may: Callable[[str], bool]) -> Choice | None:
        """The same choice among the kernels that `may` run it, by name; None where there are none."""
        names = [name for name in self.names if may(name)]
        return Choice(self.case, names, self.make, self.judge) if names else None

    def settled(self) -> Product:
        """What was chosen; the first that can be made where no call came."""
        if self.chosen is None:
            self.chosen = next((product for _, product in _makeable(self.names, self.make)), None)
        if self.chosen is None:
            raise Refused(f"no dense kernel can run {self.case.describe()} here")
        return self.chosen
