"""N of M: the kept entries of each group, and in which places of their group they stood.

A place takes as few bits as M needs, two for 2:4, and they are packed eight to a byte: 2:4 in 16 bits is 9/16 of the
dense matrix, which is what cuSPARSELt stores too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparsebench.errors import FormatError, PatternError
from sparsebench.patterns.grid import Shape
from sparsebench.patterns.nm import checked_nm


@dataclass(frozen=True, slots=True, eq=False)
class Nm:
    """N of every M consecutive entries of a row. Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

    values  float  [m, k / M * N]      kept entries of each row, left to right
    places  uint8  [m, bytes of a row]  place of each in its group, 0 <= place < M, rising in a group; each in
                                        ceil(log2 M) bits, least significant first, entry after entry
    k       int                         columns of the dense matrix
    nm      (N, M)
    """

    values: np.ndarray
    places: np.ndarray
    k: int
    nm: Shape

    name: ClassVar[str] = "nm"
    about: ClassVar[str] = "N values of every M in a row, and their places in ceil(log2 M) bits each"
    patterns: ClassVar[tuple[str, ...]] = ("nm",)

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Nm:
        """Pack `dense` [m, k] where `mask` [m, k] is true, N of M by structure = (N, M).

        FormatError without one, where M does not divide k, and where a group keeps another number than N.
        """
        kept, group = _structure(structure, dense.shape)
        m, k = dense.shape
        _demand_even(mask.reshape(m, k // group, group).sum(axis=2), kept, group)
        columns = np.nonzero(mask)[1].reshape(m, k // group * kept)
        bits = columns[:, :, None] % group >> np.arange(_bits(group)) & 1
        places = np.packbits(bits.reshape(m, -1).astype(np.uint8), axis=1, bitorder="little")
        return cls(np.take_along_axis(dense, columns, axis=1), places, k, (kept, group))

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dense = np.zeros(self.shape, self.values.dtype)
        np.put_along_axis(dense, self.columns(), self.values, axis=1)
        return dense

    def columns(self) -> np.ndarray:
        """Column of each stored entry, int64 in the shape of values."""
        (m, entries), (kept, group) = self.values.shape, self.nm
        width = _bits(group)
        bits = np.unpackbits(self.places, axis=1, count=entries * width, bitorder="little").reshape(m, entries, width)
        return np.asarray(np.arange(entries) // kept * group + (bits.astype(np.int64) << np.arange(width)).sum(axis=2))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)."""
        return len(self.values), self.k

    @property
    def nnz(self) -> int:
        """Stored entries; there is no padding."""
        return self.values.size

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return self.values.nbytes + self.places.nbytes


def _bits(group: int) -> int:
    """Bits that tell the places of a group apart."""
    return (group - 1).bit_length()


def _structure(structure: Any, shape: tuple[int, ...]) -> Shape:
    """(N, M) of the draw's structure, when M divides the columns; FormatError otherwise."""
    try:
        kept, group = checked_nm(structure)
    except PatternError:
        raise FormatError(
            f"nm needs (N, M) as structure, found {structure!r}; use pattern 'nm', or pass structure=(2, 4)"
        ) from None
    if shape[1] % group:
        raise FormatError(
            f"nm stores whole groups, but {group} does not divide the columns of a matrix of {shape[0]}x{shape[1]}; "
            f"use an M that does"
        )
    return kept, group


def _demand_even(counts: np.ndarray, kept: int, group: int) -> None:
    """FormatError naming the first group of `counts` [m, k / M] that does not keep `kept` entries."""
    odd = np.argwhere(counts != kept)
    if len(odd):
        row, place = odd[0]
        raise FormatError(
            f"nm needs {kept} of every {group} entries, but row {row} keeps {counts[row, place]} of columns "
            f"{place * group} to {place * group + group - 1}; draw the mask with pattern 'nm'"
        )
