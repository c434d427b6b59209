"""Convolutions of all CUDA families: direct, from offsets into planes, without im2col.

A column (c, kh, kw) of W is an element offset into the planes of an image, an output pixel is a start, and
Y[image, row, pixel] = sum over the row's list of value * plane[start + offset]. An im2col would cost more than the
product: it writes and reads kh * kw times the activations.

Two bodies. `staged` (_conv_staged.cu) copies a tile of each plane to shared memory, zeros beyond the image included, so
that padding never goes through memory and a pixel is read by all row groups of a block from there. `planes` (_conv.cu)
reads padded planes through the caches; where padding > 0 a launch of _pad.cu writes them first, timed with the product.
It is for what does not fit: a channel's tile larger than shared memory.

All formats share both bodies: _row_groups.py says which rows share a list, _conv_lists.py how lists lie in memory,
_conv_tiles.py how the work is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case, Conv
from sparsebench.errors import SparsebenchError
from sparsebench.kernel import CudaToolchain, Gpu, Launch

from ._conv_lists import Lists, lists_of
from ._conv_tiles import MOST_SUMS, Geometry, Tile, Work, choose, cycles, macros
from ._device import ELEMENTS, Bound, ceil_div, device_product
from ._product import is_plain
from ._row_groups import RowGroups, heights_of, row_groups

CONV_SOURCES = (  # for Kernel.sources, beside _device.SHARED
    *("../_conv.py", "../_conv_tiles.py", "../_conv_lists.py", "../_row_groups.py", "../_product.py"),
    *("../_conv.cu", "../_conv_staged.cu", "../_pad.cu", "../include/row_lists.cuh"),
)

STAGED, PLANES, PAD = (Path(__file__).with_name(name) for name in ("_conv_staged.cu", "_conv.cu", "_pad.cu"))
HEIGHTS = (4, 8, 16)  # that groups of rows may have
PAD_EACH, PAD_THREADS = 4, 256


@dataclass(frozen=True, slots=True)
class PlanesTile:
    """How _conv.cu cuts a convolution: its macros."""

    pixels: int
    warps: int
    vector: int


def work_of(groups: RowGroups) -> Work:
    """What `groups` asks of a kernel, for the choice of a tile."""
    count = len(groups.rows)
    return Work(
        count, groups.rows.shape[1], tuple((level.height, len(level.columns) / count) for level in groups.levels)
    )


def staged_offsets(shape: Geometry, tile: Tile) -> np.ndarray:
    """Where each column of W starts in a staged tile, int64 [k]: its channel in the chunk, phase, row and column."""
    c, kh, kw = np.indices((shape.c, shape.kh, shape.kw)).reshape(3, -1)
    (down, row), (across, column) = ((side % shape.stride, side // shape.stride) for side in (kh, kw))
    phase = down * shape.phases[1] + across
    plane = c % tile.channels * tile.channel_size(shape) + phase * tile.all_images * tile.span(shape)
    return np.asarray(plane + row * tile.pitch(shape) + column)


def plane_offsets(conv: Conv) -> np.ndarray:
    """Where each column of W starts in the padded planes of an image, int64 [k]: c * hp * wp + kh * wp + kw."""
    c, kh, kw = np.indices((conv.c, conv.kh, conv.kw)).reshape(3, -1)
    hp, wp = padded_sides(conv)
    return np.asarray((c * hp + kh) * wp + kw)


def padded_sides(conv: Conv) -> tuple[int, int]:
    """Rows and columns of a padded plane."""
    return conv.h + 2 * conv.padding, conv.w + 2 * conv.padding


def planes_tile(conv: Conv, work: Work, gpu: Gpu) -> PlanesTile:
    """The widest tile of _conv.cu that still gives every processor a block, where there is one."""
    n = conv.batch * conv.oh * conv.ow
    vector = 4 if is_plain(conv) and conv.oh * conv.ow % 4 == 0 else 1
    warps = min(8, work.groups)
    slabs, most = ceil_div(work.groups, warps), max(vector, min(8, MOST_SUMS // work.rows))
    pixels = most // vector * vector
    while pixels > vector and ceil_div(n, 32 * pixels) * slabs < gpu.processors:
        pixels = pixels // 2 // vector * vector or vector
    return PlanesTile(pixels, warps, vector)


def convolution(case: Case, packed: Any, x: Any, toolchain: CudaToolchain) -> Launch:
    """The convolution of `case` with any format of row groups: staged where some tile fits, else from planes."""
    conv = conv_of(case)
    for way in sorted(ways(conv, packed, toolchain.gpu), key=lambda way: way.cycles):
        if fit := fitted(way.groups, Geometry.of(conv), way.tile, toolchain.gpu):
            return staged(case, way.groups, x, toolchain, *fit)
    return from_planes(case, packed, x, toolchain)


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """Row groups of one height, and the best tile for them."""

    groups: RowGroups
    tile: Tile
    cycles: float


def ways(conv: Conv, packed: Any, gpu: Gpu) -> list[Way]:
    """One for each height that groups may have: 16 rows share the most, 4 make the most blocks of few pixels."""
    shape, found = Geometry.of(conv), []
    for most in sorted({heights_of(packed, most)[0] for most in HEIGHTS}):
        groups = row_groups(packed, most)
        if tile := choose(conv, work_of(groups), gpu):
            found.append(Way(groups, tile, cycles(shape, tile, work_of(groups), gpu)))
    return found


def fitted(groups: RowGroups, shape: Geometry, tile: Tile, gpu: Gpu) -> tuple[Tile, Lists] | None:
    """`tile` and its lists, with fewer channels at a time where lists turn out too uneven for it; None if none fits."""
    lists = staged_lists(groups, shape, tile)
    if shared_bytes(shape, tile, lists) <= gpu.shared_bytes:
        return tile, lists
    return fitted(groups, shape, replace(tile, channels=tile.channels // 2), gpu) if tile.channels > 1 else None


def staged(case: Case, groups: RowGroups, x: Any, toolchain: CudaToolchain, tile: Tile, lists: Lists) -> Launch:
    """The launch of _conv_staged.cu with `tile` and the lists laid out for it."""
    return _launch(case, groups, x, toolchain, lists, _bind_staged(groups, tile, lists))


def from_planes(case: Case, packed: Any, x: Any, toolchain: CudaToolchain, tile: PlanesTile | None = None) -> Launch:
    """The launch of _conv.cu, and before it that of _pad.cu where padding > 0."""
    conv, groups = conv_of(case), row_groups(packed)
    hp, wp = padded_sides(conv)
    if conv.batch * conv.c * hp * wp >= 2**31:
        raise SparsebenchError(
            f"padded planes of {conv.batch} x {conv.c} x {hp} x {wp} have 2**31 entries or more, offsets into them are "
            f"32-bit; use a smaller batch"
        )
    tile = tile or planes_tile(conv, work_of(groups), toolchain.gpu)
    dtype = np.uint16 if conv.c * hp * wp <= 2**16 else np.int32
    lists = lists_of(groups, plane_offsets(conv), np.zeros(case.k, np.int64), tile.warps, dtype)
    return _launch(case, packed, x, toolchain, lists, _bind_planes(groups, tile, lists))


def conv_of(case: Case) -> Conv:
    """The convolution of `case`; SparsebenchError for what the bodies do not compute."""
    if case.conv is None or case.conv.groups != 1:
        raise SparsebenchError(f"the CUDA convolution takes conv2d with groups = 1, found op {case.op}, {case.conv}")
    return case.conv


def staged_lists(groups: RowGroups, shape: Geometry, tile: Tile) -> Lists:
    """`groups` for _conv_staged.cu: a chunk is tile.channels channels."""
    chunk_of = np.arange(groups.shape[1]) // (shape.kh * shape.kw) // tile.channels
    return lists_of(groups, staged_offsets(shape, tile), chunk_of, tile.warps, np.uint16)


def room(lists: Lists) -> tuple[int, int]:
    """Values and entries that a buffer has room for; whole vectors of 16 bytes."""
    entries, values = lists.largest
    return ceil_div(values, 4) * 4, ceil_div(entries, 8) * 8


def shared_bytes(shape: Geometry, tile: Tile, lists: Lists) -> int:
    """Dynamic shared memory of a block: planes, values, starts and offsets of each buffer."""
    values, entries = room(lists)
    starts = ceil_div(2 * lists.starts.shape[1], 4) * 4
    return tile.stages(shape) * (4 * (tile.channels * tile.channel_size(shape) + values + starts) + 2 * entries)


def _launch(case: Case, packed: Any, x: Any, toolchain: CudaToolchain, lists: Lists, bind: Any) -> Launch:
    return device_product(lambda *_: lists.arrays, bind)(case, packed, x, toolchain)


def heights_number(heights: Sequence[int]) -> str:
    """HEIGHTS of the bodies: a byte a level, the coarsest lowest; SparsebenchError for more than eight levels.

    >>> heights_number([16, 4, 1])
    '0x10410'
    """
    if len(heights) > 8:
        raise SparsebenchError(f"the CUDA convolution walks eight levels at most, found {len(heights)}; use fewer")
    return hex(sum(height << 8 * level for level, height in enumerate(heights)))


def _defines(case: Case, groups: RowGroups) -> dict[str, Any]:
    heights = heights_number(groups.heights)
    return {"ELEMENT": ELEMENTS[case.dtype], "ROWS": groups.rows.shape[1], "HEIGHTS": heights}


def _facts(groups: RowGroups, tile: Tile | PlanesTile, **more: Any) -> dict[str, Any]:
    return {"V": groups.rows.shape[1], "heights": list(groups.heights), **asdict(tile), **more}


def _bind_staged(groups: RowGroups, tile: Tile, lists: Lists) -> Any:
    def bind(case: Case, packed: Any, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        shape = Geometry.of(conv_of(case))
        defines = _defines(case, groups) | macros(shape, tile)
        grid, size = (tile.tiles(shape) * lists.slabs,), shared_bytes(shape, tile, lists)
        sizes = (lists.slabs, case.m, shape.batch, shape.c, shape.h, shape.w, shape.padding, shape.oh, shape.ow)
        arguments = [*tensors, x, y, *sizes, tile.parts(shape), *room(lists)]
        call = toolchain.cuda(STAGED, "conv_staged", defines).bind(grid, (tile.threads,), arguments, size)
        facts = _facts(groups, tile, shared_bytes=size, chunks=tile.chunks(shape))
        return Bound([call], grid, (tile.threads,), "direct, staged", facts)

    return bind


def _bind_planes(groups: RowGroups, tile: PlanesTile, lists: Lists) -> Any:
    def bind(case: Case, packed: Any, tensors: Sequence[Any], x: Any, y: Any, toolchain: CudaToolchain) -> Bound:
        conv = conv_of(case)
        (hp, wp), plain = padded_sides(conv), conv.padding == 0
        planes = x if plain else toolchain.scratch("planes", (conv.batch, conv.c, hp, wp), case.dtype)
        defines = _defines(case, groups) | {"OFFSET_BITS": 8 * lists.offsets.itemsize}
        defines |= {name.upper(): size for name, size in asdict(tile).items()}
        grid, block = (ceil_div(case.n, 32 * tile.pixels) * lists.slabs,), (32 * tile.warps,)
        sizes = (lists.slabs, case.m, case.n, conv.oh, conv.ow, conv.stride, conv.c * hp * wp, wp)
        call = toolchain.cuda(PLANES, "conv_planes", defines).bind(grid, block, [*tensors, planes, y, *sizes])
        pad = [] if plain else [pad_call(case, x, planes, toolchain)]
        ran = "direct, from x" if plain else "pad + direct"
        return Bound([*pad, call], grid, block, ran, _facts(groups, tile))

    return bind


def pad_call(case: Case, x: Any, planes: Any, toolchain: CudaToolchain) -> Any:
    """The launch that writes `planes` [batch, c, hp, wp]: x, and zeros around it."""
    conv = conv_of(case)
    hp, wp = padded_sides(conv)
    count = conv.batch * conv.c
    defines = {"ELEMENT": ELEMENTS[case.dtype], "EACH": PAD_EACH, "HEIGHT": hp, "WIDTH": wp}
    grid = (ceil_div(count * hp * wp, PAD_EACH * PAD_THREADS),)
    return toolchain.cuda(PAD, "pad_planes", defines).bind(grid, (PAD_THREADS,), [x, planes, count, conv.padding])
