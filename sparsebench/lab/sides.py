"""One device as the bench sees it: where operands go, which arithmetic judges, which clock ticks.

CpuSide hands arrays of numpy to the faces, CudaSide tensors; everything else about a trial is the same on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sparsebench.case import Case
from sparsebench.kernel import Launch
from sparsebench.lab.check import NUMPY, Arithmetic
from sparsebench.lab.clock import Clock, CpuClock
from sparsebench.lab.interleaved import GOES
from sparsebench.lab.operands import OutputToolchain, in_layout, layout_change_s
from sparsebench.lab.probes import PeakMemory, clock_mhz
from sparsebench.lab.stopwatch import Stopwatch

MOST_OUTPUTS = 8  # of a contestant: operands.py says what for
OUTPUT_BYTES = 2**28  # that they take: those of ResNet-50, batch 32, are of 103 MB each
T0_BELOW_S = 10e-6  # contracts: t0 stands beside every time below this


class Memory(Protocol):
    """How far memory rises from now on."""

    def grown_bytes(self) -> int | None:
        """Bytes between the start and the peak since; None where the system does not tell."""
        ...


class Side(Protocol):
    """What the bench needs of a device."""

    cache_bytes: int
    arithmetic: Arithmetic
    keeps_packed: bool  # whether packed matrices are kept for later trials; peak_memory_bytes then leaves them out
    sets_up_at_first_call: bool  # whether the first call over a copy of W does more than the next; no sample may be it
    settling_rounds: int  # at the start of a go, which do not count
    goes_together: int  # in which kernels of one problem are timed against each other, no trial of one among them

    @property
    def clock(self) -> Clock:
        """What takes the samples."""
        ...

    def toolchain(self, watch: Stopwatch | None = None) -> Any:
        """A toolchain for one contestant, whose launches share one Y; `watch` counts what it builds."""
        ...

    def outputs(self, y_bytes: int) -> int:
        """How many Ys the launches of a contestant write in turn; with more than one its toolchain has `turn_to`."""
        ...

    def place(self, x: np.ndarray, native: Case) -> Any:
        """X, as Case.activations gives it, where a kernel of this layout and dtype reads it."""
        ...

    def keep(self, x: Any) -> Any:
        """A copy of a placed X."""
        ...

    def refill(self, placed: Any, x: Any) -> None:
        """Overwrite a placed X with another."""
        ...

    def same(self, placed: Any, x: Any) -> bool:
        """Whether both hold the same."""
        ...

    def watch_memory(self) -> Memory:
        """A probe of the device's memory that starts now."""
        ...

    def layout_change_s(self, case: Case, native: Case) -> float:
        """Median seconds to bring X from the case's layout to the native one and Y back; 0 where they agree."""
        ...

    def clocks(self) -> Mapping[str, Any]:
        """The device's clocks now: {"mhz": ...} and what else it tells."""
        ...

    def facts(self, launch: Launch, usual_s: float) -> dict[str, Any]:
        """What the clock adds to a record of this launch, whose usual time is `usual_s`."""
        ...


@dataclass(slots=True)
class CpuSide:
    """This process's core and memory."""

    cache_bytes: int
    threads: int = 1
    mark: Callable[[str], None] = lambda name: None
    clock: Clock = field(init=False)
    arithmetic: Arithmetic = NUMPY
    keeps_packed: bool = False
    # All libraries' first calls over a copy took 0.98 to 1.05 of their second, cold (measured, Cascade Lake).
    sets_up_at_first_call: bool = False
    settling_rounds: int = 6  # interleaved.py says why: a Y of 3 MB is at home after as many calls
    goes_together: int = GOES

    def __post_init__(self) -> None:
        self.clock = CpuClock(self.cache_bytes, mark=self.mark)

    def toolchain(self, watch: Stopwatch | None = None) -> OutputToolchain:
        """A C toolchain with one Y."""
        return OutputToolchain(self.threads, watch)

    def outputs(self, y_bytes: int) -> int:
        """Eight, or as few as fill twice the cache or 256 MiB, at least two: one out of the cache is as cold as any."""
        return int(np.clip(min(2 * self.cache_bytes, OUTPUT_BYTES) // max(y_bytes, 1), 2, MOST_OUTPUTS))

    def place(self, x: np.ndarray, native: Case) -> np.ndarray:
        """An aligned copy in the native layout and the case's dtype."""
        return in_layout(x, native)

    def keep(self, x: np.ndarray) -> np.ndarray:
        """A copy."""
        return x.copy()

    def refill(self, placed: np.ndarray, x: np.ndarray) -> None:
        """Overwrite X."""
        placed[...] = x

    def same(self, placed: np.ndarray, x: np.ndarray) -> bool:
        """Entry by entry."""
        return np.array_equal(placed, x)

    def watch_memory(self) -> Memory:
        """Resident memory of this process."""
        return PeakMemory()

    def layout_change_s(self, case: Case, native: Case) -> float:
        """By torch's blocked copy."""
        return layout_change_s(case, native)

    def clocks(self) -> Mapping[str, Any]:
        """The clock of the core this process is pinned to."""
        return {"mhz": clock_mhz()}

    def facts(self, launch: Launch, usual_s: float) -> dict[str, Any]:
        """Nothing: a call costs the CPU no launch."""
        return {}
