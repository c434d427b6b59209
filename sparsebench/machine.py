"""Where: one device. A GPU box is two machines, its GPU and its CPU.

An id is made of the device's name and stable hardware facts alone, never a host name, driver or version, so two equal
cards share one and a reinstalled system keeps it. Memory is rounded to whole GiB: systems reserve more or less.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

# psutil: memory and core counts on Linux and macOS alike.
import psutil

from sparsebench import units
from sparsebench.case import digest
from sparsebench.errors import MachineError

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")

# The instruction sets that decide which kernel body is compiled or dispatched to; other flags are noise.
ISA_FLAGS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "asimd", "sve", "sve2", "bf16",
)  # fmt: skip
_FALLBACK_CACHE_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One device by its stable hardware facts.

    cores        CPU cores, or streaming multiprocessors of a GPU
    isa          instruction sets of a CPU, or the compute capability of a GPU ("sm_90")
    cache_bytes  its last-level cache, in bytes: what "cold" must overflow
    """

    device: Device
    name: str
    memory_gib: int
    cores: int
    isa: tuple[str, ...]
    cache_bytes: int
    power_limit_w: float | None = None
    mig: bool | None = None

    @property
    def id(self) -> str:
        """Slug of the name and six hex digits of the facts, such as `amd-epyc-9655-1a2b3c`."""
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(r\)|\(tm\)|@.*$|\bcpu\b|\bprocessor\b", " ", self.name.lower()))
        return f"{slug.strip('-') or self.device}-{digest(self.to_json())[:6]}"

    def describe(self) -> str:
        """One line for people."""
        kind = "cores" if self.device == "cpu" else "SMs"
        return (
            f"{self.name} ({self.cores} {kind}, {self.memory_gib} GiB, {units.size(self.cache_bytes)} last-level cache,"
            f" {' '.join(self.isa[-4:]) or 'no vector extensions'})"
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON data."""
        return {**asdict(self), "isa": list(self.isa)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """The machine that `to_json` wrote; other keys (such as its id) are passed over."""
        facts = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**facts, "isa": tuple(data["isa"])})

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """The machine this runs on: the GPU if `auto` finds one, else the CPU. MachineError if it is not there."""
        if device not in ("auto", *DEVICES):
            raise MachineError(f"--device must be auto, cpu or cuda, found {device!r}")
        if device == "cpu":
            return _cpu()
        gpu = _gpu()
        if gpu is None and device == "cuda":
            raise MachineError(
                "--device cuda was asked for, but no CUDA device was found (no driver library libcuda.so.1, or it lists"
                " none); install the NVIDIA driver, or use --device cpu"
            )
        return gpu or _cpu()


def _cpu() -> Machine:
    model, flags = _cpuinfo()
    return Machine(
        device="cpu",
        name=model,
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        isa=tuple(flag for flag in ISA_FLAGS if flag in flags),
        cache_bytes=_cache_bytes(),
    )


def _cpuinfo() -> tuple[str, frozenset[str]]:
    """Model name and flags of the CPU; from /proc/cpuinfo where there is one, else what the platform says."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    found: dict[str, str] = dict(re.findall(r"^([^:\n]+?)\s*:\s*(.*)$", text, re.MULTILINE))
    flags = found.get("flags") or found.get("Features") or ""
    return found.get("model name") or platform.machine(), frozenset(flags.split())


def _cache_bytes() -> int:
    """Bytes of the last-level cache; 32 MiB where the system does not say (macOS, some containers)."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    scale = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max(
        (int(size[:-1]) * scale[size[-1]] for size in sizes if size[-1:] in scale), default=_FALLBACK_CACHE_BYTES
    )


# Attribute numbers of cuDeviceGetAttribute (cuda.h, CUdevice_attribute).
_SM_COUNT, _L2_BYTES, _MAJOR, _MINOR = 16, 38, 75, 76


def _gpu(index: int = 0) -> Machine | None:
    """GPU `index` through the driver library alone (no torch in this process), or None where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, handle, memory, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(96)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value <= index:
        return None
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
        return value.value

    power_limit_w, mig = _nvml_facts(index)
    return Machine(
        device="cuda",
        name=name.value.decode(),
        memory_gib=round(memory.value / 2**30),
        cores=attribute(_SM_COUNT),
        isa=(f"sm_{attribute(_MAJOR)}{attribute(_MINOR)}",),
        cache_bytes=attribute(_L2_BYTES),
        power_limit_w=power_limit_w,
        mig=mig,
    )


def _nvml_facts(index: int) -> tuple[float | None, bool | None]:
    """(power limit in watts, MIG on or off) by NVML; None for what it does not tell."""
    try:
        import pynvml  # nvidia-ml-py: the only public way to power limit and MIG mode; comes with the CUDA extras
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        limit_w = pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000
    except pynvml.NVMLError:
        return None, None
    try:
        mig = bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:
        mig = None
    return limit_w, mig
