"""How a convolution is cut for _conv_staged.cu: which pixels a warp takes, how many channels are staged at a time.

Geometry. A convolution of stride s is one of stride 1 over s x s phases of each channel (pixels of equal remainder),
so the body knows no stride. Of the P pixels of a lane each stands the same distance after the one before it, so a load
needs one address and a constant. Two ways to give the pixels of a plane to lanes:

    flat      the plane is one line and lanes are neighbours in it; pixels of a lane are 32 apart. Positions that fall
              on the halo between rows are computed in vain: 2 of 58 for 56 columns, but 2 of 6 for 4
    columns   ow <= 32: lanes are columns and a lane walks down P rows. `bands` of P rows and several images stand side
              by side in a warp: 14 x 14 are 2 bands of 7 rows, 4 x 4 are 8 images

Flat never meets a bank conflict. Columns does where bands or images start at banks that others use; `span`, the room of
an image, is padded where that helps, and what remains is counted.

Order. `cycles` ranks candidates by a count of what an SM can issue, read from shared memory and fetch from L2 [derived;
no constant was measured on a GPU]: 4 instructions a cycle, one shared row of 128 bytes a cycle, about 24 bytes of L2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np

from sparsebench.case import Conv
from sparsebench.kernel import Gpu

from ._device import ceil_div
from ._product import is_plain

MOST_SUMS = 64  # a lane's accumulators; with values and loads up to 128 registers [compiled]
MOST_WARPS = 16
LATENCY = 800  # cycles until the first copies of a chunk have arrived
LISTS_ROOM = 1.3  # the largest list region over the mean one, until lists are packed and it is known


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution as one of stride 1 over phases. Images of a 1x1 convolution without padding are one row."""

    c: int
    h: int
    w: int
    kh: int
    kw: int
    stride: int
    padding: int
    batch: int
    oh: int
    ow: int

    @classmethod
    def of(cls, conv: Conv) -> Geometry:
        h, w, oh, ow = conv.h, conv.w, conv.oh, conv.ow
        if is_plain(conv):
            h, w, oh, ow = 1, h * w, 1, oh * ow
        return cls(conv.c, h, w, conv.kh, conv.kw, conv.stride, conv.padding, conv.batch, oh, ow)

    @property
    def one_row(self) -> bool:
        """Whether images are one row without a halo: output pixel j is input pixel j."""
        return self.h == 1 and (self.kh, self.kw, self.stride, self.padding) == (1, 1, 1, 0)

    @property
    def phases(self) -> tuple[int, int]:
        """Phases of a channel that some (kh, kw) reaches: down, across."""
        return min(self.kh, self.stride), min(self.kw, self.stride)

    @property
    def halo(self) -> tuple[int, int]:
        """Rows and columns of a phase's plane beyond oh and ow."""
        return (self.kh - 1) // self.stride, (self.kw - 1) // self.stride

    @property
    def line(self) -> int:
        """Positions of a flat image: up to its last pixel."""
        return (self.oh - 1) * (self.ow + self.halo[1]) + self.ow


@lru_cache
def busiest_bank(images: int, bands: int, columns: int, image_step: int, band_step: int) -> int:
    """How many of images x bands x columns lanes read from the same of the 32 banks of shared memory.

    >>> busiest_bank(1, 2, 16, 0, 18), busiest_bank(1, 2, 16, 0, 8 * 18)
    (2, 1)
    """
    image, band, column = np.indices((images, bands, columns)).reshape(3, -1)
    return int(np.bincount((image * image_step + band * band_step + column) % 32).max())


