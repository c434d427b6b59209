"""What is made once and asked for again: masks, weights, activations and packed matrices, kept while memory allows.

A suite asks the same W for every n and every kernel. Drawing and packing an 11008x4096 layer takes the host seconds,
and timing it takes a GPU milliseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

# psutil: free memory on Linux and macOS alike.
import psutil

MEMORY_SHARE = 0.05  # of what is free at the start
T = TypeVar("T")


@dataclass(slots=True)
class Matrices:
    """Things by key, the longest unused dropped first when their bytes exceed `most_bytes`."""

    most_bytes: int = field(default_factory=lambda: int(MEMORY_SHARE * psutil.virtual_memory().available))
    _kept: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key`, made now if it is not; an exception of `make` keeps nothing."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]  # type: ignore[no-any-return]
        value = make()
        self._kept[key] = value, bytes_of(value)
        self._bytes += self._kept[key][1]
        while self._bytes > self.most_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return value


def bytes_of(value: Any) -> int:
    """Bytes of the arrays in `value`: an array, or an object or sequence that holds some."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, list | tuple):
        return sum(map(bytes_of, value))
    names = getattr(value, "__dataclass_fields__", ())
    return sum(bytes_of(getattr(value, name)) for name in names)
