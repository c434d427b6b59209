"""Records in, models out: every setting its own fit, in seconds of work, and nothing dropped without being counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from sparsebench.case import Case
from sparsebench.desk.again import first_runs, runs
from sparsebench.desk.dense import DenseModel, problem_text
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.images import Images
from sparsebench.desk.judged import BEST
from sparsebench.desk.observe import DENSE, DenseTimes, Observation, Setting, is_dense_kernel, sparse_observations
from sparsebench.desk.observe_dense import dense_observations, dense_times
from sparsebench.desk.points import NOTHING, Beside
from sparsebench.desk.quiet import Quiet
from sparsebench.desk.sparse import SparseModel
from sparsebench.record import Record
from sparsebench.rest import is_rest
from sparsebench.store import uncollected


@uncollected()
def fit(
    records: Iterable[Record],
    law: str = BEST,
    *,
    hardware: Mapping[str, Hardware] | None = None,
    leave_out: Callable[[Case], bool] | None = None,
) -> FittedModels:
    """Models of every setting among `records`; superseded records are passed over.

    law        the best of all for each kernel, or the one of this name for all of them
    hardware   by machine (desk/hardware.py), for what laws know of peaks and caches
    leave_out  cases, dense ones too, that no fit may see: what a model says of layers it has never met

    Without records there are no models, and every question to them is a ModelError.
    """
    found = runs(record for record in records if not is_rest(record) and not (leave_out and leave_out(record.case)))
    newest, twice = [record for record, _ in found], any(earlier for _, earlier in found)
    every = [*newest, *(record for _, earlier in found for record in earlier)]
    known, first = hardware or {}, {id(record) for record in first_runs(found)}
    quiet = Quiet.of(every)
    seen = list(dense_observations(every, quiet))
    dense, usual = _dense([one for _, one in seen], known)
    first_dense, first_usual = dense, usual
    if twice:
        first_dense, first_usual = _dense([one for record, one in seen if id(record) in first], known)
    sparse = {}
    for setting, group in _by_setting(sparse_observations(found, usual, first_usual, quiet)).items():
        again = any(seen.twice for seen in group)
        before = _beside(group, first_dense) if again else None
        at = known.get(setting.machine, Hardware())
        sparse[setting] = SparseModel.fit(group, _beside(group, dense), before, at, law)
    images = Images.fit(every, quiet, known)
    return FittedModels(law, sparse, dense, images, len(newest), _left_out(newest), known)


def _dense(seen: Sequence[Observation], known: Mapping[str, Hardware]) -> tuple[dict[Setting, DenseModel], DenseTimes]:
    """The dense models, and the usual times under them."""
    models = {
        setting: DenseModel.fit(group, known.get(setting.machine, Hardware()))
        for setting, group in _by_setting(seen, kernel=DENSE).items()
    }
    return models, dense_times(seen)


def _beside(group: Sequence[Observation], dense: Mapping[Setting, DenseModel]) -> list[Beside]:
    """The dense side of each observation's problem; nothing where none was timed."""
    model = dense.get(group[0].setting.with_kernel(DENSE))
    known: dict[tuple[object, ...], Beside] = {}
    for seen in group:
        about = (seen.case.m, seen.case.k, seen.case.n, seen.case.conv)
        if about not in known:
            timed = model is not None and problem_text(seen.case) in model.timed
            known[about] = model.beside(seen.case) if model and timed else NOTHING
    return [known[seen.case.m, seen.case.k, seen.case.n, seen.case.conv] for seen in group]


def _by_setting(observations: Iterable[Observation], kernel: str | None = None) -> dict[Setting, list[Observation]]:
    groups: dict[Setting, list[Observation]] = defaultdict(list)
    merged: dict[Setting, Setting] = {}
    for seen in observations:
        if seen.setting not in merged:
            merged[seen.setting] = seen.setting.with_kernel(kernel) if kernel else seen.setting
        groups[merged[seen.setting]].append(seen)
    return {setting: groups[setting] for setting in sorted(groups)}


def _left_out(records: Iterable[Record]) -> dict[str, int]:
    """How many records no law was fitted to, by reason."""
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        if record.outcome != "ok":
            counts[f"outcome {record.outcome}"] += 1
        elif not record.nnz and not is_dense_kernel(record.kernel):
            counts["no nonzeros"] += 1
    return dict(sorted(counts.items()))
