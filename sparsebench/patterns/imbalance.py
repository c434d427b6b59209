"""Weights whose pruning leaves rows and columns as uneven as in really pruned layers: a suite's `from: imbalanced`.

Normal weights pruned by magnitude are uniform masks, and those of really pruned layers have 2 to 3 times their
imbalance (coefficient of variation of nonzeros a row). A model fitted on uniform masks alone is too kind to every
kernel whose rows wait for each other.

    W'[i, j] = W[i, j] exp(sigma_r a_i) exp(sigma_c b_j)        a, b standard normal

One sigma a side explains all sparsities of a layer, since the threshold rises with the sparsity. Both were solved for
in each of the magnitude-pruned layers of ResNet-50 and Transformer in a part of DLMC (arXiv 2006.10901), so that both
coefficients of variation agree: the medians over 35 layers at sparsity 0.8, 0.9, 0.95, 0.98 are .100, .094, .094, .069
for rows and .094, .089, .096, .104 for columns. ROWS and COLUMNS are the middle eight tenths of the 25 layers of at
least 512 rows and columns (a network's first layers, of 64 rows, have up to .42). Each matrix draws its own two sigmas
from there, log-uniformly.
"""

from __future__ import annotations

import numpy as np

ROWS = (0.046, 0.136)
COLUMNS = (0.031, 0.146)


def imbalanced(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`weights` [m, k] times a scale for each row and one for each column, drawn from `rng`; float32 [m, k]."""
    rows, columns = (_scales(size, *sigmas, rng) for size, sigmas in zip(weights.shape, (ROWS, COLUMNS), strict=True))
    scaled: np.ndarray = weights * rows[:, None] * columns
    return scaled


def _scales(size: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Log-normal scales, float32 [size], whose sigma is log-uniform between `low` and `high`."""
    sigma = low * (high / low) ** rng.random()
    scales: np.ndarray = np.exp(sigma * rng.standard_normal(size, dtype=np.float32))
    return scales.astype(np.float32, copy=False)
