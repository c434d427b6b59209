"""W as the streams that include/row_group.cuh reads, and the launch over them: shared by bsr.cuda and both hbs faces.

Groups stand in the order of work, longest bundles first, so that no warp starts a long one when the others are done.
What a group needs lies in one stretch of each stream, in the order in which it is read. A list that does not fill its
last step repeats its own last block with zeros: it never names a column that its rows do not own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Bsr
from sparsebench.kernel import CudaToolchain

from ._device import ELEMENTS, Bound, ceil_div, columns_dtype
from ._group_tiles import Blocks, Level, Tile, fill_elements, shared_bytes, store_elements, units, walked

STREAM = 8  # a level's part of a group is padded to this many elements: 16-byte loads stay aligned
HEADERS = tuple(f"../include/row_group{part}.cuh" for part in ("", "_w", "_x", "_y"))
SOURCES = ("../_group_streams.py", "../_group_choice.py", "../_group_tiles.py", *HEADERS)  # for Kernel.sources


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """One level as lists: list t serves rows [t * rows, (t + 1) * rows).

    columns  int32 [blocks]               in blocks of `width`
    values   float [blocks, width, rows]
    first    int64 [lists + 1]            where each list starts
    lengths  int64 [lists]                blocks with those that fill the last step
    """

    level: Level
    columns: np.ndarray
    values: np.ndarray
    first: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, packed: Bsr, level: Level) -> Lists:
        """Block rows of `packed` cut into strips of level.rows rows, blocks into pieces of level.width columns."""
        (bh, bw), blocks = packed.block, len(packed.block_columns)
        strips, pieces = bh // level.rows, bw // level.width
        starts = np.repeat(packed.block_offsets[:-1].astype(np.int64) * pieces, strips)
        counts = np.repeat(np.diff(packed.block_offsets).astype(np.int64) * pieces, strips)
        source = _runs(starts, counts)
        columns = (packed.block_columns[:, None] * pieces + np.arange(pieces, dtype=np.int32)).ravel()
        # [blocks, strips, rows, pieces, width] to [blocks, pieces, strips, width, rows]
        cut = packed.values.reshape(blocks, strips, level.rows, pieces, level.width).transpose(0, 3, 1, 4, 2)
        cut = cut.reshape(blocks * pieces, strips, level.width, level.rows)
        strip = np.repeat(np.tile(np.arange(strips), len(counts) // strips), counts)
        lengths = _rounded_up(counts, max(1, level.step // level.width))
        return cls(level, columns[source], cut[source, strip], _starts(counts), lengths)

    @property
    def counts(self) -> np.ndarray:
        """Blocks of each list that are stored."""
        return np.diff(self.first)

    @property
    def steps(self) -> np.ndarray:
        """Steps of each list."""
        return self.lengths * self.level.width // self.level.step


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where stretches of these lengths start when each follows the one before, and where the last one ends; int64."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _runs(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, .. lengths[0] of them, then the same for the next.

    >>> _runs(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    return np.repeat(first - _starts(lengths)[:-1], lengths) + np.arange(lengths.sum())


def _rounded_up(lengths: np.ndarray, unit: int) -> np.ndarray:
    """Each of `lengths` as whole units."""
    whole: np.ndarray = -(-lengths // unit) * unit
    return whole


def _places(lengths: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, int]:
    """Where each of `lengths` [groups, levels] starts when groups stand in `order`, and the length of all together."""
    lengths = _rounded_up(lengths, STREAM)
    starts = _starts(lengths[order].ravel())
    placed = np.empty(lengths.shape, np.int64)
    placed[order] = starts[:-1].reshape(lengths.shape)
    return placed, int(starts[-1])


def _in_order_of_work(steps: np.ndarray, together: int) -> np.ndarray:
    """Groups [groups], bundles of `together` neighbours with the most steps first; equal ones as they stand in W."""
    whole = ceil_div(len(steps), together)
    work = np.pad(steps, (0, whole * together - len(steps))).reshape(whole, together).sum(axis=1)
    order = np.argsort(-work, kind="stable")[:, None] * together + np.arange(together)
    return order[order < len(steps)]


def packed_streams(tile: Tile, case: Case, levels: Sequence[Bsr]) -> list[np.ndarray]:
    """records, columns and values of row_group.cuh for `tile`."""
    blocks = [Blocks(*level.block, len(level.block_columns)) for level in levels]
    lists = [Lists.of(level, how) for level, how in zip(levels, walked(tile, case, blocks), strict=True)]
    groups = case.m // tile.rows
    ends = [np.cumsum(each.steps.reshape(groups, -1), axis=1) for each in lists]
    work = np.stack([end[:, -1] * each.level.step for end, each in zip(ends, lists, strict=True)])
    order = _in_order_of_work(work.sum(axis=0), tile.bundle)
    lengths = np.stack([each.lengths.reshape(groups, -1).sum(axis=1) for each in lists], axis=1)
    entries = np.array([each.level.width * each.level.rows for each in lists])
    column_at, columns_room = _places(lengths, order)
    value_at, values_room = _places(lengths * entries, order)
    narrow = columns_dtype(max(case.k // each.level.width for each in lists))
    columns = np.zeros(max(columns_room, STREAM), narrow)
    values = np.zeros(max(values_room, STREAM), levels[0].values.dtype)
    for number, each in enumerate(lists):
        _lay(each, columns, column_at[:, number], values, value_at[:, number])
    places = [np.arange(groups) * tile.rows, column_at[:, 0], value_at[:, 0]]
    records = np.concatenate([np.stack(places, axis=1), *ends], axis=1)[order].astype(np.int32)
    return [_whole_bundles(records, tile.bundle, case.m), columns, values]


def _whole_bundles(records: np.ndarray, together: int, m: int) -> np.ndarray:
    """`records` with groups of no steps below the matrix, where the last rows do not fill a bundle.

    They follow the groups of the bundle that they complete, wherever the order of work put that.
    """
    missing = -len(records) % together
    if not missing:
        return records
    last = int(np.argmax(records[:, 0]))  # its neighbours of the same bundle stand before it
    empty = np.zeros((missing, records.shape[1]), np.int32)
    empty[:, 0] = m
    return np.insert(records, [last + 1] * missing, empty, axis=0)


def _lay(lists: Lists, columns: np.ndarray, column_at: np.ndarray, values: np.ndarray, value_at: np.ndarray) -> None:
    """Write one level into both streams; column_at and value_at [groups] say where each group's part of it starts."""
    within = _starts(lists.lengths)[:-1].reshape(len(column_at), -1)
    within = (within - within[:, :1]).ravel()  # of each list in its group's part
    lists_of_group = len(within) // max(1, len(column_at))
    entries = lists.level.width * lists.level.rows
    at = np.repeat(column_at, lists_of_group) + within
    last = np.maximum(lists.first[1:] - 1, 0)
    source = np.minimum(_runs(lists.first[:-1], lists.lengths), np.repeat(last, lists.lengths))
    columns[_runs(at, lists.lengths)] = lists.columns[source]
    at = np.repeat(value_at, lists_of_group) + within * entries
    values[_runs(at, lists.counts * entries)] = lists.values.ravel()


