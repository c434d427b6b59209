"""The irregularity factor, irf = (1 - s) x T_dense / T_sparse (HBsNN, arXiv 1808.03420, equations 1 to 3).

    C_dense = F        C_sparse = sum over levels of F_i / irf(s_i, bh_i, bw_i)        speedup = C_dense / C_sparse

irf is keyed by (sparsity, bh, bw) in the paper, and by n here too: published times show it double between n = 1 and
n = 256 (SRigL, arXiv 2305.02299). What is *fitted* is the sparse kernel's time, which is smooth over all four; the
dense time is measured, because dense libraries change kernels from one n to the next. On those published times, leaving
one n out costs 6 % in the sparse time and 20 % in irf itself. irf is derived from the two; nothing clips it at 1.

A kernel that runs several levels in one pass has a law of its own for each list of level blocks, over the kept share of
each level and n. Levels without such a kernel are added up by equation 2, each with its single-level law.

A case that was timed itself, by any seed, is answered by its measurement, as dense problems are; the law speaks for all
others, and its held-out errors are what its word is worth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.case import Case, canonical
from sparsebench.desk.cells import Seen
from sparsebench.desk.dense import Timed, fastest, problem_text
from sparsebench.desk.law import Law
from sparsebench.desk.model import HeldOut, LayerModel, Prediction
from sparsebench.desk.observe import Observation, Setting, block_text, blocks_of, kept_share, level_sparsities
from sparsebench.errors import ModelError

SINGLE = ""  # the part of a model that answers patterns with one level, whatever its block


def irf(kept: float, dense_s: float, sparse_s: float) -> float:
    """The irregularity factor of a layer that keeps the share `kept` = 1 - s.

    >>> round(irf(0.1, 136.2e-6, 81.5e-6), 3)  # SRigL: 90 %, n = 256
    0.167
    """
    return kept * dense_s / sparse_s


def speedup_by_equation_2(levels: Iterable[tuple[float, float]]) -> float:
    """C_dense / C_sparse of levels given as (kept share 1 - s_i, irf_i).

    >>> round(speedup_by_equation_2([(0.37, 0.8), (0.03, 0.2)]), 3)  # 1 / (0.4625 + 0.15)
    1.633
    """
    return 1 / sum(kept / factor for kept, factor in levels)


def part_of(case: Case) -> str:
    """Which part of a model answers `case`: SINGLE, or the level blocks such as `4x1+1x1`."""
    return SINGLE if len(blocks_of(case)) == 1 else block_text(case)


def axes_of(case: Case) -> tuple[str, ...]:
    """Names of the axes of `point`."""
    levels = len(blocks_of(case))
    return ("sparsity", "bh", "bw", "n") if levels == 1 else (*(f"sparsity {i}" for i in range(1, levels + 1)), "n")


def point(case: Case, kept: float) -> np.ndarray:
    """Where `case` lies: logs of kept share, bh, bw and n; for several levels, of each level's kept share and n."""
    blocks = blocks_of(case)
    if len(blocks) == 1:
        return np.log([kept, blocks[0][1], blocks[0][2], case.n])
    shares = [1 - (sparsity or 0.0) for sparsity in level_sparsities(case)]
    return np.log([*shares, case.n])


def question_text(case: Case) -> str:
    """What makes two sparse cases of one setting the same but for their seed, as canonical JSON."""
    return canonical([problem_text(case), case.pattern, dict(case.params), case.sparsity])


@dataclass(frozen=True, eq=False)
class IrfModel(LayerModel):
    """The paper's law for one kernel: a surface for single-level patterns, and one for each list of level blocks.

    patterns  names of the patterns it was measured on
    timed     cases that were measured, by question_text; masks from files are no questions that can be asked again
    """

    setting: Setting
    patterns: frozenset[str]
    parts: Mapping[str, Law]
    timed: Mapping[str, Timed]

    name: ClassVar[str] = "irf"

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> Self:
        """One law for each part among `observations` of one setting."""
        by_part: dict[str, list[Observation]] = defaultdict(list)
        for seen in observations:
            by_part[part_of(seen.case)].append(seen)
        laws = {part: Law.fit(seen_as_arrays(axes_of(group[0].case), group)) for part, group in sorted(by_part.items())}
        asked: dict[str, list[Observation]] = defaultdict(list)
        for seen in observations:
            if seen.case.source is None:
                asked[question_text(seen.case)].append(seen)
        setting = observations[0].setting
        timed = {question: fastest({setting.kernel: asked[question]}) for question in sorted(asked)}
        return cls(setting, frozenset(seen.case.pattern for seen in observations), laws, timed)

    def predict(self, case: Case) -> Prediction:
        """The time of `case`, measured or by the law; ModelError where no such levels were measured."""
        if found := self.timed.get(question_text(case)):
            return Prediction(found.time_s, found.low_s, found.high_s, measured=True, kernel=found.kernel)
        part, kept = part_of(case), kept_share(case)
        if part not in self.parts:
            have = ", ".join(sorted(name or "single blocks" for name in self.parts))
            raise ModelError(f"{self.setting.kernel} was never timed on levels {block_text(case)}, only on {have}")
        return replace(self.parts[part].predict(point(case, kept), kept * case.flops()), kernel=self.setting.kernel)

    @property
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors by part."""
        return {part: law.held_out for part, law in self.parts.items()}

    @property
    def held_out_times(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Held-out times by part."""
        return {part: law.held_out_times for part, law in self.parts.items()}

    def to_json(self) -> dict[str, Any]:
        """Setting, patterns and the laws by part."""
        return {
            "setting": asdict(self.setting),
            "patterns": sorted(self.patterns),
            "parts": {part: law.to_json() for part, law in self.parts.items()},
            "timed": {question: asdict(found) for question, found in self.timed.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The model that `to_json` wrote."""
        parts = {part: Law.from_json(law) for part, law in data["parts"].items()}
        timed = {question: Timed(**found) for question, found in data["timed"].items()}
        return cls(Setting(**data["setting"]), frozenset(data["patterns"]), parts, timed)


def seen_as_arrays(axes: tuple[str, ...], group: Sequence[Observation]) -> Seen:
    """Observations of sparse kernels as the arrays that a law is fitted to."""
    shapes = {shape: number for number, shape in enumerate(sorted({seen.shape for seen in group}))}
    return Seen(
        axes=axes,
        x=np.array([point(seen.case, seen.kept) for seen in group]).reshape(len(group), len(axes)),
        flops=np.array([seen.useful_flops for seen in group]),
        time_s=np.array([seen.time_s for seen in group]),
        shape=np.array([shapes[seen.shape] for seen in group]),
    )
