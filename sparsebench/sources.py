"""Masks and weights from files, the matrices [m, k] they stand for: .smtx, .mtx, .npz, .safetensors (.pth: lab/pth.py).

Every kind of file is one reader in READERS: path -> {tensor name: Stored}, sizes known and values not read yet. All the
rest is the same for all of them: boolean arrays are masks, floating ones weights whose mask is w != 0; 4-D tensors
(K, C, R, S) are flattened to K x CRS (HBsNN, section 2.3); integers, empty tensors and those of 1, 3 or 5 dimensions
are no layer's weights and are left out. Weights that are not finite are refused: a NaN spoils every ranking unseen.
A .npz that scipy.sparse.save_npz wrote is one matrix, and not the arrays it is made of.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

# safetensors: checks that a header is true of its file (lengths, gaps, overlaps) before a byte of it is trusted.
from safetensors import safe_open

from sparsebench.case import FileData
from sparsebench.errors import MatrixError
from sparsebench.mtx import entries_of, header_of
from sparsebench.smtx import LARGEST, read_bytes, read_smtx
from sparsebench.sparse_npz import PARTS, check_parts, read_sparse

Kind = Literal["mask", "weights"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file, not read yet; `kind` is None where it is neither mask nor weights."""

    shape: tuple[int, ...]
    kind: Kind | None
    read: Callable[[], np.ndarray]

    @property
    def is_matrix(self) -> bool:
        """Whether it can be a layer's W."""
        return self.kind is not None and len(self.shape) in (2, 4) and prod(self.shape) > 0


Reader = Callable[[Path], Mapping[str | None, Stored]]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A matrix in a file: its tensor's name (None where a file holds one alone), size, sha256 of the whole file."""

    name: str | None
    m: int
    k: int
    kind: Kind
    sha256: str
    conv_shape: tuple[int, int, int, int] | None = None


Matrices = Iterator[tuple[TensorInfo, np.ndarray]]


def inspect(path: Path, tensors: str = "*", readers: Mapping[str, Reader] | None = None) -> list[TensorInfo]:
    """All matrices in `path` whose tensor's name matches `tensors`, in the file's order, each read and checked.

    Raises MatrixError with file and place where the file cannot be read or a matching tensor is broken.
    """
    return [info for info, _ in matrices(path, tensors, readers)]


def matrices(path: Path, tensors: str = "*", readers: Mapping[str, Reader] | None = None) -> Matrices:
    """What `inspect` lists, one by one, each with its mask or float32 weights [m, k]."""
    stored, sha256 = _stored(path, readers), _sha256(path)
    for name, entry in stored.items():
        if entry.is_matrix and fnmatchcase(name or "", tensors):
            matrix = _matrix(path, name, entry)
            yield _info(name, entry, matrix, sha256), matrix


def load(path: Path, tensor: str | None = None, readers: Mapping[str, Reader] | None = None) -> FileData:
    """The mask, or weights float32 with the mask w != 0, of one tensor as [m, k]; MatrixError as for `inspect`."""
    stored = _stored(path, readers)
    if tensor not in stored:
        names = ", ".join(str(name) for name in stored) or "none"
        raise MatrixError(f"{path} has no tensor {tensor!r}; it has {names}")
    matrix = _matrix(path, tensor, stored[tensor])
    return FileData(mask=matrix) if matrix.dtype == bool else FileData(mask=matrix != 0, weights=matrix)


def _stored(path: Path, readers: Mapping[str, Reader] | None) -> Mapping[str | None, Stored]:
    table = READERS if readers is None else readers
    suffix = path.suffix.lower()
    if suffix in (".pth", ".pt") and suffix not in table:
        raise MatrixError(f"{path}: only sparsebench.lab.pth reads torch files; use it, or save as .safetensors")
    if suffix not in table:
        raise MatrixError(f"{path}: files ending in {suffix!r} cannot be read; these can: {', '.join(sorted(table))}")
    with _named(path, "file"):
        return table[suffix](path)


def _info(name: str | None, stored: Stored, matrix: np.ndarray, sha256: str) -> TensorInfo:
    (m, k), kind = matrix.shape, stored.kind or "weights"
    return TensorInfo(name, m, k, kind, sha256, stored.shape if len(stored.shape) == 4 else None)


