"""What the numbers in an error of the runtime mean: which source line, and how far beside which tensor."""

from __future__ import annotations

import ctypes
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .buffers import PAGE

FAULT = re.compile(r"fault (\d+) at ([0-9a-f]+) on ([0-9a-f]+) shared ([0-9a-f]+) after (.*)")  # faults.cpp
ACCESS = re.compile(r"access at ([0-9a-f]+) after .*? in (.*)")  # watch.cpp
OTHER = re.compile(r"at ([0-9a-f]+)$")
CHECK = "failed a check: a misaligned vector, an index beyond an array, a shift or an overflow"
WORDS = ("cuda.h", "block.h", "ptx.cuh", "elements.cuh")  # a body's own line is the one that called these


@dataclass(frozen=True, slots=True)
class Code:
    """A loaded library, its file and the name of the body that it was made from."""

    path: Path
    library: ctypes.CDLL
    body: str

    def line(self, address: int) -> str:
        """File and line of the instruction before `address`, such as `spmm.cu:40`, or "" when nothing says it."""
        start = ctypes.cast(self.library.shim_entry, ctypes.c_void_p).value or 0
        lines = [line.replace("<stdin>", self.body) for line in lines_at(self.path, address - 1 - start)]
        return next((line for line in lines if not line.startswith(WORDS)), lines[0] if lines else "")


@lru_cache(maxsize=1024)
def lines_at(library: Path, distance: int) -> list[str]:
    """File and line of the instruction so many bytes after shim_entry, innermost first, then who inlined it."""
    tool, offset = shutil.which("addr2line"), entry_offset(library) + distance
    if tool is None or offset < 0:
        return []
    command = [tool, "-i", "-s", "-e", str(library), hex(offset)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.split(" ")[0] for line in done.stdout.splitlines() if "?" not in line]


@lru_cache(maxsize=1024)
def entry_offset(library: Path) -> int:
    """Where shim_entry is in the file, as addr2line counts."""
    done = subprocess.run(["nm", "-D", str(library)], capture_output=True, text=True, check=False)
    return next((int(line.split()[0], 16) for line in done.stdout.splitlines() if line.endswith(" shim_entry")), 0)


def in_words(said: str, code: Code, shared_bytes: int, arguments: Sequence[Any]) -> str:
    """`said` by the runtime, with addresses replaced by what lies there."""
    if fault := FAULT.search(said):
        said = FAULT.sub(lambda _: _fault(fault, code, shared_bytes, arguments), said)
    if access := ACCESS.search(said):
        said = ACCESS.sub(lambda _: f"{code.line(int(access[1], 16))}: in {access[2]}", said)
        said = OTHER.sub(lambda other: f"at {code.line(int(other[1], 16))}", said)
    return said


def _fault(fault: re.Match[str], code: Code, shared_bytes: int, arguments: Sequence[Any]) -> str:
    number, last = int(fault[1]), fault[5]
    instruction, address, shared = (int(fault[i], 16) for i in (2, 3, 4))
    line = code.line(instruction + 1) or f"in or after {last}"
    if number == signal.SIGPROF:
        return f"{line}: the launch takes longer than the toolchain's limit_s: a loop without end?"
    if number in (signal.SIGSEGV, signal.SIGBUS):
        return f"{line}: touched memory it may not, {beside(address, shared, shared_bytes, arguments)}"
    return f"{line}: " + ("divided by zero" if number == signal.SIGFPE else CHECK)


def beside(address: int, shared: int, shared_bytes: int, arguments: Sequence[Any]) -> str:
    """`address` in words: how far beside which tensor or the dynamic shared memory, or that it is near none."""
    tensors = [(i, tensor) for i, tensor in enumerate(arguments) if hasattr(tensor, "data_ptr")]
    rooms = [
        (f"argument {i}, a tensor {list(tensor.shape)}", tensor.data_ptr(), tensor.numel() * tensor.element_size())
        for i, tensor in tensors
    ]
    for what, start, size in [*rooms, (f"the dynamic shared memory of {shared_bytes} bytes", shared, shared_bytes)]:
        if start - PAGE <= address < start:
            return f"{start - address} bytes before {what}"
        if start <= address < start + size + PAGE:
            return f"{address - start - size} bytes after the end of {what}"
    return f"address {address:#x} beside none of the arguments"
