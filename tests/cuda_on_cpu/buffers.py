"""Tensors between pages without access: a byte read or written beside one is a fault, which the shim makes an error."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any, Literal

import numpy as np

Side = Literal["end", "start"]

PAGE = mmap.PAGESIZE
ALIGNED = 16  # the widest vector; a tensor on a GPU starts at a multiple of 256
LIBC = ctypes.CDLL(None, use_errno=True)
PROT_NONE = 0


def guarded_bytes(size: int, side: Side) -> np.ndarray:
    """`size` bytes full of 0xff, 16-byte aligned, that touch a page without access at `side`; another lies beyond.

    At the end up to 15 bytes lie between, where `size` is no multiple of 16.
    """
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a fork has its own
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (start, start + (pages + 1) * PAGE):
        if LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    room = -(-size // ALIGNED) * ALIGNED
    offset = PAGE if side == "start" else (pages + 1) * PAGE - room
    np.frombuffer(memory, np.uint8, room, offset)[...] = 0xFF
    return np.frombuffer(memory, np.uint8, size, offset)


def guarded_tensor(shape: tuple[int, ...], dtype: str, side: Side) -> Any:
    """A torch tensor full of 0xff bytes (NaN in every float format, -1 in integers) in guarded memory."""
    # torch: what the lab hands to faces of GPU kernels are torch tensors.
    import torch

    kind = getattr(torch, dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if count == 0:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(guarded_bytes(count * kind.itemsize, side), dtype=kind).reshape(shape)


def guarded_copy(array: np.ndarray, side: Side) -> Any:
    """A guarded tensor with the content of `array`; bfloat16 stays, uint16 becomes int16 of the same bits."""
    dtype = {"uint16": "int16"}.get(array.dtype.name, array.dtype.name)
    tensor = guarded_tensor(array.shape, dtype, side)
    if array.size:
        bits = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        address = ctypes.c_void_p(tensor.data_ptr())
        ctypes.memmove(address, ctypes.c_void_p(bits.ctypes.data), bits.nbytes)
    return tensor
