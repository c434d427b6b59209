"""What can be advised at all: the patterns that kernels of this machine were timed on, with their sparsities.

Nothing else is asked of the models, so that every candidate is one whose kernel is known to run, in a range of
sparsities that was measured. How a mask was drawn (`from`) makes no other candidate.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sparsebench import units
from sparsebench.case import Case, canonical
from sparsebench.desk.fitted import FittedModels, Place
from sparsebench.desk.names import arm_text, family_text, pattern_option
from sparsebench.desk.observe import kept_share
from sparsebench.suite_schema import FIXED

USUAL = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.95, 0.98)  # sparsities that advice is given for
SAME = 0.0125  # a pattern that fixes its sparsity stands in the row of a usual one as near as this
_FILES = (0.5, 0.98)  # where masks of files were timed alone, which no question repeats


@dataclass(frozen=True, eq=False)
class Arm:
    """A pattern with its params, the kernels that were timed on it, and the sparsities, least first.

    A pattern whose params fix its sparsity has that one alone, and asks for None.
    """

    pattern: str
    params: Mapping[str, Any]
    kernels: tuple[str, ...]
    sparsities: tuple[float, ...]

    @property
    def fixed(self) -> bool:
        """Whether params decide the sparsity."""
        return self.pattern in FIXED

    @property
    def asked(self) -> tuple[float, ...]:
        """Sparsities worth asking: those measured, and the usual ones between them."""
        low, high = self.sparsities[0], self.sparsities[-1]
        return tuple(sorted({*self.sparsities, *(usual for usual in USUAL if low <= usual <= high)}))

    def at(self, sparsity: float) -> float | None:
        """The sparsity of this arm that stands in the row of `sparsity`, or None."""
        if self.fixed:
            return self.sparsities[0] if abs(self.sparsities[0] - sparsity) <= SAME else None
        return sparsity if self.sparsities[0] <= sparsity <= self.sparsities[-1] else None

    def case(self, dense: Case, sparsity: float) -> Case:
        """The question that this arm makes of a dense one."""
        asked = None if self.fixed else sparsity
        return replace(dense, pattern=self.pattern, params=dict(self.params), sparsity=asked)

    @cached_property
    def _example(self) -> Case:
        return self.case(Case(m=1, k=1, n=1), self.sparsities[0])

    @property
    def key(self) -> str:
        """What tells two arms apart."""
        return canonical([self.pattern, dict(self.params)])

    @property
    def text(self) -> str:
        """The pattern in words: `block 4x1`; with its sparsities where they are fixed."""
        if self.fixed:
            return arm_text(self._example)
        outer = self.params.get("outer_sparsity")
        return family_text(self._example) + (f" (outer {units.percent(outer)})" if outer else "")

    @property
    def option(self) -> str:
        """The pattern as `predict --pattern` takes it."""
        return pattern_option(self._example)


def known_arms(fitted: FittedModels, place: Place, dense: Case) -> list[Arm]:
    """Every pattern that a kernel was timed on, in the setting of the question `dense`."""
    kernels: dict[tuple[str, str], set[str]] = defaultdict(set)
    sparsities: dict[tuple[str, str], set[float]] = defaultdict(set)
    for kernel in fitted.kernels(dense, place):
        for pattern, params, share in _timed(fitted, place, dense, kernel):
            about = pattern, canonical(params)
            kernels[about].add(kernel)
            sparsities[about].add(share)
    return [
        Arm(pattern, json.loads(params), tuple(sorted(kernels[pattern, params])), tuple(sorted(shares)))
        for (pattern, params), shares in sorted(sparsities.items())
    ]


def _timed(fitted: FittedModels, place: Place, dense: Case, kernel: str) -> Iterator[tuple[str, dict[str, Any], float]]:
    """(pattern, params, sparsity) of everything that `kernel` was timed on."""
    model = fitted.sparse[place.setting(dense, kernel)]
    if "file" in model.patterns:
        yield from (("unstructured", {}, share) for share in _FILES)
    for asked in {canonical(json.loads(question)[1:]) for question in model.timed}:
        pattern, params, sparsity = json.loads(asked)
        plain = {name: value for name, value in params.items() if name != "from"}
        example = Case(m=1, k=1, n=1, pattern=pattern, params=plain, sparsity=sparsity)
        yield pattern, plain, round(1 - kept_share(example), 6)
