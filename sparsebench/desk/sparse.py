"""The sparse side: what is known of one kernel in one setting.

A kernel that runs several levels in one pass has a law of its own for each list of level blocks, over the kept share of
each level. So has a kernel that runs them one after the other, each pass adding to Y (hbs.c_levels): it is a kernel of
its own in equation 2. Levels without either are added up, each with its single-level law (desk/fitted.py).

A case that was timed itself, by any seed, is answered by its measurement, as dense problems are; the law speaks for all
others, and its held-out errors are what its word is worth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from sparsebench.case import Case, canonical
from sparsebench.desk.again import NoiseFloor, noise_floor
from sparsebench.desk.dense import Timed, fastest, problem_text
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.irf import part_of
from sparsebench.desk.judged import BEST, Judged
from sparsebench.desk.model import HeldOut, LayerModel, Prediction
from sparsebench.desk.observe import Observation, Setting, block_text, kept_share
from sparsebench.desk.points import Beside, Seen, points_of, question
from sparsebench.errors import ModelError


def question_text(case: Case) -> str:
    """What makes two sparse cases of one setting the same but for their seed, as canonical JSON."""
    return canonical([problem_text(case), case.pattern, dict(case.params), case.sparsity])


@dataclass(frozen=True, eq=False)
class SparseModel(LayerModel):
    """One kernel: a law for patterns of one level, and one for each list of level blocks.

    patterns  names of the patterns it was measured on
    floors    the noise floor of each part, None where nothing was timed twice
    timed     cases that were measured, by question_text; masks from files are no questions that can be asked again
    groups    the observations of each part; not kept in JSON
    hardware  of the machine, which decides the ways that its kernel takes
    """

    setting: Setting
    patterns: frozenset[str]
    parts: Mapping[str, Judged]
    floors: Mapping[str, NoiseFloor | None]
    timed: Mapping[str, Timed]
    groups: Mapping[str, Sequence[Observation]]
    hardware: Hardware

    @classmethod
    def fit(
        cls,
        observations: Sequence[Observation],
        beside: Sequence[Beside],
        first: Sequence[Beside] | None,
        hardware: Hardware,
        law: str = BEST,
    ) -> Self:
        """The best law for each part among `observations` of one setting, or the named one.

        beside, first  the dense side of each observation's problem, over all runs and in the first of two, if there are
        """
        by_part: dict[str, list[int]] = defaultdict(list)
        for number, seen in enumerate(observations):
            by_part[part_of(seen.case)].append(number)
        groups = {part: [observations[i] for i in by_part[part]] for part in sorted(by_part)}
        parts = {
            part: Judged.fit(_seen(group, by_part[part], beside, first, hardware), hardware, law)
            for part, group in groups.items()
        }
        patterns = frozenset(seen.case.pattern for seen in observations)
        floors = {part: noise_floor(group) for part, group in groups.items()}
        return cls(observations[0].setting, patterns, parts, floors, _timed(observations), groups, hardware)

    def measured(self, case: Case) -> Prediction | None:
        """The time of `case` where it was timed itself, by any seed."""
        if not self.timed or not (found := self.timed.get(question_text(case))):
            return None
        return Prediction(found.time_s, found.low_s, found.high_s, measured=True, kernel=found.kernel)

    def by_law(self, cases: Sequence[Case], beside: Sequence[Beside]) -> list[Prediction]:
        """What the laws say of `cases`, timed themselves or not; ModelError where no such levels were measured."""
        by_part: dict[str, list[int]] = defaultdict(list)
        for number, case in enumerate(cases):
            by_part[self._part(case)].append(number)
        found: dict[int, Prediction] = {}
        for part, numbers in by_part.items():
            own = [cases[i] for i in numbers]
            kept, sides = [kept_share(case) for case in own], [beside[i] for i in numbers]
            points = points_of(own, kept, sides, self.setting.kernel, self.hardware)
            found |= dict(zip(numbers, self.parts[part].predict(points), strict=True))
        return [replace(found[number], kernel=self.setting.kernel) for number in range(len(cases))]

    def leans(self, case: Case) -> bool:
        """Whether the law of such cases asks for the dense time of the problem."""
        return self.parts[self._part(case)].law.needs_dense

    def _part(self, case: Case) -> str:
        if (part := part_of(case)) in self.parts:
            return part
        have = ", ".join(sorted(name or "single blocks" for name in self.parts))
        raise ModelError(f"{self.setting.kernel} was never timed on levels {block_text(case)}, only on {have}")

    @property
    def laws(self) -> Mapping[str, str]:
        """The law's name, by part."""
        return {part: judged.law.name for part, judged in self.parts.items()}

    @property
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors of the law that speaks, by part."""
        return {part: judged.held_out for part, judged in self.parts.items()}

    @property
    def rivals(self) -> Mapping[str, Mapping[str, tuple[HeldOut, ...]]]:
        """Errors of every law, by part."""
        return {part: judged.rivals for part, judged in self.parts.items()}

    @property
    def held_out_times(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Held-out times by part."""
        return {part: judged.held_out_times for part, judged in self.parts.items()}

    def to_json(self) -> dict[str, Any]:
        """Setting, patterns and the laws by part."""
        return {
            "setting": asdict(self.setting),
            "patterns": sorted(self.patterns),
            "parts": {part: judged.to_json() for part, judged in self.parts.items()},
            "noise_floors": {part: asdict(floor) if floor else None for part, floor in self.floors.items()},
            "timed": {asked: asdict(found) for asked, found in self.timed.items()},
            "hardware": self.hardware.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The model that `to_json` wrote."""
        parts = {part: Judged.from_json(judged) for part, judged in data["parts"].items()}
        floors = {part: NoiseFloor(**floor) if floor else None for part, floor in data["noise_floors"].items()}
        timed = {asked: Timed(**found) for asked, found in data["timed"].items()}
        hardware = Hardware(**data["hardware"])
        return cls(Setting(**data["setting"]), frozenset(data["patterns"]), parts, floors, timed, {}, hardware)


def _seen(
    group: Sequence[Observation],
    rows: Sequence[int],
    beside: Sequence[Beside],
    first: Sequence[Beside] | None,
    hardware: Hardware,
) -> Seen:
    return Seen.of(group, [beside[i] for i in rows], [first[i] for i in rows] if first else None, hardware)


def _timed(observations: Sequence[Observation]) -> dict[str, Timed]:
    """What was measured, by question_text."""
    asked: dict[tuple[Any, ...], list[Observation]] = defaultdict(list)
    for seen in observations:
        if seen.case.source is None:
            asked[question(seen.case)].append(seen)
    kernel = observations[0].setting.kernel
    timed = {question_text(group[0].case): fastest({kernel: group}) for group in asked.values()}
    return dict(sorted(timed.items()))
