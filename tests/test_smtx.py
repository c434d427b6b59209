""".smtx files: what a good one says, and each fault with the file and line that the message names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.errors import MatrixError
from sparsebench.smtx import parse_smtx, read_smtx

DATA = Path(__file__).parent / "data"
DLMC = Path(__file__).parents[2] / "shared" / "data" / "dlmc"


def text_of(mask: np.ndarray, separator: str = ", ", blank: bytes = b" \n") -> bytes:
    """A .smtx file as DLMC writes it: three lines, blanks at their ends."""
    offsets = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    lines = [
        separator.join(map(str, (*mask.shape, mask.sum()))),
        *(" ".join(map(str, x)) for x in (offsets, np.nonzero(mask)[1])),
    ]
    return b"".join(line.encode() + blank for line in lines)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    m, k = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    bits = draw(st.lists(st.booleans(), min_size=m * k, max_size=m * k))
    return np.array(bits, dtype=bool).reshape(m, k)


@settings(deadline=None)
@given(masks(), st.sampled_from([", ", ",", " "]), st.sampled_from([b"\n", b" \n", b" \r\n", b"\t\n"]))
def test_any_mask_comes_back(mask: np.ndarray, separator: str, blank: bytes) -> None:
    assert np.array_equal(parse_smtx(text_of(mask, separator, blank), "x"), mask)
    assert np.array_equal(parse_smtx(text_of(mask, separator, blank).rstrip() + b"\n\n", "x"), mask)


def test_our_own_files() -> None:
    small = read_smtx(DATA / "small.smtx")
    assert small.astype(int).tolist() == [[0, 1, 0, 0, 1, 0], [0] * 6, [1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]]
    assert not read_smtx(DATA / "nothing.smtx").any()
    uneven = read_smtx(DATA / "uneven.smtx")
    assert uneven.shape == (64, 96)
    assert uneven.sum() == 604
    assert (uneven.sum(axis=1) == 0).sum() == 13


def test_columns_of_a_row_may_come_in_any_order() -> None:
    assert parse_smtx(b"1 4 2\n0 2\n3 0\n", "x").tolist() == [[True, False, False, True]]


def test_the_line_of_columns_may_be_missing_where_there_are_none() -> None:
    assert parse_smtx(b"2 3 0\n0 0 0", "x").shape == (2, 3)


FAULTS = [
    (b"", "x:1: expected 3 sizes 'rows, columns, nnz', found 0; the line is truncated"),
    (b"2, 3\n0 0 0\n\n", "x:1: expected 3 sizes 'rows, columns, nnz', found 2"),
    (b"2, 3, 0, 0\n0 0 0\n\n", "x:1: expected 3 sizes 'rows, columns, nnz', found 4; line 1 is wrong"),
    (b"2, three, 0\n0 0 0\n\n", "x:1: entry 2 must be a whole number, found 'three'"),
    (b"2, 3.0, 0\n0 0 0\n\n", "x:1: entry 2 must be a whole number, found '3.0'"),
    (b"\xff\x00\n", r"x:1: entry 1 must be a whole number, found '\\xff\x00'"),
    (b"-2, 3, 0\n0\n\n", "x:1: need rows and columns >= 1 and nnz >= 0, found -2, 3, 0"),
    (b"2, 3, -1\n0 0 0\n\n", "x:1: need rows and columns >= 1 and nnz >= 0, found 2, 3, -1"),
    (b"0, 3, 0\n0\n\n", "x:1: need rows and columns >= 1 and nnz >= 0, found 0, 3, 0"),
    (b"2, 3, 7\n0 3 7\n0 1 2 0 1 2 0\n", "x:1: nnz 7 is more than 2x3 has entries; one of the three is wrong"),
    (b"65536, 65536, 1\n", "x:1: 65536x65536 is above 2**31 entries, the largest matrix read here; split it"),
    (b"99999999999999999999, 1, 1\n", "is above 2**31 entries"),
    (b"2, 3, 1\n", "x:2: expected 3 row offsets, found 0; the line is truncated"),
    (b"2, 3, 1", "x:2: expected 3 row offsets, but the file ends; it is truncated"),
    (b"2, 3, 1\n0 1\n1\n", "x:2: expected 3 row offsets, found 2; the line is truncated"),
    (b"2, 3, 1\n0 1 1 1\n1\n", "x:2: expected 3 row offsets, found 4; line 1 is wrong, or a line end is missing"),
    (b"2, 3, 1\n0 1_0 1\n1\n", "x:2: entry 2 must be a whole number, found '1_0'"),
    (b"2, 3, 1\n0 1 - 1\n1\n", "x:2: entry 3 must be a whole number, found '-'"),
    (b"2, 3, 1\n1 1 1\n1\n", "x:2: offsets must start at 0 and end at nnz 1, found 1 and 1"),
    (b"2, 3, 1\n0 1 2\n1\n", "x:2: offsets must start at 0 and end at nnz 1, found 0 and 2"),
    (b"3, 3, 2\n0 2 1 2\n0 1\n", "x:2: offsets must not fall, but entry 3 is 1 after 2"),
    (b"2, 3, 1\n0 -1 1\n1\n", "x:2: offsets must not fall, but entry 2 is -1 after 0"),
    (b"2, 3, 2\n0 1 2\n1\n", "x:3: expected 2 column indices, found 1; the line is truncated"),
    (b"2, 3, 2\n0 1 2", "x:3: expected 2 column indices, but the file ends; it is truncated"),
    (b"2, 3, 2\n0 1 2\n1 2 2\n", "x:3: expected 2 column indices, found 3; line 1 is wrong"),
    (b"2, 3, 0\n0 0 0\n1\n", "x:3: expected 0 column indices, found 1; line 1 is wrong"),
    (b"2, 3, 2\n0 0 2\n1 3\n", "x:3: columns must be in 0..2, but entry 2 (row 1) is 3"),
    (b"2, 3, 2\n0 1 2\n-1 2\n", "x:3: columns must be in 0..2, but entry 1 (row 0) is -1"),
    (b"2, 3, 1\n0 0 1\n9223372036854775808\n", "x:3: columns must be in 0..2"),
    (b"2, 3, 3\n0 0 3\n2 1 2\n", "x:3: column 2 occurs twice in row 1; an entry has one place"),
    (b"2, 3, 1\n0 0 1\n2\n\nmore\n", "x:5: a .smtx file has three lines, found more: 'more'; remove it"),
]


@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_each_fault_names_file_and_line(content: bytes, message: str) -> None:
    with pytest.raises(MatrixError, match=re.escape(message)):
        parse_smtx(content, "x")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"gone\.smtx cannot be read: No such file or directory; check the path"):
        read_smtx(tmp_path / "gone.smtx")
    with pytest.raises(MatrixError, match="cannot be read: Is a directory"):
        read_smtx(tmp_path)


tokens = st.sampled_from(
    ["0", "1", "2", "3", "-1", "2147483647", "99999999999999999999", "x", ",", "\n", "\r", "\t", "1e3", "+1", "\0"]
)
broken = st.binary(max_size=60) | st.lists(tokens, max_size=25).map(lambda parts: " ".join(parts).encode())


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, or cut off."""
    content = bytearray(text_of(draw(masks())))
    for _ in range(draw(st.integers(1, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.sampled_from(list(b"0123456789 ,-\nx")))
    return bytes(content[: draw(st.integers(0, len(content)))])


def parsed(content: bytes) -> np.ndarray | str:
    """The mask, or the sentence that says why there is none; any other exception fails the test."""
    try:
        return parse_smtx(content, "x")
    except MatrixError as error:
        return str(error)


@settings(deadline=None, max_examples=400)
@given(broken | nearly_right())
def test_any_bytes_are_a_mask_or_a_sentence(content: bytes) -> None:
    found = parsed(content)
    if isinstance(found, str):
        assert re.fullmatch(r"x:\d+: .+", found)
    else:
        assert found.dtype == bool
        sizes = [int(size) for size in content.split(b"\n")[0].replace(b",", b" ").split()]
        assert [*found.shape, np.count_nonzero(found)] == sizes


@pytest.mark.skipif(not DLMC.is_dir(), reason="the DLMC sample is not beside the repository")
def test_real_pruned_layers() -> None:
    files = sorted(DLMC.rglob("*.smtx"))
    assert len(files) == 44
    for file in files:
        rows, columns, nnz = (int(size) for size in file.read_bytes().split(b"\n")[0].split(b","))
        mask = read_smtx(file)
        assert (mask.shape, mask.sum()) == ((rows, columns), nnz)
