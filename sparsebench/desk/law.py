"""One interface for every law of a kernel's time: fitted to points, asked in seconds, and judged on rows left out.

    irf       the paper as printed: a factor of sparsity and block alone (irf_paper.py)
    irf_n     the same with n and a launch term (irf_n.py)
    roofline  bytes and operations against the machine's measured peaks (roofline.py)
    learned   a Gaussian process on what the roofline leaves (learned.py)

To add one: a subclass of Law and its line in LAWS (judged.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.desk.hardware import Hardware
from sparsebench.desk.points import Points

Folds = Mapping[str, np.ndarray]  # {way of leaving out: fold of each row [q], -1 for rows that are never left out}


class Law(ABC):
    """seconds(points) of one kernel, or of one list of level blocks of it."""

    name: ClassVar[str]

    @property
    def needs_dense(self) -> bool:
        """Whether `seconds` asks for the dense time of each problem."""
        return False

    @classmethod
    @abstractmethod
    def fit(cls, points: Points, time_s: np.ndarray, hardware: Hardware) -> Self:
        """The law through time_s [q] at `points`; ModelError where they cannot carry it."""

    @abstractmethod
    def again(self, points: Points, time_s: np.ndarray) -> Self:
        """The law through other times, at the hyperparameters of this one."""

    @abstractmethod
    def seconds(self, points: Points) -> np.ndarray:
        """Seconds at `points`, [q]; nan where something the law needs is unknown."""

    @abstractmethod
    def left_out(self, points: Points, time_s: np.ndarray, folds: Folds) -> dict[str, np.ndarray]:
        """Seconds that a law refitted without a row's fold, at this law's hyperparameters, says of the row, [q].

        `points` and time_s are those of the fit; nan for rows in no fold.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, readable."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_json` wrote."""
