"""Medians, speedups and their intervals of many records at once: what paired.py says of one, for a tenth of the time.

Records of as many rounds are rows of one array, so that sorting, logarithms and autocorrelations are numpy's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsebench.paired import CONFIDENCE, LEAST_SERIES, MOST_BLOCKS, Ratio, effective_rounds, outer_ranks
from sparsebench.record import Record

MOST_ROWS = 4096  # of an array: 32 MB a thousand rounds


@dataclass(frozen=True, slots=True)
class Timing:
    """A record's own kernel in one cache state: seconds, their interval, and its speedups; see Record.speedup.

    baseline is the best one with layout changes; "" and no speedups where there is none.
    """

    time_s: float
    low_s: float
    high_s: float
    native: Ratio | None
    total: Ratio | None
    baseline: str


def timings(asked: Sequence[tuple[Record, str]]) -> list[Timing]:
    """What each record says of its own kernel in that cache, in which it was timed."""
    alike: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for number, (record, cache) in enumerate(asked):
        alike[len(record.times_s(cache)), any(record.layout_s.values())].append(number)
    found: dict[int, Timing] = {}
    for (_, changed), numbers in alike.items():
        for start in range(0, len(numbers), MOST_ROWS):
            some = numbers[start : start + MOST_ROWS]
            found |= dict(zip(some, _timings([asked[i] for i in some], changed), strict=True))
    return [found[number] for number in range(len(asked))]


def _timings(asked: Sequence[tuple[Record, str]], changed: bool) -> list[Timing]:
    """The same for records of as many rounds, of which all change layouts or none does."""
    own_s = np.array([record.times_s(cache) for record, cache in asked])
    native = _speedups(asked, own_s, total=False)
    total = _speedups(asked, own_s, total=True) if changed else native
    intervals = rounds_intervals(own_s).tolist()
    return [
        Timing(time_s, low_s, high_s, native.get(i), total.get(i), record.best_baseline(cache, total=True) or "")
        for i, ((record, cache), (time_s, low_s, high_s)) in enumerate(zip(asked, intervals, strict=True))
    ]


def _speedups(asked: Sequence[tuple[Record, str]], own_s: np.ndarray, *, total: bool) -> dict[int, Ratio]:
    """`Record.speedup` by row of `own_s`; none where there is no baseline, or no time of it."""
    rows, base_s, layout_s = [], [], []
    for row, (record, cache) in enumerate(asked):
        baseline = record.best_baseline(cache, total=total)
        if baseline and (times_s := record.times_s(cache, baseline)):
            rows.append(row)
            base_s.append(times_s)
            layout_s.append([(record.layout_s if total else {}).get(name, 0.0) for name in (baseline, record.kernel)])
    if not rows:
        return {}
    base, own = np.array(layout_s).T[:, :, None] + (np.array(base_s), own_s[rows])
    logs = rounds_intervals(np.log(base) - np.log(own)).tolist()
    return {
        row: Ratio(math.exp(middle), math.exp(low), math.exp(high), own_s.shape[1])
        for row, (middle, low, high) in zip(rows, logs, strict=True)
    }


def rounds_intervals(series: np.ndarray) -> np.ndarray:
    """`paired.rounds_interval` of each row of `series` [s, r]: (median, low, high), [s, 3]."""
    count = series.shape[1]
    ordered = np.sort(series, axis=1)
    middle = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    known = _effective_rounds(series, middle)
    lowest = np.array([outer_ranks(rounds, CONFIDENCE)[0] for rounds in known.tolist()], int)
    row, rank = np.arange(len(series)), ((lowest + 1) / (known + 1) * (count + 1)).astype(int) - 1
    return np.column_stack([middle, ordered[row, rank], ordered[row, count - 1 - rank]])


def _effective_rounds(series: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """`paired.effective_rounds` of each row of `series` [s, r], whose medians are `middle` [s]; [s]."""
    count = series.shape[1]
    if count > MOST_BLOCKS:  # few trials have so many rounds
        return np.array([effective_rounds(row) for row in series.tolist()])
    known = np.full(len(series), count)
    if count >= LEAST_SERIES:
        excess = _long_run_variances(np.sign(series - middle[:, None]))
        able = excess > 0
        known[able] = np.clip(np.rint(count / excess[able]), 1, count)
    return known


def _long_run_variances(series: np.ndarray) -> np.ndarray:
    """The variance of each row of `series` [s, r] and twice its autocovariances, as far as their pairs are positive."""
    total, going = _products(series, series), np.arange(len(series))
    for lag in range(1, series.shape[1] // 2, 2):
        left = series[going]
        pair = _products(left[:, :-lag], left[:, lag:]) + _products(left[:, : -lag - 1], left[:, lag + 1 :])
        going, pair = going[pair > 0], pair[pair > 0]
        if not len(going):
            break
        total[going] += 2 * pair
    return np.asarray(total / series.shape[1])


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of each row of `a` with that of `b`, [s]."""
    return np.asarray(np.einsum("sr,sr->s", a, b))
