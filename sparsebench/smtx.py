"""Masks in .smtx files, the form of the Deep Learning Matrix Collection (DLMC, arXiv 2006.10901). Three lines:

    rows, columns, nnz                 commas may be left out
    rows + 1 offsets                   from 0 to nnz, never falling
    nnz columns, row after row         from 0; empty, or not there, where nnz is 0

The collection's own README says one line a row, and its files say otherwise. Columns of a row rise in all files seen;
any order is read, a column twice in a row is not. Every fault is a MatrixError that names the file and the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsebench.errors import MatrixError

LARGEST = 2**31  # entries of a matrix: a mask of 2 GiB, and the limit of 32-bit offsets
PLAIN = b"0123456789 \t\r"


def read_smtx(path: Path) -> np.ndarray:
    """The mask in `path`, bool [m, k]; MatrixError where the file is broken or cannot be read."""
    return parse_smtx(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a file; MatrixError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MatrixError(f"{path} cannot be read: {error.strerror or error}; check the path") from None


def parse_smtx(content: bytes, file: str) -> np.ndarray:
    """The mask in the bytes of a .smtx file, bool [m, k]; `file` is its name in errors."""
    lines = content.split(b"\n")
    rows, columns, nnz = _header(lines, file)
    offsets = _offsets(_line(lines, 2, rows + 1, "row offsets", file), nnz, file)
    found = _columns(_line(lines, 3, nnz, "column indices", file), offsets, columns, file)
    for number, line in enumerate(lines[3:], start=4):
        if line.strip():
            raise MatrixError(f"{file}:{number}: a .smtx file has three lines, found more: {_shown(line)}; remove it")
    return _mask(found, offsets, (rows, columns), file)


def _header(lines: Sequence[bytes], file: str) -> tuple[int, int, int]:
    rows, columns, nnz = (int(size) for size in _line(lines, 1, 3, "sizes 'rows, columns, nnz'", file))
    if min(rows, columns) < 1 or nnz < 0:
        raise MatrixError(f"{file}:1: need rows and columns >= 1 and nnz >= 0, found {rows}, {columns}, {nnz}")
    if rows * columns > LARGEST:
        raise MatrixError(f"{file}:1: {rows}x{columns} is above 2**31 entries, the largest matrix read here; split it")
    if nnz > rows * columns:
        raise MatrixError(f"{file}:1: nnz {nnz} is more than {rows}x{columns} has entries; one of the three is wrong")
    return rows, columns, nnz


def _line(lines: Sequence[bytes], number: int, count: int, what: str, file: str) -> np.ndarray:
    """The `count` whole numbers on line `number` (from 1), int64; a last line of none may be missing."""
    if number > len(lines) and count:
        raise MatrixError(f"{file}:{number}: expected {count} {what}, but the file ends; it is truncated")
    values = _integers(lines[number - 1] if number <= len(lines) else b"", f"{file}:{number}")
    if len(values) != count:
        fault = "the line is truncated" if len(values) < count else "line 1 is wrong, or a line end is missing"
        raise MatrixError(f"{file}:{number}: expected {count} {what}, found {len(values)}; {fault}")
    return values


def _integers(line: bytes, place: str) -> np.ndarray:
    """Whole numbers of a line, int64; where it holds digits alone seven times as fast (2.4 million: 0.13 s)."""
    line = line.replace(b",", b" ").strip()
    if not line:  # numpy reads a 0 out of blanks
        return np.empty(0, dtype=np.int64)
    if not line.translate(None, PLAIN):
        return np.fromstring(line, dtype=np.int64, sep=" ")  # above 2**63 it gives 2**63 - 1, which no check lets pass
    return np.array([_integer(token, place, i) for i, token in enumerate(line.split(), start=1)], dtype=np.int64)


def _integer(token: bytes, place: str, entry: int) -> int:
    if not token.removeprefix(b"-").isdigit() or len(token) > 18:
        raise MatrixError(f"{place}: entry {entry} must be a whole number, found {_shown(token)}")
    return int(token)


def _offsets(offsets: np.ndarray, nnz: int, file: str) -> np.ndarray:
    """`offsets` themselves, checked."""
    if offsets[0] != 0 or offsets[-1] != nnz:
        ends = f"{offsets[0]} and {offsets[-1]}"
        raise MatrixError(f"{file}:2: offsets must start at 0 and end at nnz {nnz}, found {ends}")
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if falls.size:
        row = int(falls[0])
        pair = f"{offsets[row + 1]} after {offsets[row]}"
        raise MatrixError(f"{file}:2: offsets must not fall, but entry {row + 2} is {pair}")
    return offsets


def _columns(found: np.ndarray, offsets: np.ndarray, columns: int, file: str) -> np.ndarray:
    """Column indices `found` themselves, checked."""
    outside = np.flatnonzero((found < 0) | (found >= columns))
    if outside.size:
        entry = int(outside[0])
        row = int(np.searchsorted(offsets, entry, side="right")) - 1
        place = f"entry {entry + 1} (row {row})"
        raise MatrixError(f"{file}:3: columns must be in 0..{columns - 1}, but {place} is {found[entry]}")
    return found


def _mask(found: np.ndarray, offsets: np.ndarray, shape: tuple[int, int], file: str) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    owners = np.repeat(np.arange(shape[0]), np.diff(offsets))
    mask[owners, found] = True
    if np.count_nonzero(mask) < found.size:
        places = np.sort(owners * shape[1] + found)
        row, column = divmod(int(places[1:][places[1:] == places[:-1]][0]), shape[1])
        raise MatrixError(f"{file}:3: column {column} occurs twice in row {row}; an entry has one place")
    return mask


def _shown(text: bytes) -> str:
    """The start of `text` for a message, on one line whatever bytes it holds."""
    return repr(text[:20].decode("ascii", "backslashreplace"))
