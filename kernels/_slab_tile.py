"""How csr.cuda and condensed.cuda cut a product: the Tile, and all numbers that follow from it.

A Tile says what may be tuned. `cut` works out the rest for one matrix and one GPU: how X comes into shared memory, how
the rows are shared out over blocks, what the macros of slice_product.cuh are. Packing (_slices.py) and launching
(_slab.py) both read the same Cut, so neither decides anything.

Choices that a Cut makes:
- X stays whole in shared memory where k rows of the slab fit; otherwise parts of k take turns ("evict"), and each slice
  keeps its sums in registers from part to part, so a band then has no more slices than a block has warps.
- Where X is whole it still comes in parts, up to four: rows are walked in the order of their columns, so most of the
  product of part one can be done while part two is on its way. The fill is about a third of the time of the headline
  case otherwise (designs.md 2) [derived].
- Y with m contiguous goes through bands of neighbouring rows; n = 1 is such a Y whatever the layout says.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.kernel import Gpu

from ._device import ELEMENTS, ceil_div

WARP = 32
BANK_BYTES = 128  # what shared memory serves at once
ALIGNED_ROWS = 64  # parts are multiples of it: a block of swapped rows never crosses two
PARTS = 4
ROOMY_WARPS, MOST_WARPS = 16, 24  # of a block; a thread has 128 registers up to the one, 80 up to the other


@dataclass(frozen=True, slots=True)
class Tile:
    """What may be tuned.

    road      "slab": X in shared memory; "direct": X read from L2, feature-major alone
    columns   of X and Y in a block
    splits    walkers that share a row of W
    entries   nonzeros that a walker takes in one load, 4 or 8
    warps     of a block
    """

    road: str
    columns: int
    splits: int
    entries: int
    warps: int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Which rows of W have entries, and how many: what a cut depends on.

    rows    int64 [live]  rising
    counts  int64 [live]  at least 1
    even    all counts are equal
    """

    rows: np.ndarray
    counts: np.ndarray
    even: bool

    @property
    def longest(self) -> int:
        return int(self.counts.max(initial=0))


