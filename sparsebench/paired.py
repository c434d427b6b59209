"""The statistics of paired samples: how much faster, and how sure.

Two kernels timed in the same round met the same clock speed, the same neighbours and the same cache state, so the ratio
of the two is far steadier than either time (nanobench's paired mode found the same; facts are in docs/measuring.md).
The estimate is the median of the per-round log ratios; its interval comes from order statistics and assumes no
distribution: the number of rounds below the true median is binomial(rounds, 1/2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# scipy.special: the binomial distribution, which numpy lacks (scipy.stats loads ten times slower).
from scipy.special import bdtr

from sparsebench import units

CONFIDENCE = 0.95
LEAST_ROUNDS = 6  # below six rounds no order-statistic interval reaches 95 %
QUIET, USUAL = 1.15, 0.1  # times the usual seconds, which are the quantile of them that nothing slowed
CUT = 0.2  # of the values at either end, which a trimmed mean passes over
LEAST_SERIES, MOST_BLOCKS = 12, 1024  # of values whose autocorrelation is looked at


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of times with the interval that holds its true median with 95 % confidence."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def half_width(self) -> float:
        """Half the interval in log terms: 0.01 means known to about 1 %."""
        return float(np.log(self.high / self.low) / 2)

    def __str__(self) -> str:
        return units.ratio(self.median, self.low, self.high)


@lru_cache(maxsize=4096)
def outer_ranks(rounds: int, confidence: float) -> tuple[int, int]:
    """Ranks (from 0) of the order statistics that bracket the median; the whole range when rounds are too few."""
    below = bdtr(np.arange(rounds // 2 + 1), rounds, 0.5)  # P(at most r of the rounds lie below the median)
    lowest = max(int((below <= (1 - confidence) / 2).sum()) - 1, 0)
    return lowest, rounds - 1 - lowest


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Median of `values` and the order-statistic interval around it: (median, low, high).

    With fewer than six values the interval is their whole range, which holds the median less often than asked.

    >>> median_interval([3.0, 1.0, 2.0])
    (2.0, 1.0, 3.0)
    """
    ordered = sorted(values)
    low, high = outer_ranks(len(ordered), confidence)
    return _middle(ordered), float(ordered[low]), float(ordered[high])


def rounds_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """As `median_interval` with 95 % confidence, of values in the order of their rounds, which need not be independent.

    Rounds that follow each other share a state of the machine: a neighbour on the core lasts for seconds, a round for
    milliseconds. So as many rounds are counted as independent ones would tell as much (`effective_rounds`).
    """
    ordered, known = sorted(values), effective_rounds(values)
    low, _ = outer_ranks(known, CONFIDENCE)
    rank = int((low + 1) / (known + 1) * (len(ordered) + 1)) - 1
    return _middle(ordered), float(ordered[rank]), float(ordered[len(ordered) - 1 - rank])


def effective_rounds(values: Sequence[float]) -> int:
    """How many independent values would tell the median as well as these, which are in the order of their rounds.

    The number of values below the median varies by 1 + 2 x (sum of the autocorrelations of "is below the median") more
    than it would if they were independent. The sum goes on while pairs of neighbouring lags are positive (Geyer,
    Statist. Sci. 7, 1992). Long series are summed over blocks first; of fewer than 12 values all count.
    """
    count = len(values)
    if count < LEAST_SERIES:
        return count
    series = np.asarray(values, dtype=float)
    sides = np.sign(series - _middle(sorted(values)))
    if (length := -(-count // MOST_BLOCKS)) > 1:
        # Means of independent sides would vary by 1 / length: they are scaled to vary as single ones do.
        sides = sides[: count - count % length].reshape(-1, length).mean(axis=1) * math.sqrt(length)
    excess = _long_run_variance(sides)
    return max(1, min(count, round(count / excess))) if excess > 0 else count


def _long_run_variance(series: np.ndarray) -> float:
    """The variance of `series`, whose mean is 0, and twice its autocovariances, as far as their pairs are positive."""
    total = own = float(series @ series)
    for lag in range(1, len(series) // 2, 2):
        pair = float(series[:-lag] @ series[lag:] + series[: -lag - 1] @ series[lag + 1 :])
        if pair <= 0:
            break
        total += 2 * pair
    return total / len(series) if own else 0.0


def median(values: Sequence[float]) -> float:
    """The median of at least one value: numpy's, which takes ten times as long on as few values as a trial has."""
    return _middle(sorted(values))


def usual(times_s: Sequence[float] | np.ndarray) -> float:
    """Seconds that rounds take where nothing slows them: the tenth percentile of at least one."""
    return float(np.quantile(times_s, USUAL))


def undisturbed(times_s: Sequence[float] | np.ndarray, usual_s: float) -> np.ndarray:
    """Which of these rounds, [rounds] of bool, took at most QUIET times `usual_s`."""
    return np.asarray(times_s) <= QUIET * usual_s


def quiet(times_s: np.ndarray, usual_s: float, least: int = LEAST_ROUNDS) -> np.ndarray:
    """Which of these rounds, [rounds] of bool, were undisturbed; or the `least` fastest, where fewer were.

    >>> quiet(np.array([1.0, 1.1, 1.6, 1.0, 1.7, 1.1, 1.0, 1.1]), 1.0).tolist()
    [True, True, False, True, False, True, True, True]
    >>> quiet(np.array([1.4, 1.3]), 1.0).tolist()
    [True, True]
    """
    found = undisturbed(times_s, usual_s)
    if found.sum() >= min(least, len(times_s)):
        return found
    fastest = np.zeros(len(times_s), bool)
    fastest[np.argsort(times_s, kind="stable")[:least]] = True
    return fastest


def trimmed_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of the middle of at least one value: without CUT of them at either end, parts of a value too.

    So few rounds are no special case: of six the middle four count, the outer two of these for 0.8, and of three the
    outer ones for 0.4. A fifth is what is usually cut (Wilcox, Introduction to Robust Estimation, 2012): a tenth to
    three tenths give the same errors on left-out shapes, within 0.2 %.
    """
    return float(np.sort(values) @ _weights(len(values)))


@lru_cache(maxsize=1024)
def _weights(count: int) -> np.ndarray:
    """Of `count` values in order, those of their trimmed mean."""
    place = np.arange(count)
    kept = np.clip(np.minimum(place, place[::-1]) + 1 - CUT * count, 0.0, 1.0)
    return np.asarray(kept / kept.sum())


def _middle(ordered: Sequence[float]) -> float:
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def paired_ratio(slower_s: Sequence[float], faster_s: Sequence[float]) -> Ratio:
    """How many times longer `slower_s` takes than `faster_s`, entry i of both being round i.

    Raises ValueError on lists of different or zero length: pairs cannot be made up.

    >>> paired_ratio([2.0, 2.2, 1.8], [1.0, 1.1, 0.9]).median
    2.0
    """
    if len(slower_s) != len(faster_s) or not len(slower_s):
        raise ValueError(f"paired ratio of {len(slower_s)} and {len(faster_s)} rounds: entry i of both must be round i")
    logs = np.log(np.asarray(slower_s, dtype=float)) - np.log(np.asarray(faster_s, dtype=float))
    middle, low, high = map(math.exp, rounds_interval(logs.tolist()))
    return Ratio(middle, low, high, len(logs))
