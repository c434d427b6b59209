"""A CudaToolchain (sparsebench/kernel.py) that runs bodies on the CPU, and asks more of a launch than a GPU does.

    toolchain = ShimToolchain(cache_folder, order="descending")
    launch = kernel.prepare(case, packed, toolchain.tensor(x), toolchain)

Tensors lie between pages without access. Shared memory is full of NaN when a block starts, and so is every output.
Threads run in the order asked for. Misaligned vectors, steps out of static arrays and out of tensors, barriers that
some threads miss: each is a ShimError that names block, thread and source line.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.errors import SparsebenchError
from sparsebench.kernel import Gpu
from sparsebench.lab.build import include_folder
from sparsebench.lab.cuda_source import translation_unit

from .buffers import Side, guarded_copy, guarded_tensor
from .build import HERE, body_library, runtime
from .faults import Code, in_words

H100 = Gpu(sm=90, processors=132, shared_bytes=232448, cache_bytes=50 * 2**20)
A100 = Gpu(sm=80, processors=108, shared_bytes=166912, cache_bytes=40 * 2**20)

Order = str | int  # "ascending", "descending" or a seed
ORDERS: Mapping[str, int] = {"ascending": -1, "descending": -2}
NESTED = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"  # brackets within brackets
BOUNDS = r"__launch_bounds__\((" + NESTED + r")\)\s*(?:__global__\s+)?(?:void\s+)?{}\s*\("
MOST_THREADS, MOST_STATIC_SHARED = 1024, 48 * 1024
DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?unsigned\s+char\s+(\w+)\s*\[\s*\]\s*;")
LETTERS: Mapping[type, str] = {ctypes.c_void_p: "p", ctypes.c_float: "f"}


class ShimError(SparsebenchError):
    """A launch that CUDA does not allow, or that went wrong."""


class ShimToolchain:
    """What a face of a GPU kernel gets in the tests (kernel.CudaToolchain); `order` and `side` may be set at any time.

    ahead     a folder laid out as kernels/: sources that are there replace those of the same path (mutation.py)
    asked     every (body, function, defines) that cuda() was called with, in their order
    limit_s   processor time after which a launch is taken for a loop without end
    """

    device = "cpu"

    def __init__(self, cache: Path, order: Order = "ascending", gpu: Gpu = H100, side: Side = "end") -> None:
        self.cache, self.order, self.gpu, self.side = cache, order, gpu, side
        self.ahead: Path | None = None
        self.limit_s = 60.0
        self.asked: list[tuple[Path, str, dict[str, Any]]] = []
        self._functions: dict[tuple[Path, str, str], ShimFunction] = {}
        self._outputs: dict[tuple[Any, ...], Any] = {}

    def cuda(self, body: Path, function: str, defines: Mapping[str, Any] | None = None) -> ShimFunction:
        """`function` of `body`, compiled with `defines` as macros; SparsebenchError when g++ refuses it."""
        body, defines = Path(body).resolve(), dict(defines or {})
        self.asked.append((body, function, defines))
        key = (body, function, repr(sorted(defines.items())))
        if key not in self._functions:
            self._functions[key] = ShimFunction.built(self, body, function, defines)
        return self._functions[key]

    def tensor(self, array: np.ndarray) -> Any:
        """A guarded copy of `array`."""
        return guarded_copy(np.asarray(array), self.side)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """The guarded tensor for outputs of this shape and dtype, full of NaN again."""
        return self.scratch("output", shape, dtype)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """The guarded tensor of this name, shape and dtype, full of NaN (integers: -1) again."""
        key = (name, tuple(shape), dtype, self.side)
        if key not in self._outputs:
            self._outputs[key] = guarded_tensor(tuple(shape), dtype, self.side)
        return filled_with_nan(self._outputs[key])


def filled_with_nan(tensor: Any) -> Any:
    """`tensor` itself, all its bytes 0xff: NaN in every float format, -1 in integers."""
    ctypes.memset(ctypes.c_void_p(tensor.data_ptr()), 0xFF, tensor.numel() * tensor.element_size())
    return tensor


@dataclass(frozen=True, slots=True, eq=False)
class ShimFunction:
    """One `extern "C" __global__` function, compiled for the CPU (kernel.CudaFunction)."""

    toolchain: ShimToolchain
    name: str
    code: Code
    runtime: ctypes.CDLL
    signature: str
    static_shared: int
    most_threads: int

    @classmethod
    def built(cls, toolchain: ShimToolchain, body: Path, function: str, defines: Mapping[str, Any]) -> ShimFunction:
        """Compile (or find in the cache) and load."""
        base = ctypes.CDLL(str(runtime(toolchain.cache)), mode=ctypes.RTLD_GLOBAL)
        text = unit_of(body, function, defines, toolchain.ahead)
        path = body_library(toolchain.cache, f"{body.parent.name}-{function}", text)
        library = ctypes.CDLL(str(path))
        library.shim_signature.restype = ctypes.c_char_p
        base.shim_static_shared.restype = ctypes.c_size_t
        signature, static = library.shim_signature().decode(), base.shim_static_shared(library.shim_entry)
        if static > MOST_STATIC_SHARED:
            raise ShimError(f"{function} has {static} bytes of static shared memory, CUDA allows {MOST_STATIC_SHARED}")
        code, most = Code(path, library, body.name), library.shim_most_threads()
        return cls(toolchain, function, code, base, signature, static, most)

    def bind(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_bytes: int = 0
    ) -> Callable[[], None]:
        """One launch as a call without arguments; ShimError on what CUDA would refuse, now or when it runs."""
        grid, block = three(grid), three(block)
        self._check(grid, block, shared_bytes)
        values = [as_argument(argument, f"{self.name}: argument {i}") for i, argument in enumerate(arguments)]
        given = "".join(LETTERS.get(type(value), str(ctypes.sizeof(value))) for value in values)
        if given != self.signature:
            raise ShimError(f"{self.name} takes arguments {self.signature}, given were {given} (p: tensor, f: float)")

        def call() -> None:
            self._launch(grid, block, values, shared_bytes, arguments)

        return call

    def _check(self, grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int) -> None:
        if not (1 <= grid[0] < 2**31 and 1 <= grid[1] <= 65535 and 1 <= grid[2] <= 65535):
            raise ShimError(f"{self.name}: grid {grid} is outside of 1..2147483647, 1..65535, 1..65535")
        if min(block) < 1 or block[0] * block[1] * block[2] > MOST_THREADS or block[2] > 64:
            raise ShimError(f"{self.name}: block {block} must have 1 to 1024 threads, 64 at most along z")
        if block[0] * block[1] * block[2] > self.most_threads:
            raise ShimError(f"{self.name}: block {block} is beyond its __launch_bounds__ of {self.most_threads}")
        most = self.toolchain.gpu.shared_bytes
        if not 0 <= shared_bytes <= most - self.static_shared:
            raise ShimError(
                f"{self.name}: {shared_bytes} bytes of dynamic and {self.static_shared} of static shared memory, "
                f"a block may have {most}"
            )

    def _launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        values: Sequence[Any],
        shared_bytes: int,
        arguments: Sequence[Any],
    ) -> None:
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        tensors = [(i, argument) for i, argument in enumerate(arguments) if hasattr(argument, "data_ptr")]
        said = ctypes.create_string_buffer(4096)
        order = self.toolchain.order
        self.runtime.shim_launch(
            self.code.library.shim_entry,
            *((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), pointers, len(tensors)),
            (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for _, tensor in tensors)),
            (ctypes.c_size_t * len(tensors))(*(tensor.numel() * tensor.element_size() for _, tensor in tensors)),
            (ctypes.c_int * len(tensors))(*(i for i, _ in tensors)),
            ctypes.c_size_t(shared_bytes),
            ctypes.c_int64(ORDERS[order] if isinstance(order, str) else order),
            *(ctypes.c_double(self.toolchain.limit_s), said, ctypes.c_size_t(len(said))),
        )
        if said.value:
            raise ShimError(f"{self.name} {in_words(said.value.decode(), self.code, shared_bytes, arguments)}")


def three(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of a grid or block with ones for what is not given."""
    return (*map(int, sizes), 1, 1)[:3]


