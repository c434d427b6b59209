"""What the shim (cuda_on_cpu) refuses: launches that CUDA refuses, texts it cannot run, a ptx.cuh without a twin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.build import HERE
from cuda_on_cpu.toolchain import H100, ShimError, ShimToolchain
from shim_cases import FAULTS, NUMBERS, needs_shim

from sparsebench.errors import SparsebenchError
from sparsebench.lab.build import include_folder

pytestmark = [pytest.mark.shim, needs_shim]

PTX, TWIN = include_folder() / "ptx.cuh", HERE / "include" / "ptx.cuh"


# ------------------------------------------------------------------------------------------------ what CUDA refuses

X, Y = np.zeros(64, np.float32), (64,)


def bound(toolchain: ShimToolchain, arguments: Sequence[Any] = (), **sizes: Any) -> Any:
    sizes = {"grid": (1,), "block": (64,), "shared_bytes": 256, **sizes}
    tensors = [toolchain.tensor(X), toolchain.output(Y)]
    function = toolchain.cuda(FAULTS, "memory", NUMBERS[FAULTS])
    return function.bind(sizes["grid"], sizes["block"], [*tensors, *arguments], sizes["shared_bytes"])


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "takes arguments pp44, given were pp "),
        ((1, 2, 3), "given were pp444"),
        ((1, 2.0), "given were pp4f"),
        ((1, np.int64(2)), "given were pp48"),
        ((1, np.int16(2)), "given were pp42"),
        ((1, 2**31), "argument 3 is 2147483648, an int must fit 32 bits"),
        ((1, True), "argument 3 is a bool; a tensor, an int or a float can be passed"),
        ((1, None), "argument 3 is a NoneType"),
    ],
)
def test_wrong_arguments(arguments, said, shim):
    with pytest.raises(ShimError, match=said):
        bound(shim(), arguments)


def test_a_tensor_with_gaps_is_refused(shim):
    toolchain = shim()
    function = toolchain.cuda(FAULTS, "memory", NUMBERS[FAULTS])
    with pytest.raises(ShimError, match=r"argument 0 is a tensor with strides .*contiguous"):
        function.bind((1,), (1,), [toolchain.tensor(np.zeros((4, 4), np.float32)).T, toolchain.output(Y), 0, 0])


@pytest.mark.parametrize(
    "sizes, said",
    [
        ({"grid": (0,)}, "grid .* is outside"),
        ({"grid": (2**31,)}, "grid .* is outside"),
        ({"grid": (1, 65536)}, "grid .* is outside"),
        ({"grid": (1, 1, 65536)}, "grid .* is outside"),
        ({"block": (1025,)}, "block .* must have 1 to 1024 threads"),
        ({"block": (33, 32)}, "block .* must have 1 to 1024 threads"),
        ({"block": (0,)}, "block .* must have 1 to 1024 threads"),
        ({"block": (1, 1, 65)}, "64 at most along z"),
        ({"shared_bytes": -1}, "-1 bytes of dynamic"),
        ({"shared_bytes": H100.shared_bytes - 255}, "and 256 of static shared memory, a block may have 232448"),
    ],
)
def test_launches_that_cuda_refuses(sizes, said, shim):
    with pytest.raises(ShimError, match=said):
        bound(shim(), (0, 0), **sizes)


def test_launches_that_cuda_takes(shim):
    for sizes in (
        {"grid": (2**31 - 1, 65535, 65535)},
        {"block": (4, 4, 64)},
        {"shared_bytes": H100.shared_bytes - 256},
    ):
        bound(shim(), (0, 0), **sizes)


# --------------------------------------------------------------------------------------------- the text of a body

BODY = 'extern "C" __global__ void body(float* y) {{ {} }}\n'
OUTSIDE = "extern __shared__ __align__(16) unsigned char shared[];\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ('#include "nowhere.cuh"\n', 'body.cu includes "nowhere.cuh", which is in none of '),
        ("#include <cuda_fp16.h>\n", r"body.cu:1:.*cuda_fp16.h: No such file"),
        ("\n\nint wrong() { return nothing; }\n", r"body.cu:3:.*'nothing' was not declared"),
        ('#include "ptx.cuh"\nint wrong() { return nothing; }\n', r"body.cu:2:.*'nothing' was not declared"),
        ("\nint wrong(int a, unsigned b) { return a < b; }\n", r"body.cu:2:.*different signedness"),
        ("\n__device__ void f() { copy_async<3>(0, 0); }\n", r"body.cu:2:.*'copy_async' was not declared"),
        ('#include "ptx.cuh"\nvoid f() { copy_async<3>(0, 0); }\n', "cp.async copies 4, 8 or 16 bytes"),
        ("extern __shared__ float s[];\n", "body.cu: dynamic shared memory has one form here, inside the function"),
        ("extern __shared__ int4 s[];\n", "dynamic shared memory has one form here"),
        (OUTSIDE, r"body.cu:1:.*outside function"),
        (
            BODY.format(
                "__shared__ float s[12289]; s[threadIdx.x] = y[1]; __syncthreads(); y[0] = s[threadIdx.x ^ 1];"
            ),
            "CUDA allows 49152",
        ),
        ('extern "C" __global__ void another() {}\n', r"'body' was not declared"),
    ],
)
def test_a_body_that_is_refused(text, said, tmp_path, shim):
    file = tmp_path / "body.cu"
    file.write_text(text if "__global__" in text else text + BODY.format("y[0] = 1.0f;"))
    with pytest.raises(SparsebenchError) as caught:
        shim().cuda(file, "body")
    assert re.search(said, str(caught.value).replace("‘", "'").replace("’", "'"))


# ---------------------------------------------------------------------------------- ptx.cuh and its twin of the tests

FUNCTION = re.compile(
    r"(?P<template>template <[^>]*>\s*)?__device__ (?:__forceinline__|inline) "
    r"(?P<result>[\w ]+[ *&])(?P<name>\w+)\((?P<arguments>(?:[^(){]|\([^()]*\))*)\)\s*\{"
)


def functions(file: Path) -> dict[str, tuple[str, str, str]]:
    """Template parameters, result and arguments of each function of a file, less what says where it is called."""
    text = re.sub(r"//.*", "", file.read_text())
    found = {}
    for one in FUNCTION.finditer(text):
        said = ((one[part] or "").replace(", SHIM_HERE", "") for part in ("template", "result", "arguments"))
        found[one["name"]] = tuple(" ".join(part.split()) for part in said)
    return found


def test_every_ptx_function_has_a_twin_of_the_same_signature():
    assert functions(PTX) == functions(TWIN)
    assert len(functions(PTX)) == PTX.read_text().count("__device__")
    assert len(functions(TWIN)) == TWIN.read_text().count("__device__")


@pytest.mark.parametrize(
    "change, to",
    [("int take = BYTES", "int take = 0"), ("template <int PENDING>", "template <unsigned PENDING>"),
     ("unsigned tf32_of_float", "float tf32_of_float"), ("void commit_copies", "void close_copies")],
)  # fmt: skip
def test_another_signature_is_seen(change, to, tmp_path):
    file = tmp_path / "ptx.cuh"
    file.write_text(PTX.read_text().replace(change, to))
    assert functions(file) != functions(TWIN)


def test_no_other_file_has_assembly():
    for file in sorted(PTX.parents[1].rglob("*.cu*")):
        assert file == PTX or not re.search(r"\basm\b", re.sub(r"//.*", "", file.read_text())), file.name
