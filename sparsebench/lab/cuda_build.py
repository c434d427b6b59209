"""From a CUDA C++ source to launches, by CuPy and NVRTC on torch's memory and torch's stream; nothing is copied.

Bodies get torch's addresses; CuPy allocates nothing, so there is one memory pool. A launch goes to the stream that is
torch's current one when it is called, which is the capturing one under a CUDA graph. Compilation, the limit of dynamic
shared memory and one launch come before any capture: the checks see to that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# torch: its tensors are the operands of every kernel here.
import torch

from sparsebench.case import ITEM_BYTES
from sparsebench.errors import MissingNeed, SparsebenchError
from sparsebench.kernel import Gpu
from sparsebench.lab.build import include_folder
from sparsebench.lab.cuda_source import translation_unit
from sparsebench.lab.stopwatch import Stopwatch

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}


def tensor_of(array: np.ndarray, device: str) -> torch.Tensor:
    """A copy of `array` on `device`: bfloat16 as torch's own, uint16 as int16 of the same bits."""
    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device, copy=True)
    if array.dtype == np.uint16:
        array = array.view(np.int16)
    return torch.from_numpy(array).to(device, copy=True)


def gpu_facts(index: int = 0) -> Gpu:
    """What bodies are shaped by, of GPU `index`."""
    found = torch.cuda.get_device_properties(index)
    return Gpu(
        sm=10 * found.major + found.minor,
        processors=found.multi_processor_count,
        shared_bytes=found.shared_memory_per_block_optin,
        cache_bytes=found.L2_cache_size,
    )


class CupyFunction:
    """One function of a compiled body (kernel.CudaFunction)."""

    def __init__(self, kernel: Any, name: str) -> None:
        self._kernel, self.name = kernel, name

    def bind(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_bytes: int = 0
    ) -> Callable[[], None]:
        """One launch as a call without arguments, on torch's current stream of that moment."""
        from cupy.cuda import driver  # cupy: NVRTC and the driver's launch, without a compiler on the machine

        if shared_bytes > self._kernel.max_dynamic_shared_size_bytes:
            self._kernel.max_dynamic_shared_size_bytes = shared_bytes
        values = [as_argument(value) for value in arguments]
        addresses = (ctypes.c_void_p * max(len(values), 1))(*(ctypes.addressof(value) for value in values))
        shape = (*grid, 1, 1)[:3] + (*block, 1, 1)[:3]
        where, function, stream = ctypes.addressof(addresses), self._kernel.kernel.ptr, torch.cuda.current_stream

        def launch() -> None:
            driver.launchKernel(function, *shape, shared_bytes, stream().cuda_stream, where, 0)

        launch.keeps = (addresses, tuple(arguments), self._kernel)  # type: ignore[attr-defined]
        launch.values = values  # type: ignore[attr-defined]  # each launch reads them anew: see movable_cuda.py
        return launch


def as_argument(value: Any) -> Any:
    """`value` as the C object that a kernel's parameter is read from; SparsebenchError for what has no form there."""
    if isinstance(value, torch.Tensor):
        if not value.is_contiguous():
            raise SparsebenchError(f"a body needs contiguous tensors, found strides {value.stride()} for {value.shape}")
        return ctypes.c_uint64(value.data_ptr())
    if isinstance(value, np.generic):
        as_type: Any = np.ctypeslib.as_ctypes_type  # its stub knows no dtype that is not spelled out
        return as_type(value.dtype)(value.item())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SparsebenchError(f"a body takes tensors, ints, floats and numpy scalars, found {type(value).__name__}")
    return ctypes.c_int32(value) if isinstance(value, int) else ctypes.c_float(value)


class CupyToolchain:
    """What a GPU face builds its body with (kernel.CudaToolchain); one a contestant, since it keeps its outputs."""

    def __init__(self, device: str = "cuda", watch: Stopwatch | None = None) -> None:
        self.device, self.gpu, self._watch = device, gpu_facts(), watch or Stopwatch()
        self._kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def cuda(self, body: Path, function: str, defines: Mapping[str, Any] | None = None) -> CupyFunction:
        """`function` of `body`, compiled once a process and once a machine (CuPy's cache); MissingNeed without CuPy."""
        options = tuple(f"-D{name}={value}" for name, value in sorted((defines or {}).items()))
        with self._watch.part("build"):
            return _function(body.resolve(), body.stat().st_mtime_ns, function, options)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A copy of `array` on the device."""
        return tensor_of(array, self.device)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> torch.Tensor:
        """The one output of this shape and dtype, full of NaN."""
        return self.scratch("y", shape, dtype)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> torch.Tensor:
        """The one tensor of this name, shape and dtype; full of NaN, or of ones bits where there is no NaN."""
        if (name, shape, dtype) not in self._kept:
            self._kept[name, shape, dtype] = poisoned(shape, dtype, self.device)
        return self._kept[name, shape, dtype]

    def time_s(self, call: Callable[[], Any]) -> float:
        """Median seconds of `call` with a cold L2: for choosing among tiles, never for a record."""
        from sparsebench.lab.cuda_clock import quick_time_s

        return quick_time_s(call, self.gpu.cache_bytes)


def poisoned(shape: tuple[int, ...], dtype: str, device: str) -> torch.Tensor:
    """A tensor full of NaN, or of set bits where its dtype has no NaN."""
    if dtype in ITEM_BYTES:
        return torch.full(shape, torch.nan, dtype=TORCH_DTYPES[dtype], device=device)
    return torch.full(shape, -1, dtype=getattr(torch, dtype), device=device)


@cache
def _function(body: Path, changed_ns: int, function: str, options: tuple[str, ...]) -> CupyFunction:
    return CupyFunction(_module(body, changed_ns, options).get_function(function), f"{body.parent.name}.{function}")


@cache
def _module(body: Path, changed_ns: int, options: tuple[str, ...]) -> Any:
    try:
        import cupy
    except ImportError as missing:
        raise MissingNeed("needs the Python module cupy, which is not installed: pip install cupy-cuda13x") from missing
    source = translation_unit(body, [include_folder()])
    return cupy.RawModule(code=source, options=("-std=c++17", *options), backend="nvrtc")
