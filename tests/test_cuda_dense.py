"""The dense rivals of a GPU on tensors of the CPU: right answers, switches put back, honest roundings, kernel names."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cuda_on_cpu.toolchain import H100, ShimToolchain
from kernel_cases import CONVOLUTIONS
from planning import planned
from sparsebench.kernels import _ran, _switches
from sparsebench.kernels.condensed import inductor
from sparsebench.kernels.dense import ablated, compacted, cublas, cudnn, lossy

from sparsebench import Case, Conv, Kernel, Launch, Machine
from sparsebench.case import NUMPY_DTYPES
from sparsebench.errors import Refused
from sparsebench.lab.check import Question
from sparsebench.lab.operands import run_filled
from sparsebench.lab.reference import Reference

FACES = (cublas, cudnn, ablated, compacted, lossy, inductor)
KERNELS = {kernel.name: kernel for face in FACES for kernel in face.KERNELS}
GPU = replace(Machine.here("cpu"), device="cuda")
SHAPES = ((1, 1, 1), (7, 33, 5), (64, 128, 24), (40, 96, 1))
DTYPES = ("float32", "float16", "bfloat16")
LOSSY = [kernel for kernel in KERNELS.values() if kernel.lossy]


@pytest.fixture
def toolchain(tmp_path):
    return ShimToolchain(tmp_path)


def of(names: str) -> list:
    return [pytest.param(KERNELS[name], id=name) for name in names.split()]


def prepared(kernel: Kernel, case: Case, question: Question, draw, toolchain) -> Launch:
    """The kernel ready to answer `question`, operands in the dtype of `case` and X in its layout."""
    dtype = NUMPY_DTYPES[case.dtype]
    x = question.x.T if case.conv is None and case.layout == "batch" else question.x
    packed = kernel.format.from_dense(question.w.astype(dtype), draw.mask, draw.structure)
    return kernel.prepare(case, packed, toolchain.tensor(np.ascontiguousarray(x).astype(dtype)), toolchain)


def told(kernel: Kernel, case: Case, toolchain) -> str:
    """What both gates say to it, and to a copy of its weights; nothing when all is right."""
    assert kernel.why_not(case, GPU) is None
    reference = Reference(case, case.draw())
    said = []
    for question in (reference.integers(), reference.normal()):
        launch = prepared(kernel, case, question, reference.draw, toolchain)
        said += [question.judge(run_filled(each), case).reason for each in (launch, launch.again())]
    return " ".join(said).strip()


# ------------------------------------------------------------------------------------------------------ full accuracy


@pytest.mark.parametrize("kernel", of("dense.cublas dense.cublas_linear dense.cublaslt dense.cublaslt_linear"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_pass_both_gates(kernel, dtype, toolchain):
    for m, k, n in SHAPES:
        case = kernel.native(Case(m=m, k=k, n=n, dtype=dtype))
        assert told(kernel, case, toolchain) == "", f"{m} {k} {n}"


@pytest.mark.parametrize("layout", ["feature", "batch"])
def test_one_column_is_a_matrix_times_a_vector(layout, toolchain):
    kernel = KERNELS["dense.cublas_mv"]
    assert told(kernel, Case(m=33, k=70, n=1, layout=layout), toolchain) == ""
    assert "n must be 1" in kernel.why_not(Case(m=3, k=7, n=2), GPU)


SPARSE = (
    {"pattern": "constant_fan_in", "params": {"ablated": 0.5}, "sparsity": 0.8},
    {"pattern": "constant_fan_in", "sparsity": 0.8},
    {"pattern": "block", "params": {"block": [24, 1]}, "sparsity": 0.75},
    {"pattern": "unstructured", "sparsity": 0.97},
    {"pattern": "block", "params": {"block": [12, 20]}, "sparsity": 0.99},  # nothing is left
)


@pytest.mark.parametrize("kernel", of("dense.ablated dense.compacted"))
@pytest.mark.parametrize("layout", ["feature", "batch"])
@pytest.mark.parametrize("pattern", SPARSE, ids=lambda pattern: f"{pattern['pattern']}-{pattern['sparsity']}")
def test_structured_products_are_right_for_any_mask(kernel, layout, pattern, toolchain):
    for dtype in ("float32", "bfloat16"):
        assert told(kernel, Case(m=24, k=40, n=7, layout=layout, dtype=dtype, **pattern), toolchain) == ""


def test_compacted_multiplies_the_columns_left_and_reads_no_other_row_of_x(toolchain):
    kernel, case = KERNELS["dense.compacted"], Case(m=24, k=40, n=7, **SPARSE[2])
    reference = Reference(case, case.draw())
    question = reference.normal()
    question.x[~reference.draw.mask.any(axis=0)] = np.nan
    launch = prepared(kernel, case, question, reference.draw, toolchain)
    assert launch.facts == {"live_columns": 10}
    assert torch.isfinite(run_filled(launch)).all()
    packed = kernel.format.from_dense(question.w, reference.draw.mask)
    assert packed.values.shape == (24, 10)
    assert kernel.moved_bytes(case, packed) == packed.nbytes + 4 * (24 * 7 + 3 * 10 * 7)


def test_ablated_multiplies_the_rows_that_are_on(toolchain):
    kernel, case = KERNELS["dense.ablated"], Case(m=24, k=40, n=7, **SPARSE[0])
    reference = Reference(case, case.draw())
    launch = prepared(kernel, case, reference.normal(), reference.draw, toolchain)
    assert launch.facts == {"active_rows": 12}
    assert launch.weight_bytes == 4 * 12 * 40
    assert "no rows or columns to leave out" in kernel.why_not(Case(m=24, k=40, n=7), GPU)


@pytest.mark.parametrize("kernel", of("dense.cudnn dense.cudnn_nhwc dense.im2col"))
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda c: f"{c.c}x{c.h}x{c.w}-{c.kh}x{c.kw}-s{c.stride}p{c.padding}")
def test_convolutions_pass_both_gates(kernel, conv, toolchain):
    for dtype in ("float32", "bfloat16"):
        n = conv.batch * conv.oh * conv.ow
        case = Case(m=8, k=conv.c * conv.kh * conv.kw, n=n, op="conv2d", conv=conv, dtype=dtype)
        assert told(kernel, case, toolchain) == ""


def test_library_convolutions_take_groups_and_im2col_says_no(toolchain):
    conv = Conv(c=6, h=5, w=4, kh=3, kw=3, padding=1, groups=3, batch=2)
    case = Case(m=9, k=2 * 9, n=conv.batch * conv.oh * conv.ow, op="conv2d", conv=conv)
    for name in ("dense.cudnn", "dense.cudnn_nhwc"):
        assert told(KERNELS[name], case, toolchain) == ""
    assert "groups must be 1" in KERNELS["dense.im2col"].why_not(case, GPU)


def test_a_convolution_that_is_not_exact_gives_way_to_the_first_choice(monkeypatch):
    conv = CONVOLUTIONS[0]
    case = Case(m=8, k=27, n=conv.batch * conv.oh * conv.ow, op="conv2d", conv=conv)
    x, w = torch.zeros(2, 3, 5, 7), torch.zeros(8, 3, 3, 3)
    switches, ran = cudnn.searched(case, x, w, "cuda")
    assert ran == cudnn.SEARCHED
    right = torch.conv2d
    monkeypatch.setattr(torch, "conv2d", lambda x, *rest: right(x, *rest) * (1 + 1e-6 * torch.backends.cudnn.benchmark))
    switches, ran = cudnn.searched(case, x, w, "cuda")
    assert ran == cudnn.FIRST_CHOICE
    assert [switch.value for switch in switches] == ["ieee", False, 0]
    assert not torch.backends.cudnn.benchmark


def test_limits_say_why():
    conv = replace(CONVOLUTIONS[0], h=30_000, w=30_000)
    large = Case(m=8, k=27, n=conv.batch * conv.oh * conv.ow, op="conv2d", conv=conv)
    assert "8 GiB" in KERNELS["dense.im2col"].why_not(large, GPU)
    half = Case(m=8, k=8, n=8, dtype="float16", math="tf32")
    assert "ways to multiply float32" in KERNELS["dense.cublas"].why_not(half, GPU)
    gathers = Case(m=4096, k=4096, n=2048, pattern="constant_fan_in", sparsity=0.9)
    assert "below 2**31" in KERNELS["condensed.inductor"].why_not(gathers, GPU)
    for kernel in KERNELS.values():
        assert kernel.why_not(half, replace(GPU, device="cpu")) == f"{kernel.name} takes devices cuda, not cpu"


# ---------------------------------------------------------------------------------------------------------- switches


def state() -> tuple:
    matmul, cudnn_ = torch.backends.cuda.matmul, torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(),
        matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_fp16_accumulation,
        cudnn_.conv.fp32_precision,
        cudnn_.benchmark,
    )


@pytest.mark.parametrize(
    ("dtype", "asked", "places"),
    [
        ("float32", "ieee", {0: "highest", 1: "ieee"}),
        ("float32", "tf32", {0: "high", 1: "tf32"}),
        ("float32", "tf32x3", {0: "highest", 1: "ieee"}),
        ("float16", "ieee", {3: False, 5: False}),
        ("bfloat16", "ieee", {4: False, 5: False}),
    ],
)
def test_matmul_switches_hold_for_the_call_alone(dtype, asked, places):
    case, before = Case(m=2, k=2, n=2, dtype=dtype, math=asked), state()
    during = _switches.under(_switches.matmul_switches(case), state)()
    assert {place: during[place] for place in places} == places
    assert state() == before
    with pytest.raises(ZeroDivisionError):
        _switches.under(_switches.matmul_switches(case), lambda: 1 // 0)()
    assert state() == before
    assert _switches.facts_of(case) == ({"math_ran": "ieee"} if asked == "tf32x3" else {})


@pytest.mark.parametrize("asked", ["ieee", "tf32"])
def test_convolution_switches_hold_for_the_call_alone(asked):
    case, before = Case(m=2, k=2, n=2, math=asked), state()
    during = _switches.under(cudnn.conv_switches(case, search=True), state_of_conv)()
    assert during == (asked, True)
    assert state() == before


def state_of_conv() -> tuple:
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.benchmark


def test_a_state_that_only_the_new_interface_can_express_is_left_as_it_was():
    matmul = torch.backends.cuda.matmul
    matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError):
            torch.get_float32_matmul_precision()
        seen = _switches.under(_switches.matmul_switches(Case(m=2, k=2, n=2)), lambda: matmul.fp32_precision)()
        assert (seen, matmul.fp32_precision) == ("ieee", "tf32")
    finally:
        matmul.fp32_precision = "none"
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_blas_library_is_chosen_on_a_gpu_alone(monkeypatch):
    chosen = ["cublas"]

    def choose(name=None):
        chosen.extend([name] if name else [])
        return chosen[-1]

    monkeypatch.setattr(torch.backends.cuda, "preferred_blas_library", choose)
    assert _switches.blas_switch("cublaslt", "cpu") == []
    call = _switches.under(_switches.blas_switch("cublaslt", "cuda"), lambda: chosen[-1])
    assert (call(), chosen[-1]) == ("cublaslt", "cublas")


# -------------------------------------------------------------------------------------------------------- quantised


def lossy_case(kernel: Kernel, n: int, dtype: str = "bfloat16", k: int = 384) -> Case:
    return Case(m=48, k=k, n=n, dtype=dtype, layout="batch")


def one_rounding(kernel: Kernel, reference: Reference) -> Reference:
    """The precision gate without its walk: 8 u sqrt(sum (w x)^2), since each factor is rounded once."""
    return reference.loosened(kernel.unit_roundoff / math.sqrt(reference.case.k))


@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.name) for kernel in LOSSY])
@pytest.mark.parametrize("n", [1, 20, 65])
def test_quantised_integers_are_exact_and_normal_data_is_off_by_what_rounding_costs(kernel, n, toolchain):
    for dtype in kernel.dtypes:
        case = lossy_case(kernel, n, dtype)
        assert kernel.why_not(case, GPU) is None
        reference = Reference(case, case.draw())
        integers, normal = reference.integers(), one_rounding(kernel, reference).normal()
        exact = integers.judge(run_filled(prepared(kernel, case, integers, reference.draw, toolchain)), case)
        launch = prepared(kernel, case, normal, reference.draw, toolchain)
        rounded = normal.judge(run_filled(launch), case)
        assert (exact.reason, rounded.reason) == ("", "")
        assert 0.05 < rounded.ratio < 0.9  # the bound is neither loose nor lucky
        assert not reference.normal().judge(run_filled(launch), case).ok  # and it is no exact product
        assert normal.judge(run_filled(launch.again()), case).ok


@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.name) for kernel in LOSSY])
def test_a_lost_nonzero_and_a_lost_answer_fail(kernel, toolchain):
    case = lossy_case(kernel, 20)
    reference = Reference(case, case.draw())
    integers, normal = reference.integers(), one_rounding(kernel, reference).normal()
    lost = Question(integers.w.copy(), integers.x, integers.y, integers.allowed)
    lost.w[5, 7] = 0
    answer = run_filled(prepared(kernel, case, lost, reference.draw, toolchain))
    assert "Y[5, " in integers.judge(answer, case).reason
    answer = run_filled(prepared(kernel, case, normal, reference.draw, toolchain))
    assert not normal.judge(torch.zeros_like(answer), case).ok


@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.name) for kernel in LOSSY])
def test_rows_of_zeros_are_zeros(kernel, toolchain):
    for dtype in kernel.dtypes:
        case = lossy_case(kernel, 3, dtype)
        question = Question(np.zeros((48, 384), np.float32), np.zeros((384, 3), np.float32), None, None)
        question.x[:, 1] = 1
        assert not run_filled(prepared(kernel, case, question, case.draw(), toolchain)).any()


def test_quantised_kernels_say_what_they_do_not_take(toolchain):
    old = ShimToolchain(toolchain.cache, gpu=replace(H100, sm=75))
    case = lossy_case(KERNELS["dense.fp8"], 4)
    reference = Reference(case, case.draw())
    for name, least in (("dense.fp8", "sm_89"), ("dense.int4", "sm_80")):
        with pytest.raises(Refused, match=f"{name} needs {least} or newer, this GPU is sm_75; use dense.int8"):
            prepared(KERNELS[name], case, reference.normal(), reference.draw, old)
    assert "m must be a multiple of 8 and k of 128" in KERNELS["dense.int4"].why_not(lossy_case(LOSSY[0], 1, k=64), GPU)
    assert "m must be a multiple of 16 and k of 16" in KERNELS["dense.fp8"].why_not(replace(case, m=40), GPU)
    assert KERNELS["dense.int8"].why_not(replace(case, m=40), GPU) is None


@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.name) for kernel in LOSSY])
def test_quantised_weights_are_as_small_as_said(kernel, toolchain):
    case = lossy_case(kernel, 64)
    reference = Reference(case, case.draw())
    launch = prepared(kernel, case, reference.normal(), reference.draw, toolchain)
    full = 2 * case.m * case.k
    assert launch.weight_bytes < full * (0.6 if kernel.name != "dense.int4" else 0.3) + 4 * 256
    packed = kernel.format.from_dense(reference.normal().w.astype(NUMPY_DTYPES["bfloat16"]), reference.draw.mask)
    assert kernel.moved_bytes(case, packed) > launch.weight_bytes - 4 * 256 + 2 * case.n * (case.m + case.k)


def test_int4_of_keeps_the_range_and_the_group():
    w = np.zeros((1, 256), np.float32)
    w[0, :3], w[0, 128:131] = (4, -3.9, 1), (1.99, -0.25, 0.1)
    numbers, scales = lossy.int4_of(w)
    assert scales.tolist() == [[1, 0.25]]
    assert numbers[0, :3].tolist() == [12, 4, 9]
    assert numbers[0, 128:131].tolist() == [15, 7, 8]


# --------------------------------------------------------------------------------------------- condensed, by inductor


def test_the_expression_scatters_where_rows_are_off(toolchain, monkeypatch):
    monkeypatch.setattr(inductor, "compiled", lambda function: function)
    kernel = KERNELS["condensed.inductor"]
    for params, sparsity in (({}, 0.8), ({"ablated": 0.5}, 0.8), ({}, 0.999)):
        case = Case(m=24, k=40, n=7, pattern="constant_fan_in", params=params, sparsity=sparsity, layout="batch")
        assert told(kernel, case, toolchain) == ""
    packed = kernel.format.from_dense(np.eye(3, 9, dtype=np.float32), np.eye(3, 9, dtype=bool))
    assert kernel.moved_bytes(Case(m=3, k=9, n=2), packed) == 3 * 12 + 4 * 2 * (3 + 9)


@pytest.mark.slow
def test_inductor_sums_16_bit_products_in_fp32(toolchain):
    kernel = KERNELS["condensed.inductor"]
    case = Case(m=24, k=40, n=3, pattern="constant_fan_in", sparsity=0.8, layout="batch", dtype="bfloat16")
    reference = Reference(case, case.draw())
    launch = prepared(kernel, case, reference.normal(), reference.draw, toolchain)
    assert reference.normal().judge(run_filled(launch), case).reason == ""
    assert torch.equal(launch.again().run(), launch.run())


# ----------------------------------------------------------------------------------------------------- who is planned


def test_quantised_kernels_run_where_an_arm_names_them_and_are_no_baselines(tmp_path, monkeypatch):
    import planning

    fp8 = planning.kernel("dense.fp8", lossy="fp8 e4m3", unit_roundoff=0.05)
    monkeypatch.setattr(planning, "KERNELS", {**planning.KERNELS, fp8.name: fp8})
    problem, arm = "m: 8, k: 16, n: 4", "pattern: unstructured, sparsity: 0.5, kernels: ['csr.c']"
    names = [trial.kernel for trial in planned(tmp_path, problem, arm)]
    assert names == ["dense.one", "dense.two", "csr.c"]
    named = f"{arm}\n pattern: dense, kernels: ['dense.fp8']"
    assert [trial.kernel for trial in planned(tmp_path, problem, named)] == [*names[:2], "dense.fp8", "csr.c"]
    only = {
        glob: [trial.kernel for trial in planned(tmp_path, problem, named, only=glob)] for glob in ("*.fp8", "csr.*")
    }
    assert only == {"*.fp8": [*names[:2], "dense.fp8"], "csr.*": names}
    assert [trial.kernel for trial in planned(tmp_path, problem, arm, only="dense.*")] == names[:2]


# ------------------------------------------------------------------------------------------------- which kernels ran


class Driver:
    """libcuda's part in it: a graph of a memset and two kernels, the second named by its CUkernel."""

    def cuGraphGetNodes(self, graph, nodes, count):  # noqa: N802
        assert graph.value == 7
        count._obj.value = 3
        for place in range(3 if nodes is not None else 0):
            nodes[place] = 100 + place
        return 0

    def cuGraphNodeGetType(self, node, kind):  # noqa: N802
        kind._obj.value = 2 if node.value == 100 else 0
        return 0

    def cuGraphKernelNodeGetParams_v2(self, node, found):  # noqa: N802
        found._obj.grid[:], found._obj.block[:] = (node.value, 2, 1), (128, 1, 1)
        setattr(found._obj, "function" if node.value == 101 else "kernel", node.value)
        return 0

    def cuFuncGetName(self, name, function):  # noqa: N802
        name._obj.value = {101: b"sm90_xmma_gemm_f32f32_tn_n"}[function.value]
        return 0

    def cuKernelGetName(self, name, kernel):  # noqa: N802
        name._obj.value = {102: b"_ZN8cublasLt19splitKreduce_kernelILi32ELi16EiffEEvT1_"}[kernel.value]
        return 0


