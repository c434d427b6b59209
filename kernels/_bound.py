"""From lists of W to a call of _product.c: the C structs, the slabs, and what each thread has."""

from __future__ import annotations

import ctypes
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.kernel import Toolchain

from . import _row_groups as row_groups
from ._row_groups import RowGroups
from ._segments import Single, segments
from ._strips import Lists, Way, far, group_shares, lanes_for, shares, way_for
from ._structs import Groups, Keeper, Level, Product, Segments

PRODUCT = Path(__file__).with_name("_product.c")
STRIPS = (  # for Kernel.sources
    *(f"../{name}.py" for name in ("_bound", "_strips", "_structs", "_segments", "_row_groups")),
    *("../_product.c", *(f"../include/{name}.h" for name in ("strips", "groups", "segments"))),
)
AHEAD = 8  # columns beyond the last list that groups.h looks at
ITEM_MACROS = {"float32": {}, "bfloat16": {"ITEM_BITS": 16}}  # what include/items.h is compiled with


def library_for(body: Path, n: int, dtype: str, toolchain: Toolchain) -> Any:
    """`body` compiled for items of this dtype, with the machine's vectors or, where n is small, with fewer lanes."""
    library = _typed(toolchain.c(body, **ITEM_MACROS[dtype]))
    lanes = lanes_for(n, library.lanes())
    if lanes == library.lanes():
        return library
    return _typed(toolchain.c(body, LANES=lanes, **ITEM_MACROS[dtype]))


def _typed(library: Any) -> Any:
    for name in ("lanes", "vectors_for"):
        getattr(library, name).restype = ctypes.c_int64
    return library


def bound(
    lists: Lists, n: int, dtype: str, x: Any, y: Any, toolchain: Toolchain, turned: bool = False, adds: bool = False
) -> tuple[partial[None], dict[str, Any]]:
    """A call without arguments that writes (or adds) W X to the address `y`, and what a record should say of it.

    dtype  of W, X and Y
    x      pointer to [k, n]; y, to [m, n]; if `turned` [n, k] and [n, m]
    """
    library = library_for(PRODUCT, n, dtype, toolchain)
    height = lists.groups.rows.shape[1] if lists.groups else 1
    slabs, vectors = turned or dtype != "float32", library.vectors_for(ctypes.c_int64(height))
    way = way_for(lists, n, library.lanes(), vectors, slabs, adds, toolchain.threads)
    (m, k), keep = lists.shape, Keeper(x, y)
    # Slabs are shared by all launches as Y is; of five axes, which no Y has.
    x_slab = toolchain.output((1, 1, 2, way.block_rows, way.strip_columns)) if way.x_packed else None
    y_slab = toolchain.output((1, 1, 1, m, way.strip_columns)) if way.y_packed else None
    places = (0 if slab is None else keep.address(slab) for slab in (x_slab, y_slab))
    sizes = (m, k, n, way.widest, way.block_rows, int(turned), int(way.beside), int(adds))
    product = Product(*sizes, x.value, y.value, *places)
    threads = max(1, min(toolchain.threads, m))
    rows, parts = _shares(lists, threads)
    library.product.restype = None
    call = partial(
        library.product,
        keep.struct(product),
        keep.struct(_groups(lists.groups, way, keep)) if lists.groups else None,
        _all_segments(lists, rows, way, keep),
        ctypes.c_void_p(keep.address(parts)),
        ctypes.c_void_p(keep.address(rows)),
        ctypes.c_int64(threads),
    )
    call.keep = keep  # type: ignore[attr-defined]
    return call, {"strip_columns": way.strip_columns, "turned": turned, "rows_together": height} | asdict(way)


def _shares(lists: Lists, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of Y and groups that each thread starts at."""
    m = lists.shape[0]
    if lists.groups is None:
        work = np.bincount(lists.single.row, minlength=m) if lists.single is not None else np.ones(m)
        rows = shares(work + 1, threads)
        return rows, rows
    parts = group_shares(lists.groups, threads)
    return np.minimum(parts * lists.groups.rows.shape[1], m), parts


def group_structs(groups: RowGroups, keep: Keeper, offsets: np.ndarray, x_bytes: float) -> Groups:
    """struct Groups for _planes.c: columns are offsets [k] into planes of so many bytes, 32-bit."""
    levels = []
    for level in groups.levels:
        columns = _padded(offsets[level.columns])
        addresses = (
            keep.address(level.offsets, np.int64), keep.address(columns, np.int32), keep.address(level.values),
        )  # fmt: skip
        levels.append(Level(level.height, len(level.offsets) - 1, int(far(x_bytes)), *addresses))
    return _struct(groups, levels, keep)


def _groups(groups: RowGroups, way: Way, keep: Keeper) -> Groups:
    return _struct(groups, [_level(level, groups.shape[1], way, keep) for level in groups.levels], keep)


def _struct(groups: RowGroups, levels: list[Level], keep: Keeper) -> Groups:
    array = (Level * len(levels))(*levels)
    keep.struct(array)
    height = groups.rows.shape[1]
    return Groups(height, len(levels), keep.address(groups.rows, np.int32), ctypes.addressof(array))


def _padded(columns: np.ndarray) -> np.ndarray:
    """Columns with AHEAD more, which groups.h asks the cache for and never multiplies."""
    return np.pad(columns, (0, AHEAD), mode="edge") if len(columns) else np.zeros(AHEAD, columns.dtype)


def _level(level: row_groups.Level, k: int, way: Way, keep: Keeper) -> Level:
    """Lists cut at blocks of k: block by block, and list by list in each."""
    block_rows = way.block_rows
    lists, blocks = len(level.offsets) - 1, -(-k // block_rows)
    ahead = far(4 * way.strip_columns * min(k, block_rows))
    columns, values, offsets = level.columns, level.values, level.offsets
    if blocks > 1:
        owner = columns // block_rows * lists + np.repeat(np.arange(lists), np.diff(offsets))
        order = np.argsort(owner, kind="stable")
        columns, values = columns[order] % block_rows, values[order]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=blocks * lists))])
    addresses = (keep.address(offsets, np.int64), keep.address(_padded(columns), np.uint16), keep.address(values))
    return Level(level.height, lists, int(ahead), *addresses)


def _all_segments(lists: Lists, rows: np.ndarray, way: Way, keep: Keeper) -> Any:
    """Segments of each thread as a C array, or None where no row is alone."""
    if lists.single is None:
        return None
    found = _segments(lists.single, lists.shape, rows, way.segment_rows, keep)
    array = (Segments * len(found))(*found)
    keep.struct(array)
    return array


def _segments(
    single: Single, shape: tuple[int, int], rows: np.ndarray, block_rows: int, keep: Keeper
) -> list[Segments]:
    """Each thread's rows as segments of their own."""
    found = []
    for first, end in pairwise(rows.tolist()):
        of = segments(single, range(first, end), shape[1], block_rows)
        arrays = (of.starts, of.classes, of.rows, of.columns, of.values)
        found.append(Segments(of.blocks, of.block_rows, *map(keep.address, arrays)))
    return found
