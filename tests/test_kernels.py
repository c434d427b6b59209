"""One set of laws that every shipped kernel keeps, on every shape its pattern takes.

Packed and asked as the lab does it: weights of the case, activations in the kernel's native layout, Y full of NaN.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    CONVOLUTIONS,
    NARROWER_VECTORS,
    PROBLEMS,
    convolution_for,
    drawn_problems,
    in_layout,
    problems_for,
    question_for,
)

from sparsebench import PATTERNS, Case, Conv, Kernel, Launch, Machine, load_kernels
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain, missing_need
from sparsebench.lab.check import as_columns

MACHINE = Machine.here("cpu")
KERNELS = [kernel for kernel in load_kernels() if "cpu" in kernel.devices]
GEMM = [kernel for kernel in KERNELS if "gemm" in kernel.ops]
CONV = [kernel for kernel in KERNELS if "conv2d" in kernel.ops]
OWN = [kernel for kernel in KERNELS if kernel.body]

every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
every_gemm = pytest.mark.parametrize("kernel", GEMM, ids=lambda kernel: kernel.name)
every_problem = pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        pytest.param(kernel, problem, id=f"{kernel.name}-{problem.label}")
        for kernel in GEMM
        for problem in problems_for(kernel, MACHINE)
    ],
)


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CpuToolchain]:
    """One toolchain for all, in which a compiler's warning is an error, so that each body is compiled once."""
    cc = os.environ.get("CC")
    os.environ["CC"] = " ".join([*build.compiler(), "-Wall", "-Wextra", "-Werror"])
    yield CpuToolchain(cache=tmp_path_factory.mktemp("bodies"))
    if cc is None:
        del os.environ["CC"]
    else:
        os.environ["CC"] = cc


def prepared(kernel: Kernel, case: Case, w: np.ndarray, draw, x: np.ndarray, toolchain: CpuToolchain) -> Launch:
    return kernel.prepare(case, kernel.format.from_dense(w, draw.mask, draw.structure), x, toolchain)


def answer(launch: Launch, case: Case) -> np.ndarray:
    """Y [m, n] of one call that finds NaN in its output."""
    if launch.y is not None:
        launch.y.fill(np.nan)
    return as_columns(np.asarray(launch.run()), case)


def solve(kernel: Kernel, case: Case, toolchain: CpuToolchain, data: str) -> str:
    """What the gate says about one fresh answer: nothing when it is right."""
    question, draw = question_for(case, data)
    launch = prepared(kernel, case, question.w, draw, in_layout(question.x, case), toolchain)
    if launch.y is not None:
        launch.y.fill(np.nan)
    return question.judge(launch.run(), case).reason


# --------------------------------------------------------------------------------------------------- the right answer


@every_problem
def test_integers_are_exact(kernel, problem, toolchain):
    for n in problem.columns:
        assert solve(kernel, problem.case(kernel, n), toolchain, "integers") == "", f"n = {n}"


@every_problem
def test_normal_data_stay_within_the_allowance(kernel, problem, toolchain):
    for n in problem.columns:
        assert solve(kernel, problem.case(kernel, n), toolchain, "normal") == "", f"n = {n}"


@every_problem
def test_every_layout_it_takes(kernel, problem, toolchain):
    for layout in kernel.layouts:
        case = problem.case(kernel, 5, layout)
        assert case.layout == layout
        assert solve(kernel, case, toolchain, "integers") == ""


@every_problem
def test_identity_returns_w_bit_for_bit(kernel, problem, toolchain):
    if problem.k > 1000:
        return  # an identity of 65537 columns would be 16 GiB
    case = problem.case(kernel, problem.k)
    question, draw = question_for(case)
    launch = prepared(kernel, case, question.w, draw, in_layout(np.eye(problem.k), case), toolchain)
    assert np.array_equal(answer(launch, case), question.w)


@every_problem
def test_rows_of_x_that_w_never_meets_are_never_read_into_y(kernel, problem, toolchain):
    if kernel.format.name == "dense":
        return  # it stores the zeros, and 0 x NaN is NaN
    for n in (1, 65):
        case = problem.case(kernel, n)
        question, draw = question_for(case)
        x = question.x.copy()
        x[~draw.mask.any(axis=0)] = np.nan
        y = answer(prepared(kernel, case, question.w, draw, in_layout(x, case), toolchain), case)
        assert np.isfinite(y).all(), f"n = {n}"


@pytest.mark.parametrize("kernel", CONV, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda c: f"{c.c}x{c.h}x{c.w}-{c.kh}x{c.kw}-s{c.stride}p{c.padding}")
def test_convolutions(kernel, conv, toolchain):
    case = convolution_for(kernel, conv)
    assert kernel.why_not(case, MACHINE) is None
    for data in ("integers", "normal"):
        assert solve(kernel, case, toolchain, data) == ""


@pytest.mark.parametrize("kernel", [k for k in CONV if k.format.name == "dense"], ids=lambda kernel: kernel.name)
def test_library_convolutions_take_groups(kernel, toolchain):
    conv = Conv(c=6, h=5, w=4, kh=3, kw=3, padding=1, groups=3, batch=2)
    case = Case(m=9, k=2 * 9, n=conv.batch * conv.oh * conv.ow, op="conv2d", conv=conv)
    assert solve(kernel, case, toolchain, "integers") == ""


