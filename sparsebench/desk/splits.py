"""What is left out to learn how wrong a law is: splits that hurt, and one that does not.

    cells       questions at random: layers of known matrices at points between known ones
    shapes      whole matrices, of every n, sparsity and block: what a new layer costs
    sparsities  all points at one sparsity
    blocks      all points of one block
    ns          all points at one n

The last three leave out the ends of their axes in turn too, where a law must extrapolate. Folds are drawn with a fixed
seed, so the same records give the same errors.
"""

from __future__ import annotations

import numpy as np

from sparsebench.desk.points import Points, Seen, levels_of

FOLDS = 10
LEAST_SHAPES = 3


def splits(seen: Seen) -> dict[str, np.ndarray]:
    """{way: fold of each row [q]} for every way in which the rows can be left out at all."""
    points = seen.points
    ways = {
        "cells": _at_random(np.arange(len(points))),
        "shapes": shape_folds(seen.shape),
        "sparsities": _in_order(np.log(points.kept)),
        "blocks": _blocks(points),
        "ns": _in_order(points.along(("n",))[:, 0]),
    }
    return {how: fold for how, fold in ways.items() if fold is not None}


def shape_folds(shape: np.ndarray) -> np.ndarray | None:
    """At most ten folds of whole matrices; None for fewer than three of them."""
    return _at_random(shape) if len(np.unique(shape)) >= LEAST_SHAPES else None


def _at_random(group: np.ndarray) -> np.ndarray | None:
    """At most ten folds of whole groups, at random."""
    groups, number = np.unique(group, return_inverse=True)
    if len(groups) < 2:
        return None
    return np.asarray((np.random.default_rng(0).permutation(len(groups)) % FOLDS)[number.reshape(-1)])


def _in_order(column: np.ndarray) -> np.ndarray | None:
    """A fold for each value of an axis, or ten of neighbouring values; None for one value."""
    level = levels_of(column)
    count = int(level.max()) + 1
    fold: np.ndarray = level * min(count, FOLDS) // count
    return None if count < 2 else fold


def _blocks(points: Points) -> np.ndarray | None:
    """A fold for each block; None for one block, or where blocks are no axis."""
    if "bh" not in points.axes:
        return None
    blocks = np.unique(points.along(("bh", "bw")).round(6), axis=0, return_inverse=True)[1]
    return _at_random(blocks.reshape(-1))
