"""The CPU clock: samples taken in interleaved rounds, each kernel in the cache state the protocol asks for.

    hot           one untimed call of the same kernel directly before each sample; short calls loop inside the sample
    weights_cold  the packed W rotates over copies that total twice the last-level cache; X is read just before
    cold          twice the last-level cache is written before each sample

Where W is so small that MAX_COPIES of it do not fill the cache, weights_cold writes the cache over once each time the
rotation wraps, so that every copy is still met cold.

All contestants of a trial are sampled once per round, in an order drawn anew each round: a drift of the machine meets
all of them alike, and being second in line costs each of them equally often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

import numpy as np

from sparsebench.kernel import Launch
from sparsebench.lab.probes import CoreShare

MAX_COPIES = 256
TIMER_FLOOR_S, MOST_LOOPS = 20e-6, 1024  # a hot sample loops until it is this long: perf_counter costs about 50 ns
LEAST_STAY = 12  # launches that a go should find left to the Y in turn

Order = Callable[[int], Sequence[int]]
Rounds = Iterator[Mapping[str, Mapping[str, float]]]  # {cache: {name: seconds}}


@dataclass(slots=True, eq=False)
class Rotation:
    """Launches over copies of one packed W, `weight_bytes` each, taken in turn: the longest rested next.

    stay  how many launches in a row write the same Y; 0 where all do
    """

    launches: Sequence[Launch]
    weight_bytes: int
    stay: int = 0
    prepared: dict[Any, Any] = field(default_factory=dict)  # what a clock made of the launches, such as CUDA graphs
    last: Launch | None = None  # that was taken
    _next: int = 0

    def take(self) -> Launch:
        """The launch whose weights have rested longest."""
        self.last = self.launches[self._next]
        self._next = (self._next + 1) % len(self.launches)
        return self.last

    def first(self) -> Launch:
        """The launch of hot calls, always the same."""
        self.last = self.launches[0]
        return self.last

    def settle_on_y(self) -> None:
        """Go on to the next Y where the one in turn has few launches left: a new one is slow at first."""
        if not 0 < self.stay < len(self.launches):
            return
        for _ in range(2):  # the last Y may have few in all
            end = min((self._next // self.stay + 1) * self.stay, len(self.launches))
            if end - self._next < LEAST_STAY:
                self._next = end % len(self.launches)

    @property
    def outputs(self) -> list[Any]:
        """The Ys that the launches write, each once."""
        return list({_address(launch.y): launch.y for launch in self.launches if launch.y is not None}.values())

    def wraps_within(self, cache_bytes: int) -> bool:
        """Whether the next launch starts a new turn over copies that all fit into twice the cache."""
        return self._next == 0 and self.weight_bytes * len(self.launches) < 2 * cache_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """A kernel ready to be sampled; all its launches read `x`, and write a few Ys in turn. Twins share one rotation.

    turn  changes x before each timed call, so that a remembered answer is wrong (tamper.py)
    """

    name: str
    rotation: Rotation
    x: Any
    turn: Callable[[], None] = lambda: None


def _address(y: Any) -> int:
    """Where an array or a tensor begins."""
    return int(y.ctypes.data if isinstance(y, np.ndarray) else y.data_ptr())


def copies_needed(weight_bytes: int, cache_bytes: int) -> int:
    """How many copies of the packed W weights_cold rotates over: twice the cache in all, at least two, at most 256."""
    return int(np.clip(-(-2 * cache_bytes // max(weight_bytes, 1)), 2, MAX_COPIES))


@dataclass(slots=True)
class CpuClock:
    """Takes samples on this CPU. `mark` hears who runs next, so that a crash can be blamed on the right kernel.

    `now_s` and `order` can be replaced, to plant faults in tests.
    """

    cache_bytes: int
    mark: Callable[[str], None] = lambda name: None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    now_s: Callable[[], float] = time.perf_counter
    order: Order | None = None
    share: Callable[[], CoreShare] = CoreShare
    _shared: CoreShare | None = None
    _flood: np.ndarray | None = None

    def sample(self, contestant: Contestant, cache: str) -> float:
        """Seconds of one call of `contestant` in cache state `cache`."""
        contestant.turn()
        if cache == "hot":
            return self._hot(contestant)
        if cache == "cold":
            self.overwrite_cache()
        else:
            if contestant.rotation.wraps_within(self.cache_bytes):
                self.overwrite_cache()
            contestant.x.sum()  # what other contestants streamed may have pushed X out
        self.mark(contestant.name)
        return self._timed(contestant.rotation.take().run, 1)

    def _hot(self, contestant: Contestant) -> float:
        run = contestant.rotation.first().run
        loops = contestant.rotation.prepared.get("loops", 1)
        self.mark(contestant.name)
        run()
        time_s = self._timed(run, loops)
        while time_s * loops < TIMER_FLOOR_S and loops < MOST_LOOPS:
            loops *= 2
            time_s = self._timed(run, loops)
        contestant.rotation.prepared["loops"] = loops
        return time_s

    def _timed(self, run: Callable[[], Any], loops: int) -> float:
        start_s = self.now_s()
        for _ in range(loops):
            run()
        return max(self.now_s() - start_s, 1e-9) / loops

    def overwrite_cache(self) -> None:
        """Write twice the last-level cache, so that nothing of an earlier call is left in it."""
        if self._flood is None:
            self._flood = np.zeros(2 * self.cache_bytes // 8)
        self._flood += 1.0

    def rounds(self, contestants: Sequence[Contestant], caches: Sequence[str]) -> Rounds:
        """Rounds without end: {cache: {name: seconds}}, every contestant once, in an order drawn for each round."""
        draw = self.order or self.rng.permutation
        self._shared = self.share()
        while True:
            yield {
                cache: {contestants[i].name: self.sample(contestants[i], cache) for i in draw(len(contestants))}
                for cache in caches
            }

    def lost(self) -> Mapping[str, float]:
        """`preempted`: in what share of the latest rounds other work had the core; `stolen`: the host."""
        lost, stolen = self._shared.lost() if self._shared else (0.0, 0.0)
        return {"preempted": lost, "stolen": stolen}

    def doubts(self) -> tuple[str, ...]:
        """Nothing beside what was lost."""
        return ()

    def clocks(self) -> Mapping[str, Any]:
        """Nothing beside what the side tells before and after."""
        return {}


class Clock(Interface):
    """What takes samples: CpuClock here, CudaClock on a GPU."""

    def rounds(self, contestants: Sequence[Contestant], caches: Sequence[str]) -> Rounds:
        """Rounds without end: {cache: {name: seconds}}."""
        ...

    def lost(self) -> Mapping[str, float]:
        """What share of the latest rounds' time was lost, by the name of the flag that says so."""
        ...

    def doubts(self) -> tuple[str, ...]:
        """What else disturbed the latest rounds, as flags of a record."""
        ...

    def clocks(self) -> Mapping[str, Any]:
        """What it saw of the device's clock in the latest rounds."""
        ...
