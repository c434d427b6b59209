"""What the system says of this process, its core and its GPU: peak memory, clocks, and what holds them back."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


class PeakMemory:
    """How far this process's resident memory rises; None where the system cannot reset its high-water mark."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._start = _status_bytes("VmRSS")
        except OSError:
            self._start = None

    def grown_bytes(self) -> int | None:
        """Bytes between resident memory at the start and its peak since."""
        peak = _status_bytes("VmHWM") if self._start is not None else None
        return None if peak is None or self._start is None else max(peak - self._start, 0)


def _status_bytes(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def clock_mhz() -> float | None:
    """The CPU's clock as the system reports it now, in MHz, for the core this process is pinned to."""
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    try:
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return float(found[core])
    except (OSError, IndexError):
        return None


def gpu_clocks(index: int = 0) -> dict[str, Any]:
    """{"mhz", "memory_mhz", "celsius", "watts", "throttled"} of GPU `index` by NVML; {"mhz": None} without it.

    `throttled` is NVML's bit mask of reasons; 1 is idle, 4 the power cap, 8 and above heat or hardware.
    """
    try:
        import pynvml  # nvidia-ml-py: clocks and throttling have no other public interface

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        return {
            "mhz": pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
            "memory_mhz": pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
            "celsius": pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
            "watts": pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "throttled": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
        }
    except Exception:  # a missing module, library, permission or counter: no reason to lose a measurement
        return {"mhz": None}