@dataclass(frozen=True, slots=True)
class Tile:
    """What a block computes; the macros of _conv_staged.cu.

    bands        0: flat; else columns, and bands of an image side by side in a warp
    positions    of a lane along an image: 32 apart if flat, else rows
    images       of a lane; above 1 only where the block covers the image
    lane_images  images side by side in a warp
    warps        row groups of a block
    subs         warps that share a group and follow each other along the image
    channels     staged at a time
    vector       4: a lane takes four neighbours at a time, and so does staging; else 1
    """

    bands: int
    positions: int
    images: int = 1
    lane_images: int = 1
    warps: int = 8
    subs: int = 1
    channels: int = 1
    vector: int = 1

    @property
    def pixels(self) -> int:
        """Accumulators of a lane for each row."""
        return self.positions * self.images

    @property
    def threads(self) -> int:
        return 32 * self.warps * self.subs

    @property
    def all_images(self) -> int:
        """Images that a block stages."""
        return self.images * self.lane_images

    @property
    def reach(self) -> int:
        """What a block covers of each image: positions if flat, else rows."""
        return (self.bands or 32) * self.positions * self.subs

    def pitch(self, shape: Geometry) -> int:
        """Elements between rows of a staged plane."""
        return shape.ow + shape.halo[1]

    def parts(self, shape: Geometry) -> int:
        """Blocks along an image."""
        return ceil_div(shape.oh if self.bands else shape.line, self.reach)

    def span(self, shape: Geometry) -> int:
        """Elements that a block stages of one plane of one image: whole fours, with the fewest bank conflicts."""
        down, across = shape.halo
        rows = (self.reach + down) * self.pitch(shape)
        least = ceil_div(rows if self.bands else self.reach + down * self.pitch(shape) + across, 4) * 4
        return min(range(least, least + (32 if self.lane_images > 1 else 4), 4), key=partial(self._conflict, shape))

    def conflict(self, shape: Geometry) -> int:
        """How many lanes meet in the busiest bank of shared memory when a warp loads one pixel each."""
        return self._conflict(shape, self.span(shape))

    def _conflict(self, shape: Geometry, span: int) -> int:
        if not self.bands:
            return 1
        return busiest_bank(self.lane_images, self.bands, shape.ow, span, self.positions * self.pitch(shape))

    def channel_size(self, shape: Geometry) -> int:
        """Elements that a block stages of one channel."""
        return shape.phases[0] * shape.phases[1] * self.all_images * self.span(shape)

    def chunks(self, shape: Geometry) -> int:
        """Times that a block stages channels."""
        return ceil_div(shape.c, self.channels)

    def stages(self, shape: Geometry) -> int:
        """Buffers in shared memory: two, unless one holds all channels."""
        return min(2, self.chunks(shape))

    def tiles(self, shape: Geometry) -> int:
        """Blocks that cover all pixels, for one slab of row groups."""
        return self.parts(shape) * ceil_div(shape.batch, self.all_images)


