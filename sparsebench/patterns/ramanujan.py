"""Biregular bipartite graphs with a certified spectral gap, drawn by random 2-lifts: the base graphs of RBGP4.

A graph is its biadjacency matrix, bool [rows, columns]. It starts complete, rows/2^j x columns/2^j. Each 2-lift doubles
both sides: B' = [[A, X], [X, A]] with A + X = B and every edge crossed into X with probability 1/2, so degrees stay and
sparsity is 1 - 2^-j. The singular values of B stay too, and those of A - X join them, so a lift is re-drawn by
itself until all but the first are within the Ramanujan bound sqrt(d_l - 1) + sqrt(d_r - 1). One such lift always exists
(Marcus, Spielman, Srivastava, Annals of Mathematics 182, 2015); a random one passed in 70-95 % of draws (measured, 8x8
to 128x128).

With d_l = d_r = 2 the bound equals lambda1 and would accept a graph that falls apart into several cycles; there a
single cycle, lambda2 < lambda1, is demanded. With degree 1 on a side a graph always falls apart: none is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, sqrt

import numpy as np

from sparsebench.errors import PatternError

TRIES = 200  # draws of one lift before giving up; the least measured chance of 70 % makes 200 failures impossible
LARGEST_SIDE = 2048  # of the smaller side; certifying takes about a second there and grows with the cube
SLACK = 1e-9  # rounding of a computed eigenvalue


@dataclass(frozen=True, slots=True)
class Gap:
    """What certifies a graph: singular values lambda2 <= bound; `tries` is how many lifts were drawn for it."""

    lambda1: float
    lambda2: float
    bound: float
    tries: int


def halvings(sparsity: float) -> int | None:
    """The j with sparsity = 1 - 2^-j, or None when there is none.

    >>> halvings(0.0), halvings(0.9375), halvings(0.9)
    (0, 4, None)
    """
    j = round(-log2(1 - sparsity))
    return j if abs((1 - sparsity) * 2**j - 1) < 1e-6 else None


def reachable(rows: int, columns: int) -> list[int]:
    """The j for which a connected graph [rows, columns] of sparsity 1 - 2^-j exists by 2-lifts.

    >>> reachable(8, 16), reachable(6, 9)
    ([0, 1, 2], [0])
    """
    found = [0]
    while all(side % 2 ** len(found) == 0 and side // 2 ** len(found) >= 2 for side in (rows, columns)):
        found.append(len(found))
    return found


def why_not_graph(rows: int, columns: int, j: int) -> str | None:
    """Why there is no certified graph [rows, columns] of sparsity 1 - 2^-j, as a sentence, or None when there is."""
    if j not in (possible := reachable(rows, columns)):
        least = f"both sides must be multiples of 2**{j} and leave at least 2 neighbours"
        choices = ", ".join(f"{1 - 2.0**-i:.12g}" for i in possible)
        return f"a graph {rows}x{columns} cannot have sparsity {1 - 2.0**-j:.12g}: {least}; it can have {choices}"
    if j and min(rows, columns) > LARGEST_SIDE:
        return f"a sparse graph {rows}x{columns} is too large to certify; a side must be at most {LARGEST_SIDE}"
    return None


def is_biregular(graph: np.ndarray) -> bool:
    """Whether all rows have the same degree, and all columns."""
    return all(len(np.unique(np.count_nonzero(graph, axis=axis))) == 1 for axis in (0, 1))


def gap_of(graph: np.ndarray, tries: int) -> Gap:
    """Singular values and bound of a biregular graph, from the eigenvalues of its smaller Gram matrix."""
    left, right = int(np.count_nonzero(graph[0])), int(np.count_nonzero(graph[:, 0]))
    lambda1, bound = sqrt(left * right), sqrt(left - 1) + sqrt(right - 1)
    if graph.all():
        return Gap(lambda1, 0.0, bound, tries)
    narrow = np.asarray(graph if len(graph) <= graph.shape[1] else graph.T, dtype=np.float64)
    return Gap(lambda1, sqrt(max(float(np.linalg.eigvalsh(narrow @ narrow.T)[-2]), 0.0)), bound, tries)


def is_certified(gap: Gap) -> bool:
    """Whether lambda2 is within the bound and below lambda1, which only two neighbours on both sides can part."""
    return gap.lambda2 <= gap.bound + SLACK and gap.lambda2 < gap.lambda1 - SLACK


def lift(graph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random 2-lift: twice the rows and columns, the same degrees."""
    crossed = graph & (rng.random(graph.shape) < 0.5)
    straight = graph & ~crossed
    return np.block([[straight, crossed], [crossed, straight]])


def draw_graph(rows: int, columns: int, j: int, rng: np.random.Generator) -> tuple[np.ndarray, Gap]:
    """A certified biregular graph, bool [rows, columns], of sparsity 1 - 2^-j, and its gap.

    Raises PatternError where `why_not_graph` gives a reason, and when TRIES draws of one lift all failed.
    """
    if reason := why_not_graph(rows, columns, j):
        raise PatternError(reason)
    graph = np.ones((rows >> j, columns >> j), dtype=bool)
    gap = gap_of(graph, tries=0)
    for _ in range(j):
        graph, gap = _certified_lift(graph, gap.tries, rng)
    return graph, gap


def _certified_lift(graph: np.ndarray, tries: int, rng: np.random.Generator) -> tuple[np.ndarray, Gap]:
    for _ in range(TRIES):
        tries += 1
        lifted = lift(graph, rng)
        if is_biregular(lifted) and is_certified(gap := gap_of(lifted, tries)):
            return lifted, gap
    rows, columns = graph.shape
    raise PatternError(
        f"no lift of a graph {rows}x{columns} stayed within the Ramanujan bound in {TRIES} draws; "
        f"use another seed, tile or outer_sparsity"
    )
