"""What csr.cuda and condensed.cuda share: from a packed format to launches of slice_product.cuh.

A face says how its format lists rows, and whether all lists have one length; `Family` packs, chooses and launches.
`Family.prepare_with(tile)` runs with a tile of one's own. Where there is a GPU the likeliest tiles are timed against
each other that way, once a machine and class of problems (_tuning.py). A tile decides how W is packed, so each of them
costs a packing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import SparsebenchError
from sparsebench.kernel import CudaToolchain, Gpu, Launch

from ._device import Bound, Prepare, ceil_div, device_product
from ._slab_choice import estimate, ranked
from ._slab_tile import Cut, Rows, Tile, cut
from ._slices import Lists, pack
from ._tuning import Choice, best, n_class, problem_class, timer

HEADERS = ("slices.cuh", "slab.cuh", "slice_out.cuh", "slice_product.cuh")
FACES = ("../_slab.py", "../_tuning.py", "../_slab_tile.py", "../_slab_choice.py", "../_slices.py")
TIMED = 8  # tiles, the likeliest by estimate
SOURCES = (*FACES, *(f"../include/{name}" for name in HEADERS))  # for Kernel.sources


@dataclass(frozen=True, slots=True)
class Family:
    """Two bodies, NAME_slab and NAME_direct, and how a format becomes their lists.

    rows    packed -> which rows have entries and how many
    lists   packed -> their columns and values too
    even    whether the bodies take one number of steps in place of a list of starts (but for evicted slabs)
    """

    name: str
    body: Path
    rows: Callable[[Any], Rows]
    lists: Callable[[Any], Lists]
    even: bool

    def prepare(self, case: Case, packed: Any, x: Any, toolchain: CudaToolchain) -> Launch:
        """The `prepare` of the Kernel: with the tile that won on this machine, or else is likeliest to; gemm alone."""
        choice = self.choice(case, packed, x, toolchain)
        return self.prepare_with(choice.tile, tuned=choice.tuned)(case, packed, x, toolchain)

    def choice(self, case: Case, packed: Any, x: Any, toolchain: CudaToolchain) -> Choice[Tile]:
        """The tile that won; the first by estimate where nothing can be timed."""
        rows = self.rows(packed)
        tiles = [one.tile for one, _ in ranked(case, rows, toolchain.gpu)]

        def call(tile: Tile) -> Callable[[], Any]:
            return self.prepare_with(tile)(case, packed, x, toolchain).run

        clock = timer(toolchain, call)
        time_s = clock and (lambda tile: clock(tile) if tile in tiles[:TIMED] else math.inf)
        mean = n_class(max(1, round(float(rows.counts.mean())))) if len(rows.counts) else 0
        key = problem_class(case, toolchain, mean_row=mean, longest_row=n_class(max(1, rows.longest)))
        return best(f"{self.name}.cuda", key, tiles, time_s, tiles[0])

    def prepare_with(self, tile: Tile, tuned: bool = False) -> Prepare:
        """The `prepare` that runs with `tile`; SparsebenchError from it where that does not fit. Gemm alone."""

        def packed_arrays(case: Case, packed: Any, gpu: Gpu) -> list[np.ndarray]:
            return self.arrays(packed, self.cut(tile, case, packed, gpu))

        def bind(case: Case, packed: Any, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
            one, rows = self.cut(tile, case, packed, toolchain.gpu), self.rows(packed)
            bound = self.bound(one, rows, tensors, x, y, toolchain)
            why = estimate(one, rows, toolchain.gpu)
            return replace(bound, facts={**bound.facts, "tuned": tuned, "bound": why.bound})

        return device_product(packed_arrays, bind)

    def cut(self, tile: Tile, case: Case, packed: Any, gpu: Gpu) -> Cut:
        """The cut by `tile`; SparsebenchError where it does not fit."""
        if (found := cut(tile, case, self.rows(packed), gpu)) is None:
            raise SparsebenchError(
                f"{self.name}.cuda was asked to run {case.describe()} with {tile}, which does not fit "
                f"{gpu.shared_bytes} bytes of shared memory or layout {case.layout}; take one of candidates()"
            )
        return found

    def arrays(self, packed: Any, one: Cut) -> list[np.ndarray]:
        """What the body reads of W, in its order."""
        slices = pack(self.lists(packed), one)
        arrays = {
            "values": slices.values,
            "columns": slices.columns,
            "rows": slices.rows,
            "starts": slices.starts,
            "ready": slices.ready,
            "dead": slices.dead,
        }
        return [array for name, array in arrays.items() if name in self._read(one)]

    def _read(self, one: Cut) -> tuple[str, ...]:
        """Names of the arrays that the body takes."""
        if one.tile.road == "slab":
            return "values", "columns", "rows", "starts", "ready", "dead"
        return ("values", "columns", "rows", *(() if self.even else ("starts",)), "dead")

    def bound(self, one: Cut, rows: Rows, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        """The launch over `tensors`, which are arrays() on the device."""
        tile, live = one.tile, len(rows.rows)
        slices = one.bands * one.turns if one.banded else ceil_div(live, one.slice_rows)
        dead, steps = 0 if one.banded else one.m - live, ceil_div(rows.longest, one.row_step)
        sizes = [one.m, one.k, one.n, slices, dead]
        if tile.road == "slab":
            sizes += [steps, one.bands, one.turns, one.band_rows, one.capacity, one.part_rows]
            grid = one.grid
        else:
            sizes += [steps] if self.even else []
            grid = max(1, ceil_div(slices, tile.warps)), one.slabs
        function = toolchain.cuda(self.body, f"{self.name}_{tile.road}", one.macros())
        call = function.bind(grid, (32 * tile.warps,), [*tensors, x, y, *sizes], one.shared_bytes)
        ran = "" if tile.road == "slab" else "X from L2"
        facts = {**asdict(tile), "parts": one.parts, "evict": one.evict, "shared_bytes": one.shared_bytes}
        return Bound([call], grid, (32 * tile.warps,), ran, facts)
