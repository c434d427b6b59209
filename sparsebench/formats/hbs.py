"""Hierarchical block sparsity: several block matrices of one shape, coarse to fine, that never overlap.

HBsNN prunes level i + 1 out of what level i left (section 2.3), so each entry belongs to one level and the matrix is
the sum of its levels. One kernel can then run all levels into one accumulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparsebench.errors import FormatError
from sparsebench.formats.bsr import Bsr

if TYPE_CHECKING:
    from sparsebench.patterns import Levels


@dataclass(frozen=True, slots=True, eq=False)
class Hbs:
    """Disjoint block matrices. Stands for W[m, k] in Y[m, n] = W[m, k] @ X[k, n].

    levels  one Bsr [m, k] a level, coarse to fine; no entry of W is nonzero in two of them
    """

    levels: tuple[Bsr, ...]

    name: ClassVar[str] = "hbs"
    about: ClassVar[str] = "a bsr matrix a level, coarse to fine, with disjoint supports"
    patterns: ClassVar[tuple[str, ...]] = ("hierarchical",)

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Levels | None = None) -> Hbs:
        """Pack `dense` [m, k] level by level; structure holds the block and the mask [m, k] of each.

        FormatError without levels, and where they overlap or do not add up to `mask`.
        """
        levels = _checked_levels(mask, structure)
        pairs = zip(levels.blocks, levels.masks, strict=True)
        return cls(tuple(Bsr.from_dense(dense, level_mask, block) for block, level_mask in pairs))

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array."""
        dtype = self.levels[0].values.dtype
        # +0 is all zero bits and supports are disjoint, so OR places every entry; a sum would turn -0 into +0.
        bits = (level.to_dense().view(f"u{dtype.itemsize}") for level in self.levels)
        whole: np.ndarray = reduce(np.bitwise_or, bits)
        return whole.view(dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)."""
        return self.levels[0].shape

    @property
    def nnz(self) -> int:
        """Entries of the masks of all levels."""
        return sum(level.nnz for level in self.levels)

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        return sum(level.nbytes for level in self.levels)


def _checked_levels(mask: np.ndarray, structure: Any) -> Levels:
    """`structure` itself; FormatError unless its masks are disjoint and their union is `mask`."""
    if structure is None or not getattr(structure, "masks", ()):
        raise FormatError(
            f"hbs needs the levels of its draw as structure, found {structure!r}; use pattern 'hierarchical'"
        )
    owners: np.ndarray = np.count_nonzero(np.stack(structure.masks), axis=0)
    if owners.max() > 1:
        row, column = np.argwhere(owners > 1)[0]
        raise FormatError(
            f"hbs needs disjoint levels, but entry ({row}, {column}) is in {owners[row, column]} of them; "
            f"take from each level what an earlier one holds"
        )
    if not np.array_equal(owners > 0, mask):
        row, column = np.argwhere((owners > 0) != mask)[0]
        raise FormatError(
            f"hbs needs levels that add up to the mask, but entry ({row}, {column}) is {bool(mask[row, column])} in "
            f"the mask and {bool(owners[row, column])} in the levels; pass the mask and the structure of one draw"
        )
    return structure  # type: ignore[no-any-return]
