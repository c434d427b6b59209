"""What only a CUDA device can show: every GPU kernel through both gates there, and the clock on real graphs.

`pytest -m gpu` runs it all; `-k tiny` is the part that compute-sanitizer can take (.ci/gpu).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernel_cases import CONVOLUTIONS, PROBLEMS, Problem, convolution_for

from sparsebench import Case, Kernel, Machine, load_kernels
from sparsebench.errors import FormatError, MissingNeed, PatternError, Refused
from sparsebench.lab.bench import Bench
from sparsebench.lab.build import missing_need
from sparsebench.paired import paired_ratio
from sparsebench.record import Protocol

try:
    GPU = Machine.here("cuda")
except Exception:
    GPU = None

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPU is None, reason="no CUDA device")]
KERNELS = [kernel for kernel in load_kernels() if "cuda" in kernel.devices]
GEMM = [kernel for kernel in KERNELS if "gemm" in kernel.ops]
CONV = [kernel for kernel in KERNELS if "conv2d" in kernel.ops]
PROTOCOL = Protocol(cache=("hot", "weights_cold", "cold"), budget_s=0.05, precision=0.05)
LARGER = {
    "unstructured": Problem("layer", 768, 3072, 0.9),
    "constant_fan_in": Problem("layer-ablated", 768, 3072, 0.9, {"ablated": 0.25}),
    "block": Problem("layer-64x64", 512, 1024, 0.8, {"block": [64, 64]}),
    "rbgp4": Problem("layer-graphs", 512, 512, 0.875, {"tile": [256, 64], "row_repeat": 32, "outer_sparsity": 0.5}),
    "nm": Problem("layer-2:4", 512, 1024, None, {"n": 2, "m": 4}),
}


@pytest.fixture(scope="module")
def bench() -> Bench:
    from sparsebench.lab.cuda_side import CudaSide

    assert GPU is not None
    return Bench({kernel.name: kernel for kernel in KERNELS}, PROTOCOL, CudaSide(GPU.cache_bytes), lambda *_: None)


def patterns_of(kernel: Kernel) -> tuple[str, ...]:
    return kernel.format.patterns or (("dense",) if kernel.format.name == "dense" else ("unstructured",))


def cases(kernel: Kernel, problems: list[tuple[str, Problem]], columns: tuple[int, ...]) -> list[Case]:
    """Every dtype, math and layout of `kernel` on these problems, as far as it takes them."""
    found = []
    for pattern, problem in problems:
        for n in columns:
            for dtype in kernel.dtypes:
                for math in kernel.maths if dtype == "float32" else ("ieee",):
                    for layout in kernel.layouts:
                        case = Case(
                            m=problem.m, k=problem.k, n=n, pattern=pattern, params=problem.params,
                            sparsity=problem.sparsity, dtype=dtype, math=math, layout=layout,
                        )  # fmt: skip
                        if kernel.why_not(case, GPU) is None:
                            found.append(case)
    return found


def pass_both_gates(bench: Bench, kernel: Kernel, asked: list[Case]) -> None:
    if missing := next((text for need in kernel.needs if (text := missing_need(need))), None):
        pytest.skip(missing)
    said_no = []
    for case in asked:
        try:
            bench._ready(kernel, bench._reference_of(case, None))
        except (MissingNeed, Refused, PatternError, FormatError) as no:
            said_no.append(str(no))
    if asked and len(said_no) == len(asked):
        pytest.skip(f"refused everywhere: {said_no[0]}")


each = pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.name) for kernel in GEMM])


@each
def test_tiny_products_pass_both_gates(kernel, bench):
    tiny = [(name, problem) for name in patterns_of(kernel) for problem in PROBLEMS[name]]
    pass_both_gates(bench, kernel, cases(kernel, tiny, (1, 3, 17, 64)))


@each
def test_layers_pass_both_gates(kernel, bench):
    layers = [(name, LARGER[name]) for name in patterns_of(kernel) if name in LARGER]
    pass_both_gates(bench, kernel, cases(kernel, layers, (1, 8, 33, 256, 1024)))


@pytest.mark.parametrize("kernel", [pytest.param(kernel, id=kernel.name) for kernel in CONV])
def test_tiny_convolutions_pass_both_gates(kernel, bench):
    plain = [convolution_for(kernel, conv) for conv in CONVOLUTIONS]
    asked = [replace(case, dtype=dtype) for case in plain for dtype in kernel.dtypes]
    pass_both_gates(bench, kernel, [case for case in asked if kernel.why_not(case, GPU) is None])


def test_the_clock_times_real_graphs_and_a_kernel_against_itself_is_one(bench):
    problem = Case(m=1024, k=1024, n=256)
    names = ["dense.cublas"]
    again = bench.again(problem, names)
    for cache in PROTOCOL.cache:
        times_s = again["samples"][cache]
        assert all(time_s > 1e-7 for times in times_s.values() for time_s in times)
        assert paired_ratio(times_s["dense.aa"], times_s["dense.cublas"]).median == pytest.approx(1, abs=0.05)
    assert bench.side.clock.way == "graph"


def test_t0_stands_beside_short_times(bench):
    case = Case(m=64, k=64, n=8, pattern="unstructured", sparsity=0.9)
    facts = bench.measure(case, None, "csr.cuda", ["dense.cublas"])["facts"]
    assert 0 < facts["t0_s"] < 1e-5


def test_peaks_are_plausible():
    from sparsebench.lab.cuda_build import CupyToolchain
    from sparsebench.lab.cuda_peaks import measure_peaks

    peaks = measure_peaks(CupyToolchain())
    assert peaks["stream_bytes_per_s"] < peaks["read_l2_bytes_per_s"] < peaks["read_shared_bytes_per_s"]
    assert peaks["tensor_flops_per_s"]["bfloat16"] > 2 * peaks["tensor_flops_per_s"]["float32"]
