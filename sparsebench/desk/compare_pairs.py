"""What each kernel is measured against when two sides of records are compared, and what its runs then say.

What is compared is the ratio of each round to the named baselines that all runs timed beside a kernel unchanged: what
slowed a whole round cancels. Where the sides have named different baselines, a dense kernel that both have timed
unchanged serves, through the screening in which it ran beside the named ones. Where there is none either the yardstick
is plain seconds, which nothing steadies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np

from sparsebench.between import Estimate, estimate
from sparsebench.desk.compare_runs import About, Runs, code_of, unchanged
from sparsebench.desk.observe import is_dense_kernel
from sparsebench.record import Record

Kind = Literal["ratio", "seconds", "speedup"]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a kernel is measured against: `names` in the rounds of the records of kernel `of`.

    ratio    baselines that both sides have unchanged; the geometric mean of several
    seconds  nothing: plain seconds
    speedup  each side's own best baseline, across machines

    `screened`: a side reaches `names` only through the screening of its dense kernels, in other rounds.
    """

    kind: Kind
    of: str
    names: tuple[str, ...] = ()
    screened: bool = False

    def logs(self, record: Record, cache: str, kernel: str) -> np.ndarray:
        """Log ratio of `kernel` to the yardstick in each round, [rounds]; log seconds where there is none."""
        best = record.best_baseline(cache) if self.kind == "speedup" else None
        own = np.log(record.times_s(cache, kernel))
        names = (best,) if best else self.names
        if not names:
            return own
        return np.asarray(own - np.mean([np.log(record.times_s(cache, name)) for name in names], axis=0))

    def seconds(self, record: Record, cache: str) -> float | None:
        """Log of the yardstick's own median seconds, or None where there is none."""
        times_s = [record.times_s(cache, name) for name in self.names]
        return float(np.mean([np.log(np.median(each)) for each in times_s])) if times_s else None


