"""The structs of _product.c for ctypes, and memory that lives as long as a call that points to it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


class Product(ctypes.Structure):
    """struct Product of include/strips.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("m", "k", "n", "widest", "block_rows", "turned", "beside", "adds")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "x_slab", "y_slab")),
    )


class Level(ctypes.Structure):
    """struct Level of include/groups.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "lists", "ahead")),
        *((name, ctypes.c_void_p) for name in ("offsets", "columns", "values")),
    )


class Groups(ctypes.Structure):
    """struct Groups of include/groups.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "levels")),
        *((name, ctypes.c_void_p) for name in ("rows", "level")),
    )


class Segments(ctypes.Structure):
    """struct Segments of include/segments.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("blocks", "block_rows")),
        *((name, ctypes.c_void_p) for name in ("starts", "classes", "rows", "columns", "values")),
    )


def placed(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A copy of `array` as C reads it: contiguous, of this dtype."""
    return np.array(array, dtype, order="C")


class Keeper:
    """Addresses for C, whose memory lives as long as the keeper."""

    def __init__(self, *kept: Any) -> None:
        self._kept: list[Any] = list(kept)

    def address(self, array: np.ndarray, dtype: Any = None) -> int:
        """The address of a copy of `array`, contiguous and of this dtype, which no other launch reads."""
        return self.shared(placed(array, dtype))

    def shared(self, array: np.ndarray | None) -> int:
        """The address of `array` itself; 0 for none."""
        self._kept.append(array)
        return 0 if array is None else int(array.ctypes.data)

    def struct(self, struct: Any) -> Any:
        """A pointer to `struct`."""
        self._kept.append(struct)
        return ctypes.byref(struct)
