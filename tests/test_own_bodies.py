"""Laws of the own C bodies: inside their arrays, on vectors of every width, and as their faces say."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from guarded import EVERY
from kernel_cases import (
    CONVOLUTIONS,
    MACHINE,
    NARROWER_VECTORS,
    OWN,
    answer,
    convolution_for,
    each,
    example,
    packed_for,
    prepared,
    problems_for,
    question_for,
    solve,
)
from sparsebench.kernels._product import is_plain

from sparsebench import Conv
from sparsebench.errors import SparsebenchError
from sparsebench.lab import build
from sparsebench.lab.build import CpuToolchain, missing_need

GUARDED = Path(__file__).with_name("guarded.py")

needs_cc = pytest.mark.skipif(missing_need("cc") is not None, reason="needs a C compiler")
every_body = pytest.mark.parametrize("kernel", each(OWN))
every_convolution = pytest.mark.parametrize("kernel", each([kernel for kernel in OWN if "conv2d" in kernel.ops]))


# ------------------------------------------------------------------------------------------------------ copies of W


@every_body
@pytest.mark.parametrize("n", [1, 65])
def test_again_is_the_same_product_over_a_copy_of_w(kernel, n, toolchain):
    case = replace(example(kernel), n=n)
    question, draw = question_for(case)
    first = prepared(kernel, case, question, draw, toolchain)
    expected = answer(first, case)
    assert first.again is not None
    second = first.again()
    assert second.y is first.y
    del first  # and its copy of W with it
    gc.collect()
    assert np.array_equal(answer(second, case), expected)


@every_convolution
def test_again_is_the_same_convolution_over_a_copy_of_w(kernel, toolchain):
    case = convolution_for(kernel, CONVOLUTIONS[0])
    question, draw = question_for(case)
    first = prepared(kernel, case, question, draw, toolchain)
    expected = answer(first, case)
    assert first.again is not None
    assert np.array_equal(answer(first.again(), case), expected)


# ---------------------------------------------------------------------------------------------------- out of bounds


@every_convolution
@pytest.mark.parametrize("side", [1, 8], ids=["one pixel", "a plane"])
def test_all_images_of_a_batch_share_a_copy_of_w(kernel, side, toolchain):
    """Where each image is a product of its own; with a copy an image W was streamed from memory as often."""
    grown = []
    for batch in (1, 16):
        case = convolution_for(kernel, Conv(c=512, h=side, w=side, kh=1, kw=1, batch=batch), m=256)
        question, draw = question_for(case)
        launch = prepared(kernel, case, question, draw, toolchain)
        assert launch.again is not None
        tracemalloc.start()
        kept = launch.again()
        grown.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert np.array_equal(answer(kept, case), answer(launch, case))
    assert grown[0] > packed_for(kernel, case, question, draw).nbytes / 2, "numpy's arrays are traced"
    assert grown[1] < 1.5 * grown[0]


def run_guarded(*arguments: str) -> subprocess.CompletedProcess[str]:
    """tests/guarded.py in a process of its own, where a byte read or written beside an array kills it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(GUARDED), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@needs_cc
@pytest.mark.parametrize("side", ["end", "start"])
def test_bodies_stay_inside_their_arrays(side, toolchain):
    done = run_guarded(side, str(toolchain.cache))
    assert done.returncode == 0, f"died in {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    assert {tuple(line.split()[:2]) for line in done.stdout.splitlines()} == EVERY


@needs_cc
@pytest.mark.parametrize("fault", ["reads-after-x", "reads-before-x", "writes-after-y"])
def test_a_planted_step_out_of_bounds_is_caught(fault, tmp_path):
    done = run_guarded("start" if "before" in fault else "end", str(tmp_path), fault)
    assert done.returncode < 0
    assert "done" not in done.stdout


@needs_cc
def test_without_a_fault_the_planted_body_lives(tmp_path):
    done = run_guarded("end", str(tmp_path), "none")
    assert done.stdout == "done\n", done.stderr


# -------------------------------------------------------------------------------------------------- other machines


@every_body
@pytest.mark.parametrize("vectors", [name for name in NARROWER_VECTORS if name != "native"])
def test_the_vectors_of_other_machines(kernel, vectors, toolchain, monkeypatch):
    # -O0 compiles three times as fast, and shows whether a body leans on what -O3 happens to do.
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, *NARROWER_VECTORS[vectors], "-O0"))
    toolchain = CpuToolchain(cache=toolchain.cache)
    for dtype in kernel.dtypes:
        for problem in problems_for(kernel, dtype):
            for n in (1, 3, 17, 65) if problem.k < 1000 else (1, 17):
                case = problem.case(kernel, n, dtype=dtype)
                assert solve(kernel, case, toolchain, "integers") == "", f"{problem.label}, n = {n}, {dtype}"


# ---------------------------------------------------------------------------------------------------- what faces say


@every_body
def test_its_version_covers_everything_it_includes(kernel):
    assert "cc" in kernel.needs
    files = {(kernel.home.parent / name).resolve() for name in (kernel.body, *kernel.sources)}
    lines = [line for path in files if path.suffix in (".c", ".h") for line in path.read_text().splitlines()]
    included = {line.split('"')[1] for line in lines if line.startswith('#include "')}
    assert included <= {path.name for path in files}


@every_body
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_rows(kernel, threads, toolchain):
    """More threads than cores too: each has rows of its own, or none."""
    toolchain = CpuToolchain(threads, cache=toolchain.cache)
    for problem, layout in product(problems_for(kernel), kernel.layouts):
        for n in (1, 3, 64, 130):
            case = replace(problem.case(kernel, n), layout=layout)
            question, draw = question_for(case, "integers")
            launch = prepared(kernel, case, question, draw, toolchain)
            for _ in range(3):
                verdict = question.judge(launch.run(), case)
                assert verdict.ok, f"{problem.label} n={n} {layout}: {verdict.reason}"


@every_body
def test_strided_activations_are_refused(kernel, toolchain):
    case = example(kernel)
    question, draw = question_for(case)
    with pytest.raises(SparsebenchError, match="needs contiguous row-major arrays, found strides"):
        prepared(kernel, case, question, draw, toolchain, np.asfortranarray(question.x))


@every_convolution
def test_groups_are_refused(kernel):
    conv = replace(CONVOLUTIONS[1], groups=2)
    assert kernel.why_not(convolution_for(kernel, conv), MACHINE) == (
        f"{kernel.name}: groups must be 1: it multiplies one [m, k] matrix with all channels; "
        "use a dense kernel for grouped convolutions"
    )


@every_convolution
def test_padded_planes_count_as_moved_bytes(kernel):
    moved = []
    for conv in (CONVOLUTIONS[3], replace(CONVOLUTIONS[3], padding=1)):
        case = convolution_for(kernel, conv)
        question, draw = question_for(case)
        packed = kernel.format.from_dense(question.w, draw.mask, draw.structure)
        as_product = kernel.moved_bytes(replace(case, op="gemm", conv=None), packed)  # its X has k n entries
        moved.append(kernel.moved_bytes(case, packed) - as_product + 4 * (case.k * case.n - question.x.size))
    assert moved[0] == 0
    assert moved[1] >= 2 * 4 * conv.batch * conv.c * conv.h * conv.w


def test_convolutions_that_are_products_already_need_no_planes():
    assert [is_plain(conv) for conv in CONVOLUTIONS] == [False, False, False, True, False]
    assert not is_plain(Conv(c=1, h=2, w=2, kh=1, kw=1, stride=2))
    assert not is_plain(Conv(c=1, h=2, w=2, kh=1, kw=1, padding=1))
