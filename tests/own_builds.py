"""Every build of the own C bodies that their faces ask for, made two at a time: one alone takes up to ten seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kernel_cases import OWN
from sparsebench.kernels._bound import ITEM_MACROS, PRODUCT
from sparsebench.kernels._planes import PLANES
from sparsebench.kernels._strips import FEW_LANES

from sparsebench.lab.build import CpuToolchain

Build = tuple[Path, Mapping[str, int]]


def build_all(toolchain: CpuToolchain) -> None:
    """Have `toolchain` compile and load every body, for each dtype, and with fewer lanes where it has such bodies."""
    items = [ITEM_MACROS[dtype] for dtype in sorted({dtype for kernel in OWN for dtype in kernel.dtypes})]
    one_column = sorted({Path(kernel.home.parent, kernel.body) for kernel in OWN})
    _build(toolchain, [(body, item) for body in (PRODUCT, PLANES, *one_column) for item in items])
    few = [lanes for lanes in FEW_LANES if lanes < toolchain.c(PRODUCT).lanes()]
    _build(toolchain, [(body, {"LANES": n, **item}) for body in (PRODUCT, PLANES) for n in few for item in items])


def _build(toolchain: CpuToolchain, builds: Iterable[Build]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda build: toolchain.c(build[0], **build[1]), builds))
