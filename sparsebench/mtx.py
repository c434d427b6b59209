"""Matrices in Matrix Market files (.mtx), the exchange form of NIST and of the SuiteSparse collection.

    %%MatrixMarket matrix coordinate|array real|integer|pattern general|symmetric|skew-symmetric
    % comments
    rows columns entries                    an array has no count of entries
    row column value                        from 1; a pattern has no values; an array has values alone, column by column

Of a symmetric matrix the file has one triangle, and both are read. A pattern is a mask; values are weights, integers
too, since the matrix is all that the file holds. An entry that is stored and 0 is no nonzero, as in every other file.
An entry twice is refused: programs that add them up and those that keep the last would read two matrices.

Not scipy.io.mmread: it passes over what follows a number, so it reads the line `1 1.5 3` as column 1 and value 0.5, and
`1 1 3.5` of a file of integers as 3 (scipy 1.17).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparsebench.errors import MatrixError
from sparsebench.smtx import LARGEST

_BANNER: Mapping[str, tuple[str, ...]] = {
    "object": ("matrix",),
    "format": ("coordinate", "array"),
    "field": ("real", "integer", "pattern"),
    "symmetry": ("general", "symmetric", "skew-symmetric"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its entries, which start at byte `start`, on line `line`."""

    form: str
    field: str
    symmetry: str
    rows: int
    columns: int
    entries: int
    start: int
    line: int

    @property
    def kind(self) -> Literal["mask", "weights"]:
        """What the file brings."""
        return "mask" if self.field == "pattern" else "weights"

    @property
    def asked(self) -> tuple[str, ...]:
        """What a line of an entry holds."""
        places = ("row", "column") if self.form == "coordinate" else ()
        return places if self.field == "pattern" else (*places, "value")


def parse_mtx(content: bytes, file: str) -> np.ndarray:
    """The matrix in the bytes of a .mtx file, bool or float32 [m, k]; `file` is its name in MatrixErrors."""
    return entries_of(content, header_of(content, file), file)


def header_of(content: bytes, file: str) -> Header:
    """All that stands before the entries, checked; MatrixError with file and line where it is wrong."""
    banner, *_ = content.split(b"\n", 1)
    form, field, symmetry = _banner(banner, file)
    start, number = len(banner) + 1, 2
    while start < len(content):
        end = content.find(b"\n", start)
        line = content[start : end if end >= 0 else len(content)]
        start, number = start + len(line) + 1, number + 1
        if line.strip() and not line.lstrip().startswith(b"%"):
            return _sized(line, (form, field, symmetry), (start, number), file)
    raise MatrixError(f"{file}:{number}: expected the sizes of the matrix, but the file ends; it is truncated")


def _banner(line: bytes, file: str) -> tuple[str, str, str]:
    first, *words = line.decode("ascii", "backslashreplace").lower().split() or [""]
    if first != "%%matrixmarket" or len(words) != len(_BANNER):
        raise MatrixError(
            f"{file}:1: a .mtx file starts with '%%MatrixMarket matrix FORMAT FIELD SYMMETRY', found {_shown(line)}"
        )
    for (what, known), word in zip(_BANNER.items(), words, strict=True):
        if word not in known:
            raise MatrixError(f"{file}:1: {what} must be one of {', '.join(known)} to be read here, found {word!r}")
    if words[1:3] == ["array", "pattern"]:
        raise MatrixError(f"{file}:1: an array has values and a pattern has none; write coordinate pattern")
    return words[1], words[2], words[3]


def _sized(line: bytes, said: tuple[str, str, str], body: tuple[int, int], file: str) -> Header:
    """The header whose sizes stand on `line`; `body` is (byte, line) of the first entry."""
    form, _, symmetry = said
    place, names = f"{file}:{body[1] - 1}", ("rows", "columns", "entries")[: 3 if form == "coordinate" else 2]
    words = line.split()
    if len(words) != len(names) or not all(word.isdigit() and len(word) < 19 for word in words):
        raise MatrixError(f"{place}: expected {', '.join(names)} as whole numbers, found {_shown(line)}")
    rows, columns, *counted = map(int, words)
    if min(rows, columns) < 1:
        raise MatrixError(f"{place}: need rows and columns >= 1, found {rows} and {columns}")
    if rows * columns > LARGEST:
        raise MatrixError(f"{place}: {rows}x{columns} is above 2**31 entries, the largest matrix read here; split it")
    if symmetry != "general" and rows != columns:
        raise MatrixError(f"{place}: a {symmetry} matrix is square, found {rows}x{columns}; one of them is wrong")
    triangle = rows * (rows + 1) // 2 - rows * (symmetry == "skew-symmetric")
    most = rows * columns if symmetry == "general" else triangle
    entries = counted[0] if counted else most
    if entries > most:
        raise MatrixError(f"{place}: {entries} entries are more than a {symmetry} {rows}x{columns} matrix has, {most}")
    return Header(*said, rows, columns, entries, *body)


