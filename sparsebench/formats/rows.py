"""Dense in what is left of a matrix when whole rows, or whole columns, are gone: structured sparsity.

Rows is the matrix that SRigL's "structured" timings multiply (arXiv 2305.02299): its ablated neurons are left out, and
what is sparse within the others is stored as zeros. Columns is the other side: inputs that no row looks at are left
out. A mask that keeps the same columns in all rows, such as blocks of m x 1, so becomes a dense product over
(1 - sparsity) k columns: the least time that this sparsity can cost a library of dense products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of W[m, k] that have nonzeros, each stored whole.

    values  float  [live, k]  the live rows, +0 outside the mask
    rows    int32  [live]     which rows of W they are, rising; all others are zero
    nnz     int               entries of the mask
    shape   (m, k)
    """

    values: np.ndarray
    rows: np.ndarray
    nnz: int
    shape: tuple[int, int]

    name: ClassVar[str] = "rows"
    about: ClassVar[str] = "rows with nonzeros, each of them whole; any pattern, rows that are off are saved"
    patterns: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Rows:
        """Keep the rows of `dense` [m, k] where `mask` [m, k] is true anywhere, with zeros outside it."""
        rows = np.flatnonzero(mask.any(axis=1)).astype(np.int32)
        return cls(_kept(dense, mask)[rows], rows, int(np.count_nonzero(mask)), _shape(dense))

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense[self.rows] = self.values
        return dense

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes + self.rows.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of W[m, k] that have nonzeros, each stored whole.

    values   float  [m, live]  the live columns, row after row, +0 outside the mask
    columns  int32  [live]     which columns of W they are, rising; all others are zero
    nnz      int               entries of the mask
    shape    (m, k)
    """

    values: np.ndarray
    columns: np.ndarray
    nnz: int
    shape: tuple[int, int]

    name: ClassVar[str] = "columns"
    about: ClassVar[str] = "columns with nonzeros, each of them whole; any pattern, inputs that no row uses are saved"
    patterns: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Columns:
        """Keep the columns of `dense` [m, k] where `mask` [m, k] is true anywhere, with zeros outside it."""
        columns = np.flatnonzero(mask.any(axis=0)).astype(np.int32)
        values = np.ascontiguousarray(_kept(dense, mask)[:, columns])
        return cls(values, columns, int(np.count_nonzero(mask)), _shape(dense))

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense[:, self.columns] = self.values
        return dense

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes + self.columns.nbytes


def _kept(dense: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, dense, dense.dtype.type(0))


def _shape(dense: np.ndarray) -> tuple[int, int]:
    m, k = dense.shape
    return m, k
