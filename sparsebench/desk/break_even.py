"""Where a sparse layer begins to beat the dense one, along any axis: crossings of a curve known at a few points.

Curves are logarithms of speedups over the logarithm of what varies (kept share, batch), and are taken as straight
between neighbours: exact where times are powers, as they nearly are between close points. The interval of a crossing
comes from the curves of both ends of the speedup's interval. What lies outside the points is not guessed: a crossing
that was not reached is told as beyond the last point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsebench.desk.layers import Interval

_BEYOND = 50.0  # in log terms: an unknown bound, so far off that a crossing next to it falls on the known neighbour


@dataclass(frozen=True, slots=True)
class Span:
    """A run of points that win: log x from `low` to `high`; an end that is the first or last point is `open`."""

    low: float
    high: float
    open_low: bool
    open_high: bool

    def shared(self, other: Span) -> float:
        """How much of the axis both hold; negative where they are apart."""
        return min(self.high, other.high) - max(self.low, other.low)


@dataclass(frozen=True, slots=True)
class Winning:
    """Where sparse wins: as predicted, surely (by the worse end of the interval) and at best (by the better end)."""

    usual: tuple[Span, ...]
    surely: tuple[Span, ...]
    at_best: tuple[Span, ...]


def winning(log_x: Sequence[float], speedups: Sequence[Interval]) -> Winning:
    """Spans of rising `log_x` on which speedups are at least 1."""
    x = np.asarray(log_x, float)
    curves = ([each.value for each in speedups], [each.low for each in speedups], [each.high for each in speedups])
    return Winning(*(_spans(x, np.array([_gain(value) for value in curve])) for curve in curves))


def last_span(spans: Sequence[Span]) -> Span | None:
    """The span that reaches the last point, or None: what wins from somewhere on."""
    return spans[-1] if spans and spans[-1].open_high else None


def nearest_span(spans: Sequence[Span], to: Span) -> Span | None:
    """The span that shares most with `to`, or None where none shares anything."""
    best = max(spans, key=to.shared, default=None)
    return best if best and to.shared(best) >= 0 else None


def _gain(speedup: float) -> float:
    return float(np.clip(math.log(speedup), -_BEYOND, _BEYOND)) if speedup > 0 else -_BEYOND


def _spans(x: np.ndarray, gain: np.ndarray) -> tuple[Span, ...]:
    wins = np.concatenate([[False], gain >= 0, [False]])
    starts = np.flatnonzero(wins[1:] & ~wins[:-1]).tolist()
    ends = (np.flatnonzero(wins[:-1] & ~wins[1:]) - 1).tolist()
    return tuple(
        Span(
            float(x[first]) if first == 0 else _crossing(x, gain, first - 1),
            float(x[last]) if last == len(x) - 1 else _crossing(x, gain, last),
            open_low=first == 0,
            open_high=last == len(x) - 1,
        )
        for first, last in zip(starts, ends, strict=True)
    )


def _crossing(x: np.ndarray, gain: np.ndarray, left: int) -> float:
    """Where the line from point `left` to the next is 0."""
    return float(x[left] - gain[left] * (x[left + 1] - x[left]) / (gain[left + 1] - gain[left]))
