"""Records read as observations: which kernel took how long, in which setting, on how much useful work.

Seconds are those of quiet rounds (desk/quiet.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np

from sparsebench.case import Case, canonical
from sparsebench.desk.quiet import ALL, BETWEEN, Quiet, problem_of
from sparsebench.errors import ModelError
from sparsebench.paired import LEAST_ROUNDS, median_interval, trimmed_mean
from sparsebench.patterns import Rbgp4, pattern_from
from sparsebench.record import Record

DENSE = "dense"  # a pattern, a format, and the `kernel` of a setting that stands for the fastest dense kernel
Blocks = tuple[tuple[float | None, int, int], ...]
DenseTimes = Mapping[tuple[Any, ...], float]  # a dense kernel on a problem (quiet.problem_of) -> seconds
Runs = tuple[Record, tuple[Record, ...]]  # the newest record of a trial, and earlier runs of it


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Setting:
    """What one fit is about; two observations with equal settings may be compared, others never."""

    machine: str
    kernel: str
    op: str
    dtype: str
    math: str
    layout: str
    cache: str
    threads: int

    @classmethod
    def of(cls, case: Case, kernel: str, machine: str, cache: str, threads: int) -> Self:
        """The setting in which `kernel` answers `case`."""
        return cls(
            machine=machine, kernel=kernel, op=case.op, dtype=case.dtype, math=case.math, layout=case.layout,
            cache=cache, threads=threads,
        )  # fmt: skip

    def with_kernel(self, kernel: str) -> Setting:
        """The same setting for another kernel."""
        return replace(self, kernel=kernel)

    def describe(self) -> str:
        """All but machine and kernel, for people: `gemm float32 ieee feature, weights_cold, 1 thread`."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return f"{self.op} {self.dtype} {self.math} {self.layout}, {self.cache}, {threads}"


@dataclass(frozen=True, slots=True)
class Observation:
    """One timed kernel in one cache state, its layout change included, in seconds: trimmed means over rounds.

    time_s   what laws are fitted to; where it was timed again (desk/again.py) the geometric mean of all runs, each
             weighted by its quiet rounds
    first_s  that of all runs but the newest, judged_s the newest, both in units of the earlier runs' dense time: what
             judges a law that was fitted to those is the paired ratio of the newest
    plain_s  seconds of the newest run as the clock had them
    before_s, before_plain_s  the run before the newest, in units as judged_s and plain_s
    weight, first_weight  what time_s and first_s count: quiet rounds, and something for each run (Quiet.weight)
    twice    whether there were several runs; all times agree but for units where there was one
    interval  makes the 95 % interval around time_s, (low, high): few are ever asked for theirs
    """

    setting: Setting
    case: Case
    kept: float
    time_s: float
    first_s: float
    judged_s: float
    plain_s: float
    before_s: float
    before_plain_s: float
    interval: Callable[[], tuple[float, float]]
    weight: float = 1.0
    first_weight: float = 1.0
    twice: bool = False

    @property
    def shape(self) -> str:
        """The matrix and its convolution, without n and batch: what "whole shapes left out" leaves out."""
        conv = self.case.conv
        return canonical([self.case.m, self.case.k, {**asdict(conv), "batch": 0} if conv else None])


@lru_cache(maxsize=4096)
def _blocks(pattern: str, params: str) -> Blocks:
    asked = pattern_from(pattern, json.loads(params))
    if isinstance(asked, Rbgp4):
        return ((None, asked.row_repeat * asked.block[0], asked.block[1]),)
    return asked.blocks()


def blocks_of(case: Case) -> Blocks:
    """Levels of the case's pattern as (sparsity or None for the case's own, block rows, block columns).

    rbgp4 counts as blocks of row_repeat x bh rows: that many rows share one list of columns, which is what decides how
    often X is read again (RBGP, arXiv 2006.13486; G_r and G_b are complete).
    """
    return _blocks(case.pattern, canonical({name: value for name, value in case.params.items() if name != "from"}))


