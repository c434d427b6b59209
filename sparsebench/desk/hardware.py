"""What a law may know of a machine: its measured peaks, its processors and its last-level cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sparsebench.machine import Machine
from sparsebench.store import read_machines, read_peaks

LANES = {"avx512f": 16, "avx2": 8}  # the widest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a roofline is drawn from, and what makes work come in waves.

    flops_per_s  by dtype: the tensor units' where there are such, else of fused multiply-adds
    processors   streaming multiprocessors of a GPU, 1 for a CPU: work comes in waves of so many tiles
    lanes        floats of a CPU's vector: they decide which way kernels take

    The defaults stand in where nothing was measured. A law fits a factor to each of its terms, so that they decide how
    its factors read, not what it predicts.
    """

    flops_per_s: Mapping[str, float] = field(default_factory=dict)
    bytes_per_s: float = 1e10
    processors: int = 1
    cache_bytes: float = 32 * 2**20
    lanes: int = 16

    def peak(self, dtype: str) -> float:
        """The peak rate of products in `dtype`."""
        return self.flops_per_s.get(dtype) or self.flops_per_s.get("float32") or 1e11

    @classmethod
    def of(cls, machine: Machine, peaks: Mapping[str, Any]) -> Self:
        """What `machine` and the newest line of its peaks.jsonl say."""
        rates = {**peaks.get("fma_flops_per_s", {}), **peaks.get("tensor_flops_per_s", {})}
        return cls(
            flops_per_s={dtype: float(rate) for dtype, rate in rates.items() if isinstance(rate, int | float) and rate},
            bytes_per_s=float(peaks.get("read_bytes_per_s") or peaks.get("stream_bytes_per_s") or 1e10),
            processors=machine.cores if machine.device == "cuda" else 1,
            cache_bytes=float(machine.cache_bytes),
            lanes=next((lanes for flag, lanes in LANES.items() if flag in machine.isa), 4),
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON data, what `Hardware(**data)` takes."""
        return {**asdict(self), "flops_per_s": dict(self.flops_per_s)}


def hardware_in(results: Path, machines: Iterable[str]) -> dict[str, Hardware]:
    """The hardware of each of `machines` that `results` holds facts of."""
    known = read_machines(results)
    return {
        name: Hardware.of(known[name], read_peaks(results, name) or {}) for name in sorted(machines) if name in known
    }
