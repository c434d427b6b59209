"""What every law of layer times shares: its answer, its errors, its verbs.

Decisions that govern the whole desk:

- A time is the *total* time of a layer: the kernel in its native layout plus its own layout change, on both sides of
  every ratio. That is what the headline (speedup_total) compares and what a network pays.
- Models are keyed by Setting (desk/observe.py). Two machines, kernels, caches or thread counts never meet in one fit.
- A law answers with an interval and says when it left the range it was measured in; nothing is extrapolated silently.
- To add a law: a subclass of LayerModel and its line in LAWS (desk/fitted.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.case import Case
from sparsebench.desk.observe import Observation, Setting


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


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors on observations that a fit has not seen.

    how        what was left out: cells, levels, shapes or edges (desk/held_out.py)
    n          observations predicted; mape, p95 are relative errors; within_5 and within_10 shares of observations
    """

    how: str
    n: int
    mape: float
    within_5: float
    within_10: float
    p95: float


class LayerModel(ABC):
    """A law of the time that one kernel takes, fitted to the observations of one setting."""

    name: ClassVar[str]
    setting: Setting

    @classmethod
    @abstractmethod
    def fit(cls, observations: Sequence[Observation]) -> Self:
        """The law that fits `observations`, which share one setting; ModelError when they cannot carry it."""

    @abstractmethod
    def predict(self, case: Case) -> Prediction:
        """The time of `case`; ModelError when this law says nothing about such a case."""

    @property
    @abstractmethod
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors by part of the law: {"" or the level blocks of a fused kernel: errors}."""

    @property
    def held_out_times(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """(measured, predicted) seconds [q, 2] by part and HeldOut.how; empty for a law read from a file."""
        return {}

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, readable."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
