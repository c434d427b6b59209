"""Rows of W packed as slices (include/slices.cuh): numpy alone, no loop over rows or nonzeros.

Order within a row is free, and is used twice. Rows of X come into shared memory in parts, so a row's entries stay in
the order of their columns, window by window. Within a window they are dealt so that walkers that read shared memory in
one cycle meet different banks: at each moment a walker wants one class of places (Cut.bank), its neighbour the next,
and an entry goes to the first free moment that wants its class. What is left over fills what is left over. Of 410
random columns in 8 classes about 5 % are left over, against 2.6 reads a cycle's worth without the deal [derived].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._slab_tile import PARTS, Cut, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """W row by row: `rows` has entries, `columns` and `values` [nnz] are theirs, rising along a row."""

    rows: Rows
    columns: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """What the bodies read; shapes and meaning as at the top of spmm.cu. Empty arrays have one entry."""

    values: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ready: np.ndarray
    dead: np.ndarray
    slices: int
    steps: int  # of each slice, where all have the same


@dataclass(frozen=True, slots=True, eq=False)
class Seats:
    """Where each row sits: its slice and its place there; and the row of Y (or its place in the band) by seat."""

    slice: np.ndarray
    place: np.ndarray
    rows: np.ndarray
    slices: int


def numbered(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For groups of `counts` members: of each member, its group and its number there.

    >>> numbered(np.array([2, 0, 3]))
    (array([0, 0, 2, 2, 2]), array([0, 1, 0, 1, 2]))
    """
    group = np.repeat(np.arange(len(counts)), counts)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)


