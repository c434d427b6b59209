"""Convolutions on the CPU without im2col: where padded activations lie, and where each column of W finds its pixel.

torch's explicit im2col costs more than the whole dense convolution. Here the activations are copied once, into one line
a channel with zeros between rows and images (_planes.c), and a column (c, kh, kw) of W is an offset into these lines.
Where padding allows it, the zeros after a row are also those before the next one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Conv
from sparsebench.kernel import Toolchain

from ._bound import group_structs, library_for
from ._row_groups import RowGroups
from ._strips import group_shares, l2_bytes
from ._structs import Keeper

PLANES = Path(__file__).with_name("_planes.c")
PLANES_SOURCES = ("../_planes.py", "../_planes.c")  # for Kernel.sources
PLANES_SHARE = 0.5  # of the second-level cache, for padded activations
WIDEST = 4  # vectors of a strip, as in include/strips.h
PIECE = np.dtype([("vector", "i4"), ("first", "i4"), ("count", "i4"), ("unused", "i4"), ("offset", "i8")])


class Planes(ctypes.Structure):
    """struct Planes of _planes.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("m", "c", "h", "w", "stride", "padding", "down", "across")),
        *((name, ctypes.c_int64) for name in ("together", "turns")),
        *((name, ctypes.c_int64) for name in ("rows", "pitch", "line", "positions", "widest", "adds")),
        *((name, ctypes.c_void_p) for name in ("x", "planes")),
    )


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the padded activations of a convolution lie in lines.

    pitch      floats from one row to the next
    rows       from one image to the next
    positions  of output pixels in a line, those between rows and images included
    """

    conv: Conv

    @property
    def halo(self) -> tuple[int, int]:
        """Rows and columns of a phase beyond oh and ow."""
        return (self.conv.kh - 1) // self.conv.stride, (self.conv.kw - 1) // self.conv.stride

    @property
    def shared(self) -> int:
        """Zeros after a row that are also those before the next."""
        return self.conv.padding if self.conv.stride == 1 else 0

    @property
    def pitch(self) -> int:
        return max(self.conv.ow, self.conv.ow + self.halo[1] - self.shared)

    @property
    def rows(self) -> int:
        return max(self.conv.oh, self.conv.oh + self.halo[0] - self.shared)

    @property
    def positions(self) -> int:
        return self.conv.batch * self.rows * self.pitch

    def line(self, strip: int) -> int:
        """Floats of a line, for strips of so many positions; nothing beyond it is read."""
        down, across = self.halo
        reach = -(-self.positions // strip) * strip + down * self.pitch + across + strip
        widest_row = self.conv.w + 2 * self.conv.padding
        return max(reach, (self.conv.batch * self.rows + self.shared + down) * self.pitch + widest_row + strip)

    def offsets(self, line: int) -> np.ndarray:
        """Where each column of W starts in the lines, int64 [k]."""
        conv = self.conv
        c, kh, kw = np.indices((conv.c, conv.kh, conv.kw)).reshape(3, -1)
        phase = kh % conv.stride * conv.stride + kw % conv.stride
        return np.asarray((c * conv.stride**2 + phase) * line + kh // conv.stride * self.pitch + kw // conv.stride)

    def pieces(self, m: int, lanes: int, vectors: int) -> tuple[np.ndarray, np.ndarray]:
        """Runs of lanes that are neighbours in Y, PIECE [pieces], and where those of each strip start, int64."""
        conv, position = self.conv, np.arange(self.positions)
        image, place = np.divmod(position, self.rows * self.pitch)
        oy, ox = np.divmod(place, self.pitch)
        live = (oy < conv.oh) & (ox < conv.ow)
        position, pixel = position[live], (image * m * conv.oh * conv.ow + oy * conv.ow + ox)[live]
        lane = position % lanes
        new = np.concatenate([[True], (np.diff(position) > 1) | (lane[1:] == 0) | (np.diff(pixel) != 1)])
        first = np.flatnonzero(new)
        found = np.zeros(len(first), PIECE)
        found["vector"], found["first"] = position[first] // lanes % vectors, lane[first]
        found["count"] = np.diff(np.append(first, len(position)))
        found["offset"] = pixel[first] - lane[first]
        strips = -(-self.positions // (lanes * vectors))
        starts = np.searchsorted(position[first] // (lanes * vectors), np.arange(strips + 1))
        return found, starts.astype(np.int64)


def convolution(
    groups: RowGroups, conv: Conv, dtype: str, x: Any, y: Any, toolchain: Toolchain, adds: bool = False
) -> tuple[Callable[[], list[partial[None]]], dict[str, Any]]:
    """What makes the one call without arguments that writes (or adds) the convolution to y [batch, m, oh, ow]; facts.

    It has its own copy of W each time.

    dtype  of W, X and Y
    x, y   pointers
    """
    library = library_for(PLANES, conv.batch * conv.oh * conv.ow, dtype, toolchain)
    lanes, height, geometry = library.lanes(), groups.rows.shape[1], Geometry(images_together(conv))
    widest = min(-(-geometry.positions // lanes), library.vectors_for(ctypes.c_int64(height)))
    line, m = geometry.line(lanes * WIDEST), groups.shape[0]
    planes = toolchain.output((1, 1, conv.c, conv.stride**2, line))
    pieces, starts = geometry.pieces(m, lanes, widest)
    threads, offsets = max(1, min(toolchain.threads, m)), geometry.offsets(line)
    shares = group_shares(groups, threads)
    library.convolution.restype = None

    def calls() -> list[partial[None]]:
        keep = Keeper(x, y)
        struct = Planes(
            *(m, conv.c, conv.h, conv.w, conv.stride, conv.padding),
            *(min(conv.kh, conv.stride), min(conv.kw, conv.stride)),
            *(geometry.conv.batch, conv.batch // geometry.conv.batch),
            *(geometry.rows, geometry.pitch, line, geometry.positions, widest, int(adds)),
            *(x.value, keep.shared(planes)),
        )
        made = partial(
            library.convolution,
            keep.struct(struct),
            keep.struct(group_structs(groups, keep, offsets, planes.nbytes)),
            ctypes.c_void_p(keep.address(pieces)),
            ctypes.c_void_p(keep.address(starts)),
            ctypes.c_int64(conv.oh * conv.ow),
            y,
            ctypes.c_void_p(keep.address(shares)),
            ctypes.c_int64(threads),
        )
        made.keep = keep  # type: ignore[attr-defined]
        return [made]

    idle = geometry.positions / (geometry.conv.batch * conv.oh * conv.ow) - 1
    facts = {"strip_columns": lanes * widest, "rows_together": height, "images_together": geometry.conv.batch}
    return calls, facts | {"idle_positions": round(idle, 3)}


def images_together(conv: Conv) -> Conv:
    """`conv` for as many of its images, in equal parts, as PLANES_SHARE of the second-level cache holds padded.

    >>> images_together(Conv(c=3, h=8, w=8, kh=3, kw=3, padding=1, batch=4)).batch
    4
    """
    parts = [replace(conv, batch=images) for images in range(1, conv.batch + 1) if conv.batch % images == 0]
    room = PLANES_SHARE * l2_bytes()
    fitting = [part for part in parts if 4 * conv.c * conv.stride**2 * Geometry(part).line(1) <= room]
    return max(fitting, default=parts[0], key=lambda part: part.batch)
