"""The CUDA clock: replays of graphs that hold the launch between two events, in interleaved rounds as on the CPU.

    hot           the launch once untimed, then timed; short ones loop between the events
    weights_cold  X is read, then the launch over the copy of W that has rested longest
    cold          twice the L2 is written, and as much read so that no dirty line is left, then the launch

Preparing the cache, the first event, the launch and the second event are nodes of one graph, so neither Python nor the
driver stands between the events. What cannot be captured takes its whole group to the other way: the GPU spins while
the host enqueues the same sequence. Contestants of one trial always share one way, which the record names.

Each sample is one launch where any part is cold. A round enqueues all contestants in an order drawn for it and waits
once, and starts with no line of the L2 marked as persisting. Beside a time stands t0, an empty kernel of the same grid
and block under the same clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sparsebench.lab.clock import Contestant, Order
from sparsebench.lab.probes import releaser
from sparsebench.lab.throttle import Throttle

SPIN_CYCLES = 200_000  # about 0.1 ms: longer than the host needs to enqueue two events and a launch
LOOP_S, MOST_LOOPS = 20e-6, 64  # a hot sample loops until it is this long: events resolve half a microsecond
T0_ROUNDS, CHOICE_ROUNDS = 31, 11

Call = Callable[[], Any]


class Sample(Protocol):
    """One measured launch that can be enqueued again and again."""

    def enqueue(self) -> None:
        """Put it on the current stream."""
        ...

    def time_s(self) -> float:
        """Seconds of its latest run; only after a synchronisation."""
        ...


Sampler = Callable[[Call, Call, int], Sample]  # (what prepares the cache, the launch, loops) -> Sample


class NotCapturable(Exception):
    """A launch does something that a CUDA graph cannot hold."""


def _events(**fields: Any) -> tuple[Any, Any]:
    import torch

    return torch.cuda.Event(enable_timing=True, **fields), torch.cuda.Event(enable_timing=True, **fields)


class GraphSample:
    """The sequence as one CUDA graph. Its events are nodes of the graph, so each replay times itself anew."""

    _pool: Any = None  # one for all graphs: a pool of its own would cost each of hundreds 2 MiB and an allocation

    def __init__(self, before: Call, call: Call, loops: int) -> None:
        import torch

        GraphSample._pool = GraphSample._pool or torch.cuda.graph_pool_handle()
        self.loops, (self._start, self._end) = loops, _events(external=True)
        self._graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                self._graph.capture_begin(pool=GraphSample._pool, capture_error_mode="thread_local")
                try:
                    self._sequence(before, call)
                finally:
                    self._graph.capture_end()
        except RuntimeError as error:
            torch.cuda.synchronize()
            raise NotCapturable(str(error)) from error

    def _sequence(self, before: Call, call: Call) -> None:
        before()
        self._start.record()
        for _ in range(self.loops):
            call()
        self._end.record()

    def enqueue(self) -> None:
        """Replay the graph on the current stream."""
        self._graph.replay()

    def time_s(self) -> float:
        """Seconds of one launch of the latest replay."""
        return float(self._start.elapsed_time(self._end)) * 1e-3 / self.loops


class SpinSample:
    """The sequence enqueued by the host behind a kernel that spins, so that the GPU never waits for the host."""

    def __init__(self, before: Call, call: Call, loops: int) -> None:
        self.before, self.call, self.loops = before, call, loops
        self._start, self._end = _events()

    def enqueue(self) -> None:
        """Put spin, cache preparation, events and launch on the current stream."""
        import torch

        self.before()
        torch.cuda._sleep(SPIN_CYCLES)
        self._start.record()
        for _ in range(self.loops):
            self.call()
        self._end.record()

    def time_s(self) -> float:
        """Seconds of one launch of the latest run."""
        return float(self._start.elapsed_time(self._end)) * 1e-3 / self.loops


def _synchronize() -> None:
    import torch

    torch.cuda.synchronize()


@dataclass(slots=True)
class _Turns:
    """Samples taken in turn: those over copies of W, the longest rested next."""

    samples: Sequence[Sample]
    next: int = 0

    def take(self) -> Sample:
        sample = self.samples[self.next]
        self.next = (self.next + 1) % len(self.samples)
        return sample


@dataclass(slots=True)
class CudaClock:
    """Takes samples on the GPU. `way` is "graph" or "spin": how the latest rounds were timed.

    `graph`, `spin`, `synchronize`, `flood` and `order` can be replaced, to run without a GPU and to plant faults.
    """

    cache_bytes: int
    mark: Callable[[str], None] = lambda name: None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    order: Order | None = None
    graph: Sampler = GraphSample
    spin: Sampler = SpinSample
    synchronize: Call = _synchronize
    release: Call = field(default_factory=releaser)
    flood: Call | None = None
    empty: Callable[[tuple[int, ...], tuple[int, ...]], Call] | None = None
    way: str = "graph"
    throttle: Throttle = field(default_factory=Throttle)
    _loops: dict[str, int] = field(default_factory=dict)

    def rounds(
        self, contestants: Sequence[Contestant], caches: Sequence[str]
    ) -> Iterator[Mapping[str, Mapping[str, float]]]:
        """Rounds without end: {cache: {name: seconds}}, every contestant once, in an order drawn for each round."""
        turns, draw = self._prepared(contestants, caches), self.order or self.rng.permutation
        self.throttle.begin()
        while True:
            self.release()
            seen = {}
            for cache in caches:
                taken = {}
                for i in draw(len(contestants)):
                    name = contestants[i].name
                    self.mark(name)
                    contestants[i].turn()
                    taken[name] = turns[cache][i].take()
                    taken[name].enqueue()
                self.synchronize()
                seen[cache] = {name: max(sample.time_s(), 1e-9) for name, sample in taken.items()}
            self.throttle.after_round()
            yield seen

    def lost(self) -> Mapping[str, float]:
        """Nothing: events on the GPU do not see what the host loses."""
        return {}

    def doubts(self) -> tuple[str, ...]:
        """What held the GPU's clock in the latest rounds."""
        return self.throttle.doubts()

    def clocks(self) -> Mapping[str, Any]:
        """The GPU's clock after each of them."""
        return self.throttle.clocks()

    def t0_s(self, grid: tuple[int, ...], block: tuple[int, ...]) -> float | None:
        """Median seconds of an empty kernel of this shape, timed as the latest rounds were; None without a GPU."""
        if self.empty is None or not grid:
            return None
        make = self.graph if self.way == "graph" else self.spin
        sample, times_s = make(_nothing, self.empty(grid, block), 1), []
        for _ in range(T0_ROUNDS):
            sample.enqueue()
            self.synchronize()
            times_s.append(sample.time_s())
        return float(np.median(times_s))

    def _prepared(self, contestants: Sequence[Contestant], caches: Sequence[str]) -> dict[str, list[_Turns]]:
        """Turns of every contestant in every cache state: by graphs if all can be captured, else all by spinning."""
        try:
            self.way = "graph"
            return self._made(contestants, caches)
        except NotCapturable:
            self.way = "spin"
            return self._made(contestants, caches)

    def _made(self, contestants: Sequence[Contestant], caches: Sequence[str]) -> dict[str, list[_Turns]]:
        return {cache: [self._turns(contestant, cache) for contestant in contestants] for cache in caches}

    def _turns(self, contestant: Contestant, cache: str) -> _Turns:
        """The samples of one contestant, kept with its rotation: twins share those over copies of W."""
        rotation, make = contestant.rotation, self.graph if self.way == "graph" else self.spin
        self.mark(contestant.name)
        if cache == "hot":
            run = rotation.launches[0].run
            return _Turns([make(run, run, self._hot_loops(contestant))])
        kept: dict[Any, Any] = rotation.prepared
        if cache == "cold":
            return _Turns([make(self._flood, rotation.launches[0].run, 1)])
        if (self.way, cache) not in kept:
            kept[self.way, cache] = _Turns([make(b, run, 1) for b, run in self._rotated(contestant)])
        turns: _Turns = kept[self.way, cache]
        return turns

    def _rotated(self, contestant: Contestant) -> Iterator[tuple[Call, Call]]:
        """(what prepares the cache, launch) of each copy of W; the first washes the cache where the copies fit it."""
        rotation = contestant.rotation
        small = rotation.weight_bytes * len(rotation.launches) < 2 * self.cache_bytes
        read_x = _reader(contestant.x)

        def wash_and_read() -> None:
            self._flood()
            read_x()

        for i, launch in enumerate(rotation.launches):
            yield (wash_and_read if small and i == 0 else read_x), launch.run

    def _hot_loops(self, contestant: Contestant) -> int:
        """How often a hot sample launches, so that it lasts LOOP_S."""
        if contestant.name not in self._loops:
            run = contestant.rotation.launches[0].run
            sample = self.spin(run, run, 1)
            sample.enqueue()
            self.synchronize()
            self._loops[contestant.name] = int(np.clip(LOOP_S / max(sample.time_s(), 1e-9), 1, MOST_LOOPS))
        return self._loops[contestant.name]

    def _flood(self) -> None:
        if self.flood is None:
            self.flood = flooder(self.cache_bytes)
        self.flood()


def _nothing() -> None:
    return None


def _reader(x: Any) -> Call:
    """A call that reads all of `x`, so that it lies in the cache."""
    read: Call = x.sum
    return read


def flooder(cache_bytes: int) -> Call:
    """A call that leaves nothing of an earlier one in the L2, and no dirty line either."""
    import torch

    written, read = (torch.zeros(2 * cache_bytes // 4, device="cuda") for _ in range(2))

    def flood() -> None:
        written.add_(1.0)
        read.sum()

    return flood


def quick_time_s(call: Call, cache_bytes: int) -> float:
    """Median seconds of `call` with a cold L2, to choose among tiles."""
    clock = CudaClock(cache_bytes)
    call()
    sample, times_s = SpinSample(clock._flood, call, 1), []
    for _ in range(CHOICE_ROUNDS):
        sample.enqueue()
        _synchronize()
        times_s.append(sample.time_s())
    return float(np.median(times_s))
