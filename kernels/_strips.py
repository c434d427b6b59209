"""From lists of W to a call of _product.c: which strips, which slabs, which rows a thread has.

A face cuts its format into `Lists`: groups of rows that share lists (_row_groups.py), single rows (_segments.py), or
both. `bound` makes the C structs and the call.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.formats import Bsr, Hbs, Rbgp4
from sparsebench.kernel import Toolchain

from . import _row_groups as row_groups
from ._row_groups import RowGroups
from ._segments import Single, block_rows_for, segments

PRODUCT = Path(__file__).with_name("_product.c")
STRIPS = (  # for Kernel.sources
    *("../_strips.py", "../_segments.py", "../_row_groups.py", "../_product.c"),
    *(f"../include/{name}.h" for name in ("strips", "groups", "segments")),
)
L2_SHARE = 0.8  # of the second-level cache that a slab of X may take, beside lists and sums
MOST_ROWS = 2**16  # of a block: places in it are 16-bit
AHEAD = 8  # columns beyond the last list that groups.h looks at


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """W [m, k] for _product.c: what it adds up."""

    shape: tuple[int, int]
    groups: RowGroups | None = None
    single: Single | None = None


class Product(ctypes.Structure):
    """struct Product of include/strips.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("m", "k", "n", "widest", "block_rows", "turned")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "x_slab", "y_slab")),
    )


class Level(ctypes.Structure):
    """struct Level of include/groups.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "lists")),
        *((name, ctypes.c_void_p) for name in ("offsets", "columns", "values")),
    )


class Groups(ctypes.Structure):
    """struct Groups of include/groups.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "levels")),
        *((name, ctypes.c_void_p) for name in ("rows", "level")),
    )


class Segments(ctypes.Structure):
    """struct Segments of include/segments.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("blocks", "block_rows")),
        *((name, ctypes.c_void_p) for name in ("starts", "classes", "rows", "columns", "values")),
    )


def placed(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """`array` as C reads it: contiguous, of this dtype."""
    return np.ascontiguousarray(array, dtype)


class Keeper:
    """Addresses for C, whose memory lives as long as the keeper."""

    def __init__(self, *kept: Any) -> None:
        self._kept: list[Any] = list(kept)

    def address(self, array: np.ndarray, dtype: Any = None) -> int:
        """The address of `array`, or of a contiguous copy of it as `dtype`."""
        array = placed(array, dtype)
        self._kept.append(array)
        return int(array.ctypes.data)

    def struct(self, struct: Any) -> Any:
        """A pointer to `struct`."""
        self._kept.append(struct)
        return ctypes.byref(struct)


def tall(rows: int, most: int = 8) -> int:
    """The height of lists that bodies take for blocks of `rows` rows: 8, 4, 2 or 1.

    >>> tall(24), tall(12), tall(7), tall(24, 4)
    (8, 4, 1, 4)
    """
    return next(height for height in (8, 4, 2, 1) if height <= most and rows % height == 0)


def height_of(packed: Any) -> int:
    """The most rows that lists of `packed` have in common, as bodies take them; 4 where several levels meet."""
    if isinstance(packed, Hbs):
        return tall(packed.levels[0].block[0], 4)
    if isinstance(packed, Rbgp4):
        return tall(packed.row_repeat * packed.block[0])
    return tall(packed.block[0]) if isinstance(packed, Bsr) else 1


def l2_bytes() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not tell."""
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE") or 2**20
    except (ValueError, OSError):
        return 2**20


def entries_of(lists: Lists) -> int:
    """Entries of all lists: how often a row of X is read for a strip."""
    found = sum(len(level.columns) for level in lists.groups.levels) if lists.groups else 0
    return found + (len(lists.single.row) if lists.single else 0)


def reads_worth_packing(n: int) -> int:
    """How often a row of X must be read for a strip so that packing it pays.

    csr and bsr 4x1, 64x576 to 512x4608, sparsity 0.9 to 0.98: packed or not is the same at 13 reads for n = 128, at 8
    to 10 for n = 256 and at 3 to 6 for n = 2048, where rows are 8 KiB apart; 1.6 reads at n = 256 are 3.5 times as
    fast unpacked (measured, Cascade Lake).
    """
    return 4 if n >= 1024 else 10