def block_text(case: Case) -> str:
    """Blocks for people, such as `4x1` or `4x1+1x1`."""
    return "+".join(f"{bh}x{bw}" for _, bh, bw in blocks_of(case))


def kept_share(case: Case) -> float:
    """The share of weights that `case` asks to keep, 1 - s; ModelError where only a file knows it."""
    if case.pattern == DENSE:
        return 1.0
    kept = [None if sparsity is None else 1 - sparsity for sparsity in level_sparsities(case)]
    known = [share for share in kept if share is not None]
    if len(known) < len(kept):
        raise ModelError(f"{case.describe()} names no sparsity, its file fixes it; ask for a pattern and a sparsity")
    return sum(known)


def level_sparsities(case: Case) -> tuple[float | None, ...]:
    """The sparsity of each level; None where neither pattern nor case says it."""
    return tuple(case.sparsity if sparsity is None else sparsity for sparsity, _, _ in blocks_of(case))


def is_dense_kernel(kernel: str) -> bool:
    """Whether a kernel of this name is a dense one, the control included."""
    return kernel.split(".")[0] == DENSE


def sparse_observations(
    runs: Iterable[Runs], dense_s: DenseTimes, first_dense_s: DenseTimes, quiet: Quiet = ALL
) -> Iterator[Observation]:
    """Every timed sparse kernel in every cache state; a matrix without nonzeros has no time per flop: passed over.

    `runs` are records with the earlier runs of the same trial, the newest first. Seconds are those of a usual moment:
    the dense time of the problem over all its records (`dense_s`, or over the earlier runs alone), divided by the
    paired speedup of this record. What slowed both sides of a round - a neighbour, a clock - cancels so. In one sweep
    on a busy two-core machine the mean error on left-out matrices fell from 18 to 5 % (bsr.c), 27 to 10 % (csr.c).

    The speedup is the trimmed mean of the rounds' log ratios, not the median that records and reports tell: a shared
    machine changes its state during a trial, and the median of two states is now one, now the other. Errors on
    left-out shapes fell from 12.0 to 11.7 %, on cells from 10.7 to 10.5 % (two sweeps, each judged by the other).
    """
    for record, earlier in runs:
        if record.outcome == "ok" and record.nnz and not is_dense_kernel(record.kernel):
            for cache in record.samples:
                if newer := _timed(record, cache, quiet):
                    older = [found for one in earlier if (found := _timed(one, cache, quiet))]
                    yield _observed(newer, older, dense_s, first_dense_s)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A record's own kernel in one cache state: seconds, and the paired speedup over its best baseline, if any.

    Both are trimmed means of logs; intervals are those of the medians, moved there: a trimmed mean is no less sure.
    """

    record: Record
    cache: str
    quiet: Quiet
    plain_s: float
    baseline: str
    speedup: float
    weight: float

    def usual(self, dense_s: DenseTimes) -> float | None:
        """Usual seconds of the baseline; None without one."""
        record = self.record
        about = (record.machine, self.cache, record.protocol.threads, self.baseline)
        return dense_s.get(problem_of(record.case, *about)) if self.baseline else None

    def time_s(self, dense_s: DenseTimes) -> float:
        """Seconds in units of the baseline's usual time; as they are without one."""
        usual_s = self.usual(dense_s)
        return self.plain_s if usual_s is None else usual_s / self.speedup

    def interval(self, dense_s: DenseTimes) -> tuple[float, float]:
        """The 95 % interval around them."""
        usual_s, ratio = self.usual(dense_s), self.record.speedup(self.cache, total=True)
        if usual_s is None or ratio is None:
            return interval_of(self.record, self.record.kernel, self.cache, self.quiet)
        time_s = usual_s / self.speedup
        return time_s * ratio.median / ratio.high, time_s * ratio.median / ratio.low


