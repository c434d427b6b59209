"""Which instances of the CUDA C++ bodies faces ask for at typical sizes: asked of a toolchain that only records.

Sizes are those of the suites (suites/headline.yaml, llm.yaml), small enough to pack in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cuda_cases import GPU, KERNELS
from cuda_on_cpu.toolchain import A100, H100
from kernel_cases import levels
from sparsebench.kernels._conv import from_planes

from sparsebench import Case, Conv, Kernel
from sparsebench.case import NUMPY_DTYPES
from sparsebench.kernel import Gpu
from sparsebench.lab.reference import weights_key

GPUS: Mapping[str, Gpu] = {"sm_80": A100, "sm_90": H100}

# (dtype, layout, n): both roads of both widths, and one instance that shows float16 compiles.
QUESTIONS = (
    *(("float32", layout, n) for layout in ("feature", "batch") for n in (1, 16, 256)),
    *(("bfloat16", layout, n) for layout in ("feature", "batch") for n in (1, 16, 256)),
    ("float16", "feature", 64),
)
RBGP4 = {"tile": [128, 32], "row_repeat": 16, "outer_sparsity": 0.75}
TYPICAL: Mapping[str, tuple[int, int, float | None, Mapping[str, Any]]] = {  # pattern: m, k, sparsity, params
    "unstructured": (768, 3072, 0.9, {}),
    "block": (768, 3072, 0.9, {"block": [4, 1]}),
    "hierarchical": (256, 1152, None, levels((16, 16, 0.75), (4, 1, 0.9), (1, 1, 0.95))),
    "constant_fan_in": (768, 3072, 0.9, {}),
    "rbgp4": (1024, 1024, 0.875, RBGP4),
}
CONV = Conv(c=32, h=16, w=16, kh=3, kw=3, padding=1, batch=8)
CONV_TYPICAL: Mapping[str, tuple[int, float | None, Mapping[str, Any]]] = {  # pattern: m, sparsity, params
    "unstructured": (64, 0.9, {}),
    "block": (64, 0.9, {"block": [4, 1]}),
    "hierarchical": (64, None, levels((16, 16, 0.75), (4, 1, 0.9))),
    "constant_fan_in": (64, 0.9, {}),
    "rbgp4": (64, 0.5, {"tile": [64, 36], "row_repeat": 4}),
}


@dataclass
class Instance:
    """One function with its macros as a face asked for it, and how it was launched."""

    kernel: str
    label: str
    arch: str
    body: Path
    function: str
    defines: dict[str, Any]
    case: Case
    block: int = 0
    shared_bytes: int = 0

    def bind(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_bytes: int = 0
    ) -> Callable[[], None]:
        """Notes the launch; a call that does nothing."""
        self.block = max(self.block, int(np.prod(block)))
        self.shared_bytes = max(self.shared_bytes, shared_bytes)
        return lambda: None

    @property
    def key(self) -> tuple[Any, ...]:
        """What decides the machine code."""
        return self.arch, self.body, self.function, tuple(sorted((k, str(v)) for k, v in self.defines.items()))


@dataclass
class RecordingToolchain:
    """Notes what a face asks for (kernel.CudaToolchain); nothing is compiled, nothing runs."""

    kernel: str
    label: str
    arch: str
    case: Case
    asked: list[Instance] = field(default_factory=list)
    device: str = "cpu"

    @property
    def gpu(self) -> Gpu:
        return GPUS[self.arch]

    def cuda(self, body: Path, function: str, defines: Mapping[str, Any] | None = None) -> Instance:
        made = Instance(
            self.kernel, self.label, self.arch, Path(body).resolve(), function, dict(defines or {}), self.case
        )
        self.asked.append(made)
        return made

    def tensor(self, array: np.ndarray) -> Any:
        import torch

        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype))

    def scratch(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        return self.output(shape, dtype)


def cases(kernel: Kernel) -> Iterator[tuple[str, Case]]:
    """(label, case) of the typical questions that `kernel` takes."""
    pattern = next(name for name in (kernel.format.patterns or ("unstructured",)) if name in TYPICAL)
    m, k, sparsity, params = TYPICAL[pattern]
    for dtype, layout, n in QUESTIONS:
        maths = [math for math in kernel.maths if math != "tf32x3"] if dtype == "float32" else ["ieee"]
        for math in maths:
            case = Case(m=m, k=k, n=n, pattern=pattern, params=params, sparsity=sparsity)
            case = replace(case, dtype=dtype, layout=layout, math=math)  # type: ignore[arg-type]
            if kernel.why_not(case, GPU) is None:
                yield f"{dtype if math == 'ieee' else math} {layout} n={n}", case
    if "conv2d" in kernel.ops:
        m, sparsity, params = CONV_TYPICAL[pattern]
        conv = Case(m=m, k=CONV.c * 9, n=CONV.batch * CONV.oh * CONV.ow, op="conv2d", conv=CONV, pattern=pattern)
        for dtype in ("float32", "bfloat16"):
            case = replace(conv, params=params, sparsity=sparsity, dtype=dtype)  # type: ignore[arg-type]
            if kernel.why_not(case, GPU) is None:
                yield f"{dtype} conv", case


_PACKED: dict[tuple[str, str, str], Any] = {}


def packed_for(kernel: Kernel, case: Case) -> Any:
    """W of `case`, drawn and packed for `kernel`; the last one is kept: it is the same for every n and layout."""
    key = (kernel.name, weights_key(case), case.dtype)
    if key not in _PACKED:
        draw = case.draw()
        stored = case.weights(draw).astype(NUMPY_DTYPES[case.dtype])
        _PACKED.clear()
        _PACKED[key] = kernel.format.from_dense(stored, draw.mask, draw.structure)
    return _PACKED[key]


def recorded(kernel: Kernel, label: str, case: Case, arch: str) -> list[Instance]:
    """What the face of `kernel` asks for to answer `case` on a GPU of `arch`."""
    import torch

    toolchain = RecordingToolchain(kernel.name, label, arch, case)
    shape = (case.k, case.n) if case.layout == "feature" else (case.n, case.k)
    if case.conv is not None:
        shape = (case.conv.batch, case.conv.c, case.conv.h, case.conv.w)
    kernel.prepare(case, packed_for(kernel, case), torch.empty(shape, dtype=getattr(torch, case.dtype)), toolchain)
    return toolchain.asked


def planes() -> Iterator[Instance]:
    """What convolutions from padded planes ask for, which faces take only where no staged tile fits."""
    import torch

    kernel = next(kernel for kernel in KERNELS if kernel.name == "csr.cuda")
    for label, case in cases(kernel):
        if case.conv is None:
            continue
        for arch in GPUS:
            toolchain = RecordingToolchain(kernel.name, label.replace("conv", "conv, planes"), arch, case)
            x = torch.empty((case.conv.batch, case.conv.c, case.conv.h, case.conv.w), dtype=getattr(torch, case.dtype))
            from_planes(case, packed_for(kernel, case), x, toolchain)
            yield from toolchain.asked


def instances() -> list[Instance]:
    """All of them, each machine code once; a body's fallbacks too where a face asks for several functions."""
    found: dict[tuple[Any, ...], Instance] = {}
    for kernel in KERNELS:
        for label, case in cases(kernel):
            for arch in GPUS:
                for instance in recorded(kernel, label, case, arch):
                    found.setdefault(instance.key, instance)
    for instance in planes():
        found.setdefault(instance.key, instance)
    return list(found.values())
