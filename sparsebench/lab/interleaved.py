"""A timing: rounds in which each contestant is sampled once, in one go or several, until their ratio is known.

A timing may be taken in several goes with other work between them. A shared machine has moods of a second or so, in
which one kernel loses more than another: ratios of 0.15 s agree with those of the next 0.15 s, not with those of two
seconds later (3 to 9 % standard deviation, two-core virtual machine). A timing in one go knows one mood very precisely.

A go begins with rounds that do not count. What ran since the last one has pushed Y, X and code out of the caches, and
they come home over several calls: csr.c on 1152x96, n = 1280, 86 % sparse, took 1994 1751 885 741 732 us in one go and
1928 1731 944 772 624 611 in the next (one Emerald Rapids core), and amid other layers of a network what it takes at
last. Counted, they made a median of how many rounds fitted into a go.

A timing goes on until six rounds of it were quiet (paired.quiet): what else runs on a shared machine slows one kernel
more than another, for seconds or minutes, and no pairing cancels that. Of two sweeps half an hour apart, a quarter of
the trials had fewer in one of them, and agreed with themselves to 9 % where the others did to 3.7. The rounds that do
not count tell whether it is worth staying: where the baseline is slow in them too, the turn passes to the next trial.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np

from sparsebench.lab.calm import Calm
from sparsebench.lab.clock import Clock, Contestant, Rounds
from sparsebench.paired import LEAST_ROUNDS, paired_ratio
from sparsebench.record import Protocol

FIRST_LOOK, LOOK_AGAIN = 12, 1.25  # rounds before the first look at the ratio, and the growth between looks
DIGITS = 10  # of a second that a sample keeps: 0.1 ns, a tenth of what clocks tell; the rest made records twice as long
GOES = 8  # in which a CPU takes a timing
LEAST_GOES = 4  # of a timing in several: whatever one mood of the machine says, others are asked too
QUANTUM_S = 8e-3  # what a descheduled thread loses at a time on Linux (measured: facts in docs/measuring.md)
WIDE_IQR = 0.25
PATIENCE = 2.0  # times the budget, beyond it, for a timing that lacks quiet rounds
SETTLING_PARTS = 2.0  # times what a go counts, at most, for its rounds that do not: three kernels of 3 ms need as much
PEEK = 3  # of the rounds that do not count, the latest, tell whether the machine is quiet now
FOREIGN_SHARE = 0.05  # of the wall time of a timing, without its core


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
    `settling` rounds that nobody counts, in no more than twice the time of those that count.

    In several goes it is not over before six of its rounds were quiet, unless it has waited for them for `patience`
    times the budget. What is quiet is told by `calm`, which all timings of a problem share and add to.
    """

    clock: Clock
    contestants: Sequence[Contestant]
    protocol: Protocol
    against: Sequence[str]
    goes: int = 1
    settling: int = 0
    calm: Calm = field(default_factory=Calm)
    patience: float = PATIENCE
    _samples: dict[str, dict[str, list[float]]] = field(init=False)
    _rounds: int = 0
    _taken: int = 0  # goes
    _spent_s: float = 0.0  # on rounds that count
    _took_s: float = 0.0  # with those that do not
    _waited_s: float = 0.0  # for quiet rounds, all else being done
    _done: Literal["precision", "budget"] | None = None  # why it would be over, were it quiet
    _look: int = FIRST_LOOK  # at how many rounds the ratio is looked at
    _lost_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._samples = {cache: {each.name: [] for each in self.contestants} for cache in self.protocol.cache}

    def go(self) -> Timing | None:
        """Take rounds; what all goes saw once they are enough, None before."""
        start_s = time.perf_counter()
        with _no_collection():
            rounds = self.clock.rounds(self.contestants, self.protocol.cache)
            uncounted = self._settle(rounds, start_s)
            counted_s = time.perf_counter()
            wasted = self._done is not None and not self._calm_in(uncounted)
            known = not wasted and self._known_after_rounds(rounds, counted_s)
        self._book(start_s, counted_s, time.perf_counter())
        self._done = self._done or self._enough(known)
        if self._done is None or (self._may_wait() and not self._quiet()):
            return None
        return self._timing(self._done)

    def once_more(self) -> None:
        """A round that does not count, so that what the last call left is there to be looked at."""
        next(iter(self.clock.rounds(self.contestants, self.protocol.cache)))

    def _book(self, start_s: float, counted_s: float, end_s: float) -> None:
        """Add up what a go took, and what of it was lost."""
        took_s = end_s - start_s
        if self._done:
            self._waited_s += took_s
        self._spent_s, self._took_s, self._taken = (
            self._spent_s + end_s - counted_s,
            self._took_s + took_s,
            self._taken + 1,
        )
        for name, share in self.clock.lost().items():
            self._lost_s[name] = self._lost_s.get(name, 0.0) + share * took_s

    def _enough(self, known: bool) -> Literal["precision", "budget"] | None:
        """Why this timing is over, quiet or not."""
        if known and self._taken >= min(self.goes, LEAST_GOES):
            return "precision"
        return "budget" if self._rounds >= LEAST_ROUNDS and self._spent_s >= self.protocol.budget_s else None

    def _may_wait(self) -> bool:
        return self.goes > 1 and self._waited_s < self.patience * self.protocol.budget_s

    def _quiet(self) -> bool:
        """Whether six rounds in each cache state were quiet."""
        return all(
            self.calm.quiet(cache, best, self._samples[cache][best]) >= LEAST_ROUNDS
            for cache, best in self._baselines().items()
        )

    def _baselines(self) -> dict[str, str]:
        """The fastest of `against` in each cache state, by what was sampled."""
        return {cache: _best(by_name, self.against) for cache, by_name in self._samples.items()}

    @property
    def _part_s(self) -> float:
        """Seconds of a go."""
        return self.protocol.budget_s / self.goes

    def _settle(self, rounds: Rounds, start_s: float) -> list[Mapping[str, Mapping[str, float]]]:
        """Take the rounds that do not count."""
        seen: list[Mapping[str, Mapping[str, float]]] = []
        if self.settling:
            for each in self.contestants:
                each.rotation.settle_on_y()
            for times_s in islice(rounds, self.settling):
                seen.append(times_s)
                if time.perf_counter() >= start_s + SETTLING_PARTS * self._part_s:
                    break
        return seen

    def _calm_in(self, uncounted: Sequence[Mapping[str, Mapping[str, float]]]) -> bool:
        """Whether any of the latest of these rounds was quiet, in each cache state; where there are none, it may be."""
        latest = uncounted[-PEEK:]
        return not latest or all(
            self.calm.quiet(cache, best, [times_s[cache][best] for times_s in latest])
            for cache, best in self._baselines().items()
        )

    def _known_after_rounds(self, rounds: Rounds, start_s: float) -> bool:
        """Take the rounds of a go; whether the ratio is known, after six rounds of it at least."""
        part_s, fewest = self._part_s, LEAST_ROUNDS if self.goes == 1 else 1
        self._look = max(self._look, self._rounds + LEAST_ROUNDS)
        for seen in rounds:
            self._rounds += 1
            for cache, times_s in seen.items():
                for name, time_s in times_s.items():
                    self._samples[cache][name].append(round(time_s, DIGITS))
                for name in self.against:
                    self.calm.hear(cache, name, times_s[name])
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
        return Timing(self._samples, stop, (*doubts_of(self._samples), *lost, *self.clock.doubts()))


def _known(times_s: Mapping[str, list[float]], against: Sequence[str], precision: float) -> bool:
    """Whether every contestant's ratio to the fastest of `against` is known to `precision`."""
    best = _best(times_s, against)
    return all(
        paired_ratio(times_s[best], own).half_width <= precision for name, own in times_s.items() if name != best
    )


def _best(times_s: Mapping[str, list[float]], against: Sequence[str]) -> str:
    """The fastest of `against`."""
    return min(against, key=lambda name: np.median(times_s[name]))


def doubts_of(samples: Mapping[str, Mapping[str, list[float]]]) -> tuple[str, ...]:
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
