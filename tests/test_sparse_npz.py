"""Sparse matrices in .npz files: one matrix whatever scipy's format, and arrays that would lead it astray."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources import npz_with_header

from sparsebench import sources
from sparsebench.errors import MatrixError

FORMATS = ["csr", "csc", "coo", "bsr", "dia"]
DTYPES = [np.float32, np.float64, np.float16, np.int8, np.int64, np.uint16, bool]


def dense(dtype: Any) -> np.ndarray:
    return np.array([[0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0]]).astype(dtype)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compressed", [False, True])
def test_one_matrix_in_every_format(form: str, dtype: Any, compressed: bool, tmp_path: Path) -> None:
    matrix = dense(dtype)
    wide = matrix.astype(np.float32) if dtype == np.float16 else matrix  # scipy has no sparse float16
    scipy.sparse.save_npz(tmp_path / "m.npz", scipy.sparse.coo_array(wide).asformat(form), compressed)
    (info,) = sources.inspect(tmp_path / "m.npz")
    assert (info.name, info.m, info.k, info.kind) == (None, 3, 4, "mask" if dtype is bool else "weights")
    found = sources.load(tmp_path / "m.npz")
    assert found.mask is not None
    assert np.array_equal(found.mask, matrix != 0)
    if dtype is not bool:
        assert found.weights is not None
        assert np.array_equal(found.weights, matrix.astype(np.float32))


def test_an_explicit_zero_is_no_nonzero(tmp_path: Path) -> None:
    stored = scipy.sparse.csr_array((np.array([0.0, 2.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 3))
    scipy.sparse.save_npz(tmp_path / "m.npz", stored)
    mask = sources.load(tmp_path / "m.npz").mask
    assert mask is not None
    assert mask.tolist() == [[False, True, False]]


def test_arrays_with_those_names_by_chance_are_no_sparse_matrix(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", data=np.ones((2, 3)), shape=np.ones((3, 4)))
    assert [info.name for info in sources.inspect(tmp_path / "m.npz")] == ["data", "shape"]


CSR: dict[str, Any] = {
    "format": np.array(b"csr"),
    "shape": np.array([2, 3]),
    "data": np.array([1.0, 2.0]),
    "indices": np.array([0, 2], np.int32),
    "indptr": np.array([0, 1, 2], np.int32),
}
COO = {"format": np.array(b"coo"), "row": np.array([0, 1]), "col": np.array([0, 2])}
FAULTS = {
    "an index too large": ({"indices": np.array([0, 999999999], np.int32)}, "matrix is broken: ValueError: "),
    "an index below 0": ({"indices": np.array([0, -1], np.int32)}, "matrix is broken: ValueError: "),
    "offsets that fall": ({"indptr": np.array([0, 2, 1], np.int32)}, "matrix is broken: ValueError: "),
    "offsets too large": ({"indptr": np.array([0, 1, 99], np.int32)}, "matrix is broken: ValueError: "),
    "too few offsets": ({"indptr": np.array([0, 2], np.int32)}, "matrix is broken: ValueError: "),
    "offsets of floats": ({"indptr": np.array([0.0, 1, 2])}, "array 'indptr' must hold whole numbers, it holds"),
    "too few values": ({"data": np.array([1.0])}, "matrix is broken: ValueError: "),
    "an unknown format": ({"format": np.array(b"xyz")}, "matrix is broken: "),
    "no format at all": ({"format": np.array([3, 4])}, "matrix is broken: "),
    "a pickle": ({"indices": np.array([None, 1], object)}, "array 'indices' must hold whole numbers, it holds object"),
    "a pickled format": ({"format": np.array(None, object)}, "matrix is broken: ValueError: Object arrays"),
    "rows outside": ({**COO, "row": np.array([0, 2])}, "matrix is broken: ValueError: "),
    "rows below 0": ({**COO, "row": np.array([0, -1])}, "matrix is broken: ValueError: "),
    "an entry twice": ({"indices": np.array([1, 1]), "indptr": np.array([0, 2, 2])}, "row 0, column 1 occurs twice"),
    "twice in coo": ({**COO, "row": np.array([1, 1]), "col": np.array([2, 2])}, "row 1, column 2 occurs twice"),
    "not a number": ({"data": np.array([1.0, np.nan])}, "matrix is nan at (1, 2), not a finite float32"),
    "complex": ({"data": np.array([1j, 2])}, "array 'data' holds complex128, and weights are floats, integers or boo"),
    "objects": ({"data": np.array([None, 2], object)}, "array 'data' holds object, and weights are floats"),
    "three sizes": ({"shape": np.array([1, 2, 3])}, "array 'shape' must be two whole numbers, rows and columns; its"),
    "sizes of floats": ({"shape": np.array([2.0, 3.0])}, "array 'shape' must be two whole numbers"),
    "no rows": ({"shape": np.array([0, 3])}, "array 'shape' is 0, 3; rows and columns must be at least 1"),
    "sizes below 0": ({"shape": np.array([-2, -3])}, "array 'shape' is -2, -3; rows and columns must be at least 1"),
    "too large": ({"shape": np.array([2**20, 2**20])}, "matrix of shape (1048576, 1048576) is above 2**31 entries"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_names_the_file_and_what_is_wrong(fault: str, tmp_path: Path) -> None:
    changed, message = FAULTS[fault]
    np.savez(tmp_path / "bad.npz", **{**CSR, **changed})
    with pytest.raises(MatrixError, match=re.escape(f"{tmp_path / 'bad.npz'}: {message}")):
        sources.inspect(tmp_path / "bad.npz")


def test_an_array_that_lies_about_its_size_is_never_made(tmp_path: Path) -> None:
    npz_with_header(tmp_path / "w.npz", "(1048576, 1048576)", 1)
    with zipfile.ZipFile(tmp_path / "w.npz") as lie, zipfile.ZipFile(tmp_path / "lie.npz", "w") as out:
        np.savez(tmp_path / "csr.npz", **CSR)
        with zipfile.ZipFile(tmp_path / "csr.npz") as good:
            for name in good.namelist():
                out.writestr(name, lie.read("w.npy") if name == "data.npy" else good.read(name))
    with pytest.raises(MatrixError, match=r"array 'data' of shape \(1048576, 1048576\) is above 2\*\*31 entries"):
        sources.inspect(tmp_path / "lie.npz")


INDICES = ["indices", "indptr", "row", "col", "offsets"]
integers = st.lists(st.integers(-3, 9), max_size=5)


def inspected(path: Path) -> list[sources.TensorInfo] | str:
    """What the file holds, or the sentence that says why it cannot be read; any other exception fails the test."""
    try:
        return sources.inspect(path)
    except MatrixError as error:
        return str(error)


@settings(max_examples=150)
@given(
    form=st.sampled_from(FORMATS),
    arrays=st.dictionaries(st.sampled_from(INDICES), integers),
    data=integers,
    shape=st.lists(st.integers(-1, 5), max_size=3),
    deep=st.booleans(),
)
def test_any_arrays_are_a_matrix_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    arrays: dict[str, list[int]],
    data: list[int],
    shape: list[int],
    deep: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npz"
    parts = {name: np.array(values, np.int64) for name, values in arrays.items()}
    values = np.array(data, np.float32)
    shapes = np.array(shape, np.int64)
    np.savez(path, format=np.array(form.encode()), shape=shapes, data=values[None] if deep else values, **parts)
    found = inspected(path)
    assert str(path) in found if isinstance(found, str) else [found[0].m, found[0].k] == shape
