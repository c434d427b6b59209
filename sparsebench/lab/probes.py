"""What the system says of this process, its core and its GPU: peak memory, clocks, and what holds them back."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable
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


class CoreShare:
    """How much of the time since it was made this process did not run: taken by others here, or by other guests.

    On a system without /proc/stat nothing counts as stolen.
    """

    def __init__(self) -> None:
        self._start = self._now()

    def lost(self) -> tuple[float, float]:
        """(share of wall time without a core of this system, share that the host of a virtual machine took)."""
        wall_s, cpu_s, stolen_s = (b - a for a, b in zip(self._start, self._now(), strict=True))
        if wall_s <= 0:
            return 0.0, 0.0
        return max(0.0, 1 - cpu_s / wall_s), stolen_s / wall_s

    def skip(self, time_s: float) -> None:
        """Leave out so much of the time since: this process meant to wait."""
        wall_s, cpu_s, stolen_s = self._start
        self._start = wall_s + time_s, cpu_s, stolen_s

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), _stolen_s()


def _stolen_s() -> float:
    """Seconds that the cores of this process were taken by the host, each counted; 0 where the system does not tell."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    try:
        ticks = re.findall(r"^cpu(\d+) (?:\d+ ){7}(\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
        return sum(int(stolen) for core, stolen in ticks if int(core) in cores) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


# NVML's reasons for a lower clock that nobody needs to hear of: idle, clocks set by the user, display.
HARMLESS = 0x1 | 0x2 | 0x100


class GpuWatch:
    """The SM clock of GPU `index` and what holds it back, asked beside each round; nothing without NVML."""

    def __init__(self, index: int = 0) -> None:
        try:
            import pynvml  # nvidia-ml-py: clocks and throttling have no other public interface

            pynvml.nvmlInit()
            self._nvml, self._gpu = pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)
            self.most_mhz: float | None = pynvml.nvmlDeviceGetMaxClockInfo(self._gpu, pynvml.NVML_CLOCK_SM)
        except Exception:  # a missing module, library or permission: no reason to lose a measurement
            self._nvml, self.most_mhz = None, None

    def look(self) -> tuple[float | None, int]:
        """(MHz now, NVML's bit mask of reasons for throttling but harmless ones); (None, 0) where it does not tell."""
        if self._nvml is None:
            return None, 0
        try:
            mhz = self._nvml.nvmlDeviceGetClockInfo(self._gpu, self._nvml.NVML_CLOCK_SM)
            return mhz, self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._gpu) & ~HARMLESS
        except Exception:  # one counter may be hidden, in a container for example
            return None, 0


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


def releaser() -> Callable[[], None]:
    """A call after which no line of the L2 is marked as persisting: such lines outlive any flood. Nothing without CUDA.

    A kernel that marks its weights so would be timed with weights that are not cold (llm.c issue 851: 3530 GB/s on a
    card of 864). It is the host's call, so it stands before each round and in no graph.
    """
    try:
        release = ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache  # CUDA 11.0; below it no line persists
    except (OSError, AttributeError):
        return lambda: None

    def released() -> None:
        release()

    return released
