"""Who can answer: a kernel's face says what it takes, demands and moves; its body is loaded when it is first prepared.

Registration is a value: a face file ends in KERNELS = [Kernel(...)]. The core never imports a kernel by name, only
through `load_kernels`. A face imports only the standard library, numpy and sparsebench at module level, so that limits
and byte counts work on any laptop.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.errors import BadInput
from sparsebench.formats import Format

if TYPE_CHECKING:
    from sparsebench.machine import Machine


class Toolchain(Protocol):
    """What the lab hands to a face so that it can load its body."""

    threads: int

    def c(self, body: Path, **macros: int) -> Any:
        """The C source `body` compiled for this machine with these macros defined, as a ctypes library.

        MissingNeed without a compiler.
        """
        ...

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """The buffer that this kernel's run() must write Y into; every launch of a contestant gets the same.

        dtype  as Case.dtype names it; bfloat16 is ml_dtypes.bfloat16
        """
        ...


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a body is shaped by: facts of one GPU.

    sm                 compute capability, 90 for 9.0
    processors         streaming multiprocessors
    shared_bytes       shared memory that one thread block may ask for
    cache_bytes        L2
    """

    sm: int
    processors: int
    shared_bytes: int
    cache_bytes: int


class CudaFunction(Protocol):
    """One `extern "C" __global__` function of a compiled body."""

    def bind(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_bytes: int = 0
    ) -> Callable[[], None]:
        """One launch as a call without arguments, on the stream that is current when it is called.

        A tensor is passed as its address, an int as a 32-bit integer (numpy's scalars as what they are), a float as a
        32-bit float. `shared_bytes` is dynamic shared memory. The call keeps its tensors alive.
        """
        ...


class CudaToolchain(Protocol):
    """What the lab hands to a face of a GPU kernel. Tensors are torch's; tests hand over one that runs on the CPU."""

    device: str  # torch's name of where tensors live: "cuda", or "cpu" in the tests that run bodies there
    gpu: Gpu

    def cuda(self, body: Path, function: str, defines: Mapping[str, Any] | None = None) -> CudaFunction:
        """`function` of the CUDA C++ source `body`, compiled with `defines` as macros; MissingNeed without CuPy.

        Includes are looked up beside the body and in kernels/include. Asking again costs a look-up.
        """
        ...

    def tensor(self, array: np.ndarray) -> Any:
        """A copy of `array` on the device, 256-byte aligned as torch allocates.

        ml_dtypes.bfloat16 becomes torch.bfloat16; uint16 becomes torch.int16 of the same bits.
        """
        ...

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """The tensor full of NaN that run() must write Y into; every launch of a contestant gets the same one."""
        ...

    def scratch(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """A tensor full of NaN for what a launch makes on its way; launches of a contestant share it by name."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel ready to run: everything but the product itself is done.

    run   the timed call; reads the x it was prepared with anew each time and returns Y in the kernel's native layout:
          [m, n] for feature, [n, m] for batch, [batch, m, oh, ow] for conv2d; a numpy array or a tensor of torch
    y     the buffer that run() fills and returns, so that the check can fill it with NaN first; None when the library
          allocates its own
    ran   what really runs, where that is not the kernel's name alone ("mv", "mkldnn linear")
    again         makes the same launch over a fresh copy of its packed W, cheaply: the cold clock rotates over many;
                  without it the lab calls `prepare` again
    weight_bytes  bytes of its packed W on the device; None: as many as the format says
    grid, block   of the launch that does the work, so that an empty kernel of the same shape can be timed beside it
    facts         what its record should say of it: the V of an rbgp4 body, tile sizes, the algorithm that won
    """

    run: Callable[[], Any]
    y: Any = None
    ran: str = ""
    again: Callable[[], Launch] | None = None
    weight_bytes: int | None = None
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limit:
    """What a kernel asks of a case, with the sentence shown when the case is skipped."""

    holds: Callable[[Case], bool]
    reason: str


def least_moved_bytes(case: Case, packed: Format) -> int:
    """Bytes that any kernel must move at least: the stored W, X and Y once each."""
    x_entries = case.k * case.n if case.conv is None else case.conv.batch * case.conv.c * case.conv.h * case.conv.w
    return packed.nbytes + ITEM_BYTES[case.dtype] * (x_entries + case.m * case.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One way to compute Y = W X from one format.

    name     format.provider, which is also its path below kernels/
    format   the class W is stored in before `prepare` is called
    prepare  (case, packed, x, toolchain) -> Launch. `x` is in the layout of `case`, which the lab has set to this
             kernel's native one: [k, n] for feature, [n, k] for batch, [batch, c, h, w] for conv2d, which for a kernel
             of layout batch lies with channels last; its dtype is the case's. On the CPU it is an array and
             `toolchain` a Toolchain; on a GPU it is a tensor there, and `toolchain` a CudaToolchain. The packed matrix
             is numpy's in the case's dtype either way
    moved_bytes  (case, packed) -> bytes this kernel moves at least
    needs    modules and tools without which it cannot run here: "torch", "scipy", "cc", ...
    isa      {dtype: instruction sets (Machine.isa) that a CPU must all have for it}; none for others
    body, sources  files beside the face whose content is part of its version
    limits   what it asks of a case beyond dtypes, math, layouts, ops and the format's patterns
    lossy    "" or what it rounds W or X to ("fp8 e4m3"): a rival of different accuracy, never a baseline, marked
             wherever it is shown. Its integer gate stays exact, so its scales are powers of two;
             `unit_roundoff`, of one rounded factor, replaces the case's in its precision gate
    """

    name: str
    format: type[Format]
    prepare: Callable[[Case, Any, Any, Any], Launch]
    about: str
    source: str
    moved_bytes: Callable[[Case, Any], int] = least_moved_bytes
    ops: tuple[str, ...] = ("gemm",)
    dtypes: tuple[str, ...] = ("float32",)
    maths: tuple[str, ...] = ("ieee",)
    layouts: tuple[str, ...] = ("feature",)
    devices: tuple[str, ...] = ("cpu",)
    needs: tuple[str, ...] = ()
    isa: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    body: str | None = None
    sources: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    lossy: str = ""
    unit_roundoff: float | None = None
    home: Path | None = None  # the face's file; set by the loader

    def why_not(self, case: Case, machine: Machine) -> str | None:
        """Why this kernel cannot run `case` on `machine`, or None when it can. A sentence; never raises."""
        takes = self.format.patterns
        for asked, taken, what in (
            (machine.device, self.devices, "devices"),
            (case.op, self.ops, "ops"),
            (case.dtype, self.dtypes, "dtypes"),
            (case.math, self.maths, "maths"),
            (case.pattern, takes or (case.pattern,), f"patterns (its format is {self.format.name})"),
        ):
            if asked not in taken:
                return f"{self.name} takes {what} {', '.join(taken)}, not {asked}"
        if reason := case.pattern_object.why_not(case.m, case.k, case.sparsity):
            return reason
        if lacks := self.lacks(case.dtype, machine):
            return lacks
        return next((f"{self.name}: {limit.reason}" for limit in self.limits if not limit.holds(case)), None)

    def lacks(self, dtype: str, machine: Machine) -> str | None:
        """Which instruction sets `machine` lacks for this dtype, as a sentence; None where it has all."""
        if missing := [name for name in self.isa.get(dtype, ()) if name not in machine.isa]:
            return f"{self.name} needs a CPU with {' '.join(missing)} for {dtype}"
        return None

    def native(self, case: Case) -> Case:
        """`case` in the layout this kernel runs in: its own where it takes it, else the kernel's first."""
        return case if case.layout in self.layouts else replace(case, layout=self.layouts[0])  # type: ignore[arg-type]

    @property
    def source_sha(self) -> str:
        """sha256 over face, body and sources, in hex: the kernel's version."""
        if self.home is None:
            raise BadInput(f"kernel {self.name} was not loaded from a file; use load_kernels or load_plugin")
        beside = [self.home, *(self.home.parent / name for name in (self.body, *self.sources) if name)]
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in beside)).hexdigest()


