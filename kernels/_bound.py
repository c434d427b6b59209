"""From lists of W to a call of _product.c: the C structs, the slabs, and what each thread has."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.kernel import Toolchain

from . import _row_groups as row_groups
from . import _segments as segments
from ._row_groups import RowGroups
from ._strips import Lists, far, group_shares, lanes_for, shares, way_for
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
    lists: Lists,
    n: int,
    dtype: str,
    places: Sequence[tuple[Any, Any]],
    toolchain: Toolchain,
    turned: bool = False,
    adds: bool = False,
) -> tuple[Callable[[], list[partial[None]]], dict[str, Any]]:
    """What makes a call without arguments for each of `places`, which writes (or adds) W X there, and facts of it.

    All calls that it makes at once share one copy of W, those of the next time another. Cutting W costs milliseconds,
    and is done once for all of them.

    dtype   of W, X and Y
    places  (x, y), pointers to [k, n] and [m, n]; if `turned` to [n, k] and [n, m]
    """
    library = library_for(PRODUCT, n, dtype, toolchain)
    height = lists.groups.rows.shape[1] if lists.groups else 1
    slabs, vectors = turned or dtype != "float32", library.vectors_for(ctypes.c_int64(height))
    way = way_for(lists, n, library.lanes(), vectors, slabs, adds, toolchain.threads)
    (m, k), groups = lists.shape, lists.groups
    # Slabs are shared by all launches as Y is; of five axes, which no Y has.
    x_slab = toolchain.output((1, 1, 2, way.block_rows, way.strip_columns)) if way.x_packed else None
    y_slab = toolchain.output((1, 1, 1, m, way.strip_columns)) if way.y_packed else None
    sizes = (m, k, n, way.widest, way.block_rows, int(turned), int(way.beside), int(adds))
    threads = max(1, min(toolchain.threads, m))
    rows, parts = _shares(lists, threads)
    levels = [_cut(level, k, way.block_rows) for level in groups.levels] if groups else []
    ahead = int(far(4 * way.strip_columns * min(k, way.block_rows)))
    of_threads = _segments(lists, rows, way.segment_rows)
    library.product.restype = None

    def calls() -> list[partial[None]]:
        keep = Keeper(places)
        weights = (
            keep.struct(_struct(groups, levels, np.uint16, ahead, keep)) if groups else None,
            _segment_structs(of_threads, keep) if of_threads else None,
            ctypes.c_void_p(keep.address(parts)),
            ctypes.c_void_p(keep.address(rows)),
            ctypes.c_int64(threads),
        )
        made = []
        for x, y in places:
            product = Product(*sizes, x.value, y.value, keep.shared(x_slab), keep.shared(y_slab))
            made.append(partial(library.product, keep.struct(product), *weights))
            made[-1].keep = keep  # type: ignore[attr-defined]
        return made

    return calls, {"strip_columns": way.strip_columns, "turned": turned, "rows_together": height} | asdict(way)


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
    levels = [replace(level, columns=offsets[level.columns]) for level in groups.levels]
    return _struct(groups, levels, np.int32, int(far(x_bytes)), keep)


def _struct(groups: RowGroups, levels: Sequence[row_groups.Level], index: Any, ahead: int, keep: Keeper) -> Groups:
    """struct Groups; each level's offsets may run through all its lists several times, block by block of k."""
    height, of_groups = groups.rows.shape[1], groups.rows.size
    found = [
        Level(
            *(level.height, of_groups // level.height, ahead),
            *(keep.address(level.offsets, np.int64), keep.address(_padded(level.columns), index)),
            keep.address(level.values),
        )
        for level in levels
    ]
    array = (Level * len(found))(*found)
    keep.struct(array)
    return Groups(height, len(found), keep.address(groups.rows, np.int32), ctypes.addressof(array))


def _padded(columns: np.ndarray) -> np.ndarray:
    """Columns with AHEAD more, which groups.h asks the cache for and never multiplies."""
    return np.pad(columns, (0, AHEAD), mode="edge") if len(columns) else np.zeros(AHEAD, columns.dtype)


def _cut(level: row_groups.Level, k: int, block_rows: int) -> row_groups.Level:
    """Lists cut at blocks of k: block by block, and list by list in each; columns count from their block's first."""
    lists, blocks = len(level.offsets) - 1, -(-k // block_rows)
    if blocks == 1:
        return level
    owner = level.columns // block_rows * lists + np.repeat(np.arange(lists), np.diff(level.offsets))
    order = np.argsort(owner, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=blocks * lists))])
    return row_groups.Level(level.height, level.columns[order] % block_rows, level.values[order], offsets)


def _segments(lists: Lists, rows: np.ndarray, block_rows: int) -> list[segments.Segments]:
    """Each thread's rows as segments of their own; none where no row is alone."""
    if (single := lists.single) is None:
        return []
    ranges = (range(first, end) for first, end in pairwise(rows.tolist()))
    return [segments.segments(single, own, lists.shape[1], block_rows) for own in ranges]


def _segment_structs(of_threads: Sequence[segments.Segments], keep: Keeper) -> Any:
    """An array of struct Segments, one a thread."""
    found = []
    for of in of_threads:
        arrays = (of.starts, of.classes, of.rows, of.columns, of.values)
        found.append(Segments(of.blocks, of.block_rows, *map(keep.address, arrays)))
    return keep.struct((Segments * len(found))(*found))