def test_the_nodes_of_a_graph_are_named():
    assert ctypes.sizeof(_ran.KernelNode) == 72  # cuda.h
    found = list(_ran.nodes_of(Driver(), 7))
    assert [ran.name for ran in found] == ["sm90_xmma_gemm_f32f32_tn_n", "splitKreduce_kernel"]
    assert (found[1].grid, found[1].block) == ((102, 2, 1), (128, 1, 1))
    broken = SimpleNamespace(cuGraphGetNodes=lambda *_: 201)
    with pytest.raises(OSError, match="returned 201"):
        list(_ran.nodes_of(broken, 7))


def test_a_launch_is_named_on_a_gpu_and_nothing_there_fails_a_trial(monkeypatch):
    launch = Launch(lambda: None, ran="searched")
    assert _ran.named(launch, "cpu") is launch
    assert _ran.named(launch, "cuda") is launch  # no GPU here: nothing is known, nothing is raised
    assert _ran.kernels_of(lambda: 1 // 0) == ""
    found = [_ran.Ran("im2col", (4, 1, 1), (32, 1, 1))] * 3 + [_ran.Ran("gemm", (9, 9, 1), (128, 1, 1))]
    monkeypatch.setattr(_ran, "_captured", lambda call: found)
    named = _ran.named(launch, "cuda")
    assert (named.ran, named.grid, named.block) == ("searched: 3 x im2col + gemm", (9, 9, 1), (128, 1, 1))
    monkeypatch.setattr(_ran, "_captured", lambda call: 1 // 0)
    assert _ran.kernels_of(lambda: None) == ""


@pytest.mark.parametrize(
    ("mangled", "told"),
    [
        ("ampere_sgemm_32x128_tn", "ampere_sgemm_32x128_tn"),
        (
            "_ZN7cutlass7Kernel2I54cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_tnEEvNT_6ParamsE",
            "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_tn",
        ),
        ("_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEvi",
         "vectorized_elementwise_kernel<FillFunctor>"),
        ("_Z3odd999", "odd"),
        ("_Z", "_Z"),
        ("k" * 200, "k" * 87 + "..."),
    ],
)  # fmt: skip
def test_names_are_shortened(mangled, told):
    assert _ran.readable(mangled) == told
