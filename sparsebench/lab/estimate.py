"""How long a plan will take: from what earlier trials on this machine took, or from a rule where there are none.

What a trial took stands in its record as facts.took_s: packing, references, checks and samples, all that a run spends
on it. In older records it is the time between a record and the one before it. Records of a problem's dense kernels are
written together, and share what lies before them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from sparsebench.paired import median
from sparsebench.record import Protocol, Record
from sparsebench.store import read_lines
from sparsebench.suite import Trial

# Without records: the rate of a float64 reference, of which a trial has about five, and packing, checking and storing.
REFERENCE_FLOPS_PER_S = {"cpu": 2e10, "cuda": 1e13}
OVERHEAD_S = 0.25
# Times its samples: rounds that do not count take as long again, and some trials wait for quiet ones (interleaved.py).
BESIDE = {"cpu": 3.0, "cuda": 1.0}
TOGETHER_S = 0.05  # records so close to each other were written together
LONGEST_S = 300.0  # between two records of one run; a longer gap lies between two runs


@dataclass(slots=True)
class Costs:
    """What trials took before, in seconds: each trial by itself, and the usual one of each kernel and time budget."""

    trials: Mapping[tuple[Any, ...], float] = field(default_factory=dict)
    kernels: Mapping[tuple[str, float], float] = field(default_factory=dict)

    @classmethod
    def before(cls, results: Path, machine: str, suite: str) -> Costs:
        """From what `results` holds of this suite on this machine, if anything."""
        path = results / machine / f"{suite}.jsonl"
        return cls.of(read_lines(path)) if path.is_file() else cls()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Costs:
        """From the records of one suite on one machine, in any order."""
        trials: dict[tuple[Any, ...], float] = {}
        kernels: dict[tuple[str, float], list[float]] = defaultdict(list)
        for record, took_s in _took(records):
            trials[record.case.identity, record.kernel] = took_s
            kernels[record.kernel, _most_s(record.protocol)].append(took_s)
        return cls(trials, {about: median(times_s) for about, times_s in kernels.items()})

    def seconds(self, trials: Iterable[Trial], protocol: Protocol, device: str = "cpu") -> float:
        """What `trials` will take: as they did before, as their kernel usually does, or all of their budget."""
        most_s = _most_s(protocol)
        return sum(self._one(trial, most_s, device) for trial in trials)

    def _one(self, trial: Trial, most_s: float, device: str) -> float:
        before_s = self.trials.get((trial.case.identity, trial.kernel))
        usual_s = self.kernels.get((trial.kernel, most_s))
        by_rule_s = BESIDE[device] * most_s + OVERHEAD_S + 5 * trial.case.flops() / REFERENCE_FLOPS_PER_S[device]
        return next(time_s for time_s in (before_s, usual_s, by_rule_s) if time_s is not None)


def _most_s(protocol: Protocol) -> float:
    """What the samples of a trial may take."""
    return protocol.budget_s * len(protocol.cache)


def _took(records: Iterable[Record]) -> Iterable[tuple[Record, float]]:
    """Records with the seconds they took, as they say; of those that do not, every one but the first of each run."""
    silent = []
    for record in records:
        if (took_s := record.facts.get("took_s")) is not None:
            yield record, float(took_s)
        else:
            silent.append(record)
    seen = sorted((datetime.fromisoformat(record.started_at), i, record) for i, record in enumerate(silent))
    groups: list[list[tuple[datetime, Record]]] = []
    for at, _, record in seen:
        if groups and (at - groups[-1][-1][0]).total_seconds() < TOGETHER_S:
            groups[-1].append((at, record))
        else:
            groups.append([(at, record)])
    for before, group in pairwise(groups):
        took_s = (group[-1][0] - before[-1][0]).total_seconds()
        if took_s <= LONGEST_S:
            yield from ((record, took_s / len(group)) for _, record in group)
