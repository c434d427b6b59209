"""NVRTC without a GPU: a body compiled for sm_80 or sm_90, and what its PTX and the assembler's log say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparsebench.lab.build import include_folder
from sparsebench.lab.cuda_source import translation_unit

REGISTERS_OF_AN_SM, REGISTERS_OF_A_THREAD, WARP = 65536, 255, 32

_USED = re.compile(r"Used (\d+) registers.*?(?:, (\d+) bytes smem)?(?:, \d+ bytes cmem.*)?$", re.MULTILINE)
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_MAXNTID = re.compile(r"\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?")
_MMA = re.compile(r"\b(?:mma\.sync|wgmma)\S*")
_COPY = re.compile(r"cp\.async\.c[ag]\.shared\.global\S* \[[^\]]+\], \[[^\]]+\], (\d+)")
_STORE = re.compile(r"st\.global(?:\.(?:cs|cg|wb|wt|relaxed|L1::\w+))*(?:\.v([24]))?\.[usbf](8|16|32|64)")


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    try:
        found = find_spec("cuda.bindings.nvrtc") is not None
    except ModuleNotFoundError:
        found = False
    return None if found else "NVRTC is not installed"


def version() -> str:
    """The compiler's version: register counts hold for this one alone."""
    return metadata.version("nvidia-cuda-nvrtc")


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one function. Bytes and registers a thread; `block` is the most threads it allows."""

    registers: int
    static_shared: int
    stack: int
    spilled: int
    most_threads: int | None
    ptx: str

    def registers_allow(self, threads: int) -> bool:
        """Whether a block of so many threads finds its registers: they are given to warps in units of 256."""
        of_a_warp = -(-self.registers * WARP // 256) * 256
        return self.registers <= REGISTERS_OF_A_THREAD and of_a_warp * -(-threads // WARP) <= REGISTERS_OF_AN_SM

    @property
    def instructions(self) -> dict[str, Any]:
        """What its PTX has of the instructions that make it fast: names, and widths in bytes."""
        stores = [int(lanes or 1) * int(bits) // 8 for lanes, bits in _STORE.findall(self.ptx)]
        return {
            "mma": sorted({name.removeprefix("mma.sync.aligned.").split(";")[0] for name in _MMA.findall(self.ptx)}),
            "ldmatrix": "ldmatrix" in self.ptx,
            "cp.async": sorted({int(width) for width in _COPY.findall(self.ptx)}),
            "st.global": sorted(set(stores)),
        }


def compiled(body: Path, function: str, defines: Mapping[str, Any], arch: str) -> Compiled:
    """`function` of `body` with `defines` as macros, for `arch`; AssertionError with the compiler's words."""
    # cuda.bindings: NVRTC as a library, so that what CuPy hands to it on a GPU is what is compiled here.
    from cuda.bindings import nvrtc

    def ask(answer: tuple[Any, ...]) -> Any:
        assert int(answer[0]) == 0, answer[0]
        return answer[1]

    def text(size: tuple[Any, ...], fill: Any) -> str:
        room = b" " * ask(size)
        fill(program, room)
        return room.decode().rstrip("\0 ")

    source = translation_unit(body, [include_folder()])
    program = ask(nvrtc.nvrtcCreateProgram(source.encode(), body.name.encode(), 0, [], []))
    options = [f"--gpu-architecture={arch}", "-std=c++17", "--ptxas-options=-v"]
    options += [f"-D{name}={value}" for name, value in defines.items()]
    status = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
    log = text(nvrtc.nvrtcGetProgramLogSize(program), nvrtc.nvrtcGetProgramLog)
    assert int(status) == 0, f"{body.name} {dict(defines)} for {arch}:\n{log[:3000]}"
    ptx = text(nvrtc.nvrtcGetPTXSize(program), nvrtc.nvrtcGetPTX)
    nvrtc.nvrtcDestroyProgram(program)
    return read(log, ptx, function)


def read(log: str, ptx: str, function: str) -> Compiled:
    """What the assembler's log and the PTX say of `function`."""
    said = log.split(f"entry function '{function}'")[1].split("entry function '")[0]
    used, spills = _USED.search(said), _SPILLS.search(said)
    assert used is not None, f"the assembler's log says nothing of {function}:\n{said}"
    assert spills is not None, f"the assembler's log says nothing of {function}:\n{said}"
    own = ptx.split(f".entry {function}(")[1].split(".entry ")[0]
    threads = _MAXNTID.search(own)
    most = None
    if threads:
        most = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
    stack, stores, loads = map(int, spills.groups())
    return Compiled(int(used[1]), int(used[2] or 0), stack, stores + loads, most, own)
