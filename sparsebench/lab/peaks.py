"""Measured peaks of this machine: shares of a peak are computed from these, never from a datasheet."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.lab.build import CpuToolchain

ROUNDS = 7
FMA_ROUNDS, FLOPS_PER_ROUND = 2_000_000, 2 * 16 * 12  # of fma_f32 in peaks.c


def best_s(run: Callable[[], Any]) -> float:
    """The least of a few times of `run`, in seconds: a peak is what the machine can do, not what it does on average."""
    times_s = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


def measure_peaks(cache_bytes: int, threads: int = 1) -> dict[str, Any]:
    """{fma_flops_per_s: {dtype: rate}, stream_bytes_per_s, read_bytes_per_s, threads}; about half a second.

    For bfloat16 it is what dot products of vectors reach, or float32's rate where there are none; never AMX's.
    stream is a triad over arrays of four times the last-level cache in all, read a sum over twice of it.
    """
    lib = CpuToolchain(threads).c(Path(__file__).with_name("peaks.c"))
    lib.fma_f32.restype = lib.read_f32.restype = ctypes.c_float
    n = 4 * cache_bytes // 12
    b, c, a = (np.full(n, value, np.float32) for value in (1.0, 2.0, 0.0))

    def pointer(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    count = ctypes.c_int64(n)
    work = ctypes.c_int64(FMA_ROUNDS), ctypes.c_float(0.999)
    fma_s = best_s(lambda: lib.fma_f32(*work))
    products = ctypes.c_int64.in_dll(lib, "bf16_products").value
    bf16_s = best_s(lambda: lib.fma_bf16(*work)) if products > 1 else fma_s
    triad_s = best_s(lambda: lib.triad_f32(count, ctypes.c_float(3.0), pointer(b), pointer(c), pointer(a)))
    read_s = best_s(lambda: lib.read_f32(count, pointer(b)))
    flops = FMA_ROUNDS * FLOPS_PER_ROUND
    return {
        "fma_flops_per_s": {"float32": flops / fma_s, "bfloat16": products * flops / bf16_s},
        "stream_bytes_per_s": 12 * n / triad_s,
        "read_bytes_per_s": 4 * n / read_s,
        "threads": threads,
    }
