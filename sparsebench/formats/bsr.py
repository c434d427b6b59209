"""Block compressed sparse rows: CSR of small dense blocks. One column index serves bh x bw values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparsebench.errors import FormatError
from sparsebench.formats.csr import offsets_of


@dataclass(frozen=True, slots=True, eq=False)
class Bsr:
    """Block compressed sparse rows. Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

        values         float  [blocks, bh, bw]  block row after block row, left to right; +0 outside the mask
        block_columns  int32  [blocks]          block j covers columns block_columns[j] * bw and the bw - 1 after it
        block_offsets  int32  [m / bh + 1]      block row i is values[block_offsets[i]:block_offsets[i + 1]]
        k              int                      columns of the dense matrix
        nnz            int                      entries of the mask; below values.size where a block is not full

    A block is stored when any entry of the mask in it is true.
    """

    values: np.ndarray
    block_columns: np.ndarray
    block_offsets: np.ndarray
    k: int
    nnz: int

    name: ClassVar[str] = "bsr"
    about: ClassVar[str] = "dense blocks of one size, row after row, one column index a block"
    patterns: ClassVar[tuple[str, ...]] = ("block",)

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Bsr:
        """Pack `dense` [m, k] where `mask` [m, k] is true in blocks of structure = (bh, bw).

        FormatError without a block, and where the block does not divide the matrix.
        """
        bh, bw = _block_of(structure, dense.shape)
        grid = dense.shape[0] // bh, bh, dense.shape[1] // bw, bw
        stored = mask.reshape(grid).any(axis=(1, 3))
        blocks = np.where(mask, dense, dense.dtype.type(0)).reshape(grid).transpose(0, 2, 1, 3)[stored]
        return cls(
            np.ascontiguousarray(blocks),
            np.nonzero(stored)[1].astype(np.int32),
            offsets_of(np.count_nonzero(stored, axis=1), "blocks"),
            dense.shape[1],
            int(np.count_nonzero(mask)),
        )

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        (m, k), (bh, bw) = self.shape, self.block
        tiles = np.zeros((m // bh, k // bw, bh, bw), self.values.dtype)
        tiles[np.repeat(np.arange(m // bh), np.diff(self.block_offsets)), self.block_columns] = self.values
        return tiles.transpose(0, 2, 1, 3).reshape(m, k)

    @property
    def block(self) -> tuple[int, int]:
        """(bh, bw): rows and columns of a block."""
        _, bh, bw = self.values.shape
        return bh, bw

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)."""
        return (len(self.block_offsets) - 1) * self.block[0], self.k

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes + self.block_columns.nbytes + self.block_offsets.nbytes


def _block_of(structure: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """(bh, bw) of the draw's structure, when it divides `shape`; FormatError otherwise."""
    try:
        bh, bw = map(int, structure)
    except (TypeError, ValueError):
        raise FormatError(
            f"bsr needs the block (rows, columns) as structure, found {structure!r}; "
            f"use pattern 'block', or pass structure=(bh, bw)"
        ) from None
    if bh < 1 or bw < 1 or shape[0] % bh or shape[1] % bw:
        raise FormatError(
            f"bsr stores whole blocks, but a block of {bh}x{bw} does not divide a matrix of {shape[0]}x{shape[1]}; "
            f"use a block whose sides divide it"
        )
    return bh, bw
