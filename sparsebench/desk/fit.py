"""Records in, models out: every setting its own fit, in seconds of work, and nothing dropped without being counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sparsebench.desk.dense import DenseModel
from sparsebench.desk.fitted import LAWS, FittedModels
from sparsebench.desk.irf import IrfModel
from sparsebench.desk.observe import (
    DENSE,
    Observation,
    Setting,
    current,
    dense_observations,
    dense_times,
    is_dense_kernel,
    sparse_observations,
)
from sparsebench.record import Record


def fit(records: Iterable[Record], law: str = IrfModel.name) -> FittedModels:
    """Models of every setting among `records`, by the law of this name; superseded records are passed over.

    Without records there are no models, and every question to them is a ModelError.
    """
    newest = current(records)
    dense_seen = list(dense_observations(newest))
    dense = _by_setting(dense_seen, kernel=DENSE)
    sparse = _by_setting(sparse_observations(newest, dense_times(dense_seen)))
    return FittedModels(
        law=law,
        sparse={setting: LAWS[law].fit(group) for setting, group in sparse.items()},
        dense={setting: DenseModel.fit(group) for setting, group in dense.items()},
        records=len(newest),
        left_out=_left_out(newest),
    )


def _by_setting(observations: Iterable[Observation], kernel: str | None = None) -> dict[Setting, list[Observation]]:
    groups: dict[Setting, list[Observation]] = defaultdict(list)
    for seen in observations:
        groups[seen.setting.with_kernel(kernel) if kernel else seen.setting].append(seen)
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
