"""What a pattern is: it says where nonzeros may be, and nothing about how they are stored.

A pattern is a frozen dataclass whose fields are the `params` of a suite's arm, so a record can be turned back into its
pattern. Some formats need more than the mask (HBS its levels, RBGP4 its base graphs): that is the draw's `structure`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import floor
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.errors import PatternError


def nearest(units: float) -> int:
    """The whole number nearest to `units`, halves up.

    Halves of decimal fractions count as such: (1 - 0.9) * 25 is 2.4999999999999996 in binary, and means 2.5.

    >>> nearest((1 - 0.9) * 25), nearest(2.4999)
    (3, 2)
    """
    return floor(round(units, 6) + 0.5)


def kept_units(sparsity: float, units: int) -> int:
    """How many of `units` equal units (entries, blocks, rows) a request for `sparsity` keeps; may be 0.

    >>> kept_units(0.9, 25), kept_units(0.5, 1), kept_units(0.99, 10)
    (3, 1, 0)
    """
    return nearest((1 - sparsity) * units)


def checked_sparsity(sparsity: float | None) -> float:
    """`sparsity` itself; PatternError unless it is a number in [0, 1)."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise PatternError(
            f"sparsity must be in [0, 1), found {sparsity}; 0.9 means that a tenth of the weights is kept"
        )
    return sparsity


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One mask of a pattern.

    mask       bool [m, k]  true where a nonzero may be
    structure  what a format needs beyond the mask (see formats/hbs.py and formats/rbgp4.py), or None
    facts      numbers worth keeping in a record, such as certified spectral gaps
    """

    mask: np.ndarray
    structure: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Pattern(ABC):
    """Where nonzeros may be. Subclasses are frozen dataclasses; their fields are the arm's params."""

    name: ClassVar[str]
    about: ClassVar[str]  # one line for `sparsebench list patterns`
    prunes: ClassVar[bool] = True  # whether from_weights makes sense

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """The pattern with these params; PatternError names an unknown, missing or wrong one."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if unknown := set(params) - known:
            raise PatternError(f"pattern {cls.name} has no parameter {sorted(unknown)[0]!r}; it takes {sorted(known)}")
        try:
            return cls(**params)
        except TypeError as error:
            raise PatternError(f"pattern {cls.name}: {error}; it takes {sorted(known)}") from None

    def why_not(self, m: int, k: int, sparsity: float | None = None) -> str | None:
        """Why this pattern cannot be laid on a matrix [m, k] (a block that does not divide it), or None when it can.

        With a `sparsity` also why this shape cannot reach it, where a pattern has only a few (rbgp4).
        """
        return None

    def demand(self, m: int, k: int, sparsity: float | None) -> None:
        """Raise PatternError with the sentence of `why_not`, if there is one."""
        if reason := self.why_not(m, k, sparsity):
            raise PatternError(f"pattern {self.name}: {reason}")

    @abstractmethod
    def draw(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """A random draw on [m, k]; PatternError where `why_not` gives a reason or `sparsity` is out of range.

        `sparsity` is None for patterns whose params fix it.
        """

    def draw_from(self, weights: np.ndarray, sparsity: float | None, rng: np.random.Generator) -> Draw:
        """The draw that keeps the largest magnitudes of `weights` [m, k] this pattern allows."""
        raise PatternError(f"pattern {self.name} cannot be pruned from weights; use `from: random`")

    def mask(self, m: int, k: int, sparsity: float | None, rng: np.random.Generator) -> np.ndarray:
        """The mask alone of a random draw, bool [m, k]."""
        return self.draw(m, k, sparsity, rng).mask

    def from_weights(self, weights: np.ndarray, sparsity: float | None) -> np.ndarray:
        """The mask alone of the magnitude draw, bool [m, k]; ties are broken by position, so it needs no randomness."""
        return self.draw_from(weights, sparsity, np.random.default_rng(0)).mask

    def blocks(self) -> tuple[tuple[float | None, int, int], ...]:
        """Levels as (sparsity or None for the case's own, block rows, block columns): what irf is keyed by."""
        return ((None, 1, 1),)
