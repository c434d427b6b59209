"""Measured peaks of a GPU: HBM, L2, shared memory, multiply-adds, and what the library's dense product reaches a dtype.

The tensor rate is the best of a few square products by torch: no kernel of ours is compared with a datasheet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# torch: its dense product is the tensor rate that sparse kernels are measured against.
import torch

from sparsebench.kernel import CudaToolchain

PEAKS = Path(__file__).with_name("peaks.cu")
ROUNDS = 7
TENSOR_SIZES = (4096, 8192)
TensorRates = Mapping[str, float]


def best_s(call: Callable[[], Any]) -> float:
    """The least of a few times of `call` by events, in seconds: a peak is what the machine can do."""
    call()
    times_s = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times_s.append(start.elapsed_time(end) * 1e-3)
    return float(min(times_s))


def measure_peaks(toolchain: CudaToolchain) -> dict[str, Any]:
    """{fma_flops_per_s, tensor_flops_per_s: {dtype: rate}, stream_, read_l2_, read_shared_ bytes_per_s}; about 2 s."""
    gpu, sink = toolchain.gpu, toolchain.scratch("sink", (1,))
    large = 16 * gpu.cache_bytes // 4 // 4 * 4
    x, y = (torch.ones(large, device=toolchain.device) for _ in range(2))
    fits = gpu.cache_bytes // 3 // 4 // 4 * 4  # a third: an L2 of two halves keeps a copy in each
    rounds, wide = 64, 4 * gpu.processors

    def launch(name: str, grid: int, block: int, *arguments: Any) -> Callable[[], None]:
        return toolchain.cuda(PEAKS, name).bind((grid,), (block,), arguments)

    stream_s = best_s(launch("stream", wide, 512, x, y, large))
    l2_s = best_s(launch("read_l2", wide, 512, x, sink, fits, rounds))
    shared_s = best_s(launch("read_shared", 2 * gpu.processors, 1024, sink, 64 * rounds))
    fma_s = best_s(launch("fma_f32", wide, 512, sink, 0.999, 64 * rounds))
    return {
        "fma_flops_per_s": {"float32": 16.0 * 64 * rounds * wide * 512 / fma_s},
        "tensor_flops_per_s": dict(_tensor_rates(toolchain.device)),
        "stream_bytes_per_s": 12.0 * large / stream_s,
        "read_bytes_per_s": 4.0 * large / best_s(x.sum),
        "read_l2_bytes_per_s": 4.0 * fits * rounds / l2_s,
        "read_shared_bytes_per_s": 16.0 * 64 * rounds * 2 * gpu.processors * 1024 / shared_s,
        "gpu": {"sm": gpu.sm, "processors": gpu.processors, "shared_bytes": gpu.shared_bytes},
    }


def _tensor_rates(device: str) -> TensorRates:
    """FLOP/s of dense products, the best over sizes, by dtype; tf32 is float32 with that switch on."""
    rates = {}
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("float16", torch.float16, "highest"),
        ("bfloat16", torch.bfloat16, "highest"),
    ):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            rates[name] = max(_product_rate(size, dtype, device) for size in TENSOR_SIZES)
        finally:
            torch.set_float32_matmul_precision(before)
    return rates


def _product_rate(size: int, dtype: torch.dtype, device: str) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))  # zeros run faster than data
    out = torch.empty_like(a)
    return 2.0 * size**3 / best_s(lambda: torch.mm(a, b, out=out))
