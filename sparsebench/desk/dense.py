"""The dense side: the time of the fastest dense kernel of each problem, measured, and a law for those never measured.

A measured problem is answered by its measurement. Where several records timed it (every sparse kernel meets the named
baselines again), a kernel's time is the median over records and its interval spans them; the fastest kernel answers.
The law for other problems is over (m, k, n), and for convolutions over kernel taps too. It is the weaker half of any
speedup - dense libraries jump where they change kernels - and predictions that lean on it say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from sparsebench.case import Case, canonical
from sparsebench.desk.cells import Seen
from sparsebench.desk.law import Law
from sparsebench.desk.model import HeldOut, LayerModel, Prediction
from sparsebench.desk.observe import DENSE, Observation, Setting
from sparsebench.paired import median_interval

AXES = ("m", "k", "n")


@dataclass(frozen=True, slots=True)
class Timed:
    """The fastest kernel measured on one question: seconds with their interval."""

    kernel: str
    time_s: float
    low_s: float
    high_s: float


def problem_text(case: Case) -> str:
    """What makes two dense problems of one setting the same, as canonical JSON."""
    return canonical({"m": case.m, "k": case.k, "n": case.n, "conv": asdict(case.conv) if case.conv else None})


def point(case: Case) -> np.ndarray:
    """Where a dense problem lies: logs of m, k and n, and of kernel taps for a convolution."""
    taps = [case.conv.kh * case.conv.kw] if case.conv else []
    return np.log([case.m, case.k, case.n, *taps])


@dataclass(frozen=True, eq=False)
class DenseModel(LayerModel):
    """Measured problems and the law between them; `setting.kernel` is DENSE, whoever was fastest."""

    setting: Setting
    timed: Mapping[str, Timed]
    law: Law

    name: ClassVar[str] = "dense"

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> Self:
        """The fastest kernel of every problem among `observations` of one setting (kernels apart), and the law."""
        cases = {problem_text(seen.case): seen.case for seen in observations}
        groups: dict[str, dict[str, list[Observation]]] = defaultdict(lambda: defaultdict(list))
        for seen in observations:
            groups[problem_text(seen.case)][seen.setting.kernel].append(seen)
        timed = {problem: fastest(groups[problem]) for problem in sorted(groups)}
        ordered = [(cases[problem], timed[problem]) for problem in timed]
        return cls(observations[0].setting.with_kernel(DENSE), timed, Law.fit(_seen(ordered)))

    def predict(self, case: Case) -> Prediction:
        """The measured time of this problem, or the law's."""
        if found := self.timed.get(problem_text(case)):
            return Prediction(found.time_s, found.low_s, found.high_s, measured=True, kernel=found.kernel)
        guess = self.law.predict(point(case), float(case.flops()))
        return replace(guess, why=guess.why or "the dense time is predicted, not measured", kernel=DENSE)

    @property
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors of the law on problems left out."""
        return {"": self.law.held_out}

    @property
    def held_out_times(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Held-out times of the law."""
        return {"": self.law.held_out_times}

    def to_json(self) -> dict[str, Any]:
        """Setting, measured problems and the law."""
        return {
            "setting": asdict(self.setting),
            "timed": {problem: asdict(found) for problem, found in self.timed.items()},
            "law": self.law.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The model that `to_json` wrote."""
        timed = {problem: Timed(**found) for problem, found in data["timed"].items()}
        return cls(Setting(**data["setting"]), timed, Law.from_json(data["law"]))


def fastest(by_kernel: Mapping[str, Sequence[Observation]]) -> Timed:
    """Of the kernels that ran a problem, the one with the least median time over its records."""
    rivals = []
    for kernel in sorted(by_kernel):
        group = by_kernel[kernel]
        time_s, low_s, high_s = median_interval([seen.time_s for seen in group])
        alone = len(group) == 1  # then the interval is that of its rounds
        rivals.append(Timed(kernel, time_s, group[0].low_s if alone else low_s, group[0].high_s if alone else high_s))
    return min(rivals, key=lambda found: found.time_s)


def _seen(problems: Sequence[tuple[Case, Timed]]) -> Seen:
    cases = [case for case, _ in problems]
    shapes = {shape: number for number, shape in enumerate(sorted({(case.m, case.k) for case in cases}))}
    axes = (*AXES, "taps") if cases[0].conv else AXES
    return Seen(
        axes=axes,
        x=np.array([point(case) for case in cases]),
        flops=np.array([float(case.flops()) for case in cases]),
        time_s=np.array([found.time_s for _, found in problems]),
        shape=np.array([shapes[case.m, case.k] for case in cases]),
    )
