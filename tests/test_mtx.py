"""Matrix Market files: what a good one says, and each fault with the file and line that the message names."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import KERNELS, sparse, suite

from sparsebench import sources
from sparsebench.case import Source
from sparsebench.errors import MatrixError
from sparsebench.mtx import header_of, parse_mtx

BANNER = "%%MatrixMarket matrix coordinate real general\n"
SYMMETRIES = ["general", "symmetric", "skew-symmetric"]


def mtx(words: str, body: str) -> bytes:
    return f"%%MatrixMarket matrix {words}\n{body}".encode()


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, np.ndarray]:
    """A file as scipy writes it, in any form, and its matrix."""
    symmetry = draw(st.sampled_from(SYMMETRIES))
    m = draw(st.integers(1, 6))
    k = m if symmetry != "general" else draw(st.integers(1, 6))
    field = draw(st.sampled_from(["real", "integer", "pattern"]))
    values = draw(st.lists(st.integers(-4, 4), min_size=m * k, max_size=m * k))
    matrix = np.array(values, dtype=np.int64 if field == "integer" else np.float64).reshape(m, k)
    if symmetry != "general":
        sign = -1 if symmetry == "skew-symmetric" else 1
        matrix = np.tril(matrix, -1) + sign * np.tril(matrix, -1).T + (sign > 0) * np.diag(np.diag(matrix))
    form = matrix if field != "pattern" and draw(st.booleans()) else scipy.sparse.coo_array(matrix)
    file = io.BytesIO()
    scipy.io.mmwrite(file, form, comment="drawn", field=field, symmetry=symmetry)
    return file.getvalue(), matrix != 0 if field == "pattern" else matrix


@given(files())
def test_what_scipy_writes_comes_back(drawn: tuple[bytes, np.ndarray]) -> None:
    content, matrix = drawn
    found = parse_mtx(content, "x")
    assert found.dtype == (bool if header_of(content, "x").kind == "mask" else np.float32)
    assert np.array_equal(found, matrix)
    assert np.array_equal(parse_mtx(content.replace(b"\n", b"\r\n"), "x"), matrix)


def test_the_lines_of_a_file() -> None:
    """From 1, in any order, blank lines between; an explicit 0 is no nonzero; words of any case."""
    text = b"%%MatrixMarket MATRIX Coordinate Real GENERAL\n% 2 2 2\n\n2 3 3\n2 3 -1.5e0\n\n 1 1\t2\n1 2 0\n\n"
    found = parse_mtx(text, "x")
    assert found.tolist() == [[2, 0, 0], [0, 0, -1.5]]
    assert header_of(text, "x").kind == "weights"
    assert not parse_mtx(mtx("coordinate real general", "2 2 0\n"), "x").any()
    assert not parse_mtx(mtx("coordinate pattern general", "2 2 0"), "x").any()


def test_both_triangles_of_a_symmetric_file() -> None:
    """Some programs write the upper one."""
    for entry in ("2 1", "1 2"):
        assert parse_mtx(mtx("coordinate pattern symmetric", f"2 2 1\n{entry}\n"), "x").tolist() == [[0, 1], [1, 0]]
    skew = parse_mtx(mtx("coordinate real skew-symmetric", "2 2 1\n2 1 3\n"), "x")
    assert skew.tolist() == [[0, -3], [3, 0]]


def test_an_array_goes_column_by_column() -> None:
    assert parse_mtx(mtx("array integer general", "2 3\n1\n2\n3\n4\n5\n6\n"), "x").tolist() == [[1, 3, 5], [2, 4, 6]]
    symmetric = parse_mtx(mtx("array real symmetric", "2 2\n1\n2\n3\n"), "x")
    assert symmetric.tolist() == [[1, 2], [2, 3]]
    assert parse_mtx(mtx("array real skew-symmetric", "2 2\n5\n"), "x").tolist() == [[0, -5], [5, 0]]


REAL, WHOLE, PATTERN = "coordinate real general", "coordinate integer general", "coordinate pattern general"
FAULTS = [
    (b"", "x:1: a .mtx file starts with '%%MatrixMarket matrix FORMAT FIELD SYMMETRY', found ''"),
    (b"2 3 1\n1 1 3\n", "x:1: a .mtx file starts with '%%MatrixMarket matrix FORMAT FIELD SYMMETRY', found '2 3 1'"),
    (b"\xff\x00\n", r"x:1: a .mtx file starts with '%%MatrixMarket matrix FORMAT FIELD SYMMETRY', found '\\xff\x00'"),
    (mtx("coordinate real", "1 1 0\n"), "x:1: a .mtx file starts with"),
    (b"%%MatrixMarket vector coordinate real general\n1 0\n", "x:1: object must be one of matrix to be read here"),
    (mtx("coordinate reel general", "1 1 0\n"), "x:1: field must be one of real, integer, pattern to be read here"),
    (mtx("coordinate complex general", "1 1 0\n"), "integer, pattern to be read here, found 'complex'"),
    (mtx("coordinate real hermitian", "1 1 0\n"), "x:1: symmetry must be one of general, symmetric, skew-symmetric"),
    (mtx("sparse real general", "1 1 0\n"), "x:1: format must be one of coordinate, array to be read here, found 'sp"),
    (mtx("array pattern general", "1 1\n"), "x:1: an array has values and a pattern has none; write coordinate pat"),
    (mtx(REAL, ""), "x:2: expected the sizes of the matrix, but the file ends; it is truncated"),
    (mtx(REAL, "% only\n%comments"), "x:4: expected the sizes of the matrix, but the file ends"),
    (mtx(REAL, "2 3\n"), "x:2: expected rows, columns, entries as whole numbers, found '2 3'"),
    (mtx(REAL, "%\n2 3.5 1\n1 1 1\n"), "x:3: expected rows, columns, entries as whole numbers, found '2 3.5 1'"),
    (mtx(REAL, "2 -3 1\n"), "x:2: expected rows, columns, entries as whole numbers, found '2 -3 1'"),
    (mtx(REAL, "9999999999999999999 1 1\n"), "x:2: expected rows, columns, entries as whole numbers"),
    (mtx("array real general", "2 3 6\n"), "x:2: expected rows, columns as whole numbers, found '2 3 6'"),
    (mtx(REAL, "0 3 0\n"), "x:2: need rows and columns >= 1, found 0 and 3"),
    (mtx(REAL, "65536 65536 1\n"), "x:2: 65536x65536 is above 2**31 entries, the largest matrix read here; split it"),
    (mtx("coordinate real symmetric", "2 3 1\n2 1 3\n"), "x:2: a symmetric matrix is square, found 2x3; one of them"),
    (mtx(REAL, "2 3 7\n"), "x:2: 7 entries are more than a general 2x3 matrix has, 6"),
    (mtx("coordinate real symmetric", "2 2 4\n"), "x:2: 4 entries are more than a symmetric 2x2 matrix has, 3"),
    (
        mtx("coordinate real skew-symmetric", "2 2 2\n"),
        "x:2: 2 entries are more than a skew-symmetric 2x2 matrix has, 1",
    ),
    (mtx(REAL, "2 3 2\n1 1 3\n"), "x:3: expected 2 entries, found 1; the file is truncated"),
    (mtx(REAL, "2 3 1\n"), "x:3: expected 1 entries, found 0; the file is truncated"),
    (mtx(REAL, "2 3 1\n1 1 3\n\n2 2 4\n"), "x:5: expected 1 entries, found 2; remove the others"),
    (mtx("array real general", "1 2\n1\n"), "x:3: expected 2 entries, found 1; the file is truncated"),
    (mtx(REAL, "2 3 2\n1 1 3\n1 2\n"), "x:4: expected row, column, value as numbers, found '1 2'"),
    (mtx(REAL, "2 3 1\n1 1 3 9\n"), "x:3: expected row, column, value as numbers, found '1 1 3 9'"),
    (mtx(REAL, "2 3 1\n1 1 3x\n"), "x:3: expected row, column, value as numbers, found '1 1 3x'"),
    (mtx(REAL, "2 3 1\n1 1 1d3\n"), "x:3: expected row, column, value as numbers, found '1 1 1d3'"),
    (mtx(REAL, "2 3 1\n1 1_0 1\n"), "x:3: expected row, column, value as numbers, found '1 1_0 1'"),
    (mtx(REAL, "2 3 2\n1 1 3\n% late\n1 2 3\n"), "x:4: expected row, column, value as numbers, found '% late'"),
    (mtx(PATTERN, "2 3 1\n1 2 5\n"), "x:3: expected row, column as numbers, found '1 2 5'"),
    (mtx("array real general", "1 2\n1 2\n"), "x:3: expected value as numbers, found '1 2'"),
    (mtx(REAL, "2 3 1\n1 1.5 3\n"), "x:3: column must be a whole number in 1..3, found 1.5"),
    (mtx(REAL, "2 3 2\n1 1 3\n\n0 1 3\n"), "x:5: row must be a whole number in 1..2, found 0"),
    (mtx(REAL, "2 3 1\n1 4 3\n"), "x:3: column must be a whole number in 1..3, found 4"),
    (mtx(REAL, "2 3 1\nnan 1 3\n"), "x:3: row must be a whole number in 1..2, found nan"),
    (mtx(PATTERN, "2 3 1\n1 1.7\n"), "x:3: column must be a whole number in 1..3, found 1.7"),
    (mtx(WHOLE, "2 3 1\n1 1 3.5\n"), "x:3: line 1 says integer, found 3.5"),
    (mtx(REAL, "2 3 1\n1 1 nan\n"), "x:3: the value is no finite float32"),
    (mtx(REAL, "2 3 2\n1 1 1\n2 1 1e39\n"), "x:4: the value is no finite float32"),
    (mtx(REAL, "2 3 3\n2 1 1\n1 2 1\n2 1 0\n"), "x:5: row 2, column 1 occurs twice; an entry has one place"),
    (mtx("coordinate real symmetric", "2 2 2\n2 1 1\n1 2 1\n"), "x:4: row 1, column 2 occurs twice"),
]


@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_each_fault_names_file_and_line(content: bytes, message: str) -> None:
    with pytest.raises(MatrixError, match=re.escape(message)):
        parse_mtx(content, "x")


tokens = st.sampled_from(
    ["0", "1", "2", "3", "-1", "1.5", "1e400", "nan", "x", "%", "\n", "\r", "\t", "99999999999999999999"]
)
broken = (
    st.lists(tokens, max_size=20)
    .map(" ".join)
    .flatmap(
        lambda body: st.sampled_from(
            ["coordinate real general", "coordinate pattern symmetric", "array integer general"]
        ).map(lambda words: mtx(words, body))
    )
)


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, or cut off."""
    content = bytearray(draw(files())[0])
    for _ in range(draw(st.integers(1, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.sampled_from(list(b"0123456789 .-\n\0x")))
    return bytes(content[: draw(st.integers(0, len(content)))])


def parsed(content: bytes) -> np.ndarray | str:
    """The matrix, or the sentence that says why there is none; any other exception fails the test."""
    try:
        return parse_mtx(content, "x")
    except MatrixError as error:
        return str(error)


@settings(max_examples=300)
@given(st.binary(max_size=60) | broken | nearly_right())
def test_any_bytes_are_a_matrix_or_a_sentence(content: bytes) -> None:
    found = parsed(content)
    if isinstance(found, str):
        assert re.fullmatch(r"x:\d+: .+", found)
        assert int(found.split(":")[1]) <= content.count(b"\n") + 2
    else:
        header = header_of(content, "x")
        assert found.shape == (header.rows, header.columns)
        assert np.count_nonzero(found) <= header.entries * (1 + (header.symmetry != "general"))


def test_a_suite_takes_it_as_it_takes_smtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebench.suite.all_kernels", lambda plugins: KERNELS)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mask.mtx").write_bytes(mtx(PATTERN, "2 4 2\n1 4\n2 1\n"))
    (tmp_path / "w.mtx").write_bytes(mtx(REAL, "4 2 2\n1 2 0.5\n4 1 -2\n"))
    text = """name: a
problems: [{matrices: "**/*.mtx", n: 1}]
arms:
  - {pattern: file, kernels: [csr.c]}
  - {pattern: unstructured, sparsity: 0.5, kernels: [csr.c]}
"""
    trials = sparse(suite(tmp_path, text).trials(KERNELS))
    assert [(t.case.m, t.case.k, t.case.pattern, t.case.pruned_by_magnitude) for t in trials] == [
        (2, 4, "file", False),
        (2, 4, "unstructured", False),
        (4, 2, "file", False),
        (4, 2, "unstructured", True),
    ]
    found = sources.load(tmp_path / "w.mtx")
    assert trials[2].case.source == Source("w.mtx", None, sources.inspect(tmp_path / "w.mtx")[0].sha256)
    assert found.weights is not None
    assert found.weights.tolist() == [[0, 0.5], [0, 0], [0, 0], [-2, 0]]
    assert sources.load(tmp_path / "deep" / "mask.mtx").weights is None
