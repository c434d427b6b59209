"""Processes that measure on one core, or one GPU, take turns: who has it builds, or times for a while, then passes on.

A shared machine has moods that last minutes, in which sparse kernels lose more than dense ones: the same dense ViT-B/16
took 410, 475 and 637 ms within three minutes (two-core virtual machine). Rounds of half a minute know one mood very
precisely. Verifications that are started together share the time that each would take alone, so that each sees all
moods of it, and none is ever timed beside another.

The lock is the system's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

try:
    import fcntl  # not filelock, as the store has: those who wait would ask again and again on the core that is timed
except ImportError:  # not on Windows: there nobody waits
    fcntl = None  # type: ignore[assignment]

GO_S = 2.0  # of timing, then another may have its turn
GAP_S = 0.02  # in which another takes it: a process that let go is still running, and would have it again at once


def here(device: str) -> Path:
    """The file whose lock is the turn on `device`: of this process's cores, or of the GPU."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    what = "-".join(map(str, ["cpu", *cores] if device == "cpu" else [device]))
    owner = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"sparsebench-{owner}-{what}.lock"


class Turns:
    """This process's turn, while it is entered; `path` is what processes that must not run together have in common."""

    def __init__(self, path: Path, go_s: float = GO_S, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._path, self._go_s, self._now_s = path, go_s, now_s
        self._file: IO[bytes] | None = None
        self._since_s = 0.0

    def __enter__(self) -> Self:
        self._file = self._path.open("ab")
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()  # which lets go
        self._file = None

    def pass_on(self) -> float:
        """Once this go is over let others have theirs; seconds until it was this process's turn again, else 0."""
        over_s = self._now_s()
        if self._file is None or fcntl is None or over_s - self._since_s < self._go_s:
            return 0.0
        fcntl.flock(self._file, fcntl.LOCK_UN)
        time.sleep(GAP_S)
        self._take()
        return self._since_s - over_s

    def _take(self) -> None:
        assert self._file is not None
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._since_s = self._now_s()
