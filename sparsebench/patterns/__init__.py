"""Where nonzeros are. To add a pattern: one file here, one line in PATTERNS, its law in tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsebench.errors import PatternError
from sparsebench.patterns.base import Draw, Pattern, checked_sparsity, kept_units
from sparsebench.patterns.block import Block
from sparsebench.patterns.constant_fan_in import ConstantFanIn
from sparsebench.patterns.dense import Dense
from sparsebench.patterns.file import FromFile
from sparsebench.patterns.hierarchical import Hierarchical, Levels, retained_share
from sparsebench.patterns.imbalance import imbalanced
from sparsebench.patterns.nm import Nm
from sparsebench.patterns.rbgp4 import BaseGraphs, Rbgp4
from sparsebench.patterns.unstructured import Unstructured

PATTERNS: Mapping[str, type[Pattern]] = {
    cls.name: cls for cls in (Dense, Unstructured, Block, ConstantFanIn, Hierarchical, Rbgp4, Nm, FromFile)
}


def pattern_from(name: str, params: Mapping[str, Any]) -> Pattern:
    """The pattern `name` with these params; PatternError names what is unknown."""
    if name not in PATTERNS:
        raise PatternError(f"no pattern is called {name!r}; there are {', '.join(PATTERNS)}")
    return PATTERNS[name].from_params(params)


__all__ = [
    "PATTERNS",
    "BaseGraphs",
    "Block",
    "ConstantFanIn",
    "Dense",
    "Draw",
    "FromFile",
    "Hierarchical",
    "Levels",
    "Nm",
    "Pattern",
    "Rbgp4",
    "Unstructured",
    "checked_sparsity",
    "imbalanced",
    "kept_units",
    "pattern_from",
    "retained_share",
]
