"""A sparse matrix as scipy.sparse.save_npz writes it: the arrays of its format (csr, csc, bsr, coo or dia) in one .npz.

Booleans are a mask, numbers weights; integers too, since the matrix is all that the file holds. An entry that is stored
and 0 is no nonzero; an entry twice is refused, as in .mtx files. scipy trusts the arrays, and an index that is too
large makes it read memory that is not theirs: so they are checked before they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.errors import MatrixError
from sparsebench.smtx import LARGEST

PARTS = frozenset({"format", "shape", "data"})
_INDICES = frozenset({"indices", "indptr", "row", "col", "coords", "offsets"})
Headers = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


def check_parts(path: Path, headers: Headers) -> tuple[tuple[int, int], np.dtype[Any]]:
    """The shape [m, k] and dtype of the matrix; MatrixError with file and array where its parts cannot be one."""
    for name, (shape, kept) in headers.items():
        if name in _INDICES and kept.kind not in "iu":
            raise MatrixError(f"{path}: array {name!r} must hold whole numbers, it holds {kept}; mend the file")
        if prod(shape) > LARGEST:
            raise MatrixError(f"{path}: array {name!r} of shape {shape} is above 2**31 entries, the most read here")
    size, dtype = headers["shape"][0], headers["data"][1]
    if dtype.kind not in "bfiu":
        raise MatrixError(
            f"{path}: array 'data' holds {dtype}, and weights are floats, integers or booleans; convert it"
        )
    if size != (2,) or headers["shape"][1].kind not in "iu":
        raise MatrixError(f"{path}: array 'shape' must be two whole numbers, rows and columns; its own shape is {size}")
    with np.load(path, allow_pickle=False) as arrays:
        rows, columns = (int(side) for side in arrays["shape"])
    if min(rows, columns) < 1:
        raise MatrixError(f"{path}: array 'shape' is {rows}, {columns}; rows and columns must be at least 1")
    return (rows, columns), dtype


def read_sparse(path: Path) -> np.ndarray:
    """The matrix in full, bool or of its own dtype, [m, k]; ValueError in scipy's words where its arrays are wrong."""
    # scipy.sparse: it wrote the file. Here, since loading it costs every command a tenth of a second.
    from scipy.sparse import load_npz

    found: Any = load_npz(path)
    if hasattr(found, "check_format"):
        found.check_format(full_check=True)
    found = found.tocoo()
    places = found.row.astype(np.int64) * found.shape[1] + found.col
    if len(places) != len(np.unique(places)):
        order = np.sort(places)
        row, column = divmod(int(order[1:][order[1:] == order[:-1]][0]), found.shape[1])
        raise MatrixError(f"{path}: row {row}, column {column} occurs twice; an entry has one place")
    matrix = np.zeros(found.shape, found.dtype)
    matrix[found.row, found.col] = found.data
    return matrix
