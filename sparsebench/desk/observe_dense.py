"""The dense side of records as observations, and what each dense kernel usually takes on each problem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.desk.observe import (
    DENSE,
    DenseTimes,
    Observation,
    Setting,
    interval_of,
    is_dense_kernel,
    rounds_s_of,
    steady_s,
)
from sparsebench.desk.quiet import ALL, Quiet, problem_of
from sparsebench.paired import median_interval
from sparsebench.record import Record

CONTROL = "dense.aa"  # the winning dense kernel entered twice: a control, never a rival
SCREENED = 2  # records at most hold a dense kernel that is no baseline: its own in two runs, and none beside it


def dense_times(observations: Iterable[Observation]) -> DenseTimes:
    """The usual time of each dense kernel on each problem: the median over all records that timed it.

    One that was only screened, where others were timed beside every sparse kernel, has theirs: some rounds of one
    moment said 6.3 ms of a kernel that takes 1.7, and all that another run timed beside it was 3.6 times off.
    """
    problems: dict[tuple[Any, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seen in observations:
        about = seen.setting
        beside = problems[problem_of(seen.case, about.machine, about.cache, about.threads)]
        beside[about.kernel].append(seen.time_s)
    found: dict[tuple[Any, ...], float] = {}
    for problem, beside in problems.items():
        often = max(map(len, beside.values())) > SCREENED
        usual_s = {kernel: float(np.median(times_s)) for kernel, times_s in beside.items()}
        best_s = min(usual_s[kernel] for kernel, times_s in beside.items() if not often or len(times_s) > SCREENED)
        for kernel, times_s in beside.items():
            found[*problem, kernel] = best_s if often and len(times_s) <= SCREENED else usual_s[kernel]
    return found


def dense_observations(records: Iterable[Record], quiet: Quiet = ALL) -> Iterator[tuple[Record, Observation]]:
    """Every timed dense kernel with its record: its own, or that of a sparse kernel whose baseline it was."""
    cases: dict[tuple[Any, ...], Case] = {}
    for record, kernel, cache in _dense_sides(records):
        about = problem_of(record.case, record.machine, kernel, cache, record.protocol.threads)
        if about not in cases:
            cases[about] = record.case.problem
        case = cases[about]
        time_s = steady_s(rounds_s_of(record, kernel, cache)[quiet.rounds(record, cache)])
        setting = Setting.of(case, kernel, record.machine, cache, record.protocol.threads)
        interval = partial(interval_of, record, kernel, cache, quiet)
        yield record, Observation(setting, case, 1.0, time_s, time_s, time_s, time_s, time_s, time_s, interval)


def image_observations(records: Iterable[Record], quiet: Quiet) -> Iterator[tuple[Observation, Observation]]:
    """(Native, layout change) times of every dense kernel that works on images with channels last.

    Only such a one has a layout change on a convolution: desk/images.py.
    """
    for record, kernel, cache in _dense_sides(records):
        turned_s = record.layout_s.get(kernel, 0.0)
        if record.case.conv is None or not turned_s:
            continue
        case = record.case.problem
        setting = Setting.of(case, kernel, record.machine, cache, record.protocol.threads)
        rounds_s = np.asarray(record.times_s(cache, kernel), float)[quiet.rounds(record, cache)]
        native_s, interval = steady_s(rounds_s), median_interval(rounds_s.tolist())[1:]
        yield (
            _seen_once(setting, case, native_s, interval),
            _seen_once(setting, case, turned_s, (turned_s, turned_s)),
        )


def _seen_once(setting: Setting, case: Case, time_s: float, interval: tuple[float, float]) -> Observation:
    times = (time_s,) * 6
    return Observation(setting, case, 1.0, *times, interval=lambda: interval)


def _dense_sides(records: Iterable[Record]) -> Iterator[tuple[Record, str, str]]:
    """(record, dense kernel, cache) of all dense times."""
    for record in records:
        own = record.case.pattern == DENSE and is_dense_kernel(record.kernel) and record.kernel != CONTROL
        own = own and not record.facts.get("lossy")  # a product of other accuracy is no dense time
        names = [record.kernel] if own else [name for name in sorted(record.baselines) if is_dense_kernel(name)]
        for cache in record.samples if record.outcome == "ok" else ():
            yield from ((record, name, cache) for name in names if len(record.times_s(cache, name)))