class Seen(NamedTuple):
    """What one run says of a pair: the kernel against its yardstick, and the log seconds of both."""

    against: Estimate
    log_s: float
    yardstick_log_s: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One case, kernel and cache state on both sides: newest records, and an estimate for each run of a side.

    base_s, new_s  median seconds, the geometric mean over runs
    moved          how much slower the yardstick itself ran in NEW, in log terms; None where it has no seconds
    same_code      whether nothing that made the kernel changed
    """

    base: Record
    new: Record
    cache: str
    yardstick: Yardstick
    base_runs: tuple[Estimate, ...]
    new_runs: tuple[Estimate, ...]
    base_s: float
    new_s: float
    moved: float | None
    same_code: bool

    @property
    def name(self) -> str:
        """Kernel, case and cache state in words."""
        return f"{self.base.kernel} on {self.base.case.describe()}, {self.cache}"


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides' runs; a record that both hold is one measurement, and left out of NEW."""

    base: Runs
    new: Runs
    across: bool = False

    @property
    def shared(self) -> list[About]:
        """What both sides have times of, in BASE's order."""
        return [about for about, runs in self.base.items() if _timed(runs) and _timed(self.new.get(about, ()))]

    def pairs(self) -> Iterator[Pair]:
        """A pair for each cache state that both sides were timed in."""
        rivals = defaultdict(list)
        for about in self.shared:
            if is_dense_kernel(about.kernel):
                rivals[about._replace(kernel="")].append(about)
        for about in self.shared:
            first, last = self.base[about][-1], self.new[about][-1]
            for cache in first.samples:
                if first.times_s(cache) and last.times_s(cache) and self._has_speedup(first, last):
                    yield self._pair(about, cache, rivals[about._replace(case=first.case.problem.key, kernel="")])

    def _pair(self, about: About, cache: str, dense: Sequence[About]) -> Pair:
        yardstick = self._yardstick(about, cache, dense)
        through = about._replace(kernel=yardstick.of)
        sides = [
            [seen for run in side[through] if (seen := self._seen(side, run, about, cache, yardstick))]
            for side in self.both
        ]
        base_s, new_s = (float(np.exp(np.mean([seen.log_s for seen in runs]))) for runs in sides)
        moved = [[seen.yardstick_log_s for seen in runs if seen.yardstick_log_s is not None] for runs in sides]
        base, new = (tuple(seen.against for seen in runs) for runs in sides)
        first, last = (side[about][-1] for side in self.both)
        return Pair(
            base=first, new=last, cache=cache, yardstick=yardstick, base_runs=base, new_runs=new, base_s=base_s,
            new_s=new_s, moved=float(np.mean(moved[1]) - np.mean(moved[0])) if all(moved) else None,
            same_code=code_of(first, about.kernel) == code_of(last, about.kernel),
        )  # fmt: skip

    def _has_speedup(self, first: Record, last: Record) -> bool:
        """Across machines a kernel needs a baseline on both, which a baseline itself is to nobody."""
        return not self.across or all(run.baselines and run.kernel not in run.baselines for run in (first, last))

    @property
    def both(self) -> tuple[Runs, Runs]:
        """BASE, then NEW."""
        return self.base, self.new

    def _seen(self, side: Runs, run: Record, about: About, cache: str, yardstick: Yardstick) -> Seen | None:
        """What `run` says; None where it did not time the kernel beside the yardstick as NEW's newest run has it."""
        link = self._link(side, run, about, cache, yardstick.names[0]) if yardstick.screened else run
        names = tuple(run.baselines) if link is not None and link is not run else yardstick.names
        newest = self.new[about._replace(kernel=yardstick.of)][-1]
        alike = yardstick.screened or all(code_of(run, name) == code_of(newest, name) for name in names)
        if link is None or not alike or not all(run.times_s(cache, name) for name in (about.kernel, *names)):
            return None
        beside = Yardstick(yardstick.kind, yardstick.of, names)
        against = estimate(beside.logs(run, cache, about.kernel).tolist())
        if link is not run:
            against = against - estimate(beside.logs(link, cache, link.kernel).tolist())
        log_s = float(np.log(np.median(run.times_s(cache, about.kernel))))
        return Seen(against, log_s, yardstick.seconds(link, cache))

    def _yardstick(self, about: About, cache: str, dense: Sequence[About]) -> Yardstick:
        if self.across:
            return Yardstick("speedup", about.kernel)
        first, last = self.base[about][-1], self.new[about][-1]
        if names := tuple(name for name in unchanged(first, last) if name != about.kernel):
            runs = [run for side in self.both for run in side[about]]
            by_all = tuple(name for name in names if all(name in unchanged(run, last) for run in runs))
            return Yardstick("ratio", about.kernel, by_all or names)
        if about.kernel in first.baselines and (rival := self._rival(about, cache, dense)):
            return Yardstick("ratio", rival, (rival,))
        if common := self._common(about, cache, dense):
            return Yardstick("ratio", about.kernel, (common,), screened=True)
        return Yardstick("seconds", about.kernel)

    def _rival(self, about: About, cache: str, dense: Sequence[About]) -> str | None:
        """For a baseline that is alone: the fastest other dense kernel that was timed beside it, unchanged.

        That kernel's own record holds the rounds of both.
        """
        found = {}
        for other in dense:
            first, last = self.base[other][-1], self.new[other][-1]
            timed = all(record.times_s(cache, about.kernel) and record.times_s(cache) for record in (first, last))
            if other != about and timed and code_of(first, other.kernel) == code_of(last, other.kernel):
                found[other.kernel] = first.median_s(cache) or 0.0
        return min(found, key=found.__getitem__, default=None)

    def _common(self, about: About, cache: str, dense: Sequence[About]) -> str | None:
        """Where the sides have named different baselines: the fastest dense kernel that both have timed unchanged."""
        found = {}
        for other in dense:
            (first, last), own = ([side[at][-1] for side in self.both] for at in (other, about))
            alike = code_of(first, other.kernel) == code_of(last, other.kernel)
            runs = zip(self.both, own, strict=True)
            if other != about and alike and all(self._link(*at, about, cache, other.kernel) for at in runs):
                found[other.kernel] = first.median_s(cache) or 0.0
        return min(found, key=found.__getitem__, default=None)

    def _link(self, side: Runs, run: Record, about: About, cache: str, name: str) -> Record | None:
        """The record of `side` that timed dense kernel `name` beside what `run` has beside it, or `run` itself.

        A dense kernel's own record holds the rounds of the named baselines too, from the screening that named them.
        """
        if run.times_s(cache, name):
            return run
        screened = side.get(about._replace(case=run.case.problem.key, kernel=name), ())
        beside = [other for other in screened if other.baselines == run.baselines and _has(other, cache, run.baselines)]
        return min(beside, key=lambda other: abs(_seconds_between(other, run)), default=None)


def _has(record: Record, cache: str, names: Iterable[str]) -> bool:
    return all(record.times_s(cache, name) for name in (record.kernel, *names))


def _seconds_between(first: Record, last: Record) -> float:
    """From the start of `first` to that of `last`."""
    starts = [datetime.fromisoformat(record.started_at) for record in (first, last)]
    return (starts[1] - starts[0]).total_seconds()


def _timed(runs: Sequence[Record]) -> bool:
    return bool(runs) and runs[-1].outcome == "ok"


def between_runs(before: Record, after: Record) -> Yardstick:
    """What two runs of the same code are measured against: the baselines that both have, if any."""
    names = tuple(name for name in unchanged(before, after) if name != before.kernel)
    return Yardstick("ratio" if names else "seconds", before.kernel, names)
