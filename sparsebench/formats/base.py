"""What a format is: one way to store a matrix whose nonzeros a pattern has placed. Arrays are numpy, on the host."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np


@runtime_checkable
class Format(Protocol):
    """A stored W[m, k]. Members are frozen dataclasses of numpy arrays; to_dense(from_dense(w)) is w, bit for bit."""

    name: ClassVar[str]
    about: ClassVar[str]  # one line for `sparsebench list formats`
    patterns: ClassVar[tuple[str, ...]]  # names of the patterns it can store; empty means any

    @classmethod
    def from_dense(cls, dense: np.ndarray, mask: np.ndarray, structure: Any = None) -> Self:
        """Store `dense` [m, k] where `mask` [m, k] is true; FormatError if this format cannot.

        Entries outside the mask are dropped; zeros inside it are stored. `structure` is the draw's
        (patterns/base.py); hbs and rbgp4 need it, bsr takes the block from it, the others ignore it.
        """
        ...

    def to_dense(self) -> np.ndarray:
        """The same matrix as a full [m, k] array of the same dtype."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(m, k)."""
        ...

    @property
    def nnz(self) -> int:
        """Entries of the mask that are stored, zeros inside it included, padding not."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes a kernel must read to see the whole matrix once."""
        ...
