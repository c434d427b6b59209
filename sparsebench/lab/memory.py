"""Memory of the process that measures: what is free goes back to the system, for others that measure beside it."""

from __future__ import annotations

import ctypes
import sys

# psutil: what this process really holds, on Linux and macOS alike.
import psutil


def give_back(unless_below: int = 0) -> None:
    """Give what is free back to the system, if this process holds more than `unless_below` bytes.

    glibc keeps all of it below what lives: gigabytes of rivals, of float64, of copies of W (BERT-base, batch 16,
    verified: 8 GB at most without, 5 with). Memory asked for again costs a fault a page, 0.2 s a GB: hence the limit.
    """
    if psutil.Process().memory_info().rss <= unless_below:
        return
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if trim := getattr(libc, "malloc_trim", None):
        trim(0)
