"""What it costs to believe the models: the kernel they choose for a case, against the fastest that was timed on it.

    regret = T(chosen) / T(fastest) - 1

The choice is made from what laws say of left-out shapes, so no timing of the case's matrix has been seen; times are
those of the judging run (desk/again.py), whose least also is the luckiest: two kernels as fast as each other cost some
of the noise floor. Among the choices is the best dense kernel, at its measured time, where it is asked for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.judged import BEST, Judged
from sparsebench.desk.observe import Observation


@dataclass(frozen=True, slots=True)
class Regret:
    """Over `cases` with several able kernels: geometric mean and 95th percentile of T(chosen) / T(fastest), less 1.

    right  the share of cases in which the fastest was chosen
    """

    cases: int
    geomean: float
    p95: float
    right: float


Rivals = Mapping[str, tuple[float, float]]  # {kernel: (predicted, judged) seconds} of one case


def regret(fitted: FittedModels, law: str = BEST, *, dense: bool) -> Regret | None:
    """The regret of believing `law`, or of each kernel the law that speaks; None without a case to choose for.

    dense  whether the best dense kernel is among the choices
    """
    costs = [_cost(rivals) for rivals in _cases(fitted, law, dense) if len(rivals) > 1]
    if not costs:
        return None
    log = np.log(costs)
    return Regret(
        cases=len(costs),
        geomean=float(np.exp(log.mean()) - 1),
        p95=float(np.quantile(costs, 0.95) - 1),
        right=float((log < 1e-9).mean()),
    )


def _cost(rivals: Rivals) -> float:
    _, chosen_s = min(rivals.values())
    return chosen_s / min(judged_s for _, judged_s in rivals.values())


def _cases(fitted: FittedModels, law: str, dense: bool) -> Iterator[Rivals]:
    found: dict[tuple[Any, ...], dict[str, tuple[float, float]]] = defaultdict(dict)
    for setting, model in fitted.sparse.items():
        about = replace(setting, kernel="")
        for part, judged in model.parts.items():
            for seen, predicted_s, dense_s in _predicted(judged, model.groups.get(part, ()), law):
                rivals = found[about, seen.case.identity]
                rivals[setting.kernel] = (predicted_s, seen.judged_s)
                if dense and math.isfinite(dense_s):
                    rivals[""] = (dense_s, dense_s)
    yield from found.values()


def _predicted(judged: Judged, group: Sequence[Observation], law: str) -> Iterator[tuple[Observation, float, float]]:
    """(observation, seconds predicted without its shape, dense seconds of its problem)."""
    told = judged.told.get(judged.law.name if law == BEST else law, {}).get("shapes")
    if told is None or judged.seen is None:
        return
    dense_s = judged.seen.first.dense_s[judged.seen.row]
    for seen, predicted_s, usual_s in zip(group, told.predicted_s.tolist(), dense_s.tolist(), strict=True):
        if math.isfinite(predicted_s):
            yield seen, predicted_s, usual_s
