"""Which trials are settled already, and the one place where an answer becomes a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sparsebench.kernel import Kernel
from sparsebench.lab.blame import BLAMED
from sparsebench.lab.versions import code_versions
from sparsebench.lab.wire import Answer
from sparsebench.machine import Machine
from sparsebench.record import Protocol, Record, record_key
from sparsebench.store import Store
from sparsebench.suite import Suite, Trial

# What an ok answer's facts may fill in a record; Record's own defaults stand for the rest.
_MEASURED = (
    "nnz", "format_bytes", "moved_bytes", "useful_flops", "peak_memory_bytes", "samples", "layout_s", "pack_s",
    "error_ratio", "stop", "flags", "clocks", "facts", "started_at",
)  # fmt: skip


def now() -> str:
    """The time of a record: UTC, ISO 8601, to the millisecond, so that the order of a run's records shows."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class Ledger:
    """The records of one suite on one machine, as the run sees them. With `fresh` nothing counts as settled."""

    store: Store
    suite: Suite
    machine: Machine
    kernels: Mapping[str, Kernel]
    fresh: bool = False
    versions: Mapping[str, str] = field(default_factory=code_versions)
    _shas: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], Record] = field(default_factory=dict)
    _broke: dict[tuple[Any, ...], Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in sorted(self.store.records.values(), key=lambda record: record.started_at):
            if record.protocol == self.protocol and record.versions == self.versions:
                about = record.case.identity, record.kernel, record.source_sha
                if record.final:
                    self._known[about] = record
                if record.outcome in BLAMED:
                    self._broke[about] = record
                else:
                    self._broke.pop(about, None)

    @property
    def protocol(self) -> Protocol:
        """How this suite times."""
        return self.suite.protocol

    def sha(self, kernel: str) -> str:
        """The version of a kernel's sources, read once a run."""
        if kernel not in self._shas:
            self._shas[kernel] = self.kernels[kernel].source_sha
        return self._shas[kernel]

    def key(self, trial: Trial, baselines: Mapping[str, str]) -> str:
        """The key that the record of this trial beside these baselines has."""
        return record_key(
            trial.case, trial.kernel, self.sha(trial.kernel), baselines, self.machine.id, self.protocol, self.versions
        )

    def known(self, trial: Trial) -> Record | None:
        """The newest final record of this trial by today's code, whatever its baselines were."""
        return None if self.fresh else self._known.get((trial.case.identity, trial.kernel, self.sha(trial.kernel)))

    def broke(self, trial: Trial) -> Record | None:
        """The newest record of this trial by today's code, if it is of a worker that an earlier run saw it break."""
        return self._broke.get((trial.case.identity, trial.kernel, self.sha(trial.kernel))) if self._broke else None

    def settled(self, trial: Trial, baselines: Mapping[str, str]) -> Record | None:
        """The final record of this trial beside exactly these baselines, if one is stored."""
        record = None if self.fresh else self.store.records.get(self.key(trial, baselines))
        return record if record and record.final else None

    def common_baselines(self, dense: Sequence[Trial]) -> Mapping[str, str] | None:
        """Baselines that the stored records of these dense trials agree on and whose code is today's; else None."""
        stored = [record for trial in dense if (record := self.known(trial))]
        timed = [record.baselines for record in stored if record.outcome == "ok"]
        if not timed or any(names != timed[0] for names in timed):
            return None
        current = all(name in self.kernels and self.sha(name) == sha for name, sha in timed[0].items())
        return timed[0] if current else None

    def write(
        self, baselines: Mapping[str, str], answers: Sequence[tuple[Trial, Answer]], host: Mapping[str, Any]
    ) -> list[Record]:
        """Turn answers into their records and store them, all or none; `host` is what surrounded the device."""
        records = [self._record(trial, baselines, answer, host) for trial, answer in answers]
        self.store.append(*records)
        return records

    def write_peaks(self, facts: Mapping[str, Any]) -> None:
        """Store measured peaks of the machine."""
        self.store.append_peaks({**facts, "versions": self.versions, "started_at": now()})

    def _record(self, trial: Trial, baselines: Mapping[str, str], answer: Answer, host: Mapping[str, Any]) -> Record:
        """The record of a trial. Only an ok answer keeps its times."""
        measured: dict[str, Any] = {name: answer.facts[name] for name in _MEASURED if name in answer.facts}
        if answer.outcome != "ok":
            measured = {"error_ratio": answer.facts.get("error_ratio")}
        return Record(
            key=self.key(trial, baselines),
            suite=self.suite.name,
            case=trial.case,
            kernel=trial.kernel,
            source_sha=self.sha(trial.kernel),
            machine=self.machine.id,
            protocol=self.protocol,
            outcome=answer.outcome,
            reason=answer.reason,
            baselines=baselines,
            versions=self.versions,
            host=host,
            **{"started_at": now(), **measured},
        )
