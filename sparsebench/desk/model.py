"""What every model of layer times shares: its answer, its errors, its verbs.

Decisions that govern the whole desk:

- A time is the *total* time of a layer: the kernel in its native layout plus its own layout change, on both sides of
  every ratio. That is what the headline (speedup_total) compares and what a network pays.
- Models are keyed by Setting (desk/observe.py). Two machines, kernels, caches or thread counts never meet in one fit.
- Which law speaks for a kernel is decided by its error on left-out shapes (desk/judged.py), not by us.
- A model answers with an interval and says when it left the range it was measured in; nothing is extrapolated silently.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sparsebench.desk.observe import Setting


@dataclass(frozen=True, slots=True)
class Prediction:
    """A time in seconds with the interval that should hold nine of ten measurements.

    extrapolated  it lies outside what was measured; `why` says in which direction
    measured      it is no prediction at all: this very problem was timed, and the interval is the clock's
    kernel        who would take this time
    """

    time_s: float
    low_s: float
    high_s: float
    extrapolated: bool = False
    measured: bool = False
    why: str = ""
    kernel: str = ""


T = TypeVar("T")


def to_choose(found: Sequence[T], told: Callable[[T], Prediction]) -> T | None:
    """Of `found`, each with what is `told` of it, the one to run: the least time, extrapolated ones last.

    A measured time gives way only to a prediction whose whole interval is less. None where nothing was found.
    """
    best = min(found, key=lambda one: (told(one).extrapolated, told(one).time_s), default=None)
    timed = min((one for one in found if told(one).measured), key=lambda one: told(one).time_s, default=None)
    if best is None or timed is None:
        return best
    return timed if told(best).high_s >= told(timed).time_s else best


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors on timings that a fit has not seen, of the paired ratio but for seconds_mape, that of plain seconds.

    how           what was left out: cells, shapes, sparsities, blocks or ns (desk/splits.py)
    n             timings predicted; extrapolated is the share of them outside what was left
    mape, p95     relative errors; within_5 and within_10 are shares of timings
    rank          Spearman's correlation of predicted and measured
    """

    how: str
    n: int
    extrapolated: float
    mape: float
    within_5: float
    within_10: float
    p95: float
    rank: float | None
    seconds_mape: float


class LayerModel(ABC):
    """What is known of one setting: what was timed, and the laws for all else."""

    setting: Setting

    @property
    @abstractmethod
    def laws(self) -> Mapping[str, str]:
        """The name of the law that speaks, by part."""

    @property
    @abstractmethod
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors of the law that speaks, by part: {"" or the level blocks of a fused kernel: errors}."""

    @property
    @abstractmethod
    def rivals(self) -> Mapping[str, Mapping[str, tuple[HeldOut, ...]]]:
        """Errors of every law that was tried, by part and by name of the law."""

    @property
    def held_out_times(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """(measured, predicted) seconds [q, 2] by part and HeldOut.how; empty for a model read from a file."""
        return {}

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that reading it again needs, readable."""
