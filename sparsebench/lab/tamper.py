"""What a kernel could do to look right or fast without being so, and how it is seen.

    it leaves Y, or part of it, as it was   Y is full of NaN before each checked call and before the clock starts
    it remembers an answer                  a sample of X changes its sign before each timed call (Turning); what the
                                            last timed call left in Y is judged, and so are calls after a few more turns
    it is right only when it is looked at   the same, and once more on fresh inputs
    it changes its input                    X is compared with what it was when the clock has stopped
    it writes beside its operands           X and Y stand between bytes that nobody else writes (fenced)

All of it happens outside the timed calls. A sign costs no accuracy: every product and sum changes its own with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsebench.case import Case

LINE_BYTES = 64
FENCE_BYTES = 256  # at least, on each side
FENCE = 0xA5


def fenced(array: np.ndarray) -> np.ndarray:
    """A contiguous copy of `array` that starts at a cache line, as torch allocates, between two fences.

    numpy starts 16 bytes into a line, and each 64-byte load then crosses two: 1.2-2.4 times slower (bsr.c, measured).
    """
    room = np.full(array.nbytes + 2 * FENCE_BYTES + LINE_BYTES, FENCE, np.uint8)
    start = FENCE_BYTES + -(room.ctypes.data + FENCE_BYTES) % LINE_BYTES
    placed = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


def fenced_tensor(array: Any) -> Any:
    """The same for a tensor, on its device: a view into a larger one. FENCE_BYTES keep the alignment CUDA gives."""
    import torch

    size = array.numel() * array.element_size()
    room = torch.full((size + 2 * FENCE_BYTES,), FENCE, dtype=torch.uint8, device=array.device)
    placed = room[FENCE_BYTES : FENCE_BYTES + size].view(array.dtype).view(array.shape)
    return placed.copy_(array)


def written_beside(operand: Any) -> int:
    """How many bytes of the fences round a fenced operand were written; 0 too where there are none."""
    if isinstance(operand, np.ndarray):
        room = operand.base
        if not operand.size or not isinstance(room, np.ndarray) or room.dtype != np.uint8 or room.ndim != 1:
            return 0
        start = operand.ctypes.data - room.ctypes.data
        return int(sum((part != FENCE).sum() for part in (room[:start], room[start + operand.nbytes :])))
    import torch

    storage, size = operand.untyped_storage(), operand.numel() * operand.element_size()
    start = operand.storage_offset() * operand.element_size()
    if storage.nbytes() != size + 2 * FENCE_BYTES or start != FENCE_BYTES:
        return 0
    room = torch.empty(0, dtype=torch.uint8, device=operand.device).set_(storage)
    return int(sum((part != FENCE).sum() for part in (room[:start], room[start + size :])))


@dataclass(slots=True, eq=False)
class Turning:
    """A placed X, one sample of which changes its sign at each `turn`: a column of [k, n], a row of [n, k], an image.

    signs  +-1 of each sample, [n] or [batch]
    """

    x: Any
    native: Case
    signs: np.ndarray = field(init=False)
    _next: int = 0

    def __post_init__(self) -> None:
        self.signs = np.ones(self.native.n if self.native.conv is None else self.native.conv.batch)

    def turn(self) -> None:
        """Change the sign of the next sample."""
        self.turn_one(self._next)
        self._next = (self._next + 1) % len(self.signs)

    def some(self, most: int) -> list[int]:
        """At most `most` samples, chosen at random."""
        return [int(sample) for sample in np.random.default_rng().permutation(len(self.signs))[:most]]

    def columns(self, sample: int) -> slice:
        """The columns of Y that this sample reaches."""
        width = self.native.n // len(self.signs)
        return slice(sample * width, (sample + 1) * width)

    def turn_back(self) -> None:
        """X as it was at first, unless somebody else changed it."""
        for sample in np.flatnonzero(self.signs < 0):
            self.turn_one(int(sample))

    def column_signs(self) -> np.ndarray:
        """The sign of each column of Y, [n]: an image has oh * ow of them."""
        return np.repeat(self.signs, self.native.n // len(self.signs))

    def turn_one(self, sample: int) -> None:
        """Change the sign of this sample."""
        by_column = self.native.conv is None and self.native.layout == "feature"
        own = self.x[:, sample] if by_column else self.x[sample]
        if isinstance(own, np.ndarray):
            own *= -1  # numpy 2.4.6: np.negative in place gives wrong numbers on some strided columns (AVX-512)
        else:
            own.neg_()
        self.signs[sample] *= -1
