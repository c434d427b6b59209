"""Rows that share nothing, cut for include/segments.h: blocks of k that the first-level cache holds of a strip.

A row's nonzeros in one block are a segment. The segments of a block are put in the order of their length, so that the
processor foresees where each ends; numpy alone, no loop over rows or nonzeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Of the strip: with more, sums of Y and the lists push X out of 32 KiB (768x3072, sparsity 0.9, strips of 64 columns:
# 55, 57, 59, 54, 51 GFLOP/s with blocks of 64, 96, 128, 192, 256 rows; measured, Cascade Lake).
BLOCK_BYTES = 28 * 1024
# Nonzeros that a mean segment should have at least: below, reading and writing its sums costs more than blocks save
# (DLMC's 2048x512 at sparsity 0.95, 0.98: 31, 13 GFLOP/s with blocks of 112 rows, 36, 18 with 448; measured as above).
LEAST_LENGTH = 12
# Rows with fewer nonzeros are one segment each: their sums are then written once and never read.
SHORT_ROW = 64
MOST_BLOCK_ROWS = 2**16  # places in a block are 16-bit


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """Rows of W alone. row, columns int [nnz], values [nnz], in row-major order."""

    row: np.ndarray
    columns: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The arrays of struct Segments.

    starts   int64 [blocks + 1, 3]    of each block, in classes, rows, columns
    classes  int32 [classes, 2]       length, and how many segments have it
    rows     int32 [segments]
    columns  uint16 [nnz]              within their block
    values   [nnz]
    """

    block_rows: int
    starts: np.ndarray
    classes: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @property
    def blocks(self) -> int:
        """How many blocks k is cut into."""
        return len(self.starts) - 1


def block_rows_for(strip_columns: int, k: int, row_length: float) -> int:
    """Rows of X in a block, where strips have this many columns and a mean live row of W so many nonzeros.

    >>> block_rows_for(64, 3072, 300), block_rows_for(64, 3072, 90), block_rows_for(64, 512, 25)
    (123, 410, 512)
    """
    if row_length < SHORT_ROW:
        return min(k, MOST_BLOCK_ROWS)
    rows = max(BLOCK_BYTES // (4 * strip_columns), math.ceil(LEAST_LENGTH * k / row_length))
    return max(1, min(k, MOST_BLOCK_ROWS, rows))


def segments(single: Single, rows: range, k: int, block_rows: int) -> Segments:
    """The segments of some rows of W. Block 0 has one of every row, so that all of Y is written."""
    first, end = np.searchsorted(single.row, (rows.start, rows.stop))
    row, columns, values = (array[first:end] for array in (single.row - rows.start, single.columns, single.values))
    m, blocks = len(rows), -(-k // block_rows)
    block = columns // block_rows
    lengths = np.bincount(block * m + row, minlength=blocks * m)  # of all segments, block by block
    owner = np.repeat(np.arange(blocks), m)
    order = np.lexsort((-lengths, owner))  # the longest of a block first; rows stay in order among equals
    order = order[(lengths[order] > 0) | (owner[order] == 0)]
    rank = np.empty(blocks * m, np.int64)
    rank[order] = np.arange(len(order))
    sequence = np.argsort(rank[block * m + row], kind="stable")
    kind = np.stack([owner[order], lengths[order]], axis=1)
    first = np.flatnonzero(np.concatenate([[len(order) > 0], (kind[1:] != kind[:-1]).any(axis=1)]))
    counts = np.diff(np.append(first, len(order)))
    edges = np.arange(blocks + 1)
    sorted_block = owner[order]
    starts = [
        np.searchsorted(kind[first, 0], edges),
        np.searchsorted(sorted_block, edges),
        np.concatenate([[0], np.cumsum(np.bincount(block, minlength=blocks))]),
    ]
    return Segments(
        block_rows,
        np.ascontiguousarray(np.stack(starts, axis=1), np.int64),
        np.ascontiguousarray(np.stack([kind[first, 1], counts], axis=1), np.int32),
        (order % max(1, m) + rows.start).astype(np.int32),
        (columns[sequence] % block_rows).astype(np.uint16),
        np.ascontiguousarray(values[sequence]),
    )