def as_argument(value: Any, what: str) -> Any:
    """What is passed for `value`: a tensor's address, an integer of its width (an int: 32 bits), a 32-bit float."""
    if hasattr(value, "data_ptr"):
        if not value.is_contiguous():
            raise ShimError(f"{what} is a tensor with strides {value.stride()}, kernels need contiguous ones")
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, np.floating | float):
        return ctypes.c_float(float(value))
    if isinstance(value, np.integer):
        return np.ctypeslib.as_ctypes(np.array(value))
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**31) <= value < 2**31:
            raise ShimError(f"{what} is {value}, an int must fit 32 bits; pass a numpy scalar for a wider one")
        return ctypes.c_int32(value)
    raise ShimError(f"{what} is a {type(value).__name__}; a tensor, an int or a float can be passed")


def unit_of(body: Path, function: str, defines: Mapping[str, Any], ahead: Path | None = None) -> str:
    """The translation unit of `function`: the shim's words, the macros, the body with all it includes, the way in."""
    folders = [HERE / "include", include_folder()]
    if ahead is not None:
        folders.insert(1, ahead / "include")
        replaced = ahead / body.resolve().relative_to(include_folder().resolve().parent)
        body = replaced if replaced.is_file() else body
    text = translation_unit(body, folders)
    macros = "".join(f"#define {name} {value}\n" for name, value in defines.items())
    # In parentheses and braces g++ takes it within a function only, as its address is a block's.
    text = DYNAMIC_SHARED.sub(r"unsigned char* const \1 = ({ ::shim::dynamic_shared(); });", text)
    if re.search(r"extern\s+__shared__", text):
        raise ShimError(
            f"{body.name}: dynamic shared memory has one form here, inside the function: "
            "extern __shared__ __align__(16) unsigned char shared[];"
        )
    bounds = re.search(BOUNDS.format(re.escape(function)), text)
    most = bounds[1] if bounds else MOST_THREADS
    return f'#include "cuda.h"\n{macros}{text}\nSHIM_EXPORT({function}, {most})\n'
