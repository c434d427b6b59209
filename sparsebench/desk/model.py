"""What every law of layer times shares: the question it is keyed by, the observations it learns from, its answer.

Decisions that govern the whole desk:

- A time is the *total* time of a layer: the kernel in its native layout plus its own layout change, on both sides of
  every ratio. That is what the headline (speedup_total) compares and what a network pays.
- Models are keyed by Setting. Two machines, kernels, caches or thread counts never meet in one fit.
- A law answers with an interval and says when it left the range it was measured in; nothing is extrapolated silently.
- To add a law: a subclass of LayerModel, and its name in LAWS (desk/fit.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

from sparsebench.case import Case, canonical
from sparsebench.paired import median_interval
from sparsebench.patterns import pattern_from
from sparsebench.record import Record

DENSE = "dense"  # the kernel field of a setting that stands for the fastest dense kernel
Blocks = tuple[tuple[float | None, int, int], ...]


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
class Prediction:
    """A time in seconds with the interval that should hold nine of ten measurements.

    extrapolated  it lies outside what was measured; `why` says in which direction
    measured      it is no prediction at all: this very problem was timed, and the interval is the clock's
    kernel        who would take this time
    """

    time_s: float
    low_s: float
    high_s: float
    extrapolated: bool = False
    measured: bool = False
    why: str = ""
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors on observations that a fit has not seen.

    how        what was left out: "cells" (points of the sweep), "shapes" (whole matrices), "edges" (the outer range:
               how wrong extrapolation is)
    n          observations predicted; mape, p95 are relative errors; within_5 and within_10 shares of observations
    """

    how: str
    n: int
    mape: float
    within_5: float
    within_10: float
    p95: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One timed kernel in one cache state: total seconds, their 95 % interval, and what was computed."""

    setting: Setting
    case: Case
    kept: float
    useful_flops: float
    time_s: float
    low_s: float
    high_s: float
    suite: str = field(default="", compare=False)

    @property
    def shape(self) -> str:
        """The matrix and its convolution, without n: what "whole shapes left out" leaves out."""
        return canonical([self.case.m, self.case.k, asdict(self.case.conv) if self.case.conv else None])


class LayerModel(ABC):
    """A law of the time that one kernel takes, fitted to the observations of one setting."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, observations: Sequence[Observation]) -> Self:
        """The law that fits `observations`, which share one setting; ModelError when they cannot carry it."""

    @abstractmethod
    def predict(self, case: Case) -> Prediction:
        """The time of `case`; ModelError when this law says nothing about such a case."""

    @property
    @abstractmethod
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors by part of the law: {"" or the level blocks of a fused kernel: errors}."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, readable."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""


@lru_cache(maxsize=4096)
def _blocks(pattern: str, params: str) -> Blocks:
    import json

    return pattern_from(pattern, json.loads(params)).blocks()


def blocks_of(case: Case) -> Blocks:
    """Levels of the case's pattern as (sparsity or None, block rows, block columns)."""
    return _blocks(case.pattern, canonical({name: value for name, value in case.params.items() if name != "from"}))


def block_text(case: Case) -> str:
    """Blocks for people, such as `4x1` or `4x1+1x1`."""
    return "+".join(f"{bh}x{bw}" for _, bh, bw in blocks_of(case))


def is_dense(record: Record) -> bool:
    """Whether this record times a dense kernel on the dense problem, the A/A control aside."""
    return record.case.pattern == "dense" and is_dense_kernel(record.kernel)


def is_dense_kernel(kernel: str) -> bool:
    """Whether a kernel of this name is a dense rival; `dense.aa`, the control, is none."""
    return kernel.split(".")[0] == "dense" and kernel != "dense.aa"


def observation(record: Record, cache: str, kernel: str | None = None) -> Observation | None:
    """What `record` says of `kernel` (its own unless named) in `cache`, or None where it has no times of it."""
    name = kernel or record.kernel
    times_s = record.times_s(cache, name)
    if not len(times_s) or record.nnz is None:
        return None
    median_s, low_s, high_s = (value + record.layout_s.get(name, 0.0) for value in median_interval(times_s))
    own = name == record.kernel
    case = record.case if own else record.case.problem
    return Observation(
        setting=Setting.of(case, name, record.machine, cache, record.protocol.threads),
        case=case,
        kept=record.nnz / (case.m * case.k) if own else 1.0,
        useful_flops=float(record.useful_flops or case.useful_flops(record.nnz)) if own else float(case.flops()),
        time_s=median_s,
        low_s=low_s,
        high_s=high_s,
        suite=record.suite,
    )


def sparse_observations(records: Iterable[Record]) -> Iterator[Observation]:
    """Every timed sparse kernel in every cache state; matrices without nonzeros have no time per flop and are passed over."""
    for record in records:
        if record.outcome == "ok" and record.nnz and not is_dense_kernel(record.kernel) and record.kernel != "dense.aa":
            for cache in record.samples:
                if seen := observation(record, cache):
                    yield seen


def dense_observations(records: Iterable[Record]) -> Iterator[Observation]:
    """Every timed dense kernel: from its own record, and wherever it ran as the baseline of a sparse one."""
    for record in records:
        if record.outcome != "ok":
            continue
        names = {name for name in record.baselines if is_dense_kernel(name)} | ({record.kernel} if is_dense(record) else set())
        for cache in record.samples:
            yield from (seen for name in sorted(names) if (seen := observation(record, cache, name)))