def macros(tile: Tile, case: Case, levels: Sequence[Bsr]) -> dict[str, Any]:
    """What a body over row_group.cuh is compiled with, but for ADD and KEEP."""
    blocks = [Blocks(*level.block, len(level.block_columns)) for level in levels]
    how = walked(tile, case, blocks)
    return {
        "ELEMENT": ELEMENTS[case.dtype],
        "LEVELS": "".join(level.macro for level in how),
        "NARROW": int(columns_dtype(max(case.k // level.width for level in how)) is np.uint16),
        "BATCH": int(case.layout == "batch"),
        "SLAB": int(tile.slab),
        "ROWS": tile.rows,
        "LANES": tile.lanes,
        "VECTOR": tile.vector,
        "PIECES": tile.pieces,
        "THREADS": 32 * tile.warps,
        "FILL": fill_elements(tile, case),
        "STORE": store_elements(tile, case),
        "BUNDLE": tile.bundle,
    }


def bound_streams(
    body: tuple[Path, str],
    tile: Tile,
    case: Case,
    levels: Sequence[Bsr],
    operands: Sequence[Any],
    toolchain: CudaToolchain,
    *,
    add: bool = False,
    keep: bool = False,
) -> Bound:
    """The launch of function body[1] of the source body[0] over `operands`: records, columns, values, x, y, partial."""
    defines = macros(tile, case, levels) | {"ADD": int(add), "KEEP": int(keep)}
    function = toolchain.cuda(*body, defines)
    grid, block = (tile.parts * ceil_div(case.n, tile.columns),), (32 * tile.warps,)
    room = shared_bytes(tile, case)
    sizes = [units(tile, case), tile.parts, case.m, case.k, case.n]
    call = function.bind(grid, block, [*operands, *sizes], room)
    facts = {"V": tile.rows, "columns": tile.columns, "shared_bytes": room, **asdict(tile)}
    return Bound([call], grid, block, "slab" if tile.slab else "direct", facts)