@dataclass(frozen=True, slots=True)
class Work:
    """What lists a convolution walks: of how many groups, and for each level (height, entries of a group)."""

    groups: int
    rows: int  # of a group
    levels: tuple[tuple[int, float], ...]

    def lists_bytes(self, tile: Tile, shape: Geometry) -> float:
        """Bytes of a block's lists for one chunk of channels, padding to fours included."""
        lists = tile.warps * sum(self.rows // height for height, _ in self.levels)
        entries = tile.warps / tile.chunks(shape)
        return 8 * lists + sum(
            (4 * height + 2) * (entries * each + 1.5 * tile.warps * self.rows / height) for height, each in self.levels
        )

    def shared_bytes(self, tile: Tile, shape: Geometry) -> float:
        """Shared memory that a block is expected to need."""
        lists = LISTS_ROOM * self.lists_bytes(tile, shape)
        return tile.stages(shape) * (4 * tile.channels * tile.channel_size(shape) + lists + 64)


def cycles(shape: Geometry, tile: Tile, work: Work, gpu: Gpu) -> float:
    """Clock cycles that the launch takes at least, to rank tiles by [derived]."""
    warps, pixels = tile.warps * tile.subs, tile.pixels
    conflict, chunks = tile.conflict(shape), tile.chunks(shape)
    walk = 0.0
    for height, entries in work.levels:
        issue = (height * pixels + pixels / tile.vector + height / 4 + 2.5) / 4
        padded = entries + 1.5 * chunks * work.rows / height
        walk += padded * max(issue, pixels * conflict + max(0.25, height / 4) + 0.25)
    staged = shape.c * tile.channel_size(shape)
    fetched = 4 * staged + chunks * work.lists_bytes(tile, shape)
    work_cycles = warps * walk + 1.5 * staged / 32 / tile.vector
    blocks = tile.tiles(shape) * ceil_div(work.groups, tile.warps)
    registers = min(128, 56 + work.rows * pixels)  # [compiled] for sm_80 and sm_90, within a tenth
    fit = min(64 // warps, int(gpu.shared_bytes // work.shared_bytes(tile, shape)), 65536 // (32 * warps * registers))
    together = min(max(1, fit), ceil_div(blocks, gpu.processors))
    busy = min(1.0, together * warps / 12)  # fewer than 12 warps leave some cycles idle
    alone = max(work_cycles / busy, fetched / 24) + LATENCY * chunks / together
    return ceil_div(blocks, gpu.processors) * alone


def _ladder(most: int) -> list[int]:
    """Counts worth trying up to `most`, itself among them.

    >>> _ladder(5)
    [1, 2, 4, 5]
    """
    return sorted({*(size for size in (1, 2, 4, 8) if size <= most), most})


def _lines(shape: Geometry, rows: int) -> Iterator[Tile]:
    """Tiles of one warp and one channel: which pixels a lane takes."""
    most = max(1, min(8, MOST_SUMS // rows))
    line = ceil_div(shape.line, 32)
    for positions in _ladder(min(most, line)):
        for images in _ladder(min(most // positions, shape.batch)) if positions == line else [1]:
            yield Tile(0, positions, images)
    if shape.one_row:
        if shape.w % 4 == 0:
            yield from (Tile(0, positions, vector=4) for positions in (4, 8) if positions <= most)
        return
    for bands in _ladder(min(32 // shape.ow, shape.oh)) if shape.ow <= 32 else []:
        for positions in _ladder(min(most, ceil_div(shape.oh, bands))):
            whole = bands * positions >= shape.oh
            beside = min(32 // (shape.ow * bands), shape.batch) if whole else 1
            for images in _ladder(min(most // positions, ceil_div(shape.batch, beside))) if whole else [1]:
                yield Tile(bands, positions, images, beside)


def _with_channels(shape: Geometry, tile: Tile, work: Work, room: float) -> Tile | None:
    """`tile` with as many channels at a time as `room` bytes hold, evenly spread; None where not even one fits."""
    chunks = 1
    while chunks <= shape.c:
        cut = replace(tile, channels=ceil_div(shape.c, chunks))
        if work.shared_bytes(cut, shape) <= room and cut.channels * cut.channel_size(shape) <= 2**16:
            return cut
        chunks = max(chunks + 1, int(chunks * 1.25))
    return None


def candidates(conv: Conv, work: Work, gpu: Gpu) -> list[Tile]:
    """Tiles that fit `gpu`, best first by `cycles`; none where a single channel's tile is larger than shared memory."""
    shape = Geometry.of(conv)
    found: set[Tile] = set()
    for line, warps, subs, share in product(_lines(shape, work.rows), (1, 2, 4, 8, 16), (1, 2, 4), (1, 2, 3)):
        follow = line.all_images == 1 and replace(line, subs=subs - 1).reach < (shape.oh if line.bands else shape.line)
        if warps * subs > MOST_WARPS or warps >= max(2, 2 * work.groups) or (subs > 1 and not follow):
            continue
        if fitting := _with_channels(shape, replace(line, warps=warps, subs=subs), work, gpu.shared_bytes / share):
            found.add(fitting)
    return sorted(found, key=lambda tile: (cycles(shape, tile, work, gpu), repr(tile)))


@lru_cache(maxsize=256)
def choose(conv: Conv, work: Work, gpu: Gpu) -> Tile | None:
    """The first of `candidates`, or None."""
    return next(iter(candidates(conv, work, gpu)), None)


def macros(shape: Geometry, tile: Tile) -> dict[str, Any]:
    """What _conv_staged.cu is compiled with, beside the element type and the heights of lists."""
    sizes = {name.upper(): size for name, size in asdict(tile).items()}
    (down, across), pitch = shape.phases, tile.pitch(shape)
    planes = {"PITCH": pitch, "SPAN": tile.span(shape), "STRIDE": shape.stride}
    return sizes | planes | {"PHASES_DOWN": down, "PHASES_ACROSS": across}
