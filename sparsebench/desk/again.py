"""Runs of the same trials again: the noise floor, which no model can beat, and a judge that no fit has seen.

Records of one case and kernel, made of the same code and started at least APART apart, are runs of it: lines that
`run --fresh` appended, or a second results folder. One that lost a fifth of its time to other work or to the host of a
virtual machine, as its flags say, is none where there are others. A law is then fitted to all but the newest and judged
on that one, and with the two newest

    noise floor = median |log(T1 / T2)|

says how far the clock agrees with itself, of paired ratios and of plain seconds.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.desk.observe import Observation, Runs, by_trial
from sparsebench.errors import StoreError
from sparsebench.record import Record
from sparsebench.store import read_lines, without_first

APART = timedelta(minutes=30)
DISTURBED = 20  # percent of its time that a timing lost: one such, 84 %, told 0.14 ms of a kernel that takes 9
_LOST = re.compile(r"(?:preempted|stolen):(\d+)%")


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Median |log| of the second run over the first, of `n` timings: of paired ratios, and of plain seconds."""

    n: int
    ratio: float
    seconds: float


def runs(records: Iterable[Record]) -> list[Runs]:
    """The newest record of each trial, with those of the same code that are APART older, the newest of them first.

    A trial is a machine, a case, a kernel, caches and threads; records of other code are passed over.
    """
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for about, record in by_trial(without_first(records)):
        groups[about].append(record)
    newest = [_newest(group) for group in groups.values()]
    return [(record, _earlier(record, group)) for record, group in zip(newest, groups.values(), strict=True)]


def _newest(group: Sequence[Record]) -> Record:
    """Of equal starts the last that was read; where it was disturbed, the newest by the same code that was not."""
    if len(group) == 1:
        return group[0]
    newest = max(reversed(group), key=lambda record: record.started_at)
    if not disturbed(newest):
        return newest
    alike = [one for one in reversed(group) if one.outcome == "ok" and one.source_sha == newest.source_sha]
    quiet = [one for one in alike if not disturbed(one)]
    return max(quiet, key=lambda record: record.started_at, default=newest)


def disturbed(record: Record) -> bool:
    """Whether its flags say that it lost DISTURBED percent of its time or more."""
    return any(int(lost[1]) >= DISTURBED for flag in record.flags if (lost := _LOST.fullmatch(flag)))


def _earlier(newest: Record, group: Sequence[Record]) -> tuple[Record, ...]:
    if len(group) < 2 or newest.outcome != "ok" or not (at := _when(newest)):
        return ()
    able = [
        record
        for record in group
        if record.outcome == "ok"
        and not disturbed(record)
        and record.source_sha == newest.source_sha
        and (when := _when(record))
        and when <= at - APART
    ]
    return tuple(sorted(able, key=lambda record: record.started_at, reverse=True))


def _when(record: Record) -> datetime | None:
    try:
        return datetime.fromisoformat(record.started_at)
    except ValueError:
        return None


def noise_floor(group: Sequence[Observation]) -> NoiseFloor | None:
    """How far two runs of `group` agree; None where nothing was timed twice."""
    twice = [seen for seen in group if seen.twice]
    if not twice:
        return None
    ratio = [abs(math.log(seen.judged_s / seen.before_s)) for seen in twice]
    seconds = [abs(math.log(seen.plain_s / seen.before_plain_s)) for seen in twice]
    return NoiseFloor(len(twice), float(np.median(ratio)), float(np.median(seconds)))


def repeated(group: Sequence[Observation]) -> float | None:
    """Mean |T_before / T - 1| of paired ratios: what each timing's own earlier runs, together, are off its newest.

    That is the error of a law that knows every cell by heart. It is above the noise floor, which is a median: on shared
    machines a few timings in a hundred are far off. None where nothing was timed twice.
    """
    offs = [abs(seen.first_s / seen.judged_s - 1) for seen in group if seen.twice]
    return float(np.mean(offs)) if offs else None


def every_line(results: Path, machine: str | None = None) -> Iterator[Record]:
    """Every record in `results`/<machine>/*.jsonl, those too that a newer line of the same key replaces.

    StoreError when the folder is missing or holds no records of that machine.
    """
    if not results.is_dir():
        raise StoreError(
            f"results folder {results} was not found; `sparsebench run SUITE --results {results}` makes it"
        )
    folders = [results / machine] if machine else sorted(path for path in results.iterdir() if path.is_dir())
    paths = [path for folder in folders for path in sorted(folder.glob("*.jsonl")) if path.name != "peaks.jsonl"]
    found = False
    for path in paths:
        for record in read_lines(path):
            found = True
            yield record
    if not found:
        where = f"of machine {machine} " if machine else ""
        raise StoreError(f"no records {where}were found in {results}; make some with `sparsebench run SUITE`")


def first_runs(found: Iterable[Runs]) -> list[Record]:
    """Of each trial all runs but its newest, or its only one."""
    return [record for newest, earlier in found for record in earlier or (newest,)]
