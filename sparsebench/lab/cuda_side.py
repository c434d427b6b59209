"""A GPU as the bench sees it: operands are torch's tensors there, float64 is computed there, CUDA graphs are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# torch: the owner of all memory on the device.
import torch

from sparsebench.case import Case
from sparsebench.kernel import Launch
from sparsebench.lab.check import Arithmetic
from sparsebench.lab.cuda_build import TORCH_DTYPES, CupyToolchain
from sparsebench.lab.cuda_clock import CudaClock, quick_time_s
from sparsebench.lab.device_check import TorchArithmetic
from sparsebench.lab.probes import gpu_clocks
from sparsebench.lab.sides import T0_BELOW_S
from sparsebench.lab.stopwatch import Stopwatch
from sparsebench.lab.tamper import fenced_tensor

EMPTY = Path(__file__).with_name("empty.cu")


class DeviceMemory:
    """How far torch's memory on the device rises."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._start = int(torch.cuda.memory_allocated())

    def grown_bytes(self) -> int:
        """Bytes between the start and the peak since."""
        return max(int(torch.cuda.max_memory_allocated()) - self._start, 0)


@dataclass(slots=True)
class CudaSide:
    """The current CUDA device."""

    cache_bytes: int
    mark: Callable[[str], None] = lambda name: None
    clock: CudaClock = field(init=False)
    arithmetic: Arithmetic = field(default_factory=lambda: TorchArithmetic("cuda"))
    device: str = "cuda"
    keeps_packed: bool = True
    sets_up_at_first_call: bool = True
    settling_rounds: int = 0  # a trial has one go, and events see no start of it
    goes_together: int = 1

    def __post_init__(self) -> None:
        self.clock = CudaClock(self.cache_bytes, mark=self.mark, empty=self._empty)

    def toolchain(self, watch: Stopwatch | None = None) -> CupyToolchain:
        """A CUDA toolchain with one Y."""
        return CupyToolchain(self.device, watch)

    def outputs(self, y_bytes: int) -> int:
        """One: addresses on a GPU differ in what no cache there looks at."""
        return 1

    def place(self, x: np.ndarray, native: Case) -> torch.Tensor:
        """A tensor in the native layout and the case's dtype."""
        tensor = torch.from_numpy(np.ascontiguousarray(x)).to(self.device).to(TORCH_DTYPES[native.dtype])
        return fenced_tensor(tensor if native.conv is not None or native.layout == "feature" else tensor.T.contiguous())

    def keep(self, x: torch.Tensor) -> torch.Tensor:
        """A copy."""
        return x.clone()

    def refill(self, placed: torch.Tensor, x: torch.Tensor) -> None:
        """Overwrite X in place: graphs hold its address."""
        placed.copy_(x)

    def same(self, placed: torch.Tensor, x: torch.Tensor) -> bool:
        """Entry by entry, on the device."""
        return bool(torch.equal(placed, x))

    def watch_memory(self) -> DeviceMemory:
        """What torch allocates on the device."""
        return DeviceMemory()

    def layout_change_s(self, case: Case, native: Case) -> float:
        """Median seconds of two transposing copies on the device; 0 where the layouts agree."""
        if case.layout == native.layout or case.conv is not None:
            return 0.0
        shapes = [(case.k, case.n), (case.n, case.m)]
        shapes = shapes if case.layout == "feature" else [shape[::-1] for shape in shapes]
        dtype = TORCH_DTYPES[case.dtype]
        pairs = [tuple(torch.empty(s, dtype=dtype, device=self.device) for s in (a, a[::-1])) for a in shapes]

        def change() -> None:
            for source, target in pairs:
                target.copy_(source.T)

        return quick_time_s(change, self.cache_bytes)

    def clocks(self) -> Mapping[str, Any]:
        """Clocks, temperature, power and what throttles the device, by NVML."""
        return gpu_clocks()

    def facts(self, launch: Launch, usual_s: float) -> dict[str, Any]:
        """How it was timed, and t0 beside a time below 10 us."""
        facts: dict[str, Any] = {"clock": self.clock.way}
        if launch.grid and usual_s < T0_BELOW_S:
            facts["t0_s"] = self.clock.t0_s(launch.grid, launch.block)
        return {**facts, "grid": list(launch.grid), "block": list(launch.block)}

    def _empty(self, grid: tuple[int, ...], block: tuple[int, ...]) -> Callable[[], None]:
        return CupyToolchain(self.device).cuda(EMPTY, "empty").bind(grid, block, ())
