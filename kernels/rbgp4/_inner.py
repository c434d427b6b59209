"""The inner graph's columns with its blocks spelled out: what GPU bodies of rbgp4 read."""

from __future__ import annotations

import numpy as np


def spelled_out(inner: np.ndarray, bw: int) -> np.ndarray:
    """The columns of a tile that each inner row keeps, int32 [u_i, d_i * bw]: `inner` [u_i, d_i] with its blocks.

    >>> spelled_out(np.array([[0, 2]]), 2)
    array([[0, 1, 4, 5]], dtype=int32)
    """
    return (inner[:, :, None] * bw + np.arange(bw)).reshape(len(inner), -1).astype(np.int32)
