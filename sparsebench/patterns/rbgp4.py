"""RBGP4: the product of two sparse graphs with large spectral gaps and two complete ones.

    mask = kron(kron(G_o, kron(G_r, G_i)), G_b)          source: RBGP, arXiv 2006.13486

    G_o  [m / tm, k / tk]                   which tiles are there           sparse, outer_sparsity s_o
    G_r  [row_repeat, 1]                    rows that share their columns   complete
    G_i  [tm / (row_repeat bh), tk / bw]    which blocks of a tile          sparse, s_i from 1 - s = (1 - s_o)(1 - s_i)
    G_b  [bh, bw]                           the block                       complete

Each sparse graph is Ramanujan (ramanujan.py), and its certificate travels with the draw. Their product is *not*:
singular values multiply, so two 16x16 graphs of degree 4 can make lambda2 = 13.4 against a bound of 7.7. Its gap is
reported, and nothing is claimed of it. Masks are drawn before training, so there is no draw from weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod, sqrt
from typing import ClassVar

import numpy as np

from sparsebench.errors import PatternError
from sparsebench.patterns.base import Draw, Pattern, checked_sparsity
from sparsebench.patterns.grid import Shape, checked_pair, misfit, name_of
from sparsebench.patterns.ramanujan import Gap, draw_graph, halvings, reachable, why_not_graph


@dataclass(frozen=True, slots=True, eq=False)
class BaseGraphs:
    """The structure of an rbgp4 draw.

    outer, inner   bool [m / tm, k / tk] and [tm / (row_repeat bh), tk / bw], biregular
    certificates   the gap of each
    """

    outer: np.ndarray
    inner: np.ndarray
    row_repeat: int
    block: Shape
    tile: Shape
    certificates: Mapping[str, Gap]

    def mask(self) -> np.ndarray:
        """The Kronecker product of the four graphs, bool [m, k]."""
        repeated = np.kron(np.ones((self.row_repeat, 1), dtype=bool), self.inner)
        return np.kron(np.kron(self.outer, repeated), np.ones(self.block, dtype=bool))

    @property
    def product_gap(self) -> tuple[float, float]:
        """(lambda1, lambda2) of the product; a complete graph has one singular value, sqrt(rows columns)."""
        outer, inner = self.certificates["outer"], self.certificates["inner"]
        scale = sqrt(self.row_repeat * prod(self.block))
        second = max(outer.lambda1 * inner.lambda2, outer.lambda2 * inner.lambda1)
        return scale * outer.lambda1 * inner.lambda1, scale * second


@dataclass(frozen=True, slots=True)
class Rbgp4(Pattern):
    """A product of four graphs; sparsities are those that 2-lifts can make, 1 - 2^-j."""

    tile: Shape
    row_repeat: int = 1
    block: Shape = (1, 1)
    outer_sparsity: float = 0.0

    name: ClassVar[str] = "rbgp4"
    about: ClassVar[str] = "a product of Ramanujan and complete graphs (RBGP4)"
    prunes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile", checked_pair(self.tile, "tile"))
        object.__setattr__(self, "block", checked_pair(self.block, "block"))
        if isinstance(self.row_repeat, bool) or not isinstance(self.row_repeat, int) or self.row_repeat < 1:
            raise PatternError(f"row_repeat must be a whole number of at least 1, found {self.row_repeat!r}")
        if halvings(checked_sparsity(self.outer_sparsity)) is None:
            raise PatternError(f"outer_sparsity must be 1 - 2**-j (0, 0.5, 0.75, ...), found {self.outer_sparsity}")
        if self.tile[0] % self._unit[0] or self.tile[1] % self._unit[1]:
            raise PatternError(
                f"tile {name_of(self.tile)} must be a multiple of row_repeat x block rows and of block columns, "
                f"which are {name_of(self._unit)}; change one of them"
            )

    @property
    def _unit(self) -> Shape:
        """Rows and columns of the mask that one vertex of G_i stands for."""
        return self.row_repeat * self.block[0], self.block[1]

    def _shapes(self, m: int, k: int) -> tuple[Shape, Shape]:
        """Shapes of G_o and G_i."""
        (tm, tk), (um, uk) = self.tile, self._unit
        return (m // tm, k // tk), (tm // um, tk // uk)

    @property
    def _outer_halvings(self) -> int:
        return halvings(self.outer_sparsity) or 0

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """A sentence when the tile does not divide [m, k], or a graph of that size cannot be so sparse, else None."""
        if reason := misfit(m, k, self.tile, "tile"):
            return reason
        outer, inner = self._shapes(m, k)
        if reason := why_not_graph(*outer, self._outer_halvings):
            return f"outer graph: {reason}; change tile or outer_sparsity"
        if sparsity is None:
            return None
        if (j := self._inner_halvings(sparsity)) is None or j not in reachable(*inner):
            what = f"{m}x{k} in tiles {name_of(self.tile)}"
            return f"{what} cannot have sparsity {sparsity}; it can have {self._choices(inner)}"
        return f"inner graph: {reason}; change tile or block" if (reason := why_not_graph(*inner, j)) else None

    def _inner_halvings(self, sparsity: float) -> int | None:
        """The j of G_i that makes the whole as sparse as asked: 1 - s = (1 - s_o)(1 - s_i)."""
        left = (1 - sparsity) * 2**self._outer_halvings
        return halvings(1 - left) if 0 < left < 1 + 1e-6 else None

    def _choices(self, inner: Shape) -> str:
        return ", ".join(f"{1 - 2.0 ** -(j + self._outer_halvings):.12g}" for j in reachable(*inner))

    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """Base graphs drawn until each is certified, and their product."""
        self.demand(m, k, checked_sparsity(sparsity))
        outer_shape, inner_shape = self._shapes(m, k)
        outer, outer_gap = draw_graph(*outer_shape, self._outer_halvings, rng)
        inner, inner_gap = draw_graph(*inner_shape, self._inner_halvings(checked_sparsity(sparsity)) or 0, rng)
        gaps = {"outer": outer_gap, "inner": inner_gap}
        graphs = BaseGraphs(outer, inner, self.row_repeat, self.block, self.tile, gaps)
        lambda1, lambda2 = graphs.product_gap
        facts = {name: asdict(gap) for name, gap in gaps.items()}
        return Draw(graphs.mask(), graphs, facts | {"product": {"lambda1": lambda1, "lambda2": lambda2}})

    def blocks(self) -> tuple[tuple[float | None, int, int], ...]:
        """One level of G_b's blocks; a model that knows rbgp4 is keyed by all its params."""
        return ((None, *self.block),)