def seats_of(rows: Rows, cut: Cut) -> Seats:
    """Rows in order of length, longest first: over all blocks in turn, or within each band."""
    height, live = cut.slice_rows, len(rows.rows)
    seat = np.empty(live, np.int64)  # slice * height + place
    if not cut.banded:
        seat[np.argsort(-rows.counts, kind="stable")] = np.arange(live)
        slices, named = -(-live // height), rows.rows
    else:
        band = rows.rows // cut.band_rows
        order = np.lexsort((-rows.counts, band))
        number = np.empty(live, np.int64)
        number[order] = numbered(np.bincount(band, minlength=cut.bands))[1]
        seat = (band + number // height * cut.bands) * height + number % height
        slices, named = cut.bands * cut.turns, rows.rows % cut.band_rows
    seated = np.full(max(1, slices * height), -1, np.int32)
    seated[seat] = named
    return Seats(seat // height, seat % height, seated, slices)


def pack(lists: Lists, cut: Cut) -> Slices:
    """W as `cut` wants it."""
    rows, seats, parts = lists.rows, seats_of(lists.rows, cut), cut.parts if cut.evict else 1
    row, _ = numbered(rows.counts)
    part = lists.columns // cut.part_rows if cut.evict else np.zeros_like(lists.columns)
    run = row * parts + part  # entries of a row in one part: a run of their own
    counts = np.bincount(run, minlength=len(rows.rows) * parts)
    segment = np.repeat(seats.slice * parts, parts) + np.tile(np.arange(parts), len(rows.rows))
    steps = np.zeros(seats.slices * parts, np.int64)
    np.maximum.at(steps, segment, -(-counts // cut.row_step))
    if rows.even and not cut.evict:
        steps[:] = steps.max(initial=0)
    starts = np.concatenate([[0], np.cumsum(steps)])
    head = starts[segment] * cut.walkers + np.repeat(seats.place, parts) * cut.tile.splits
    room = steps[segment] * cut.row_step

    number = numbered(counts)[1]
    if cut.tile.road == "direct":
        places = lists.columns
    else:
        places = cut.place(lists.columns - part * cut.part_rows if cut.evict else lists.columns)
        number = dealt(run, number, cut.bank(places), room, np.repeat(seats.place, parts), cut)
    at = (head * cut.tile.entries)[run] + _stride(number, cut)

    total = int(starts[-1]) * cut.walkers * cut.tile.entries
    values = np.zeros(max(1, total), lists.values.dtype)
    columns = np.full(max(1, total), cut.capacity, cut.column_dtype)  # the slab's row of zeros
    if cut.tile.road == "direct":
        columns[:] = 0  # of lists that are not there; those that are meet their last column again
        owner, extra = numbered(room - counts)
        last = places[np.cumsum(counts) - 1]
        columns[(head * cut.tile.entries)[owner] + _stride(counts[owner] + extra, cut)] = last[owner]
    values[at], columns[at] = lists.values, places
    return Slices(
        values, columns, seats.rows, starts.astype(np.int32), _ready(columns, starts, seats.slices, cut),
        _dead(rows, cut), seats.slices, int(steps.max(initial=0)),
    )  # fmt: skip


def _stride(number: np.ndarray, cut: Cut) -> np.ndarray:
    """Entries between the head of a row's list and its entry `number`."""
    places: np.ndarray = number // cut.row_step * (cut.walkers * cut.tile.entries) + number % cut.row_step
    return places


def _dead(rows: Rows, cut: Cut) -> np.ndarray:
    """The rows of Y that nothing else writes, int32; one entry, unused, where there is none."""
    alive = np.zeros(cut.m, bool)
    alive[rows.rows] = True
    dead = np.flatnonzero(~alive).astype(np.int32)
    return dead if len(dead) and not cut.banded else np.zeros(1, np.int32)


def dealt(
    run: np.ndarray, number: np.ndarray, bank: np.ndarray, room: np.ndarray, place: np.ndarray, cut: Cut
) -> np.ndarray:
    """New numbers of entries in their runs, so that neighbouring walkers read different banks at a time.

    run     of each entry; number, its number there by column; bank, the class that it reads
    room    entries that each run has place for, padding included; place, of its row in the slice
    """
    if cut.banks == 1 or not len(run):
        return number
    free = window(cut, int(room.max()))
    windows = -(-int(room.max()) // free)
    owner, cell = numbered(room)
    step, within = cell // cut.row_step, cell % cut.row_step
    walker = place[owner] * cut.tile.splits + within // cut.tile.entries
    wanted = (walker + step * cut.tile.entries + within % cut.tile.entries) % cut.banks
    entries = _Sorted.by((run * windows + number // free) * cut.banks + bank)
    cells = _Sorted.by((owner * windows + cell // free) * cut.banks + wanted)
    groups = len(room) * windows
    met = entries.rank < cells.sizes(groups * cut.banks)[entries.key]
    meeting = cells.rank < entries.sizes(groups * cut.banks)[cells.key]
    new = np.empty_like(number)
    new[entries.order[met]] = cell[cells.order[meeting]]
    left = np.bincount(entries.key[~met] // cut.banks, minlength=groups)
    empty = cells.key[~meeting] // cut.banks
    spare = numbered(np.bincount(empty, minlength=groups))[1] < left[empty]
    new[entries.order[~met]] = cell[cells.order[~meeting][spare]]
    return new


def window(cut: Cut, longest: int) -> int:
    """Entries of a row among which order is free: all where X is whole from the start, else an eighth of a part."""
    if cut.evict or cut.parts == 1:
        return longest
    round_ = cut.row_step * cut.ahead
    return max(1, longest // (2 * PARTS * round_)) * round_


@dataclass(frozen=True, slots=True, eq=False)
class _Sorted:
    """Things sorted by an integer key: their order, their keys in it, and the rank of each among equal keys."""

    order: np.ndarray
    key: np.ndarray
    rank: np.ndarray

    @classmethod
    def by(cls, key: np.ndarray) -> _Sorted:
        order = np.argsort(key, kind="stable")
        key = key[order]
        fresh = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        return cls(order, key, numbered(np.diff(np.append(fresh, len(key))))[1])

    def sizes(self, keys: int) -> np.ndarray:
        """How many things have each key below `keys`."""
        return np.bincount(self.key, minlength=keys)


def _ready(columns: np.ndarray, starts: np.ndarray, slices: int, cut: Cut) -> np.ndarray:
    """The step each slice may walk to with the first 1, 2, .. parts of X, int32 [slices, parts - 1]."""
    if cut.evict or cut.parts == 1 or starts[-1] == 0:
        return np.zeros(max(1, slices * (cut.parts - 1)), np.int32)
    steps = np.diff(starts)
    slice_of, _ = numbered(steps)
    reach = columns.reshape(len(slice_of), -1).astype(np.int64)
    reach = np.where(reach == cut.capacity, -1, reach).max(axis=1)  # padding can be walked at any time
    span = cut.capacity + 1
    reach = np.maximum.accumulate(slice_of * span + reach) - slice_of * span  # never falls within a slice
    limits = np.arange(1, cut.parts) * cut.part_rows
    open_steps = np.stack([np.bincount(slice_of[reach < limit], minlength=slices) for limit in limits], axis=1)
    whole = open_steps // cut.ahead * cut.ahead
    return (starts[:-1, None] + np.where(open_steps == steps[:, None], steps[:, None], whole)).astype(np.int32)