def _timed(record: Record, cache: str, quiet: Quiet) -> _Timed | None:
    """What `record` holds of its own kernel in `cache`, if it has times of it."""
    if not len(record.times_s(cache)):
        return None
    count = quiet.rounds(record, cache)
    own_s = rounds_s_of(record, record.kernel, cache)[count]
    rivals = {name: rounds_s[count] for name in record.baselines if len(rounds_s := rounds_s_of(record, name, cache))}
    best = min(rivals, key=lambda name: steady_s(rivals[name])) if len(rivals) > 1 else next(iter(rivals), "")
    speedup = math.exp(trimmed_mean(np.log(rivals[best] / own_s))) if best else 1.0
    return _Timed(record, cache, quiet, steady_s(own_s), best, speedup, quiet.weight(record, cache))


def _observed(newer: _Timed, older: list[_Timed], dense_s: DenseTimes, first_dense_s: DenseTimes) -> Observation:
    record, case = newer.record, newer.record.case
    time_s, kept = newer.time_s(dense_s), (record.nnz or 0) / (case.m * case.k)
    setting = Setting.of(case, record.kernel, record.machine, newer.cache, record.protocol.threads)
    if not older:
        plain_s, interval, weight = newer.plain_s, partial(newer.interval, dense_s), newer.weight
        return Observation(
            setting, case, kept, time_s, time_s, time_s, plain_s, time_s, plain_s, interval, weight, weight
        )
    return Observation(
        setting,
        case,
        kept,
        time_s=_middle([newer, *older], dense_s),
        first_s=_middle(older, first_dense_s),
        judged_s=newer.time_s(first_dense_s),
        plain_s=newer.plain_s,
        before_s=older[0].time_s(first_dense_s),
        before_plain_s=older[0].plain_s,
        interval=partial(_around_all, _quiet([newer, *older]), dense_s),
        weight=sum(one.weight for one in (newer, *older)),
        first_weight=sum(one.weight for one in older),
        twice=True,
    )


def _quiet(runs: list[_Timed]) -> list[_Timed]:
    """Those that met six quiet rounds; all where none did."""
    return [one for one in runs if one.weight >= BETWEEN + LEAST_ROUNDS] or runs


def _middle(runs: list[_Timed], dense_s: DenseTimes) -> float:
    """The geometric mean of their seconds, weighted by quiet rounds."""
    return math.exp(np.average([math.log(one.time_s(dense_s)) for one in runs], weights=[one.weight for one in runs]))


def _around_all(runs: list[_Timed], dense_s: DenseTimes) -> tuple[float, float]:
    lows, highs = zip(*(one.interval(dense_s) for one in runs), strict=True)
    return min(lows), max(highs)


def rounds_s_of(record: Record, kernel: str, cache: str) -> np.ndarray:
    """Seconds of each round, layout change included."""
    times_s, layout_s = np.asarray(record.times_s(cache, kernel), float), record.layout_s.get(kernel, 0.0)
    return times_s + layout_s if layout_s else times_s


def steady_s(rounds_s: np.ndarray) -> float:
    """Seconds of a trial whose rounds took so many: the trimmed mean of their logs."""
    return math.exp(trimmed_mean(np.log(rounds_s)))


def interval_of(record: Record, kernel: str, cache: str, quiet: Quiet) -> tuple[float, float]:
    """The 95 % interval around the seconds of a kernel."""
    rounds_s = rounds_s_of(record, kernel, cache)[quiet.rounds(record, cache)]
    middle_s, low_s, high_s = median_interval(rounds_s.tolist())
    moved = steady_s(rounds_s) / middle_s
    return low_s * moved, high_s * moved


def current(records: Iterable[Record]) -> list[Record]:
    """Without records that a newer one supersedes: same machine, case, kernel, caches and threads, but other code."""
    newest: dict[tuple[Any, ...], Record] = {}
    for about, record in by_trial(records):
        if about not in newest or record.started_at >= newest[about].started_at:
            newest[about] = record
    return list(newest.values())


def by_trial(records: Iterable[Record]) -> Iterator[tuple[tuple[Any, ...], Record]]:
    """Each record with what makes two of them runs of one trial: machine, case, kernel, caches and threads."""
    case, identity = None, ()
    for record in records:
        if record.case is not case:  # as a store is read, the records of a case share it
            case, identity = record.case, record.case.identity
        yield (record.machine, identity, record.kernel, record.protocol.cache, record.protocol.threads), record