def _kernels_of(module: Any, home: Path) -> tuple[Kernel, ...]:
    listed = getattr(module, "KERNELS", None)
    if not isinstance(listed, Sequence) or not all(isinstance(kernel, Kernel) for kernel in listed):
        raise BadInput(f"{home}: a kernel file must end in KERNELS = [Kernel(...), ...], found {listed!r}")
    return tuple(replace(kernel, home=home) for kernel in listed)


@lru_cache(maxsize=1)
def load_kernels() -> tuple[Kernel, ...]:
    """All kernels that ship with the package, by name."""
    root = Path(str(files("sparsebench.kernels")))
    found: list[Kernel] = []
    for face in sorted(root.glob("*/*.py")):
        if not face.stem.startswith("_"):
            module = importlib.import_module(f"sparsebench.kernels.{face.parent.name}.{face.stem}")
            found += _kernels_of(module, face)
    return tuple(sorted(found, key=lambda kernel: kernel.name))


def way_of(kernel: str, case: Case, levels: Sequence[tuple[float, int, int]], lanes: int) -> tuple[float, ...]:
    """Which way the kernel of this name takes through `case`, as numbers that a law of its times may know.

    levels  (share of W kept, block rows, block columns) of each
    lanes   floats of the machine's vectors

    As many numbers for every case and kernel; all 0 for kernels that tell nothing (kernels/_ways.py).
    """
    ways = importlib.import_module("sparsebench.kernels._ways")
    return tuple(ways.way_of(kernel, case, levels, lanes))


def leaves_channels_last(kernel: str) -> bool:
    """Whether the kernel of this name leaves images with channels last, and not as [batch, c, h, w]."""
    return kernel in importlib.import_module("sparsebench.kernels._ways").LEAVE_CHANNELS_LAST


def is_torchs(kernel: str) -> bool:
    """Whether the kernel of this name is a dense one of torch's own, such as a network runs that nobody touched."""
    return kernel.startswith("dense.torch")


def load_plugin(path: Path) -> tuple[Kernel, ...]:
    """The kernels of a Python file outside the package; BadInput when it is missing, broken or lists none."""
    if not path.is_file():
        raise BadInput(f"plugin {path} was not found; give the path of a Python file that ends in KERNELS = [...]")
    name = f"sparsebench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"plugin {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the plugin look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"plugin {path} cannot be imported: {type(error).__name__}: {error}") from error
    return _kernels_of(module, path.resolve())


def all_kernels(plugins: Sequence[Path] = ()) -> dict[str, Kernel]:
    """Shipped kernels and those of `plugins` by name; BadInput when two share a name."""
    found: dict[str, Kernel] = {}
    for kernel in [*load_kernels(), *(kernel for path in plugins for kernel in load_plugin(path))]:
        if kernel.name in found:
            raise BadInput(
                f"two kernels are called {kernel.name}: {found[kernel.name].home} and {kernel.home}; rename one"
            )
        found[kernel.name] = kernel
    return found
