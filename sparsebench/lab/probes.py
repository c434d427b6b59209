"""What the system says of this process and its core: peak memory and clock."""

from __future__ import annotations

import os
import re
from pathlib import Path


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
