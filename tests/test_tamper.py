"""What a kernel could do to look right or fast: fences are seen from both sides, and signs reach the answer."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebench import Case, Conv
from sparsebench.lab.check import NUMPY, columns_of
from sparsebench.lab.operands import in_layout
from sparsebench.lab.reference import Reference
from sparsebench.lab.tamper import FENCE_BYTES, LINE_BYTES, Turning, fenced, fenced_tensor, written_beside

CASES = {
    "feature": Case(m=3, k=5, n=4, pattern="dense"),
    "batch": Case(m=3, k=5, n=4, pattern="dense", layout="batch"),
    "one column": Case(m=3, k=5, n=1, pattern="dense"),
    "images": Case(m=3, k=8, n=18, op="conv2d", conv=Conv(c=2, h=4, w=4, kh=2, kw=2, batch=2), pattern="dense"),
}


@given(st.integers(1, 200), st.sampled_from(["float32", "float16", "uint8"]))
def test_a_fenced_array_starts_at_a_line_and_holds_what_was_given(count, dtype):
    given_ = np.arange(count).astype(dtype)
    placed = fenced(given_)
    assert placed.ctypes.data % LINE_BYTES == 0
    assert np.array_equal(placed, given_)
    assert placed.flags.c_contiguous
    assert written_beside(placed) == 0


@pytest.mark.parametrize("offset", [-FENCE_BYTES, -1, 0, FENCE_BYTES - 1])
def test_a_byte_written_beside_an_array_is_seen(offset):
    placed = fenced(np.ones((3, 5), np.float32))
    ctypes.memset(placed.ctypes.data + (placed.nbytes if offset >= 0 else 0) + offset, 0, 1)
    assert written_beside(placed) == 1
    assert placed.sum() == 15


def test_an_array_without_fences_is_never_accused():
    assert written_beside(np.ones(3)) == 0
    assert written_beside(np.ones((4, 4))[1:]) == 0


@pytest.mark.parametrize("offset", [-1, 0])
def test_a_byte_written_beside_a_tensor_is_seen(offset):
    import torch

    placed = fenced_tensor(torch.ones(3, 5, dtype=torch.bfloat16))
    assert placed.is_contiguous()
    assert written_beside(placed) == 0
    ctypes.memset(placed.data_ptr() + (30 if offset == 0 else 0) + offset, 0, 1)
    assert written_beside(placed) == 1
    assert placed.sum() == 15
    assert written_beside(torch.ones(3)) == 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("turns", [0, 1, 3, 9])
def test_turned_samples_of_x_turn_the_columns_of_y_they_reach(case, turns):
    question = Reference(case, case.draw()).normal()
    turning = Turning(in_layout(question.x, case), case)
    for _ in range(turns):
        turning.turn()
    x = turning.x.T if case.layout == "batch" else turning.x
    found = question.w.astype(np.float64) @ columns_of(x.astype(np.float64), case.conv)
    assert np.allclose(found, question.turned(turning.column_signs()).y)
    assert np.array_equal(found, question.y) == (turns % (2 * len(turning.signs)) == 0)
    turning.turn_back()
    assert np.array_equal(turning.x, in_layout(question.x, case))
    assert (turning.signs == 1).all()


def test_tensors_turn_as_arrays_do():
    import torch

    from sparsebench.lab.device_check import TorchArithmetic

    case = CASES["feature"]
    turning = Turning(torch.ones(5, 4), case)
    turning.turn()
    assert turning.x[:, 0].tolist() == [-1] * 5
    assert turning.x[:, 1:].min() == 1
    y, signs = np.ones((3, 4)), turning.column_signs()
    assert np.array_equal(TorchArithmetic("cpu").by_columns(torch.from_numpy(y), signs), NUMPY.by_columns(y, signs))
