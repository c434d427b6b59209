"""The condensed form of constant fan-in networks (SRigL, arXiv 2305.02299, algorithm 1), without the ablated rows.

Columns are 16-bit where k allows: at n = 1 a kernel is bound by the bytes of W, and that saves a quarter of them.
Rows are padded to a multiple of four entries, so that a body can take four at a time without a tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparsebench.errors import FormatError

STEP = 4  # rows are padded to a multiple of this


@dataclass(frozen=True, slots=True, eq=False)
class Condensed:
    """Constant fan-in: every live row keeps the same number f of nonzeros.

    Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

        values   float           [active, f4]  kept entries of each live row, left to right, then f4 - f zeros
        columns  uint16 | int32  [active, f4]  their columns, rising; padding repeats the row's last one
        rows     int32           [active]      the live rows, rising; all other rows of W are zero
        fan_in   int                           f; f4 is f rounded up to a multiple of 4
        shape    (m, k)

    uint16 when k <= 65536. No row offsets: f is the same for all live rows. Without live rows all arrays are empty.
    """

    values: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    fan_in: int
    shape: tuple[int, int]

    name: ClassVar[str] = "condensed"
    about: ClassVar[str] = "live rows only, the same number of entries in each; 16-bit columns where k allows"
    patterns: ClassVar[tuple[str, ...]] = ("constant_fan_in", "rbgp4")

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Condensed:
        """Pack `dense` [m, k] where `mask` [m, k] is true; FormatError where live rows are uneven."""
        m, k = dense.shape
        rows = np.flatnonzero(mask.any(axis=1)).astype(np.int32)
        fan_in = _even_fan_in(np.count_nonzero(mask[rows], axis=1), rows)
        padded = -(-fan_in // STEP) * STEP
        kept = np.nonzero(mask[rows])[1].reshape(len(rows), fan_in)
        columns = np.pad(kept, ((0, 0), (0, padded - fan_in)), mode="edge") if fan_in else kept
        values = np.zeros(columns.shape, dense.dtype)
        values[:, :fan_in] = np.take_along_axis(dense[rows], kept, axis=1)
        return cls(values, columns.astype(np.uint16 if k <= 2**16 else np.int32), rows, fan_in, (m, k))

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense[self.rows[:, None], self.columns[:, : self.fan_in]] = self.values[:, : self.fan_in]
        return dense

    @property
    def nnz(self) -> int:
        """Stored entries of the mask, padding not counted."""
        return len(self.rows) * self.fan_in

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once, padding included."""
        return self.values.nbytes + self.columns.nbytes + self.rows.nbytes


def _even_fan_in(counts: np.ndarray, rows: np.ndarray) -> int:
    """The one number in `counts`, 0 when it is empty; FormatError naming two of `rows` that differ."""
    if not len(counts):
        return 0
    if counts.min() != counts.max():
        odd = int(np.flatnonzero(counts != counts[0])[0])
        raise FormatError(
            f"condensed needs the same number of nonzeros in every live row, "
            f"but row {rows[0]} has {counts[0]} and row {rows[odd]} has {counts[odd]}; "
            f"use format 'csr', or a pattern with a constant fan-in"
        )
    return int(counts[0])
