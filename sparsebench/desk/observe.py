"""Records read as observations: which kernel took how long, in which setting, on how much useful work."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np

from sparsebench.case import Case, canonical
from sparsebench.errors import ModelError
from sparsebench.paired import median_interval
from sparsebench.patterns import Rbgp4, pattern_from
from sparsebench.record import Record

DENSE = "dense"  # a pattern, a format, and the `kernel` of a setting that stands for the fastest dense kernel
CONTROL = "dense.aa"  # the winning dense kernel entered twice: a control, never a rival
Blocks = tuple[tuple[float | None, int, int], ...]
DenseTimes = Mapping[tuple["Setting", tuple[Any, ...]], float]  # (setting, identity of a dense problem) -> seconds


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
    """One timed kernel in one cache state: total seconds (layout change included), 95 % interval, and the work."""

    setting: Setting
    case: Case
    kept: float
    useful_flops: float
    time_s: float
    low_s: float
    high_s: float

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


def sparse_observations(records: Iterable[Record], dense_s: DenseTimes) -> Iterator[Observation]:
    """Every timed sparse kernel in every cache state; a matrix without nonzeros has no time per flop: passed over.

    Seconds are those of a usual moment: the dense time of the problem over all its records (`dense_s`), divided by the
    paired speedup of this record. What slowed both sides of a round - a neighbour, a clock - cancels so. In one sweep
    on a busy two-core machine the mean error on left-out matrices fell from 18 to 5 % (bsr.c), 27 to 10 % (csr.c).
    """
    for record in records:
        if record.outcome == "ok" and record.nnz and not is_dense_kernel(record.kernel):
            case, nnz = record.case, record.nnz
            flops = float(record.useful_flops or case.useful_flops(nnz))
            for cache in record.samples:
                for seen in _observe(record, record.kernel, cache, case, nnz / (case.m * case.k), flops):
                    yield _at_a_usual_moment(seen, record, cache, dense_s)


def _at_a_usual_moment(seen: Observation, record: Record, cache: str, dense_s: DenseTimes) -> Observation:
    """The same observation in units of its baseline's usual time; as it is where it has no baseline."""
    baseline, ratio = record.best_baseline(cache, total=True), record.speedup(cache, total=True)
    usual_s = dense_s.get((seen.setting.with_kernel(baseline), record.case.problem.identity)) if baseline else None
    if ratio is None or usual_s is None:
        return seen
    return replace(seen, time_s=usual_s / ratio.median, low_s=usual_s / ratio.high, high_s=usual_s / ratio.low)


def dense_times(observations: Iterable[Observation]) -> DenseTimes:
    """The usual time of each dense kernel on each problem: the median over all records that timed it."""
    groups: dict[tuple[Setting, tuple[Any, ...]], list[float]] = defaultdict(list)
    for seen in observations:
        groups[seen.setting, seen.case.identity].append(seen.time_s)
    return {about: float(np.median(times_s)) for about, times_s in groups.items()}


def dense_observations(records: Iterable[Record]) -> Iterator[Observation]:
    """Every timed dense kernel: from its own record, and wherever it ran as the baseline of a sparse one."""
    for record in records:
        own = record.case.pattern == DENSE and is_dense_kernel(record.kernel) and record.kernel != CONTROL
        own = own and not record.facts.get("lossy")  # a product of other accuracy is no dense time
        names = [record.kernel] if own else [name for name in sorted(record.baselines) if is_dense_kernel(name)]
        for cache in record.samples if record.outcome == "ok" else ():
            for name in names:
                yield from _observe(record, name, cache, record.case.problem, 1.0, float(record.case.flops()))


def current(records: Iterable[Record]) -> list[Record]:
    """Without records that a newer one supersedes: same machine, case, kernel, caches and threads, but other code."""
    newest: dict[tuple[Any, ...], Record] = {}
    for record in records:
        about = (record.machine, record.case.identity, record.kernel, record.protocol.cache, record.protocol.threads)
        if about not in newest or record.started_at >= newest[about].started_at:
            newest[about] = record
    return list(newest.values())


def _observe(record: Record, kernel: str, cache: str, case: Case, kept: float, flops: float) -> Iterator[Observation]:
    """The one observation that `record` holds of `kernel` in `cache`, if it has times of it."""
    if times_s := record.times_s(cache, kernel):
        layout_s = record.layout_s.get(kernel, 0.0)
        median_s, low_s, high_s = (value + layout_s for value in median_interval(times_s))
        setting = Setting.of(case, kernel, record.machine, cache, record.protocol.threads)
        yield Observation(setting, case, kept, flops, median_s, low_s, high_s)