def entries_of(content: bytes, header: Header, file: str) -> np.ndarray:
    """The entries after `header` as a matrix, bool or float32 [m, k]; MatrixError with file and line."""
    numbers = _numbers(content[header.start :], header, file)
    with np.errstate(over="ignore"):
        values = numbers[:, -1].astype(np.float32)
    if header.kind == "mask":
        values = np.ones(len(numbers), dtype=bool)
    elif header.field == "integer" and (wrong := np.flatnonzero(numbers[:, -1] % 1 != 0)).size:
        raise _fault(content, header, int(wrong[0]), f"line 1 says integer, found {numbers[wrong[0], -1]:g}", file)
    if (wrong := np.flatnonzero(~np.isfinite(values))).size:
        raise _fault(content, header, int(wrong[0]), "the value is no finite float32", file)
    if header.form == "array":
        rows, columns = _places(header)
    else:
        rows, columns = (_indices(numbers, axis, content, header, file) for axis in (0, 1))
        _once(rows, columns, content, header, file)
    return _matrix(rows, columns, values, header)


def _matrix(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, header: Header) -> np.ndarray:
    matrix = np.zeros((header.rows, header.columns), dtype=values.dtype)
    if header.symmetry != "general":
        matrix[columns, rows] = -values if header.symmetry == "skew-symmetric" and values.dtype != bool else values
    matrix[rows, columns] = values
    return matrix


def _places(header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of an array's values: column by column, and below the diagonal of a symmetric one."""
    if header.symmetry == "general":
        columns, rows = np.divmod(np.arange(header.entries), header.rows)
    else:
        columns, rows = np.triu_indices(header.rows, k=int(header.symmetry == "skew-symmetric"))
    return rows, columns


def _numbers(body: bytes, header: Header, file: str) -> np.ndarray:
    """All numbers after the header, float64 [entries, numbers a line]."""
    found = np.empty((0, len(header.asked)))
    if body.strip():
        try:
            found = np.loadtxt(io.BytesIO(body), dtype=np.float64, comments=None, ndmin=2)
        except ValueError:
            raise _odd_line(body, header, file) from None
    if found.shape[1] != len(header.asked):
        raise _odd_line(body, header, file)
    if len(found) < header.entries:
        last = header.line + body.rstrip().count(b"\n")
        raise MatrixError(
            f"{file}:{last}: expected {header.entries} entries, found {len(found)}; the file is truncated"
        )
    if len(found) > header.entries:
        line = _line_of(body, header, header.entries)
        raise MatrixError(f"{file}:{line}: expected {header.entries} entries, found {len(found)}; remove the others")
    return found


def _odd_line(body: bytes, header: Header, file: str) -> MatrixError:
    """What is wrong with the first line that is not the numbers it should be."""
    for number, line in enumerate(body.split(b"\n"), start=header.line):
        words = line.split()
        if words and (len(words) != len(header.asked) or not all(map(_is_number, words))):
            asked = ", ".join(header.asked)
            return MatrixError(f"{file}:{number}: expected {asked} as numbers, found {_shown(line)}")
    return MatrixError(f"{file}:{header.line}: the entries from here on are not numbers; mend them")


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def _indices(numbers: np.ndarray, axis: int, content: bytes, header: Header, file: str) -> np.ndarray:
    """Rows (axis 0) or columns (1) from 0, int64, checked."""
    found, most = numbers[:, axis], (header.rows, header.columns)[axis]
    wrong = np.flatnonzero(~((found >= 1) & (found <= most) & (found % 1 == 0)))
    if wrong.size:
        what = f"{header.asked[axis]} must be a whole number in 1..{most}, found {found[wrong[0]]:g}"
        raise _fault(content, header, int(wrong[0]), what, file)
    return found.astype(np.int64) - 1


def _once(rows: np.ndarray, columns: np.ndarray, content: bytes, header: Header, file: str) -> None:
    """MatrixError where an entry, or its mirror image in a symmetric file, occurs twice."""
    places = rows * header.columns + columns
    if header.symmetry != "general":
        places = np.minimum(places, columns * header.columns + rows)
    order = np.argsort(places, kind="stable")
    again = np.flatnonzero(places[order][1:] == places[order][:-1])
    if again.size:
        entry = int(order[again[0] + 1])
        what = f"row {rows[entry] + 1}, column {columns[entry] + 1} occurs twice; an entry has one place"
        raise _fault(content, header, entry, what, file)


def _fault(content: bytes, header: Header, entry: int, what: str, file: str) -> MatrixError:
    return MatrixError(f"{file}:{_line_of(content[header.start :], header, entry)}: {what}")


def _line_of(body: bytes, header: Header, entry: int) -> int:
    """The line of an entry, counted from 0; blank lines hold none."""
    lines = (number for number, line in enumerate(body.split(b"\n"), start=header.line) if line.strip())
    return next(number for i, number in enumerate(lines) if i == entry)


def _shown(text: bytes) -> str:
    """The start of a line for a message."""
    return repr(text[:60].decode("ascii", "backslashreplace").strip())