def _matrix(path: Path, name: str | None, stored: Stored) -> np.ndarray:
    """A tensor as bool or float32 [m, k], checked."""
    what = f"tensor {name!r}" if name is not None else "matrix"
    if not stored.is_matrix:
        raise MatrixError(
            f"{path}: {what} is no matrix of floats or booleans, its shape is {stored.shape}; name another"
        )
    if prod(stored.shape) > LARGEST:
        raise MatrixError(
            f"{path}: {what} of shape {stored.shape} is above 2**31 entries, the most read here; split it"
        )
    with _named(path, what), np.errstate(over="ignore"):
        found = stored.read()
        # A boolean byte may be neither 0 nor 1 in a file: numpy bears that, what reads its bytes need not.
        values = found.view(np.uint8) != 0 if stored.kind == "mask" else found.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise MatrixError(f"{path}: {what} is {found[place]} at {place}, not a finite float32; mend the file")
    return np.ascontiguousarray(values.reshape(stored.shape[0], -1))


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises over a broken file into a MatrixError that names the file and `what`."""
    try:
        yield
    except (MatrixError, MemoryError):
        raise
    except OSError as error:
        raise MatrixError(f"{path}: {what} cannot be read: {error.strerror or error}; check the path") from None
    except Exception as error:  # zip, npy, safetensors and torch parsers raise a dozen types between them
        raise MatrixError(f"{path}: {what} is broken: {type(error).__name__}: {error}") from None


def _sha256(path: Path) -> str:
    with _named(path, "file"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(dtype: np.dtype[Any]) -> Kind | None:
    return {"b": "mask", "f": "weights"}.get(dtype.kind)  # type: ignore[return-value]


def _smtx(path: Path) -> Mapping[str | None, Stored]:
    mask = read_smtx(path)
    return {None: Stored(mask.shape, "mask", lambda: mask)}


def _mtx(path: Path) -> Mapping[str | None, Stored]:
    content = read_bytes(path)
    header = header_of(content, str(path))
    return {None: Stored((header.rows, header.columns), header.kind, lambda: entries_of(content, header, str(path)))}


def _npz(path: Path) -> Mapping[str | None, Stored]:
    """Arrays of a .npz by name, or a sparse matrix. Headers come first: no array is made before its size is known."""
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        headers = {name.removesuffix(".npy"): _npy_header(path, archive, name) for name in members}
    if set(headers) >= PARTS:
        shape, dtype = check_parts(path, headers)
        return {None: Stored(shape, "mask" if dtype.kind == "b" else "weights", lambda: read_sparse(path))}
    return {name: Stored(shape, _kind(dtype), _npy(path, name)) for name, (shape, dtype) in headers.items()}


def _npy(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    return read


def _npy_header(path: Path, archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise MatrixError(f"{path}: array {member!r} is .npy version {version}; save plain floats or booleans")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if min(shape, default=0) < 0:
        raise MatrixError(f"{path}: array {member!r} has shape {shape}; sizes must not be negative")
    return shape, dtype


_SAFETENSORS: Mapping[str, str] = {"BOOL": "?", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


def _safetensors(path: Path) -> Mapping[str | None, Stored]:
    """Tensors of a .safetensors by name. numpy has no bfloat16, so values are read by their offsets."""
    with safe_open(path, framework="numpy"):
        pass  # the header is checked; what follows may trust it
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {name: _slice(path, name, entry, 8 + size) for name, entry in sorted(header.items(), key=_offset)}


def _offset(item: tuple[str, Any]) -> int:
    return int(item[1]["data_offsets"][0])


def _slice(path: Path, name: str, entry: Mapping[str, Any], base: int) -> Stored:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    start = base + entry["data_offsets"][0]

    def read() -> np.ndarray:
        if dtype not in _SAFETENSORS:  # F8, F6 and F4: weights, so they are not left out unsaid
            raise MatrixError(f"{path}: tensor {name!r} holds {dtype}, which is not read here; save it as BF16 or F32")
        raw = np.memmap(path, _SAFETENSORS[dtype], "r", start, shape)
        return (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else np.array(raw)

    kind: Kind | None = "mask" if dtype == "BOOL" else "weights" if dtype.startswith(("F", "BF")) else None
    return Stored(shape, kind, read)


READERS: Mapping[str, Reader] = {
    ".smtx": _smtx, ".mtx": _mtx, ".npz": _npz, ".safetensors": _safetensors,
}  # fmt: skip