def rows_of_a_block(lists: Lists, strip_columns: int) -> int:
    """Rows of X taken at a time: what L2_SHARE holds, in equal parts of k; a block of segments where there is no more.

    >>> rows_of_a_block(Lists((1, 4608)), 64) < 4608
    True
    """
    k, unit = lists.shape[1], segment_rows(lists, strip_columns)
    if lists.groups is None:
        return unit  # packed into the first-level cache: 43 GFLOP/s against 36 with all of k (csr.c, measured)
    most = max(unit, min(MOST_ROWS, int(L2_SHARE * l2_bytes()) // (4 * strip_columns)))
    each = -(-k // -(-k // most))
    return -(-each // unit) * unit


def segment_rows(lists: Lists, strip_columns: int) -> int:
    """Rows of X in a block of segments, k at most; 1 where lists are of groups alone."""
    if lists.single is None:
        return 1
    (m, k), nonzeros = lists.shape, len(lists.single.row)
    live = int(np.count_nonzero(np.bincount(lists.single.row, minlength=m)))
    return block_rows_for(strip_columns, k, nonzeros / max(1, live))


def shares(work: np.ndarray, threads: int) -> np.ndarray:
    """Where each thread starts, int64 [threads + 1], so that all have about as much of `work`.

    >>> shares(np.array([5, 1, 1, 1, 1, 1]), 2)
    array([0, 1, 6])
    """
    done = np.concatenate([[0], np.cumsum(work)])
    goals = done[-1] * np.arange(threads + 1) / threads
    starts = np.abs(done[None, :] - goals[:, None]).argmin(axis=1)
    starts[0], starts[-1] = 0, len(work)
    return np.maximum.accumulate(starts).astype(np.int64)


def bound(
    lists: Lists, n: int, x: Any, y: Any, toolchain: Toolchain, turned: bool = False
) -> tuple[partial[None], dict[str, Any]]:
    """A call without arguments that writes W X to the address `y`, and what a record should say of it.

    x  pointer to float [k, n]; y, to float [m, n]; if `turned` [n, k] and [n, m]
    """
    library = toolchain.c(PRODUCT)
    for name in ("lanes", "vectors_for"):
        getattr(library, name).restype = ctypes.c_int64
    lanes, height = library.lanes(), lists.groups.rows.shape[1] if lists.groups else 1
    widest = min(-(-n // lanes), library.vectors_for(ctypes.c_int64(height)))
    block_rows = rows_of_a_block(lists, lanes * widest)
    (m, k), ragged = lists.shape, n % lanes != 0
    strips = -(-n // (lanes * widest))
    keep = Keeper(x, y)
    slabs = turned or ragged or (strips > 1 and entries_of(lists) >= reads_worth_packing(n) * k)
    # Shared by all launches as Y is; of five axes, which no Y has.
    x_slab = keep.address(toolchain.output((1, 1, 2, block_rows, widest * lanes))) if slabs else 0
    added = lists.single is not None and (lists.groups is not None or segment_rows(lists, lanes * widest) < k)
    y_slabs = turned or (added and (ragged or strips > 1))
    y_slab = keep.address(toolchain.output((1, 1, 1, m, widest * lanes))) if y_slabs else 0
    product = Product(m, k, n, widest, block_rows, int(turned), x.value, y.value, x_slab, y_slab)

    threads = max(1, min(toolchain.threads, m))
    rows, parts = _shares(lists, threads)
    groups = keep.struct(_groups(lists.groups, block_rows, keep)) if lists.groups else None
    single = None
    if lists.single is not None:
        single = (Segments * threads)(
            *_segments(lists.single, lists.shape, rows, segment_rows(lists, lanes * widest), keep)
        )
        keep.struct(single)
    library.product_f32.restype = None
    call = partial(
        library.product_f32,
        keep.struct(product),
        groups,
        single,
        ctypes.c_void_p(keep.address(parts)),
        ctypes.c_void_p(keep.address(rows)),
        ctypes.c_int64(threads),
    )
    call.keep = keep  # type: ignore[attr-defined]
    facts = {
        "strip_columns": lanes * widest,
        "block_rows": block_rows,
        "x_packed": slabs,
        "turned": turned,
        "rows_together": height,
    }
    return call, facts


def _shares(lists: Lists, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of Y and groups that each thread starts at."""
    m = lists.shape[0]
    if lists.groups is None:
        work = np.bincount(lists.single.row, minlength=m) if lists.single is not None else np.ones(m)
        rows = shares(work + 1, threads)
        return rows, rows
    parts = group_shares(lists.groups, threads)
    return np.minimum(parts * lists.groups.rows.shape[1], m), parts


def group_shares(groups: RowGroups, threads: int) -> np.ndarray:
    """Groups that each thread starts at, int64 [threads + 1]: about as many nonzeros for each."""
    work = np.ones(len(groups.rows))
    for level in groups.levels:
        work += (np.diff(level.offsets) * level.height).reshape(len(work), -1).sum(axis=1)
    return shares(work, threads)


def group_structs(groups: RowGroups, keep: Keeper, offsets: np.ndarray) -> Groups:
    """struct Groups for _planes.c: columns are offsets [k] into planes, 32-bit."""
    levels = []
    for level in groups.levels:
        columns = _padded(offsets[level.columns])
        addresses = (
            keep.address(level.offsets, np.int64), keep.address(columns, np.int32), keep.address(level.values),
        )  # fmt: skip
        levels.append(Level(level.height, len(level.offsets) - 1, *addresses))
    return _struct(groups, levels, keep)


def _groups(groups: RowGroups, block_rows: int, keep: Keeper) -> Groups:
    return _struct(groups, [_level(level, groups.shape[1], block_rows, keep) for level in groups.levels], keep)


def _struct(groups: RowGroups, levels: list[Level], keep: Keeper) -> Groups:
    array = (Level * len(levels))(*levels)
    keep.struct(array)
    height = groups.rows.shape[1]
    return Groups(height, len(levels), keep.address(groups.rows, np.int32), ctypes.addressof(array))


def _padded(columns: np.ndarray) -> np.ndarray:
    """Columns with AHEAD more, which groups.h asks the cache for and never multiplies."""
    return np.pad(columns, (0, AHEAD), mode="edge") if len(columns) else np.zeros(AHEAD, columns.dtype)


def _level(level: row_groups.Level, k: int, block_rows: int, keep: Keeper) -> Level:
    """Lists cut at blocks of k: block by block, and list by list in each."""
    lists, blocks = len(level.offsets) - 1, -(-k // block_rows)
    columns, values, offsets = level.columns, level.values, level.offsets
    if blocks > 1:
        owner = columns // block_rows * lists + np.repeat(np.arange(lists), np.diff(offsets))
        order = np.argsort(owner, kind="stable")
        columns, values = columns[order] % block_rows, values[order]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=blocks * lists))])
    addresses = (keep.address(offsets, np.int64), keep.address(_padded(columns), np.uint16), keep.address(values))
    return Level(level.height, lists, *addresses)


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
