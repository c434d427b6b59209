"""The dense side: the time of the fastest dense kernel of each problem, measured, and a law for those never measured.

A measured problem is answered by its measurement. Where several records timed it (every sparse kernel meets the named
baselines again), a kernel's time is the median over records and its interval spans them; the fastest kernel answers.
The law for other problems is chosen among the same laws as a sparse kernel's, all but irf itself. It is the weaker half
of any speedup - dense libraries jump where they change kernels - and predictions that lean on it say so.

How far a measured problem lies from what the learned law says without its shape is its surprise: a feature of the
sparse kernels' law (learned.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from sparsebench.case import Case, canonical
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.judged import Judged
from sparsebench.desk.learned import Learned
from sparsebench.desk.model import HeldOut, LayerModel, Prediction
from sparsebench.desk.observe import DENSE, Observation, Setting
from sparsebench.desk.points import NOTHING, Beside, Seen, points_of
from sparsebench.paired import median_interval


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


@dataclass(frozen=True, eq=False)
class DenseModel(LayerModel):
    """Measured problems and the law between them; `setting.kernel` is DENSE, whoever was fastest."""

    setting: Setting
    timed: Mapping[str, Timed]
    law: Judged
    surprises: Mapping[str, float]

    @classmethod
    def fit(cls, observations: Sequence[Observation], hardware: Hardware) -> Self:
        """The fastest kernel of every problem among `observations` of one setting (kernels apart), and the law."""
        groups: dict[tuple[Any, ...], dict[str, list[Observation]]] = defaultdict(lambda: defaultdict(list))
        for seen in observations:
            groups[seen.case.identity][seen.setting.kernel].append(seen)
        found = [(next(iter(group.values()))[0], fastest(group)) for group in groups.values()]
        problems = [
            replace(seen, time_s=best.time_s, first_s=best.time_s, judged_s=best.time_s, plain_s=best.time_s)
            for seen, best in found
        ]
        times = {problem_text(seen.case): timed for seen, timed in found}
        law = Judged.fit(Seen.of(problems, [NOTHING] * len(problems)), hardware)
        surprises = dict(zip(times, _surprises(law), strict=True))
        return cls(observations[0].setting.with_kernel(DENSE), dict(sorted(times.items())), law, surprises)

    def beside(self, case: Case) -> Beside:
        """The dense side of the problem under `case`: measured, or the law's word without any surprise."""
        return self.told([case])[0][1]

    def predict(self, case: Case) -> Prediction:
        """The measured time of this problem, or the law's."""
        return self.told([case])[0][0]

    def told(self, cases: Sequence[Case]) -> list[tuple[Prediction, Beside]]:
        """The time of the problem under each of `cases`, and what that says of the sparse side."""
        texts = [problem_text(case) for case in cases]
        unknown = {text: case.problem for text, case in zip(texts, cases, strict=True) if text not in self.timed}
        guesses = dict(zip(unknown, self.by_law(list(unknown.values())), strict=True))
        found = [self._measured(text) or guesses[text] for text in texts]
        return [
            (time, Beside(time.time_s, self.surprises.get(text, 0.0))) for time, text in zip(found, texts, strict=True)
        ]

    def _measured(self, problem: str) -> Prediction | None:
        if (found := self.timed.get(problem)) is None:
            return None
        return Prediction(found.time_s, found.low_s, found.high_s, measured=True, kernel=found.kernel)

    def by_law(self, problems: Sequence[Case]) -> list[Prediction]:
        """What the law says of dense problems, measured or not."""
        if not problems:
            return []
        guesses = self.law.predict(points_of(problems, [1.0] * len(problems), [NOTHING] * len(problems)))
        why = "the dense time is predicted, not measured"
        return [replace(guess, why=guess.why or why, kernel=DENSE) for guess in guesses]

    @property
    def laws(self) -> Mapping[str, str]:
        """The law's name."""
        return {"": self.law.law.name}

    @property
    def held_out(self) -> Mapping[str, tuple[HeldOut, ...]]:
        """Errors of the law on problems left out."""
        return {"": self.law.held_out}

    @property
    def rivals(self) -> Mapping[str, Mapping[str, tuple[HeldOut, ...]]]:
        """Errors of every law."""
        return {"": self.law.rivals}

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
            "surprises": dict(self.surprises),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The model that `to_json` wrote."""
        timed = {problem: Timed(**found) for problem, found in data["timed"].items()}
        return cls(Setting(**data["setting"]), timed, Judged.from_json(data["law"]), dict(data["surprises"]))


def _surprises(law: Judged) -> list[float]:
    """log(measured / expected without its shape) of each problem, in order; 0 where nothing could be left out."""
    assert law.seen is not None
    ways = law.told.get(Learned.name, {})
    found = ways.get("shapes") or ways.get("cells")
    return np.nan_to_num(found.log(law.seen)).tolist() if found else [0.0] * len(law.seen.row)


def fastest(by_kernel: Mapping[str, Sequence[Observation]]) -> Timed:
    """Of the kernels that ran a problem, the one with the least median time over its records."""
    rivals = []
    for kernel in sorted(by_kernel):
        group = by_kernel[kernel]
        time_s, low_s, high_s = median_interval([seen.time_s for seen in group])
        if len(group) == 1:
            low_s, high_s = group[0].interval()  # that of its rounds
        rivals.append(Timed(kernel, time_s, low_s, high_s))
    return min(rivals, key=lambda found: found.time_s)
