"""Cases as arrays: where they lie, what work they are, and which observations a law is fitted to.

Axes are logarithms. A pattern of one level lies at (sparsity, bh, bw), one of several at the share that each level
keeps; `n`, `m` and `k` follow, and for convolutions the taps of the kernel, the output plane and the stride. `uneven`
is 1 for masks as uneven as those of pruned layers and 0 for uniform ones.

Work is counted from the pattern, without building a matrix: what a law can know of a layer that was never packed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsebench.case import ITEM_BYTES, Case, canonical
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.observe import Observation, blocks_of, level_sparsities
from sparsebench.kernel import way_of

SAME = 0.01  # in log terms: sparsities that rounding to whole blocks moved apart are one level
CONVOLUTION = ("taps", "plane", "stride")
ALIKE = 0.2  # of the mean variance of noise: what a law does not know of a shape is no matter of its rounds


@dataclass(frozen=True, slots=True)
class Beside:
    """What is known of the dense side of a problem: its usual seconds, and log of them over what its law expected.

    The surprise is that of a law fitted without the shape, and 0 where the dense time is the law's own word.
    """

    time_s: float = math.nan
    surprise: float = 0.0


NOTHING = Beside()


@dataclass(frozen=True, eq=False)
class Points:
    """Where cases lie and what they move.

    x        [q, d]  logs along `axes`
    kept     [q]     nonzeros / (m k), over all levels
    blocks   [q]     stored blocks, each with one index
    reads    [q]     rows of X that the blocks read, one a block and column of it
    dense_s  [q]     usual seconds of the fastest dense kernel on the problem; nan where unknown
    surprise [q]     log of dense_s over what its law expected; 0 where nothing was measured
    ways     [q, w]  which way the kernel takes (kernels/_ways.py); all 0 where it does not tell
    noise    [q]     variance of the noise of what was timed there, over the mean one's
    """

    axes: tuple[str, ...]
    x: np.ndarray
    kept: np.ndarray
    blocks: np.ndarray
    reads: np.ndarray
    dense_s: np.ndarray
    surprise: np.ndarray
    ways: np.ndarray
    noise: np.ndarray
    dtype: str

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: np.ndarray) -> Points:
        return Points(
            self.axes, self.x[rows], self.kept[rows], self.blocks[rows], self.reads[rows], self.dense_s[rows],
            self.surprise[rows], self.ways[rows], self.noise[rows], self.dtype,
        )  # fmt: skip

    def column(self, axis: str) -> np.ndarray:
        """The values along an axis, not their logs, [q]; 1 where there is no such axis."""
        return np.exp(self.x[:, self.axes.index(axis)]) if axis in self.axes else np.ones(len(self))

    @property
    def located(self) -> tuple[tuple[str, ...], np.ndarray]:
        """(axes, x [q, d]) along which a question can leave what was measured: all but how uneven its mask is."""
        axes = tuple(axis for axis in self.axes if axis != "uneven")
        return axes, self.along(axes)

    def along(self, axes: Iterable[str]) -> np.ndarray:
        """The columns of x of some axes, [q, a]."""
        return self.x[:, [self.axes.index(axis) for axis in axes]]

    @property
    def item_bytes(self) -> int:
        """Bytes of a value."""
        return ITEM_BYTES[self.dtype]

    def padded_columns(self, tile: int) -> np.ndarray:
        """Columns that a kernel works on whose widest tile has so many, [q]: fewer than one take a power of two."""
        n = self.column("n")
        few = 2.0 ** np.ceil(np.log2(n) - 1e-9)
        return np.asarray(np.where(n < tile, np.minimum(few, tile), np.ceil(n / tile - 1e-9) * tile))

    @property
    def flops(self) -> np.ndarray:
        """Useful operations, [q]."""
        return np.asarray(2 * self.nnz * self.column("n"))

    @property
    def nnz(self) -> np.ndarray:
        """Stored nonzeros, [q]."""
        return np.asarray(self.kept * self.column("m") * self.column("k"))

    @property
    def input_items(self) -> np.ndarray:
        """Entries of X, [q]; for a convolution those of the activations, borders aside."""
        return np.asarray(self.column("k") * self.column("n") / self.column("taps") * self.column("stride") ** 2)

    @property
    def weight_bytes(self) -> np.ndarray:
        """Bytes of W: values and an index a block, [q]."""
        return np.asarray(self.nnz * self.item_bytes + 4 * self.blocks)


def axes_of(case: Case) -> tuple[str, ...]:
    """Names of the axes of `case`, those that sparsity decides first."""
    if case.pattern == "dense":
        first: tuple[str, ...] = ()
    else:
        levels = len(blocks_of(case))
        first = ("sparsity", "bh", "bw") if levels == 1 else tuple(f"sparsity {i}" for i in range(1, levels + 1))
        first += ("uneven",)
    return (*first, "n", "m", "k", *(CONVOLUTION if case.conv else ()))


def points_of(
    cases: Sequence[Case],
    kept: Sequence[float],
    beside: Sequence[Beside],
    kernel: str = "",
    hardware: Hardware | None = None,
    noise: np.ndarray | None = None,
) -> Points:
    """`cases` of one dtype and one list of axes, which keep the shares `kept`, as arrays; `kernel` answers them."""
    at = hardware or Hardware()
    ways = [way_of(kernel, case, shares_of(case, share), at.lanes) for case, share in zip(cases, kept, strict=True)]
    rows, blocks, reads = zip(*(_row(case, share) for case, share in zip(cases, kept, strict=True)), strict=True)
    return Points(
        axes_of(cases[0]), np.array(rows, float), np.array(kept, float), np.array(blocks, float),
        np.array(reads, float), np.array([dense.time_s for dense in beside]),
        np.array([dense.surprise for dense in beside]), np.array(ways, float),
        np.ones(len(cases)) if noise is None else noise, cases[0].dtype,
    )  # fmt: skip


def shares_of(case: Case, kept: float) -> list[tuple[float, int, int]]:
    """(share of W kept, block rows, block columns) of each level; `kept` is known of a single one."""
    levels = blocks_of(case) if case.pattern != "dense" else ()
    if len(levels) == 1:
        return [(kept, levels[0][1], levels[0][2])]
    shares = [1 - (sparsity or 0.0) for sparsity in level_sparsities(case)] if levels else []
    return [(share, bh, bw) for share, (_, bh, bw) in zip(shares, levels, strict=True)]


def _row(case: Case, kept: float) -> tuple[list[float], float, float]:
    """(logs along the axes, stored blocks, rows of X read) of one case."""
    logs = [math.log(case.n), math.log(case.m), math.log(case.k)]
    if case.conv:
        conv = case.conv
        logs += [math.log(conv.kh * conv.kw), math.log(conv.oh * conv.ow), math.log(conv.stride)]
    if case.pattern == "dense":
        return logs, 0.0, 0.0
    levels, uneven = shares_of(case, kept), float(case.pattern == "file" or case.params.get("from") == "imbalanced")
    if len(levels) == 1:
        first = [math.log(number) for number in levels[0]]
    else:
        first = [math.log(max(share, 1e-9)) for share, _, _ in levels]
    entries = [share * case.m * case.k / bh for share, bh, _ in levels]
    blocks = sum(read / bw for read, (_, _, bw) in zip(entries, levels, strict=True))
    return [*first, uneven, *logs], blocks, sum(entries)


def question(case: Case) -> tuple[Any, ...]:
    """What makes two cases of one setting the same but for their seed, hashable."""
    params = canonical(dict(case.params)) if case.params else ""
    return case.m, case.k, case.n, case.conv, case.pattern, params, case.sparsity, case.source


@dataclass(frozen=True, eq=False)
class Seen:
    """Observations of one kernel: a row for each question, whose seeds are merged, and every timing that judges it.

    points, time_s  [q]  seconds, geometric mean over seeds and runs: what the law is fitted to
    first, first_s  [q]  the same of the first of two runs: what is fitted where the second judges (desk/again.py)
    shape     [q]  numbers of the distinct matrices
    row       [o]  of each timing, the row it belongs to
    judged_s  [o]  its seconds in the second run, in units of the first run's dense time: what a paired ratio says
    plain_s   [o]  its seconds in the second run as the clock had them
    """

    points: Points
    first: Points
    time_s: np.ndarray
    first_s: np.ndarray
    shape: np.ndarray
    row: np.ndarray
    judged_s: np.ndarray
    plain_s: np.ndarray

    @classmethod
    def of(
        cls,
        group: Sequence[Observation],
        beside: Sequence[Beside],
        first: Sequence[Beside] | None = None,
        hardware: Hardware | None = None,
    ) -> Seen:
        """`group` as arrays, with the dense side of each, over all runs and in the first of two."""
        kernel = group[0].setting.kernel
        rows: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, seen in enumerate(group):
            rows[question(seen.case)].append(number)
        cases = [group[members[0]].case for members in rows.values()]
        kept = [math.fsum(group[i].kept for i in members) / len(members) for members in rows.values()]
        row = np.empty(len(group), int)
        for number, members in enumerate(rows.values()):
            row[members] = number
        sides, noise = [beside[members[0]] for members in rows.values()], _noise([seen.weight for seen in group], row)
        points = before = points_of(cases, kept, sides, kernel, hardware, noise)
        if first:
            sides = [first[members[0]] for members in rows.values()]
            noise = _noise([seen.first_weight for seen in group], row)
            before = points_of(cases, kept, sides, kernel, hardware, noise)
        shape = [group[members[0]].shape for members in rows.values()]
        shapes = {name: number for number, name in enumerate(sorted(set(shape)))}
        return cls(
            points=points,
            first=before,
            time_s=_means([seen.time_s for seen in group], row),
            first_s=_means([seen.first_s for seen in group], row),
            shape=np.array([shapes[name] for name in shape]),
            row=row,
            judged_s=np.array([seen.judged_s for seen in group]),
            plain_s=np.array([seen.plain_s for seen in group]),
        )


def _means(times_s: Sequence[float], row: np.ndarray) -> np.ndarray:
    """Geometric means of `times_s` by row."""
    return np.asarray(np.exp(np.bincount(row, np.log(times_s)) / np.bincount(row)))


def _noise(weights: Sequence[float], row: np.ndarray) -> np.ndarray:
    """Points.noise of rows whose timings have these weights (Quiet.weight): a part of it all have alike."""
    variance = 1 / np.bincount(row, weights)
    return np.asarray(ALIKE + (1 - ALIKE) * variance / variance.mean())


def levels_of(column: np.ndarray) -> np.ndarray:
    """Numbers of the distinct values of an axis; a run of values within 1 % of its first counts as one."""
    levels, start, number = np.unique(column), -math.inf, -1
    numbers = np.empty(len(levels), int)
    for i, level in enumerate(levels):
        if level - start > SAME:
            start, number = level, number + 1
        numbers[i] = number
    return np.asarray(numbers[np.searchsorted(levels, column)])
