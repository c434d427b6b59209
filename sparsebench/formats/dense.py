"""The whole matrix, zeros and all: what every sparse format is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A full matrix. Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

    values  float  [m, k]  row-major, +0 outside the mask
    nnz     int            entries of the mask
    """

    values: np.ndarray
    nnz: int

    name: ClassVar[str] = "dense"
    about: ClassVar[str] = "every entry, row after row; any pattern, nothing saved"
    patterns: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Dense:
        """Keep `dense` [m, k] where `mask` [m, k] is true, zeros elsewhere."""
        return cls(np.where(mask, dense, dense.dtype.type(0)), int(np.count_nonzero(mask)))

    def to_dense(self) -> np.ndarray:
        """The same matrix as a fresh [m, k] array."""
        return self.values.copy()

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)."""
        m, k = self.values.shape
        return m, k

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes
