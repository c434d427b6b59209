"""The CPU clock: samples taken in interleaved rounds, each kernel in the cache state the protocol asks for.

    hot           one untimed call of the same kernel directly before each sample; short calls loop inside the sample
    weights_cold  the packed W rotates over copies that total twice the last-level cache; X is read just before
    cold          twice the last-level cache is written before each sample

Where W is so small that MAX_COPIES of it do not fill the cache, weights_cold writes the cache over once each time the
rotation wraps, so that every copy is still met cold.

All contestants of a trial are sampled once per round, in an order drawn anew each round: a drift of the machine meets
all of them alike, and being second in line costs each of them equally often.

A timing may be taken in several goes with other work between them. A shared machine has moods of a second or so, in
which one kernel loses more than another: ratios of 0.15 s agree with those of the next 0.15 s, not with those of two
seconds later (3 to 9 % standard deviation, two-core virtual machine). A timing in one go knows one mood very precisely.

A go begins with rounds that do not count. What ran since the last one has pushed Y, X and code out of the caches, and
they come home over several calls: csr.c on 1152x96, n = 1280, 86 % sparse, took 1994 1751 885 741 732 us in one go and
1928 1731 944 772 624 611 in the next (one Emerald Rapids core), and amid other layers of a network what it takes at
last. Counted, they made a median of how many rounds fitted into a go.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal
from typing import Protocol as Interface

import numpy as np

from sparsebench.kernel import Launch
from sparsebench.lab.probes import CoreShare
from sparsebench.paired import LEAST_ROUNDS, paired_ratio
from sparsebench.record import Protocol

MAX_COPIES = 256
TIMER_FLOOR_S, MOST_LOOPS = 20e-6, 1024  # a hot sample loops until it is this long: perf_counter costs about 50 ns
FIRST_LOOK, LOOK_AGAIN = 12, 1.25  # rounds before the first look at the ratio, and the growth between looks
DIGITS = 10  # of a second that a sample keeps: 0.1 ns, a tenth of what clocks tell; the rest made records twice as long

LEAST_GOES = 4  # of a timing in several: whatever one mood of the machine says, others are asked too
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


@dataclass(frozen=True, slots=True)
class Timing:
    """What the clock saw: {cache: {name: [seconds of each round]}} and why it stopped."""

    samples: Mapping[str, Mapping[str, list[float]]]
    stop: Literal["precision", "budget"]
    flags: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Interleaved:
    """A timing of `contestants`, taken in one go or several, each a part of the budget.

    It is over when each one's ratio to the fastest of `against` is known to `protocol.precision`, seen in four goes at
    least; or at the budget, though never before six rounds, since fewer give no interval. A go begins with at most
    `settling` rounds that nobody counts, in no more time than those that count have.
    """

    clock: Clock
    contestants: Sequence[Contestant]
    protocol: Protocol
    against: Sequence[str]
    goes: int = 1
    settling: int = 0
    _samples: dict[str, dict[str, list[float]]] = field(init=False)
    _rounds: int = 0
    _taken: int = 0  # goes
    _spent_s: float = 0.0  # on rounds that count
    _took_s: float = 0.0  # with those that do not
    _look: int = FIRST_LOOK  # at how many rounds the ratio is looked at
    _lost_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._samples = {cache: {each.name: [] for each in self.contestants} for cache in self.protocol.cache}

    def go(self) -> Timing | None:
        """Take rounds; what all goes saw once they are enough, None before."""
        start_s = time.perf_counter()
        with _no_collection():
            rounds = self.clock.rounds(self.contestants, self.protocol.cache)
            self._settle(rounds, start_s)
            counted_s = time.perf_counter()
            known = self._known_after_rounds(rounds, counted_s)
        end_s = time.perf_counter()
        took_s = end_s - start_s
        self._spent_s, self._took_s, self._taken = (
            self._spent_s + end_s - counted_s,
            self._took_s + took_s,
            self._taken + 1,
        )
        for name, share in self.clock.lost().items():
            self._lost_s[name] = self._lost_s.get(name, 0.0) + share * took_s
        if known and self._taken >= min(self.goes, LEAST_GOES):
            return self._timing("precision")
        if self._rounds >= LEAST_ROUNDS and self._spent_s >= self.protocol.budget_s:
            return self._timing("budget")
        return None

    @property
    def _part_s(self) -> float:
        """Seconds of a go."""
        return self.protocol.budget_s / self.goes

    def _settle(self, rounds: Rounds, start_s: float) -> None:
        """Take the rounds that do not count."""
        if self.settling:
            for each in self.contestants:
                each.rotation.settle_on_y()
            for _ in islice(rounds, self.settling):
                if time.perf_counter() >= start_s + self._part_s:
                    break

    def _known_after_rounds(self, rounds: Rounds, start_s: float) -> bool:
        """Take the rounds of a go; whether the ratio is known, after six rounds of it at least."""
        part_s, fewest = self._part_s, LEAST_ROUNDS if self.goes == 1 else 1
        self._look = max(self._look, self._rounds + LEAST_ROUNDS)
        for seen in rounds:
            self._rounds += 1
            for cache, times_s in seen.items():
                for name, time_s in times_s.items():
                    self._samples[cache][name].append(round(time_s, DIGITS))
            if self._rounds >= self._look:
                self._look = int(self._rounds * LOOK_AGAIN) + 1
                if all(_known(times_s, self.against, self.protocol.precision) for times_s in self._samples.values()):
                    return True
            if self._rounds >= fewest and time.perf_counter() >= start_s + part_s:
                return False
        raise AssertionError("rounds() never ends")

    def _timing(self, stop: Literal["precision", "budget"]) -> Timing:
        shares = {name: lost_s / self._took_s for name, lost_s in self._lost_s.items()}
        lost = (f"{name}:{share:.0%}" for name, share in shares.items() if share > FOREIGN_SHARE)
        return Timing(self._samples, stop, (*_flags(self._samples), *lost, *self.clock.doubts()))


def time_interleaved(
    clock: Clock, contestants: Sequence[Contestant], protocol: Protocol, against: Sequence[str], settling: int = 0
) -> Timing:
    """A timing in one go."""
    timing = Interleaved(clock, contestants, protocol, against, settling=settling).go()
    assert timing is not None
    return timing


def _known(times_s: Mapping[str, list[float]], against: Sequence[str], precision: float) -> bool:
    """Whether every contestant's ratio to the fastest of `against` is known to `precision`."""
    best = min(against, key=lambda name: np.median(times_s[name]))
    return all(
        paired_ratio(times_s[best], own).half_width <= precision for name, own in times_s.items() if name != best
    )


QUANTUM_S = 8e-3  # what a descheduled thread loses at a time on Linux (measured: facts in docs/measuring.md)
WIDE_IQR = 0.25
FOREIGN_SHARE = 0.05  # of the wall time of a timing, without its core


def _flags(samples: Mapping[str, Mapping[str, list[float]]]) -> tuple[str, ...]:
    """Doubts about these samples that a reader should hear of, as `doubt:kernel` or `doubt:kernel:cache`."""
    found = []
    for cache, by_name in samples.items():
        for name, times_s in by_name.items():
            low, middle, high = np.percentile(times_s, [25, 50, 75])
            if (high - low) > WIDE_IQR * middle:
                found.append(f"wide_spread:{name}:{cache}")
            if middle < QUANTUM_S / 2 and np.mean(np.asarray(times_s) > middle + QUANTUM_S * 0.9) > 0.05:
                found.append(f"descheduled:{name}:{cache}")
    return tuple(found)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the samples."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
