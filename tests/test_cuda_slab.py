"""csr.cuda and condensed.cuda where tiles are not the chosen ones: every way into shared memory, and out of it.

Small cases would choose rows of X straight from L2, or slabs of one column. Here they meet slabs in up to four parts,
parts that take turns in one place, bands that a block makes one after another, and warps with several slices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from cuda_laws import Asked, integers_are_exact, normal_data_and_unused_rows
from cuda_on_cpu.toolchain import H100, Order
from sparsebench.kernels._slab_tile import Cut, Tile
from sparsebench.kernels.condensed import cuda as condensed
from sparsebench.kernels.csr import cuda as csr

from sparsebench import Case, Kernel, load_kernels
from sparsebench.case import NUMPY_DTYPES
from sparsebench.kernel import Gpu

KERNELS = {kernel.format.name: kernel for kernel in load_kernels() if kernel.name in ("csr.cuda", "condensed.cuda")}

pytestmark = pytest.mark.shim


@dataclass(frozen=True)
class Way:
    """A case of csr.cuda, or of condensed.cuda where `ablated` is given, a tile, and a GPU that is small for both."""

    tile: Tile
    m: int
    k: int
    n: int
    sparsity: float
    dtype: str = "float32"
    layout: str = "feature"
    ablated: float | None = None
    shared_bytes: int = H100.shared_bytes
    processors: int = 2

    @property
    def case(self) -> Case:
        even = self.ablated is not None
        pattern, params = ("constant_fan_in", {"ablated": self.ablated}) if even else ("unstructured", {})
        case = Case(m=self.m, k=self.k, n=self.n, pattern=pattern, params=params, sparsity=self.sparsity)
        return replace(case, dtype=self.dtype, layout=self.layout)  # type: ignore[arg-type]

    @property
    def gpu(self) -> Gpu:
        return replace(H100, processors=self.processors, shared_bytes=self.shared_bytes)

    @property
    def face(self) -> Any:
        return csr if self.ablated is None else condensed

    @property
    def kernel(self) -> Kernel:
        return replace(KERNELS[self.face.FAMILY.name], prepare=self.face.FAMILY.prepare_with(self.tile))

    def cut(self) -> Cut:
        draw = self.case.draw()
        w = self.case.weights(draw).astype(NUMPY_DTYPES[self.dtype])
        packed = self.kernel.format.from_dense(w, draw.mask, draw.structure)
        found: Cut = self.face.FAMILY.cut(self.tile, self.case, packed, self.gpu)
        return found


def slab(columns: int, splits: int, entries: int, warps: int) -> Tile:
    return Tile("slab", columns, splits, entries, warps)


def direct(columns: int, splits: int, entries: int, warps: int) -> Tile:
    return Tile("direct", columns, splits, entries, warps)


WAYS = {
    "rows, four parts": Way(slab(16, 1, 4, 2), 40, 500, 20, 0.6),
    "rows, three parts, several slices": Way(slab(8, 2, 4, 1), 70, 460, 22, 0.5, processors=1),
    "rows, two parts, entries of eight": Way(slab(32, 2, 8, 2), 12, 200, 65, 0.2, "float16"),
    "rows, nearly empty": Way(slab(16, 2, 4, 2), 90, 70, 40, 0.98),
    "rows, four bytes": Way(slab(8, 4, 4, 3), 33, 130, 14, 0.7, "bfloat16"),
    "flat, four parts": Way(slab(16, 1, 4, 2), 20, 500, 16, 0.6, ablated=0.25),
    "flat, last copy cut off": Way(slab(2, 1, 4, 1), 40, 501, 2, 0.6, "bfloat16", ablated=0.0),
    "one column, four parts": Way(slab(1, 1, 4, 2), 40, 520, 1, 0.6, "float16"),
    "flat, stores of eight": Way(slab(8, 2, 4, 2), 70, 64, 8, 0.95, "float16"),
    "rows, evicted": Way(slab(8, 1, 4, 2), 60, 300, 13, 0.7, shared_bytes=4300),
    "flat, evicted": Way(slab(8, 2, 4, 2), 52, 300, 8, 0.7, ablated=0.1, shared_bytes=4300),
    "evicted, banded": Way(slab(1, 2, 4, 2), 90, 700, 1, 0.8, shared_bytes=1200),
    "turned, four parts": Way(slab(16, 1, 4, 1), 37, 500, 20, 0.6, layout="batch"),
    "turned, stores of four": Way(slab(8, 2, 4, 2), 40, 300, 24, 0.5, layout="batch", ablated=0.3),
    "turned, stores of eight": Way(slab(16, 2, 4, 2), 48, 260, 35, 0.5, "bfloat16", "batch"),
    "turned, one column": Way(slab(1, 4, 4, 2), 30, 260, 5, 0.5, "float16", "batch"),
    "turned, runs of two": Way(slab(4, 2, 8, 2), 26, 230, 7, 0.5, "float16", "batch", ablated=0.0),
    "turned, runs of one": Way(slab(4, 2, 4, 2), 26, 231, 7, 0.5, "bfloat16", "batch"),
    "turned, two columns": Way(slab(2, 4, 4, 2), 31, 300, 3, 0.6, layout="batch"),
    "turned, wide": Way(slab(64, 2, 4, 4), 24, 132, 70, 0.5, layout="batch"),
    "turned, evicted": Way(slab(8, 1, 4, 2), 50, 300, 11, 0.6, layout="batch", shared_bytes=4600),
    "turned, evicted, narrow": Way(
        slab(2, 4, 4, 1), 44, 420, 5, 0.6, "float16", "batch", ablated=0.2, shared_bytes=900
    ),
    "turned, several bands": Way(slab(8, 1, 4, 2), 100, 128, 9, 0.8, layout="batch", shared_bytes=5000),
    "one column, several bands": Way(slab(1, 4, 4, 2), 200, 128, 1, 0.9, shared_bytes=700),
    "many warps": Way(slab(4, 8, 4, 20), 64, 640, 6, 0.7, layout="batch"),
    "direct, entries of eight": Way(direct(16, 2, 8, 4), 50, 90, 24, 0.6, "float16"),
    "direct, wide": Way(direct(64, 1, 4, 2), 37, 60, 72, 0.8),
    "direct, single columns": Way(direct(32, 1, 8, 2), 21, 50, 33, 0.5, ablated=0.4),
    "direct, split in eight": Way(direct(16, 8, 4, 3), 21, 300, 20, 0.5, ablated=0.0),
}


@pytest.mark.parametrize("number, name", list(enumerate(WAYS)), ids=str)
def test_every_way_keeps_the_laws(number, name, shim):
    way = WAYS[name]
    asked = Asked(way.kernel, way.case, shim(gpu=way.gpu, side="start" if number % 3 == 2 else "end"))
    assert integers_are_exact(asked, *orders_of(number)) == ""
    assert normal_data_and_unused_rows(asked, number) == ""


def orders_of(number: int) -> tuple[Order, ...]:
    """The orders of threads that the number-th way meets with integers."""
    return "ascending", ("descending", 4, 5)[number % 3]


def test_the_ways_differ_in_all_that_bodies_are_compiled_with():
    cuts = [way.cut() for way in WAYS.values()]
    slabs = [cut for cut in cuts if cut.tile.road == "slab"]
    met = {name: {cut.macros()[name] for cut in slabs} for name in slabs[0].macros()}
    assert met["PARTS"] == met["RUN"] | {3} == {1, 2, 3, 4}
    assert met["VECTOR"] == met["STORE"] == {1, 2, 4, 8}
    assert met["ENTRIES"] == {4, 8}
    assert met["APART"] == {1, 2, 4}
    assert met["LINE"] == {1, 2, 4, 8}
    ways = {(cut.evict, cut.macros()["FLAT"], cut.batch, cut.banded) for cut in slabs}
    assert ways >= {(evict, *how) for evict in (0, 1) for how in ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 1, 1))}
    assert any(cut.bands > cut.blocks for cut in slabs if cut.banded and not cut.evict)
    assert any(cut.turns > cut.tile.warps for cut in slabs)