@dataclass(frozen=True, slots=True)
class Cut:
    """All numbers of one launch; names as in the headers under include/."""

    tile: Tile
    dtype: str
    m: int
    k: int
    n: int
    batch: bool  # x is [n, k] and is transposed on its way
    banded: bool  # Y has m contiguous
    vector: int
    depth: int
    capacity: int  # rows of X in the slab; row number `capacity` is zero
    part_rows: int
    evict: bool
    blocks: int  # of a column slab
    bands: int
    band_rows: int
    turns: int

    @property
    def item(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def lanes(self) -> int:
        return self.tile.columns // self.vector

    @property
    def walkers(self) -> int:
        return WARP // self.lanes

    @property
    def slice_rows(self) -> int:
        return self.walkers // self.tile.splits

    @property
    def row_step(self) -> int:
        """Entries of one row in one step."""
        return self.tile.splits * self.tile.entries

    @property
    def ahead(self) -> int:
        return steps_ahead(self.tile, self.batch)

    @property
    def slabs(self) -> int:
        return ceil_div(self.n, self.tile.columns)

    @property
    def parts(self) -> int:
        return ceil_div(self.k, self.part_rows)

    @property
    def grid(self) -> tuple[int, int]:
        return self.blocks, self.slabs

    @property
    def slab_bytes(self) -> int:
        return ceil_div((self.capacity + 1) * self.tile.columns * self.item, 16) * 16

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        if self.tile.road == "direct":
            return 0
        return self.slab_bytes + (self.tile.columns * self.band_rows * self.item if self.banded else 0)

    @property
    def unit(self) -> int:
        """Rows of the slab in 16 bytes, 1 where a row is wider."""
        return max(1, 16 // (self.tile.columns * self.item))

    @property
    def apart(self) -> int:
        """Words (or rows, if wider) between what two neighbouring threads of a transposing fill store."""
        return max(1, self.depth // self.unit)

    @property
    def line(self) -> int:
        """Words (or rows) in 128 bytes that change places, 1 for none."""
        if not self.batch or self.apart == 1:
            return 1
        return max(1, BANK_BYTES // max(16, self.tile.columns * self.item))

    def place(self, columns: np.ndarray) -> np.ndarray:
        """Where the rows `columns` of X stand in the slab (Filling::place of slab.cuh)."""
        words = columns // self.unit
        swapped: np.ndarray = (words ^ (words // self.apart & (self.line - 1))) * self.unit + columns % self.unit
        return swapped

    @property
    def banks(self) -> int:
        """Classes of places that one read of shared memory can serve together, one of each; 1 where all go together."""
        if self.tile.road == "direct":
            return 1
        return max(1, BANK_BYTES // max(4, self.tile.columns * self.item))

    def bank(self, places: np.ndarray) -> np.ndarray:
        """The class of each place: two of one class cannot be read in one cycle unless they share a 4-byte word."""
        row_bytes = self.tile.columns * self.item
        return (places * row_bytes // max(4, row_bytes)) % self.banks

    @property
    def store(self) -> int:
        """Elements of Y that are stored together."""
        contiguous = self.m if self.banded else self.n
        return gcd(16 // self.item, contiguous, *(() if self.banded else (self.vector,)))

    @property
    def column_dtype(self) -> type[np.generic]:
        """Of what stands for W's columns: places, or columns themselves."""
        largest = self.k - 1 if self.tile.road == "direct" else self.capacity
        return np.uint16 if largest < 2**16 else np.int32

    def macros(self) -> dict[str, Any]:
        """What the body is compiled with."""
        tile = self.tile
        flat = not self.batch and self.n == tile.columns
        return {
            "ELEMENT": ELEMENTS[self.dtype],
            "COLUMN": "unsigned short" if self.column_dtype is np.uint16 else "int",
            "COLUMNS": tile.columns, "VECTOR": self.vector, "SPLITS": tile.splits, "ENTRIES": tile.entries,
            "AHEAD": self.ahead, "WARPS": tile.warps, "PARTS": 1 if self.evict else min(self.parts, PARTS),
            "EVICT": int(self.evict), "COPY": gcd(16, self.n * self.item, tile.columns * self.item), "FLAT": int(flat),
            "BATCH": int(self.batch), "RUN": self.depth, "APART": self.apart, "LINE": self.line,
            "BANDED": int(self.banded), "STORE": self.store,
        }  # fmt: skip


def steps_ahead(tile: Tile, batch: bool) -> int:
    """Steps that a walker holds in registers before it adds them.

    16 entries where there is room for them, else 8; 4 beside the piece of X that a transposing fill holds: what both
    sm_80 and sm_90 compile without spills (nvcc 13.0).
    """
    entries = 16 if tile.warps <= ROOMY_WARPS else 4 if batch else 8
    return max(1, entries // tile.entries)


def cut(tile: Tile, case: Case, rows: Rows, gpu: Gpu) -> Cut | None:
    """The cut of `case` by `tile`, or None where the GPU has no room for it or the layout no such road."""
    return _direct(tile, case) if tile.road == "direct" else _slab(tile, case, rows, gpu)


def _direct(tile: Tile, case: Case) -> Cut | None:
    vector = gcd(16 // ITEM_BYTES[case.dtype], case.n)
    if case.layout != "feature" or case.n == 1 or tile.columns % vector or tile.splits * tile.columns // vector > WARP:
        return None
    return Cut(tile, case.dtype, case.m, case.k, case.n, False, False, vector, 1, 0, case.k, False, 1, 1, 0, 0)


def _slab(tile: Tile, case: Case, rows: Rows, gpu: Gpu) -> Cut | None:
    item, columns = ITEM_BYTES[case.dtype], tile.columns
    vector = min(columns, 16 // item)
    if tile.splits * columns // vector > WARP:
        return None
    batch, banded = case.layout == "batch" and case.n > 1, case.layout == "batch" or case.n == 1
    depth = gcd(4, case.k) if batch else 1
    capacity = ceil_div(case.k, ALIGNED_ROWS) * ALIGNED_ROWS
    most = (gpu.shared_bytes - 16) // (columns * item) - 1 - (8 if banded else 0)
    evict = capacity > most
    if evict:
        capacity = min(most, 2**16 - 1) // ALIGNED_ROWS * ALIGNED_ROWS
    if capacity < ALIGNED_ROWS:
        return None
    slice_rows = WARP * vector // columns // tile.splits
    blocks, bands, band_rows, turns = _shares(tile, case, rows, gpu, slice_rows, most - capacity, evict, banded)
    part_rows = capacity if evict else _part_rows(tile, case, rows, depth, batch)
    return Cut(
        tile, case.dtype, case.m, case.k, case.n, batch, banded, vector, depth, capacity, part_rows, evict,
        blocks, bands, band_rows, turns,
    )  # fmt: skip


def _part_rows(tile: Tile, case: Case, rows: Rows, depth: int, batch: bool) -> int:
    """Rows of X in a part of a slab that stays: as many parts as the walk has rounds, four at most.

    A transposing fill holds one piece a thread in registers, so its parts are no larger than that where four suffice.
    """
    steps = ceil_div(rows.longest, tile.splits * tile.entries)
    parts = max(1, min(PARTS, steps // (2 * steps_ahead(tile, batch))))
    if batch:
        group = min(tile.columns, 16 // ITEM_BYTES[case.dtype])
        pieces = ceil_div(case.k * tile.columns, depth * group)
        parts = min(parts, ceil_div(pieces, WARP * tile.warps))
    return ceil_div(ceil_div(case.k, parts), ALIGNED_ROWS) * ALIGNED_ROWS


def _shares(
    tile: Tile, case: Case, rows: Rows, gpu: Gpu, slice_rows: int, room: int, evict: bool, banded: bool
) -> tuple[int, int, int, int]:
    """blocks, bands, band_rows and turns: one block a processor, each with one band where the band's sums fit."""
    blocks = max(1, gpu.processors // ceil_div(case.n, tile.columns))
    if not banded:
        slices = ceil_div(len(rows.rows), slice_rows)
        blocks = max(1, min(blocks, slices))
        bands = max(blocks, ceil_div(slices, tile.warps)) if evict else blocks
        return blocks, bands, 0, ceil_div(slices, bands)
    most = room + 8  # rows of Y take as much of shared memory as rows of X
    if evict:
        most = min(most, tile.warps * slice_rows)
    # Eight rows are 16 bytes of every dtype, so that a band starts on a whole vector.
    band_rows = max(8, min(ceil_div(ceil_div(case.m, blocks), 8) * 8, most // 8 * 8))
    bands = ceil_div(case.m, band_rows)
    live = int(np.bincount(rows.rows // band_rows, minlength=1).max(initial=0))
    return min(blocks, bands), bands, band_rows, ceil_div(live, slice_rows)
