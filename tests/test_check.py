"""The gates, and each of the faults of the contract that they must refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsebench.case import NUMPY_DTYPES, Case, Conv
from sparsebench.lab.check import Question, as_columns, product
from sparsebench.lab.operands import in_layout, layout_change_s
from sparsebench.lab.reference import Reference
from sparsebench.lab.tamper import written_beside
from sparsebench.patterns import Draw

K = 4096
BFLOAT16 = NUMPY_DTYPES["bfloat16"]


def reference(k: int = K, sparsity: float = 0.5, **fields) -> Reference:
    case = Case(m=24, k=k, n=8, pattern="unstructured", sparsity=sparsity, **fields)
    return Reference(case, case.draw())


def plain(question: Question) -> np.ndarray:
    """The honest fp32 answer."""
    return question.w @ question.x


def one_lost(question: Question) -> np.ndarray:
    """One nonzero dropped in each row: the one whose loss shows least in most bounds, a middling one."""
    w = question.w.copy()
    for row in w:
        stored = np.flatnonzero(row)
        row[stored[np.argsort(np.abs(row[stored]))[len(stored) // 2]]] = 0
    return w @ question.x


def tf32(question: Question) -> np.ndarray:
    """Both factors rounded to 10 explicit mantissa bits, sums in fp32: what a tensor core does unasked."""

    def rounded(values: np.ndarray) -> np.ndarray:
        bits = values.view(np.uint32)
        return ((bits + 0x0FFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)

    return rounded(question.w.copy()) @ rounded(question.x.copy())


def fp16_sums(question: Question) -> np.ndarray:
    """Sums kept in fp16, as a kernel that forgot to widen its accumulator would."""
    total = np.zeros((len(question.w), question.x.shape[1]), np.float16)
    for column in range(question.w.shape[1]):
        total += np.outer(question.w[:, column], question.x[column]).astype(np.float16)
    return total.astype(np.float32)


def bf16_sums(question: Question) -> np.ndarray:
    """Sums kept in bfloat16 from one multiply-add to the next."""
    total = np.zeros((len(question.w), question.x.shape[1]), BFLOAT16)
    for column in range(question.w.shape[1]):
        total += np.outer(question.w[:, column], question.x[column]).astype(BFLOAT16)
    return total.astype(np.float32)


def unwritten(question: Question) -> np.ndarray:
    """An output filled with NaN first, in which one entry is never written."""
    y = plain(question)
    y[-1, -1] = np.nan
    return y


def nudged(question: Question) -> np.ndarray:
    """One entry off by twice what is allowed (or by one, where nothing is)."""
    y = question.y.copy()
    y[3, 2] += 2 * question.allowed[3, 2] or 1
    return y


def swapped_rows(question: Question) -> np.ndarray:
    return plain(question)[[1, 0, *range(2, len(question.w))]]


def test_the_honest_answer_passes_both_gates_with_room():
    asked = reference()
    assert asked.integers().judge(plain(asked.integers()), asked.case).ratio == 0
    assert asked.normal().judge(plain(asked.normal()), asked.case).ratio < 0.5


@pytest.mark.parametrize("fault", [one_lost, tf32, fp16_sums, unwritten, nudged, swapped_rows])
def test_precision_gate_refuses(fault):
    asked = reference()
    assert not asked.normal().judge(fault(asked.normal()), asked.case).ok


@pytest.mark.parametrize("fault", [one_lost, unwritten, nudged, swapped_rows])
def test_integer_gate_refuses(fault):
    asked = reference()
    assert not asked.integers().judge(fault(asked.integers()), asked.case).ok


def test_bfloat16_is_judged_by_float32_sums_rounded_once():
    asked = reference(dtype="bfloat16")
    for question in (asked.integers(), asked.normal()):
        assert np.array_equal(question.x, in_layout(question.x, asked.case).astype(np.float32)), "X is rounded already"
        assert question.judge(plain(question).astype(BFLOAT16), asked.case).ok
        assert question.judge(torch.from_numpy(plain(question)).bfloat16(), asked.case).ok
        for fault in (one_lost, bf16_sums, unwritten, nudged, swapped_rows):
            assert not question.judge(fault(question).astype(BFLOAT16), asked.case).ok, fault.__name__


def test_tf32_passes_where_it_is_what_was_asked():
    asked = reference(math="tf32")
    assert asked.normal().judge(tf32(asked.normal()), asked.case).ok


def test_an_answer_that_ignores_changed_inputs_is_refused():
    asked = reference(k=64)
    stale = plain(asked.normal(fresh=0))
    assert asked.normal(fresh=0).judge(stale, asked.case).ok
    assert not asked.normal(fresh=1).judge(stale, asked.case).ok


def test_reasons_name_the_entry_and_the_numbers():
    asked = reference(k=64)
    verdict = asked.normal().judge(nudged(asked.normal()), asked.case)
    assert verdict.reason.startswith("Y[3, 2] is ")
    assert "1 of 192 entries are off" in verdict.reason
    assert "never written" in asked.normal().judge(unwritten(asked.normal()), asked.case).reason
    assert "shape [8, 24], [24, 8] was asked for" in asked.normal().judge(plain(asked.normal()).T, asked.case).reason


def test_empty_rows_must_be_exactly_zero():
    case = Case(m=4, k=8, n=3, pattern="unstructured", sparsity=0.9)
    mask = np.zeros((4, 8), bool)
    mask[0, 0] = True
    question = Reference(case, Draw(mask)).normal()
    y = plain(question)
    assert question.judge(y, case).ok
    y[2, 1] = 1e-30
    assert not question.judge(y, case).ok


@pytest.mark.parametrize("stride, padding, batch", [(1, 0, 1), (2, 1, 2), (1, 2, 3)])
def test_reference_of_a_convolution_is_torchs_in_float64(stride, padding, batch):
    conv = Conv(c=3, h=9, w=7, kh=3, kw=3, stride=stride, padding=padding, batch=batch)
    case = Case(op="conv2d", m=5, k=27, n=batch * conv.oh * conv.ow, conv=conv)
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((5, 27)), rng.standard_normal((batch, 3, 9, 7))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(w.reshape(5, 3, 3, 3)), stride=stride, padding=padding
    )
    assert np.allclose(product(w, x, conv), as_columns(expected.numpy(), case), rtol=1e-12, atol=1e-12)


def test_reference_of_a_depthwise_convolution_is_torchs():
    conv = Conv(c=4, h=6, w=6, kh=3, kw=3, padding=1, groups=4)
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((8, 9)), rng.standard_normal((1, 4, 6, 6))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(w.reshape(8, 1, 3, 3)), padding=1, groups=4
    )
    assert np.allclose(product(w, x, conv), expected.numpy()[0].reshape(8, -1), rtol=1e-12, atol=1e-12)


def test_images_in_batch_layout_have_channels_last():
    conv = Conv(c=3, h=4, w=5, kh=1, kw=1, batch=2)
    case = Case(m=2, k=3, n=40, op="conv2d", conv=conv)
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    placed = in_layout(x, replace(case, layout="batch"))
    assert np.array_equal(placed, x), "the same images"
    assert torch.from_numpy(placed).is_contiguous(memory_format=torch.channels_last)
    assert written_beside(placed) == 0
    placed.base[0] += 1
    assert written_beside(placed) == 1, "fences are seen through the transposition"
    assert layout_change_s(case, case) == 0.0
    assert layout_change_s(case, replace(case, layout="batch")) > 0.0


def test_batch_layout_is_the_transpose():
    case = Case(m=2, k=3, n=4, layout="batch")
    x = np.arange(12.0).reshape(3, 4)
    assert in_layout(x, case).shape == (4, 3)
    assert in_layout(x, case).flags.c_contiguous
    assert in_layout(x, case).ctypes.data % 64 == 0
    assert as_columns(np.zeros((4, 2)), case).shape == (2, 4)
    assert in_layout(x, replace(case, dtype="bfloat16")).dtype == BFLOAT16


def test_bfloat16_answers_round_once_to_nearest_even():
    case = Case(m=16, k=64, n=8, dtype="bfloat16")
    question = Reference(case, case.draw()).integers()
    expected = torch.from_numpy(product(question.w, question.x)).to(torch.bfloat16).double().numpy()
    assert np.array_equal(question.y, expected)
