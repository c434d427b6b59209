"""RBGP4: values in an order that two small graphs explain, so that no nonzero has an index of its own.

The mask is kron(kron(G_o, kron(G_r, G_i)), G_b), with G_r = ones(row_repeat, 1) and G_b = ones(bh, bw) complete.
G_o says which tiles are there, G_i which block columns a row of a tile keeps; all tiles are alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sparsebench.errors import FormatError

if TYPE_CHECKING:
    from sparsebench.patterns import BaseGraphs


@dataclass(frozen=True, slots=True, eq=False)
class Rbgp4:
    """A product of base graphs. Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

        values      float  [u_o, d_o, tm, d_i * bw]  edge of G_o, row of the tile, edge of G_i, column of the block
        outer       int32  [u_o, d_o]  tile columns next to each tile row, rising; u_o = m / tm
        inner       int32  [u_i, d_i]  block columns next to each inner row, rising; u_i = tm / (row_repeat * bh)
        row_repeat  int    how often G_i is stacked in a tile
        block       (bh, bw)
        tile        (tm, tk)
        shape       (m, k)

    Row t of a tile is inner row (t // bh) % u_i. Entry e of its run in tile (i, j) stands in column
    outer[i, j] * tk + inner[(t // bh) % u_i, e // bw] * bw + e % bw.
    """

    values: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    row_repeat: int
    block: tuple[int, int]
    tile: tuple[int, int]
    shape: tuple[int, int]

    name: ClassVar[str] = "rbgp4"
    about: ClassVar[str] = "values and two small base graphs; no index per nonzero"
    patterns: ClassVar[tuple[str, ...]] = ("rbgp4",)

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: BaseGraphs | None = None) -> Rbgp4:
        """Pack `dense` [m, k] by the base graphs in `structure`.

        FormatError without them, where a graph is not regular, and where `mask` is not their product.
        """
        if structure is None:
            raise FormatError("rbgp4 needs the base graphs of its draw as structure, found None; use pattern 'rbgp4'")
        _refuse_other_mask(mask, structure)
        m, k = dense.shape
        frame = (structure.row_repeat, structure.block, structure.tile, (m, k))
        outer, inner = neighbours(structure.outer, "outer"), neighbours(structure.inner, "inner")
        unfilled = cls(np.empty(0, dense.dtype), outer, inner, *frame)
        return cls(dense[unfilled.rows(), unfilled.columns()], outer, inner, *frame)

    def rows(self) -> np.ndarray:
        """Row of W of every value, broadcastable to values' shape: [u_o, 1, tm, 1]."""
        return np.arange(self.shape[0]).reshape(len(self.outer), 1, self.tile[0], 1)

    def columns(self) -> np.ndarray:
        """Column of W of every value, [u_o, d_o, tm, d_i * bw]."""
        (bh, bw), (tm, tk) = self.block, self.tile
        runs = (self.inner[:, :, None].astype(np.int64) * bw + np.arange(bw)).reshape(len(self.inner), -1)
        return self.outer[:, :, None, None].astype(np.int64) * tk + runs[np.arange(tm) // bh % len(self.inner)]

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense[self.rows(), self.columns()] = self.values
        return dense

    @property
    def nnz(self) -> int:
        """Stored entries; there is no padding."""
        return self.values.size

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes + self.outer.nbytes + self.inner.nbytes


def neighbours(graph: np.ndarray, what: str) -> np.ndarray:
    """Right neighbours of each left vertex of `graph`, bool [left, right]: int32 [left, degree], rising.

    FormatError where the degrees differ.
    """
    degrees = np.count_nonzero(graph, axis=1)
    if degrees.min() != degrees.max():
        odd = int(np.flatnonzero(degrees != degrees[0])[0])
        raise FormatError(
            f"rbgp4 needs regular base graphs, but in the {what} one row 0 has {degrees[0]} edges and row {odd} has "
            f"{degrees[odd]}; draw it with pattern 'rbgp4'"
        )
    return np.nonzero(graph)[1].reshape(len(graph), degrees[0]).astype(np.int32)


def _refuse_other_mask(mask: np.ndarray, graphs: BaseGraphs) -> None:
    """FormatError unless `mask` is the product of the base graphs."""
    product = graphs.mask()
    tile = graphs.inner.shape[0] * graphs.row_repeat * graphs.block[0], graphs.inner.shape[1] * graphs.block[1]
    if tile != tuple(graphs.tile) or not np.array_equal(product, mask):
        raise FormatError(
            f"rbgp4 needs the mask that its base graphs make ({product.shape[0]}x{product.shape[1]} with "
            f"{np.count_nonzero(product)} entries), found {mask.shape[0]}x{mask.shape[1]} with "
            f"{np.count_nonzero(mask)}; pass the mask and the structure of one draw"
        )
