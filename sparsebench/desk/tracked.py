"""What is tracked of a trial from commit to commit: its series, each with a name, a unit and a version.

    time   seconds of the kernel in each round
    ratio  its total time over that of the best baseline in the same round, layout changes included. What slows the
           machine slows both, so the ratio survives a noisy one. Less is better, as trackers expect; 1 / ratio is the
           speedup

Dense kernels have their time alone: they are what ratios are made of. A version is a hash of the question (case, cache
state, threads): editing the suite voids a series, editing the code that reads it does not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsebench.case import Case, digest
from sparsebench.desk.names import arm_text
from sparsebench.desk.observe import DENSE
from sparsebench.record import Protocol, Record

UNITS = {"time": "seconds", "ratio": "of the best dense time"}


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one trial in one cache state.

    name   dotted: `csr.c.768x3072_n64_unstructured_90.track_ratio`; no "-", where asv cuts names
    title  the same for people
    """

    name: str
    title: str
    unit: str
    version: str
    measure: str
    cache: str
    case_key: str
    kernel: str

    def values(self, record: Record) -> list[float]:
        """The quantity in each round of an `ok` record; empty where it has no baseline to be compared with.

        Ratios have five digits: asv prints as many as there are.
        """
        own_s = record.times_s(self.cache)
        if self.measure == "time":
            return list(own_s)
        baseline = record.best_baseline(self.cache, total=True)
        base_s: Sequence[float] = record.times_s(self.cache, baseline) if baseline else ()
        if baseline is None or not len(base_s):
            return []
        own, base = (
            np.add(times_s, record.layout_s.get(name, 0.0))
            for name, times_s in ((record.kernel, own_s), (baseline, base_s))
        )
        return [float(f"{ratio:.5g}") for ratio in own / base]


def series_of(trials: Iterable[tuple[Case, str]], protocol: Protocol) -> list[Series]:
    """What is tracked of these (case, kernel) pairs, each name once for a question."""
    return distinct(one for case, kernel in trials for one in _series(case, kernel, protocol))


def distinct(series: Iterable[Series]) -> list[Series]:
    """The same series; where two questions share a name, each has six digits of its version in it."""
    listed = list(series)
    versions: dict[str, set[str]] = defaultdict(set)
    for one in listed:
        versions[one.name].add(one.version)
    return [one if len(versions[one.name]) == 1 else _told_apart(one) for one in listed]


def question_text(case: Case, cache: str, threads: int) -> str:
    """A question in words without what is usual: `768x3072 n64 block 4x1 90 %`, `8x8 n1 bfloat16 dense hot`."""
    parts = [f"{case.m}x{case.k} n{case.n}"]
    if conv := case.conv:
        parts += [f"conv {conv.c}x{conv.h}x{conv.w} {conv.kh}x{conv.kw} stride {conv.stride} padding {conv.padding}"]
        parts += [f"groups {conv.groups} batch {conv.batch}"]
    parts += [
        word
        for word, usual in ((case.dtype, "float32"), (case.math, "ieee"), (case.layout, "feature"))
        if word != usual
    ]
    parts.append(arm_text(case))
    if case.source:
        parts += [case.source.file, case.source.tensor or ""]
    parts += [f"seed {case.seed}"] * (case.seed != 0)
    parts += [cache] * (cache != "weights_cold") + [f"{threads} threads"] * (threads != 1)
    return " ".join(filter(None, parts))


def _series(case: Case, kernel: str, protocol: Protocol) -> Iterable[Series]:
    key, stem = case.key, ".".join(map(_word, kernel.split(".")))
    for cache in protocol.cache:
        asked = question_text(case, cache, protocol.threads)
        version = digest({"case": key, "cache": cache, "threads": protocol.threads})
        for measure in ("time",) if case.pattern == DENSE else ("time", "ratio"):
            name = f"{stem}.{_word(asked)}.track_{measure}"
            yield Series(name, f"{kernel} {asked}: {measure}", UNITS[measure], version, measure, cache, key, kernel)


def _told_apart(series: Series) -> Series:
    stem, last = series.name.rsplit(".", 1)
    return replace(series, name=f"{stem}_{series.version[:6]}.{last}")


def _word(text: str) -> str:
    """`text` as one part of a dotted name.

    >>> _word("block 4x1 93.75 %")
    'block_4x1_93_75'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
