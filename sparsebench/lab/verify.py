"""The parent's end of `verify`: what the worker is asked about a network, and the one record that comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# psutil: what memory is free, on every system.
import psutil

from sparsebench.case import Case, digest
from sparsebench.errors import BadInput
from sparsebench.kernel import Kernel, is_torchs
from sparsebench.lab.executor import missing_needs, setup_for
from sparsebench.lab.ledger import now
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.versions import code_versions, host_facts
from sparsebench.lab.wire import Answer, Verify, VerifyLayer
from sparsebench.machine import Machine
from sparsebench.network import Network
from sparsebench.plan import Planned
from sparsebench.record import Protocol, Record, record_key
from sparsebench.rest import CACHE, DENSE, PLANNED, TORCH, rest_case
from sparsebench.store import Store

TIMED = Protocol(cache=(CACHE,), budget_s=30.0, precision=0.01)
# Seconds to build, pack and check a large network, in its turn among others; budgets that no honest timing takes.
START_S, A_ROUND = 3600.0, 40
MEMORY_SHARE = 0.9  # of what is free, for the one network that is run: no other trial waits for its part
WRITTEN_S = 60.0  # in which another verification that ends now has written its record
_MEASURED = ("samples", "stop", "flags", "error_ratio", "clocks", "nnz", "format_bytes", "pack_s", "facts")

Start = Callable[..., WorkerProcess]


def builder_of(network_file: Path) -> Path:
    """The Python file that builds the network of a YAML file: beside it, its name with _ for what no name may hold.

    BadInput where there is none.
    """
    name = "".join(letter if letter.isalnum() else "_" for letter in network_file.stem)
    path = network_file.with_name(f"{name}.py")
    if not path.is_file():
        raise BadInput(
            f"verify runs a network, so it needs the Python file that builds it: {path} was not found; write one that "
            f"defines build() and inputs(batch), as the networks that ship have them beside their YAML"
        )
    return path.resolve()


@dataclass(frozen=True, slots=True)
class Verification:
    """One network under one plan, ready to be measured here.

    chosen     sparse kernel of each layer that the plan prunes and its pattern fits
    baselines  dense kernels by the identity of a problem, where a run named the fastest; several are timed first, and
               so are all that can run a convolution, or a problem of which no run said
    """

    network: Network
    builder: Path
    planned: Sequence[Planned]
    chosen: Mapping[str, str]
    baselines: Mapping[Any, Sequence[str]]
    machine: Machine
    kernels: Mapping[str, Kernel]
    protocol: Protocol
    batch: int = 1
    seed: int = 0

    @property
    def case(self) -> Case:
        """The case of the record."""
        plan = {
            entry.layer.name: {
                "pattern": entry.sparse.pattern,
                "params": dict(entry.sparse.params),
                "sparsity": entry.sparse.sparsity,
                "kernel": self.chosen[entry.layer.name],
            }
            for entry in self.planned
            if entry.sparse is not None and entry.layer.name in self.chosen
        }
        return replace(rest_case(self.network, self.batch, plan), seed=self.seed)

    def request(self) -> Verify:
        """What the worker is asked; BadInput where a kernel cannot run its layer here."""
        missing = missing_needs(self.kernels.values())
        layers = [self._layer(entry, missing) for entry in self.planned]
        return Verify(self.builder, layers, self.batch, self.seed)

    def _layer(self, entry: Planned, missing: Mapping[str, str]) -> VerifyLayer:
        name, sparse = self.chosen.get(entry.layer.name, ""), None
        if name:
            sparse = entry.sparse
            assert sparse is not None
            if name not in self.kernels:
                raise BadInput(f"layer {entry.layer.name}: no kernel is called {name!r}; `sparsebench list kernels`")
            if reason := self._why_not(name, sparse, missing):
                raise BadInput(f"layer {entry.layer.name}: {reason}; choose another kernel in the plan")
        dense = tuple(self._dense(entry, missing))
        if not dense:
            raise BadInput(f"layer {entry.layer.name}: no dense kernel here can run {entry.dense.describe()}")
        return VerifyLayer(entry.layer.name, entry.dense, dense, entry.layer.calls, sparse, name)

    def _dense(self, entry: Planned, missing: Mapping[str, str]) -> Iterable[str]:
        named = () if entry.dense.conv else self.baselines.get(entry.dense.identity, ())  # see verify_choice.py
        able = [
            name
            for name, kernel in self.kernels.items()
            if kernel.format.name == "dense" and not kernel.lossy and not self._why_not(name, entry.dense, missing)
        ]
        return [name for name in able if name in named or (named and is_torchs(name))] or able

    def _why_not(self, name: str, case: Case, missing: Mapping[str, str]) -> str | None:
        kernel = self.kernels[name]
        needs = (missing[need] for need in kernel.needs if need in missing)
        return kernel.why_not(case, self.machine) or next(needs, None)

    def execute(self, results: Path, start: Start = WorkerProcess) -> Record:
        """Measure, and store the record in RESULTS/<machine>/verify-<network>.jsonl.

        BadInput, and nothing written, where the network cannot be built as its file says.
        """
        memory_bytes = int(MEMORY_SHARE * psutil.virtual_memory().available)
        request, setup = self.request(), setup_for(self.machine, self.protocol, (), memory_bytes)
        with start(setup) as worker:
            answer, _ = worker.ask(request, START_S + A_ROUND * self.protocol.budget_s)
        if answer.outcome == "skipped":
            raise BadInput(f"{self.network.name} cannot be verified: {answer.reason}")
        record = self._record(answer)
        with Store(results, self.machine, f"verify-{self.network.name}", patience_s=WRITTEN_S) as store:
            store.append(record)
        return record

    def _record(self, answer: Answer) -> Record:
        case, versions = self.case, code_versions()
        own, baselines = self._shas(answer)
        measured: dict[str, Any] = {name: answer.facts[name] for name in _MEASURED if name in answer.facts}
        measured["facts"] = {**measured.get("facts", {}), "sources": self._sources(answer)}
        if answer.outcome != "ok":
            measured = {"error_ratio": answer.facts.get("error_ratio")}
        return Record(
            key=record_key(case, PLANNED, own, baselines, self.machine.id, self.protocol, versions),
            suite=f"verify-{self.network.name}",
            case=case,
            kernel=PLANNED,
            source_sha=own,
            machine=self.machine.id,
            protocol=self.protocol,
            outcome=answer.outcome,
            reason=answer.reason,
            baselines=baselines,
            versions=versions,
            host=host_facts(),
            started_at=now(),
            **measured,
        )

    def _shas(self, answer: Answer) -> tuple[str, dict[str, str]]:
        """Versions of the three networks: the sources of their kernels, and of what built them."""
        built = hashlib.sha256(self.builder.read_bytes()).hexdigest()
        sources, dense = self._sources(answer), self._dense_kernels(answer)

        def sha(names: Iterable[str]) -> str:
            return digest({"builder": built, **{name: sources[name] for name in names}})

        return sha(sources), {DENSE: sha(dense), TORCH: sha(())}

    def _sources(self, answer: Answer) -> dict[str, str]:
        """{kernel that ran: its source_sha}; which dense ones do is found anew in each verification."""
        return {name: self.kernels[name].source_sha for name in {*self.chosen.values()} | self._dense_kernels(answer)}

    def _dense_kernels(self, answer: Answer) -> set[str]:
        return {about["dense_kernel"] for about in answer.facts.get("facts", {}).get("layers", {}).values()}
