"""Trials that met too few quiet rounds are timed again when all others of the run are through.

A timing waits for six quiet rounds where it stands (interleaved.py), for twice its budget at most; what keeps a shared
core busy may stay for minutes, and a trial that began in it has no patience left when it goes. So what has fewer than
twelve, and others, is timed once more, half an hour later in a suite of an hour, beside the same baselines, and its
record is made of the rounds of both times: nothing that was measured is left out, and readers choose rounds by the
baseline alone (desk/quiet.py). Which trials these are is known best when all have been timed: all rounds of a baseline
on the problem tell what it usually takes.

Of two sweeps half an hour apart (one Emerald Rapids core) 46 of 100 trials of C kernels had fewer than six quiet rounds
in one of them, and differed by 10.0 % on average; with 6 to 20 it was 6.6 %, 20 to 50 5.4 %, and above 4.8 %.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sparsebench.lab.calm import Calm
from sparsebench.lab.interleaved import FOREIGN_SHARE, doubts_of
from sparsebench.lab.wire import Answer
from sparsebench.paired import LEAST_ROUNDS
from sparsebench.record import Record

Of = TypeVar("Of")
ENOUGH = 2 * LEAST_ROUNDS  # quiet rounds
_LOST = re.compile(r"(\w+):(\d+)%")


def restless(timed: Iterable[tuple[Of, Record]]) -> list[list[tuple[Of, Record]]]:
    """Those of these records of sparse trials, of one run, with too few quiet rounds in a cache state, by problem."""
    problems: dict[Any, list[tuple[Of, Record]]] = defaultdict(list)
    for trial, record in timed:
        if record.outcome == "ok" and record.baselines:
            problems[record.case.problem.identity].append((trial, record))
    found = []
    for group in problems.values():
        calm = Calm()
        for _, record in group:
            for cache in record.samples:
                for name in record.baselines:
                    calm.hear(cache, name, *record.times_s(cache, name))
        if due := [one for one in group if not _quiet(one[1], calm)]:
            found.append(due)
    return found


def _quiet(record: Record, calm: Calm) -> bool:
    for cache in record.samples:
        best = record.best_baseline(cache) or record.kernel
        times_s = record.times_s(cache, best)
        if calm.quiet(cache, best, times_s) < min(ENOUGH, len(times_s)):
            return False
    return True


def together(first: Record, again: Answer) -> Answer:
    """What a record says of a trial that was timed twice: all rounds, from when it began; what broke says only that."""
    if again.outcome != "ok":
        return again
    seen: Mapping[str, Mapping[str, Sequence[float]]] = again.facts["samples"]
    samples = {
        cache: {name: [*first.times_s(cache, name), *times_s] for name, times_s in by_name.items()}
        for cache, by_name in seen.items()
    }
    told, before = again.facts.get("facts", {}), first.facts
    return replace(
        again,
        facts={
            **again.facts,
            "samples": samples,
            "flags": [*doubts_of(samples), *_lost(first.flags, again.facts.get("flags", ()))],
            "error_ratio": max(first.error_ratio or 0.0, again.facts.get("error_ratio") or 0.0),
            "clocks": {**again.facts.get("clocks", {}), **_before(first)},
            "started_at": first.started_at,
            "facts": {**told, "took_s": round(told.get("took_s", 0.0) + before.get("took_s", 0.0), 4), "timed": 2},
        },
    )


def _before(first: Record) -> dict[str, Any]:
    return {"before_mhz": first.clocks["before_mhz"]} if "before_mhz" in first.clocks else {}


def _lost(*flags: Sequence[str]) -> list[str]:
    """Shares of its time that it lost, such as `preempted:12%`, of both timings; other doubts once each."""
    shares: dict[str, float] = defaultdict(float)
    others: dict[str, None] = {}
    for flag in (flag for each in flags for flag in each):
        if lost := _LOST.fullmatch(flag):
            shares[lost[1]] += int(lost[2]) / 100 / len(flags)
        elif not flag.startswith(("wide_spread:", "descheduled:")):
            others[flag] = None
    return [*(f"{name}:{share:.0%}" for name, share in shares.items() if share > FOREIGN_SHARE), *others]
