"""One set of laws that every shipped kernel keeps, on every shape its pattern takes.

Packed and asked as the lab does it: weights of the case, activations in the kernel's native layout, Y full of NaN.
Laws of the own C bodies alone stand in test_own_bodies.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    CONVOLUTIONS,
    KERNELS,
    MACHINE,
    OWN,
    PROBLEMS,
    answer,
    array_of,
    convolution_for,
    drawn_problems,
    each,
    each_dtype,
    example,
    in_layout,
    lacking,
    packed_for,
    prepared,
    problems_for,
    question_for,
    solve,
)

from sparsebench import PATTERNS, Case, Conv
from sparsebench.case import ITEM_BYTES, NUMPY_DTYPES
from sparsebench.errors import MissingNeed

GEMM = [kernel for kernel in KERNELS if "gemm" in kernel.ops]
CONV = [kernel for kernel in KERNELS if "conv2d" in kernel.ops]

every_kernel = pytest.mark.parametrize("kernel", each(KERNELS))
every_dtype = pytest.mark.parametrize("kernel, dtype", each_dtype(KERNELS))
every_gemm = pytest.mark.parametrize("kernel", each(GEMM))
every_problem = pytest.mark.parametrize(
    "kernel, problem, dtype",
    [
        pytest.param(kernel, problem, dtype, id=f"{kernel.name}-{problem.label}-{dtype}", marks=lacking(kernel, dtype))
        for kernel in GEMM
        for dtype in kernel.dtypes
        for problem in problems_for(kernel, dtype)
    ],
)


# --------------------------------------------------------------------------------------------------- the right answer


@every_problem
@pytest.mark.parametrize("data", ["integers", "normal"])
def test_both_gates_pass_at_every_n(kernel, problem, dtype, data, toolchain):
    for n in problem.columns:
        assert solve(kernel, problem.case(kernel, n, dtype=dtype), toolchain, data) == "", f"n = {n}"


@pytest.mark.parametrize("kernel, dtype", each_dtype(GEMM))
def test_every_layout_it_takes(kernel, dtype, toolchain):
    for layout in kernel.layouts:
        case = problems_for(kernel, kernel.dtypes[0])[1].case(kernel, 5, layout, dtype)
        assert case.layout == layout
        assert solve(kernel, case, toolchain, "integers") == ""


@every_problem
def test_identity_returns_w_bit_for_bit(kernel, problem, dtype, toolchain):
    if problem.k > 1000:
        return  # an identity of 65537 columns would be 16 GiB
    case = problem.case(kernel, problem.k, dtype=dtype)
    question, draw = question_for(case)
    identity = in_layout(np.eye(problem.k), case)
    assert np.array_equal(answer(prepared(kernel, case, question, draw, toolchain, identity), case), question.w)


@every_problem
def test_rows_of_x_that_w_never_meets_are_never_read_into_y(kernel, problem, dtype, toolchain):
    if kernel.format.name == "dense":
        return  # it stores the zeros, and 0 x NaN is NaN
    for n in (1, 65) if problem.k < 1000 else (1,):
        case = problem.case(kernel, n, dtype=dtype)
        question, draw = question_for(case)
        question.x[~draw.mask.any(axis=0)] = np.nan
        assert np.isfinite(answer(prepared(kernel, case, question, draw, toolchain), case)).all(), f"n = {n}"


@pytest.mark.parametrize("kernel, dtype", each_dtype(CONV))
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda c: f"{c.c}x{c.h}x{c.w}-{c.kh}x{c.kw}-s{c.stride}p{c.padding}")
def test_convolutions(kernel, dtype, conv, toolchain):
    case = convolution_for(kernel, conv, dtype=dtype)
    assert kernel.why_not(case, MACHINE) is None
    for data in ("integers", "normal"):
        assert solve(kernel, case, toolchain, data) == ""


@pytest.mark.parametrize("kernel, dtype", each_dtype([kernel for kernel in CONV if kernel.format.name == "dense"]))
def test_library_convolutions_take_groups(kernel, dtype, toolchain):
    conv = Conv(c=6, h=5, w=4, kh=3, kw=3, padding=1, groups=3, batch=2)
    case = Case(m=9, k=2 * 9, n=conv.batch * conv.oh * conv.ow, op="conv2d", conv=conv, dtype=dtype)
    assert solve(kernel, case, toolchain, "integers") == ""


@every_gemm
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(kernel, toolchain, data):
    pattern = data.draw(st.sampled_from(kernel.format.patterns or ("dense",)))
    m, k, params, sparsity = data.draw(drawn_problems(pattern))
    n, seed = data.draw(st.integers(1, 150)), data.draw(st.integers(0, 1000))
    weights = {"pattern": pattern, "params": params, "sparsity": sparsity, "seed": seed}
    case = kernel.native(Case(m=m, k=k, n=n, dtype=data.draw(st.sampled_from(kernel.dtypes)), **weights))
    if kernel.why_not(case, MACHINE) is None:
        assert solve(kernel, case, toolchain, "integers") == ""


# ------------------------------------------------------------------------------------------------ how it is launched


@every_dtype
def test_changed_activations_are_seen_by_the_next_run(kernel, dtype, toolchain):
    case = example(kernel, dtype)
    question, draw = question_for(case, "integers")
    x = in_layout(question.x, case)
    launch = prepared(kernel, case, question, draw, toolchain, x)
    first = answer(launch, case).copy()
    x *= 2
    assert np.array_equal(answer(launch, case), 2 * first)


@every_dtype
def test_y_is_the_buffer_it_names_and_x_is_left_alone(kernel, dtype, toolchain):
    case = example(kernel, dtype)
    question, draw = question_for(case, "integers")
    x = in_layout(question.x, case)
    launch = prepared(kernel, case, question, draw, toolchain, x)
    y = array_of(launch.run())
    assert y.dtype == NUMPY_DTYPES[dtype]
    if launch.y is not None:
        assert np.shares_memory(y, launch.y)
        assert launch.y.shape == y.shape
    assert np.array_equal(x, in_layout(question.x, case))


@every_dtype
def test_a_launch_over_a_fresh_copy_of_w_gives_the_same_answer(kernel, dtype, toolchain):
    case = example(kernel, dtype)
    launch = prepared(kernel, case, *question_for(case), toolchain)
    if launch.again is not None:
        first, other = answer(launch, case).copy(), launch.again()
        assert np.array_equal(answer(other, case), first)
        assert (other.y is launch.y, other.weight_bytes) == (True, launch.weight_bytes)


def test_a_torch_without_onednn_is_a_missing_need(toolchain, monkeypatch):
    import torch

    kernel = next(kernel for kernel in KERNELS if kernel.name == "dense.onednn")
    case = example(kernel)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(MissingNeed, match=r"^needs a torch with oneDNN and its operators _reorder_linear_weight, "):
        prepared(kernel, case, *question_for(case), toolchain)


# ------------------------------------------------------------------------------------------- what the face says of it


@every_kernel
def test_the_face_is_complete(kernel):
    assert kernel.name.split(".")[0] == kernel.format.name == kernel.home.parent.name
    assert kernel.about
    assert kernel.source
    assert len(kernel.source_sha) == 64


@every_problem
def test_moved_bytes_are_no_fewer_than_weights_and_answer(kernel, problem, dtype):
    case = problem.case(kernel, 16, dtype=dtype)
    packed = packed_for(kernel, case, *question_for(case))
    assert kernel.moved_bytes(case, packed) >= packed.nbytes + ITEM_BYTES[dtype] * case.m * case.n


def test_every_format_but_dense_has_an_own_body():
    assert {kernel.format.name for kernel in OWN} == {kernel.format.name for kernel in KERNELS} - {"dense"}


def test_every_pattern_is_asked_of_some_kernel():
    asked = {problem.case(kernel, 1).pattern for kernel in GEMM for problem in problems_for(kernel)}
    assert asked == set(PROBLEMS)
    assert set(PROBLEMS) == set(PATTERNS) - {"file"}