@every_gemm
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(kernel, toolchain, data):
    pattern = data.draw(st.sampled_from(kernel.format.patterns or ("dense",)))
    m, k, params, sparsity = data.draw(drawn_problems(pattern))
    n, seed = data.draw(st.integers(1, 150)), data.draw(st.integers(0, 1000))
    case = Case(m=m, k=k, n=n, pattern=pattern, params=params, sparsity=sparsity, seed=seed)
    case = kernel.native(case)
    if kernel.why_not(case, MACHINE) is None:
        assert solve(kernel, case, toolchain, "integers") == ""


@pytest.mark.parametrize("kernel", [k for k in OWN if "gemm" in k.ops], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("vectors", [name for name in NARROWER_VECTORS if name != "native"])
def test_own_bodies_on_the_vectors_of_other_machines(kernel, vectors, tmp_path, monkeypatch):
    # -O1 compiles twice as fast, and shows whether a body leans on what -O3 happens to do.
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, *NARROWER_VECTORS[vectors], "-O1"))
    toolchain = CpuToolchain(cache=tmp_path)
    for problem in problems_for(kernel, MACHINE):
        for n in (1, 3, 17, 65):
            assert solve(kernel, problem.case(kernel, n), toolchain, "integers") == "", f"{problem.label}, n = {n}"


# ------------------------------------------------------------------------------------------------ how it is launched


@every_kernel
def test_changed_activations_are_seen_by_the_next_run(kernel, toolchain):
    case = example(kernel)
    question, draw = question_for(case, "integers")
    x = in_layout(question.x, case)
    launch = prepared(kernel, case, question.w, draw, x, toolchain)
    first = answer(launch, case).copy()
    x *= 2
    assert np.array_equal(answer(launch, case), 2 * first)


@every_kernel
def test_the_output_is_the_buffer_the_toolchain_gave(kernel, toolchain):
    case = example(kernel)
    question, draw = question_for(case, "integers")
    x = in_layout(question.x, case)
    launch = prepared(kernel, case, question.w, draw, x, toolchain)
    y = np.asarray(launch.run())
    assert y.dtype == np.float32
    if launch.y is not None:
        assert np.shares_memory(y, launch.y)
        assert launch.y.shape == y.shape
    assert np.array_equal(x, in_layout(question.x, case)), "it wrote into X"


def example(kernel: Kernel) -> Case:
    """A plain case: the kernel's largest problem, or a convolution where it takes nothing else."""
    if "gemm" not in kernel.ops:
        return convolution_for(kernel, CONVOLUTIONS[0])
    return max(problems_for(kernel, MACHINE), key=lambda problem: problem.m).case(kernel, 24)


# ------------------------------------------------------------------------------------------- what the face says of it


@every_kernel
def test_the_face_is_complete(kernel):
    assert kernel.name.split(".")[0] == kernel.format.name == kernel.home.parent.name
    assert kernel.about
    assert kernel.source
    assert [missing_need(need) for need in kernel.needs] == [None] * len(kernel.needs)
    assert len(kernel.source_sha) == 64
    if kernel.body:
        assert "cc" in kernel.needs
        assert (kernel.home.parent / kernel.body).is_file()


@every_kernel
def test_its_version_covers_everything_it_includes(kernel):
    if not kernel.body:
        return
    files = {(kernel.home.parent / name).resolve() for name in (kernel.body, *kernel.sources)}
    included = {
        line.split('"')[1]
        for path in files
        if path.suffix in (".c", ".h")
        for line in path.read_text().splitlines()
        if line.startswith('#include "')
    }
    assert included <= {path.name for path in files}


@every_problem
def test_moved_bytes_are_no_fewer_than_operands_and_answer(kernel, problem):
    case = problem.case(kernel, 16)
    question, draw = question_for(case)
    packed = kernel.format.from_dense(question.w, draw.mask, draw.structure)
    assert kernel.moved_bytes(case, packed) >= packed.nbytes + 4 * case.m * case.n


@pytest.mark.parametrize("kernel", [k for k in CONV if k.body], ids=lambda kernel: kernel.name)
def test_own_bodies_refuse_groups(kernel):
    conv = replace(CONVOLUTIONS[1], groups=2)
    reason = kernel.why_not(convolution_for(kernel, conv), MACHINE)
    assert reason == (
        f"{kernel.name}: groups must be 1: it multiplies one [m, k] matrix with all channels; "
        "use a dense kernel for grouped convolutions"
    )


def test_every_format_has_an_own_body_or_is_dense():
    assert {kernel.format.name for kernel in OWN} | {"dense"} == {kernel.format.name for kernel in KERNELS}


def test_every_pattern_is_asked_of_some_kernel():
    asked = {problem.case(kernel, 1).pattern for kernel in GEMM for problem in problems_for(kernel, MACHINE)}
    assert asked == set(PROBLEMS)
    assert set(PROBLEMS) == set(PATTERNS) - {"file"}


# ---------------------------------------------------------------------------------------------------- out of bounds

GUARDED = Path(__file__).with_name("guarded.py")


def run_guarded(*arguments: str) -> subprocess.CompletedProcess[str]:
    """tests/guarded.py in a process of its own, where a byte read or written beside an array kills it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(GUARDED), *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("side", ["end", "start"])
def test_own_bodies_stay_inside_their_arrays(side, toolchain):
    done = run_guarded(side, str(toolchain.cache))
    assert done.returncode == 0, f"died in {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    assert {line.split()[0] for line in done.stdout.splitlines()} == {kernel.name for kernel in OWN}


@pytest.mark.parametrize("fault", ["reads-after-x", "reads-before-x", "writes-after-y"])
def test_a_planted_step_out_of_bounds_is_caught(fault, tmp_path):
    side = "start" if "before" in fault else "end"
    done = run_guarded(side, str(tmp_path), fault)
    assert done.returncode < 0
    assert "done" not in done.stdout
