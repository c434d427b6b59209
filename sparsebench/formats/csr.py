"""Compressed sparse rows: the format that every library speaks.

Offsets and columns are 32-bit: torch's CPU product is 20-25 % faster with them than with 64-bit ones at n = 1..8
(measured), and no layer we know of has 2**31 nonzeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparsebench.errors import FormatError

INT32_LIMIT = 2**31


def offsets_of(counts: np.ndarray, what: str) -> np.ndarray:
    """Where each row starts in a row-by-row list, int32 [rows + 1]; FormatError at 2**31 of `what` or more."""
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    if offsets[-1] >= INT32_LIMIT:
        raise FormatError(
            f"32-bit offsets reach {INT32_LIMIT - 1} {what}, this matrix has {offsets[-1]}; split it by rows"
        )
    return offsets.astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Csr:
    """Compressed sparse rows. Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

    values   float  [nnz]    kept entries, row after row, left to right
    columns  int32  [nnz]    their columns: 0 <= columns < k, rising along a row
    offsets  int32  [m + 1]  row i is values[offsets[i]:offsets[i + 1]]; offsets[0] = 0, never falling
    k        int             columns of the dense matrix
    """

    values: np.ndarray
    columns: np.ndarray
    offsets: np.ndarray
    k: int

    name: ClassVar[str] = "csr"
    about: ClassVar[str] = "values and columns row after row, one offset a row; any pattern"
    patterns: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Csr:
        """Pack `dense` [m, k] where `mask` [m, k] is true; FormatError at 2**31 nonzeros or more."""
        offsets = offsets_of(np.count_nonzero(mask, axis=1), "nonzeros")
        return cls(dense[mask], np.nonzero(mask)[1].astype(np.int32), offsets, dense.shape[1])

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense[np.repeat(np.arange(len(dense)), np.diff(self.offsets)), self.columns] = self.values
        return dense

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)."""
        return len(self.offsets) - 1, self.k

    @property
    def nnz(self) -> int:
        """Stored entries; there is no padding."""
        return self.values.size

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes + self.columns.nbytes + self.offsets.nbytes
