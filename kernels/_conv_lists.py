"""Row groups laid out as the convolution bodies read them: regions of lists, every list filled up to fours.

A region is what one thread block walks in one go: a slab (as many row groups as a block has warps) and a chunk of
channels. Its lists are neighbours in memory, so a block fetches them with plain copies. Groups are taken by falling
length: those of a slab wait for each other, and the long ones start first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._row_groups import Level, RowGroups

STEP = 4  # entries that a body takes at a time


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """What the bodies read of W (include/row_lists.cuh), and the largest region.

    rows     int32  [slabs * warps, height of a group]  -1: none
    regions  int32  [slabs * chunks + 1, 2]
    starts   int32  [slabs * chunks, lists + 1, 2]
    offsets  uint16 | int32  [entries]
    values   float  [..]
    """

    rows: np.ndarray
    regions: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray
    values: np.ndarray
    slabs: int

    @property
    def arrays(self) -> list[np.ndarray]:
        """In the order of the bodies' arguments."""
        return [self.rows, self.regions, self.starts, self.offsets, self.values]

    @property
    def largest(self) -> tuple[int, int]:
        """The most entries and the most values of any region."""
        entries, values = np.diff(self.regions, axis=0).max(axis=0)
        return int(entries), int(values)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Which list of which region an entry goes to. Segments count lists region by region."""

    rank: np.ndarray  # of each group, by falling length
    warps: int
    chunks: int
    heights: np.ndarray  # of each list of a group

    @property
    def slabs(self) -> int:
        return -(-len(self.rank) // self.warps)

    @property
    def segments(self) -> tuple[int, int]:
        """(regions, lists of each)."""
        return self.slabs * self.chunks, self.warps * len(self.heights)

    def segment_of(self, group: np.ndarray, number: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """The segment of entries in list `number` of `group`, for columns of `chunk`."""
        slab, warp = np.divmod(self.rank[group], self.warps)
        return np.asarray(((slab * self.chunks + chunk) * self.warps + warp) * len(self.heights) + number)


def lists_of(
    groups: RowGroups, offset_of: np.ndarray, chunk_of: np.ndarray, warps: int, dtype: type[np.generic]
) -> Lists:
    """`groups` as lists, `warps` groups to a slab; offset_of [k] and chunk_of [k] say what each column becomes."""
    rows = groups.rows.shape[1]
    heights = np.repeat(groups.heights, [rows // height for height in groups.heights])
    regions = Regions(_by_falling_length(groups), warps, int(chunk_of.max()) + 1, heights)
    firsts = np.cumsum([0, *(rows // height for height in groups.heights)])
    segments = [
        _segments(level, rows // level.height, int(first), regions, chunk_of)
        for level, first in zip(groups.levels, firsts[:-1], strict=True)
    ]
    counts = np.bincount(np.concatenate(segments), minlength=int(np.prod(regions.segments)))
    padded = -(-counts // STEP) * STEP
    entry_starts = _starts(padded)
    value_starts = _starts(padded * np.resize(heights, len(padded)))
    offsets = np.zeros(max(STEP, entry_starts[-1]), dtype)
    values = np.zeros(max(STEP, value_starts[-1]), groups.levels[0].values.dtype)
    for level, segment in zip(groups.levels, segments, strict=True):
        place = _place_in_run(segment)
        offsets[entry_starts[segment] + place] = offset_of[level.columns]
        at = value_starts[segment] + place * level.height
        values[at[:, None] + np.arange(level.height)] = level.values
    _repeat_last(offsets, entry_starts[:-1], counts, padded)
    return Lists(
        _ranked_rows(groups, regions),
        *_relative(np.stack([entry_starts, value_starts], axis=1), *regions.segments),
        offsets,
        values,
        regions.slabs,
    )


def _by_falling_length(groups: RowGroups) -> np.ndarray:
    """Place of each group when they are sorted by multiply-adds, most first; int64 [groups]."""
    work = np.zeros(len(groups.rows), np.int64)
    for level in groups.levels:
        work += np.diff(level.offsets).reshape(len(work), -1).sum(axis=1) * level.height
    rank = np.empty(len(work), np.int64)
    rank[np.argsort(-work, kind="stable")] = np.arange(len(work))
    return rank


def _segments(level: Level, lists: int, first: int, regions: Regions, chunk_of: np.ndarray) -> np.ndarray:
    """The segment of each entry of `level`, `lists` lists a group, the first of them number `first`."""
    owner = np.repeat(np.arange(len(level.offsets) - 1), np.diff(level.offsets))
    group, number = np.divmod(owner, lists)
    return regions.segment_of(group, first + number, chunk_of[level.columns])


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _place_in_run(keys: np.ndarray) -> np.ndarray:
    """How many equal neighbours come before each key.

    >>> _place_in_run(np.array([7, 7, 2, 2, 2, 9]))
    array([0, 1, 0, 1, 2, 0])
    """
    here = np.arange(len(keys))
    begins = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    return here - np.maximum.accumulate(np.where(begins, here, 0))


def _repeat_last(offsets: np.ndarray, starts: np.ndarray, counts: np.ndarray, padded: np.ndarray) -> None:
    """Fill each list up with its own last offset: a padded entry must not touch a column that its rows do not own."""
    room = padded - counts
    last = np.repeat(starts + counts - 1, room)
    place = np.arange(len(last)) - np.repeat(np.cumsum(room) - room, room)
    offsets[last + 1 + place] = offsets[last]


def _ranked_rows(groups: RowGroups, regions: Regions) -> np.ndarray:
    rows = np.full((regions.slabs * regions.warps, groups.rows.shape[1]), -1, np.int32)
    rows[regions.rank] = groups.rows
    return rows


def _relative(starts: np.ndarray, regions: int, lists: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each region starts, [regions + 1, 2], and its lists in it, [regions, lists + 1, 2]; int32."""
    bounds = starts[::lists]
    inside = starts[np.arange(regions)[:, None] * lists + np.arange(lists + 1)] - bounds[:-1, None]
    return bounds.astype(np.int32), np.ascontiguousarray(inside, np.int32)
