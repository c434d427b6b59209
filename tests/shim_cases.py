"""The wrong bodies of tests/data/shim, one case of a switch each: what test_cuda_shim_*.py launch."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.toolchain import ShimError, ShimToolchain

missing = sys.platform != "linux" or shutil.which(os.environ.get("CXX", "g++")) is None
needs_shim = pytest.mark.skipif(missing, reason="running CUDA bodies on the CPU needs Linux and g++")

DATA = Path(__file__).parent / "data" / "shim"
FAULTS, COPIES = DATA / "faults.cu", DATA / "copies.cu"


def numbered(body: Path) -> dict[str, int]:
    """A number for each name that a `case` of the body has; they are its macros."""
    names = re.findall(r"case ([A-Z]\w+):", body.read_text())
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


NUMBERS: Mapping[Path, Mapping[str, int]] = {body: numbered(body) for body in (FAULTS, COPIES)}


def launched(
    toolchain: ShimToolchain,
    function: str,
    case: str,
    *rest: int,
    x: int = 64,
    y: int = 64,
    blocks: int = 1,
    threads: int = 64,
    shared_bytes: int = 256,
) -> np.ndarray:
    """Y [y] after one case of one function, with X = 1, 2, 3... [x]; what was not written is NaN."""
    body = COPIES if function == "copies" else FAULTS
    out = toolchain.output((y,))
    tensors: list[Any] = [toolchain.tensor(1 + np.arange(x, dtype=np.float32)), out]
    arguments = [*tensors, NUMBERS[body][case.upper()], *rest]
    toolchain.cuda(body, function, NUMBERS[body]).bind((blocks,), (threads,), arguments, shared_bytes)()
    return np.array(out.numpy())


def refused(toolchain: ShimToolchain, said: str, *arguments: Any, **sizes: int) -> str:
    """What the shim says of a launch that it must refuse with words like `said`."""
    with pytest.raises(ShimError, match=said) as caught:
        launched(toolchain, *arguments, **sizes)
    return str(caught.value)
