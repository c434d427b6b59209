"""Two sides of records made comparable: which runs belong together, and what each kernel is measured against.

A run of a pair is one record. The newest record of a (case, kernel, protocol, machine) says which code a side has; all
records of that side that the same code made are its runs. What is compared is the ratio of each round to the named
baselines that all these runs timed beside it unchanged: what slowed a whole round cancels. Where no such baseline is
left the yardstick is plain seconds, which nothing steadies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sparsebench.between import Estimate, estimate
from sparsebench.desk.observe import is_dense_kernel
from sparsebench.errors import StoreError
from sparsebench.kernel import Kernel, load_kernels
from sparsebench.record import Protocol, Record
from sparsebench.store import read_lines

Kind = Literal["ratio", "seconds", "speedup"]

# Versions that matter only to kernels with this need (Kernel.needs); all others matter to every kernel.
TOOL_OF = {
    "cc": "cc", "scipy": "scipy", "triton": "triton", "mkl": "sparse_dot_mkl", "sparse_dot_mkl": "sparse_dot_mkl",
    "cupy": "cupy", "cupy-cuda12x": "cupy", "cupy-cuda13x": "cupy", "nvidia-cuda-nvrtc": "cupy",
    "nvidia-cuda-nvrtc-cu12": "cupy",
}  # fmt: skip


class About(NamedTuple):
    """What two records must share to be compared; across machines, `machine` is empty."""

    case: str
    kernel: str
    protocol: Protocol
    machine: str


Runs = Mapping[About, Sequence[Record]]


def read_side(path: Path) -> list[Record]:
    """Every record of a results folder, of one machine's folder in it, or of one file; StoreError if there is none."""
    if path.is_file():
        files = [path]
    elif path.is_dir():
        found = sorted([*path.glob("*.jsonl"), *path.glob("*/*.jsonl")])
        files = [file for file in found if file.name != "peaks.jsonl"]
    else:
        raise StoreError(f"{path} was not found; give a results folder, or one .jsonl file of records")
    if records := [record for file in files for record in read_lines(file)]:
        return records
    raise StoreError(f"no records were found in {path}; make some with `sparsebench run SUITE --results {path}`")


def runs_of(records: Iterable[Record], *, across: bool = False) -> dict[About, list[Record]]:
    """The runs of the newest code of each kernel on each case, oldest first; a newest record without times, alone."""
    groups: dict[About, list[Record]] = defaultdict(list)
    for record in records:
        machine = "" if across else record.machine
        groups[About(record.case.key, record.kernel, record.protocol, machine)].append(record)
    return {about: _of_newest_code(group) for about, group in groups.items()}


def _of_newest_code(group: list[Record]) -> list[Record]:
    ordered = sorted(group, key=lambda record: record.started_at)
    newest = ordered[-1]
    if newest.outcome != "ok":
        return [newest]
    code = code_of(newest, newest.kernel)
    return [record for record in ordered if record.outcome == "ok" and code_of(record, record.kernel) == code]


@lru_cache(maxsize=1)
def _known() -> Mapping[str, Kernel]:
    return {kernel.name: kernel for kernel in load_kernels()}


def code_of(record: Record, kernel: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What made `kernel` in `record`: its source_sha, and the versions that matter to it."""
    known = _known().get(kernel)
    matter = {
        name: version
        for name, version in record.versions.items()
        if known is None or TOOL_OF.get(name) is None or TOOL_OF[name] in known.needs
    }
    sha = record.source_sha if kernel == record.kernel else record.baselines.get(kernel, "")
    return sha, tuple(sorted(matter.items()))


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a kernel is measured against: `names` in the rounds of the records of kernel `of`.

    ratio    baselines that both sides have unchanged; the geometric mean of several
    seconds  nothing: plain seconds
    speedup  each side's own best baseline, across machines
    """

    kind: Kind
    of: str
    names: tuple[str, ...] = ()

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
                    yield self._pair(about, cache, rivals[about._replace(kernel="")])

    def _pair(self, about: About, cache: str, dense: Sequence[About]) -> Pair:
        yardstick = self._yardstick(about, cache, dense)
        through = about._replace(kernel=yardstick.of)
        sides = [[run for run in side[through] if self._serves(run, about, cache, yardstick)] for side in self.both]
        base_s, new_s = (_usual_s([run.times_s(cache, about.kernel) for run in runs]) for runs in sides)
        moved = [[log for run in runs if (log := yardstick.seconds(run, cache)) is not None] for runs in sides]
        base, new = (tuple(estimate(yardstick.logs(run, cache, about.kernel).tolist()) for run in s) for s in sides)
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

    def _serves(self, run: Record, about: About, cache: str, yardstick: Yardstick) -> bool:
        """Whether `run` timed the kernel beside the yardstick, as the newest run of NEW has it."""
        newest = self.new[about._replace(kernel=yardstick.of)][-1]
        alike = all(code_of(run, name) == code_of(newest, name) for name in yardstick.names)
        return alike and all(run.times_s(cache, name) for name in (about.kernel, *yardstick.names))

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


def _timed(runs: Sequence[Record]) -> bool:
    return bool(runs) and runs[-1].outcome == "ok"


def _usual_s(runs_s: Sequence[Sequence[float]]) -> float:
    """The geometric mean over runs of the median seconds of each."""
    return float(np.exp(np.mean([np.log(np.median(times_s)) for times_s in runs_s])))


def unchanged(base: Record, new: Record) -> tuple[str, ...]:
    """The named baselines that both records have with the same code."""
    return tuple(name for name in base.baselines if name in new.baselines and code_of(base, name) == code_of(new, name))


def between_runs(before: Record, after: Record) -> Yardstick:
    """What two runs of the same code are measured against: the baselines that both have, if any."""
    names = tuple(name for name in unchanged(before, after) if name != before.kernel)
    return Yardstick("ratio" if names else "seconds", before.kernel, names)
