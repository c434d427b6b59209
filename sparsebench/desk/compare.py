"""Is anything slower than it was? Two sets of records, pair by pair: SLOW, UNSURE, SAME or FAST.

Pairs have the same case, kernel, protocol, machine and cache state (desk/compare_pairs.py says what is measured
against what, between.py how it is judged). How far two runs of the same code differ on this machine is taken from the
records themselves: wherever the same code was run more than once, on either side or on both, successive runs are a
control. Controls come in three sorts, since the part between runs does: ratios while the yardstick ran alike in both
runs, ratios while the machine was in another state, and plain seconds. A kernel with enough controls of its own is
judged by those.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsebench import units
from sparsebench.between import MARGIN, WORDS, Between, Difference, Judged, between, difference, estimate, judge
from sparsebench.desk.compare_pairs import Pair, Sides, Yardstick, between_runs
from sparsebench.desk.compare_runs import About, Runs, code_of, read_side, runs_of
from sparsebench.errors import BadInput
from sparsebench.record import BROKEN, Record

Sort = Literal["alike", "unlike", "seconds"]
Control = tuple[float, float]  # difference of two runs of the same code, variance of it that their rounds explain

ALIKE = math.log(1.05)  # a yardstick that ran within 5 % of itself: the machine was in the same state
LEAST_OWN = 12  # controls of one kernel that tell more of it than those of all kernels do
FLOOR_S = 2e-7  # differences below 0.2 us fail nobody: reading the clock twice costs 0.17 us (median; 99 % below 0.41)
# Standard deviations of what two runs differ by where too few controls tell: robust estimates over 1,500 pairs of runs
# of the same code on a shared virtual machine of two cores, on which plain seconds moved by 20 % in the median.
ASSUMED_SD: Mapping[Sort, float] = {"alike": 0.04, "unlike": 0.12, "seconds": 0.30}


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair with its verdict; `apart` is what its two runs differ by, were they of the same code."""

    pair: Pair
    judged: Judged
    apart: Between

    @property
    def ratio(self) -> float:
        """How many times the time it takes in NEW; above 1 is slower."""
        return math.exp(self.judged.difference.value)

    @property
    def interval(self) -> tuple[float, float]:
        """From which to which ratio, at the pair's adjusted level; infinite where too few rounds tell nothing."""
        low, high = (math.exp(min(bound, 700.0)) for bound in self.judged.interval)
        return low, high if high < 1e300 else math.inf

    def __str__(self) -> str:
        return units.change(self.ratio, *self.interval)


@dataclass(frozen=True, slots=True)
class Apart:
    """What two runs of the same code differ by: for each sort of control, over all kernels and for single ones."""

    overall: Mapping[Sort, Between]
    own: Mapping[tuple[Sort, str], Between]

    def of(self, sort: Sort, kernel: str) -> Between:
        """That of `kernel`, or of all kernels where it has too few controls of its own."""
        return self.own.get((sort, kernel), self.overall[sort])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of records compared, worst pairs first.

    lost      (newest record of BASE, of NEW) where BASE has times and NEW has none
    only_base, only_new   newest records that the other side has no counterpart of
    same_record           pairs left out since both sides hold one and the same record
    """

    base: Path
    new: Path
    across: bool
    machines: tuple[str, ...]
    pairs: tuple[Compared, ...]
    apart: Apart
    lost: tuple[tuple[Record, Record], ...] = ()
    only_base: tuple[Record, ...] = ()
    only_new: tuple[Record, ...] = ()
    same_record: int = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """How many pairs have each verdict, worst first."""
        found = Counter(compared.judged.word for compared in self.pairs)
        return {word: found[word] for word in WORDS}

    @property
    def worse(self) -> bool:
        """Whether something got slower or broke: a wrong, failed or crashed kernel that had times before."""
        return self.counts["SLOW"] > 0 or any(new.outcome in BROKEN for _, new in self.lost)


def compare(base: Path, new: Path, *, across: bool = False) -> Comparison:
    """Compare records in `base` with those in `new`, each a results folder, a machine's folder in one, or a file.

    Raises BadInput when they share no machine and `across` is not set, or no pair at all.
    """
    read = read_side(base), read_side(new)
    machines = _machines_across(base, new, *read) if across else _machines(base, new, *read)
    records = [record for side in read for record in side if record.machine in machines]
    first, last = (runs_of((record for record in side if record.machine in machines), across=across) for side in read)
    sides, same = _without_shared(first, last, across)
    pairs = list(sides.pairs())
    lost = [(first[about][-1], runs[-1]) for about, runs in last.items() if _lost(first.get(about, ()), runs)]
    if not pairs and not lost and not same:
        raise BadInput(
            f"{base} and {new} have no case, kernel and protocol in common; compare two runs of the same suite"
        )
    apart = apart_of(records)
    parts = [apart.of(sort_of(pair.yardstick, pair.moved), pair.base.kernel) for pair in pairs]
    judged = judge([_difference(pair, part) for pair, part in zip(pairs, parts, strict=True)])
    compared = [Compared(*about) for about in zip(pairs, judged, parts, strict=True)]
    return Comparison(
        base=base, new=new, across=across, machines=machines, apart=apart, lost=tuple(lost), same_record=same,
        pairs=tuple(sorted(compared, key=_worst_first)),
        only_base=tuple(runs[-1] for about, runs in first.items() if about not in last),
        only_new=tuple(runs[-1] for about, runs in last.items() if about not in first),
    )  # fmt: skip


def sort_of(yardstick: Yardstick, moved: float | None) -> Sort:
    """Which sort of control a pair is like; across machines there is no same state, nor between rounds of two sorts."""
    if yardstick.kind == "seconds":
        return "seconds"
    return "alike" if moved is not None and abs(moved) <= ALIKE and not yardstick.screened else "unlike"


def apart_of(records: Iterable[Record]) -> Apart:
    """What two runs of the same code differ by, from successive runs of the same code among `records`."""
    overall: dict[Sort, list[Control]] = {"alike": [], "unlike": [], "seconds": []}
    own: dict[tuple[Sort, str], list[Control]] = defaultdict(list)
    for sort, kernel, control in _controls(records):
        overall[sort].append(control)
        own[sort, kernel].append(control)
    return Apart(
        {sort: between(*_columns(controls), ASSUMED_SD[sort]) for sort, controls in overall.items()},
        {
            about: between(*_columns(controls), ASSUMED_SD[about[0]])
            for about, controls in own.items()
            if len(controls) >= LEAST_OWN
        },
    )


def _columns(controls: Sequence[Control]) -> tuple[list[float], list[float]]:
    return [difference for difference, _ in controls], [variance for _, variance in controls]


def _controls(records: Iterable[Record]) -> Iterator[tuple[Sort, str, Control]]:
    """Sort, kernel and control of each two successive runs of the same code."""
    groups: dict[Any, dict[Any, Record]] = defaultdict(dict)
    for record in records:
        if record.outcome == "ok":
            about = record.case.key, record.kernel, record.protocol, record.machine, code_of(record, record.kernel)
            groups[about][record.key, record.started_at, tuple(record.times_s()[:4])] = record  # both sides may hold it
    for group in groups.values():
        for before, after in pairwise(sorted(group.values(), key=lambda record: record.started_at)):
            for sort, control in _control(before, after):
                yield sort, before.kernel, control


def _control(before: Record, after: Record) -> Iterator[tuple[Sort, Control]]:
    yardsticks = dict.fromkeys((between_runs(before, after), Yardstick("seconds", before.kernel)))
    for cache in before.samples:
        if not before.times_s(cache) or not after.times_s(cache):
            continue
        for against in yardsticks:
            first, last = (estimate(against.logs(run, cache, before.kernel).tolist()) for run in (before, after))
            logs = [log for run in (before, after) if (log := against.seconds(run, cache)) is not None]
            moved = logs[1] - logs[0] if len(logs) == 2 else None
            yield sort_of(against, moved), (last.value - first.value, first.variance + last.variance)


def _difference(pair: Pair, apart: Between) -> Difference:
    margin = max(MARGIN, math.log1p(FLOOR_S / pair.base_s))
    return difference(pair.base_runs, pair.new_runs, apart, margin)


def _machines(base: Path, new: Path, first: Sequence[Record], last: Sequence[Record]) -> tuple[str, ...]:
    """The machines that both sides have; BadInput when there is none."""
    names = [dict.fromkeys(record.machine for record in side) for side in (first, last)]
    if both := tuple(name for name in names[0] if name in names[1]):
        return both
    raise BadInput(
        f"{base} was measured on {', '.join(names[0])}, {new} on {', '.join(names[1])}: times of different machines "
        f"are not compared; --across compares their speedups instead"
    )


def _machines_across(base: Path, new: Path, first: Sequence[Record], last: Sequence[Record]) -> tuple[str, ...]:
    """The machine of each side; BadInput when one has several."""
    for path, side in ((base, first), (new, last)):
        names = dict.fromkeys(record.machine for record in side)
        if len(names) > 1:
            raise BadInput(f"--across compares two machines, {path} holds {', '.join(names)}; give the folder of one")
    return tuple(dict.fromkeys((first[0].machine, last[0].machine)))


def _without_shared(base: Runs, new: Runs, across: bool) -> tuple[Sides, int]:
    """The sides without what both hold as one and the same record, and how many pairs that leaves out."""
    kept: dict[About, Sequence[Record]] = {}
    for about, runs in new.items():
        known = base.get(about, ())
        kept[about] = [run for run in runs if run not in known]
    same = sum(not kept[about] and runs[-1].outcome == "ok" for about, runs in new.items())
    return Sides(base, {about: runs for about, runs in kept.items() if runs}, across), same


def _lost(base: Sequence[Record], new: Sequence[Record]) -> bool:
    return bool(base) and base[-1].outcome == "ok" and new[-1].outcome != "ok"


def _worst_first(compared: Compared) -> tuple[int, float]:
    return WORDS.index(compared.judged.word), -compared.judged.difference.value


def spread(comparison: Comparison) -> dict[str, dict[str, float]]:
    """How far the two sides differ: {"ratios" or "seconds": {pairs, median, p95, within_3_percent}}, all fractions."""
    ratios = [c.judged.difference.value for c in comparison.pairs if c.pair.yardstick.kind != "seconds"]
    seconds = [math.log(c.pair.new_s / c.pair.base_s) for c in comparison.pairs]
    return {name: _spread(logs) for name, logs in (("ratios", ratios), ("seconds", seconds)) if logs}


def _spread(logs: Sequence[float]) -> dict[str, float]:
    sizes = np.abs(logs)
    return {
        "pairs": len(logs),
        "median": float(np.expm1(np.median(sizes))),
        "p95": float(np.expm1(np.quantile(sizes, 0.95))),
        "within_3_percent": float(np.mean(sizes <= math.log(1.03))),
    }
