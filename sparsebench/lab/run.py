"""Runs a suite here: plans, passes over what is settled, measures problem by problem, and stores one record a trial.

For each problem (op, m, k, n, dtype, math, layout) the dense kernels come first (lab/baselines.py); every sparse kernel
is then timed interleaved with the named baselines (lab/session.py). Trials come ordered by case, so mask, reference and
baselines are made once and serve all kernels of a case. Many machines at once: lab/fleet.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparsebench.errors import BadInput
from sparsebench.kernel import Kernel, all_kernels
from sparsebench.lab.docket import Docket, Summary, Watch
from sparsebench.lab.estimate import Costs
from sparsebench.lab.executor import Local, Start, setup_for
from sparsebench.lab.ledger import Ledger
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.session import work
from sparsebench.lab.wire import Inspect
from sparsebench.machine import Machine
from sparsebench.record import Protocol
from sparsebench.sources import TensorInfo, inspect
from sparsebench.store import Store
from sparsebench.suite import Suite, Trial

__all__ = ["Limits", "Run", "Summary", "Watch"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is given up: seconds without an answer, bytes held; None derives them."""

    timeout_s: float | None = None
    memory_bytes: int | None = None


def timeout_s(protocol: Protocol) -> float:
    """Seconds that no honest request needs."""
    return 120 + 20 * protocol.budget_s * len(protocol.cache)


def plugins_of(suite: Suite, more: Sequence[Path]) -> tuple[Path, ...]:
    """The plugins of a suite and of the command line, each once, as absolute paths."""
    return tuple(dict.fromkeys(path.resolve() for path in (*suite.plugins, *more)))


def inspector(worker: WorkerProcess, protocol: Protocol) -> Callable[[Path, str], list[TensorInfo]]:
    """What lists the tensors of a file: done here, or by `worker` where only torch can."""

    def listed(path: Path, tensors: str) -> list[TensorInfo]:
        if path.suffix not in (".pth", ".pt"):
            return inspect(path, tensors)
        answer, _ = worker.ask(Inspect(path, tensors), timeout_s(protocol))
        if answer.outcome != "ok":
            raise BadInput(answer.reason)
        return list(answer.facts["tensors"])

    return listed


@dataclass(slots=True)
class Run:
    """One suite on one machine. Making it plans, and raises BadInput for what cannot be run; `execute` runs it."""

    suite: Suite
    results: Path
    device: str = "auto"
    plugins: Sequence[Path] = ()
    only: str | None = None
    time_limit_s: float | None = None
    fresh: bool = False
    watch: Watch = field(default_factory=Watch)
    limits: Limits = field(default_factory=Limits)
    start: Start = WorkerProcess

    machine: Machine = field(init=False)
    kernels: Mapping[str, Kernel] = field(init=False)
    trials: Sequence[Trial] = field(init=False)
    worker: WorkerProcess = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Machine.here(self.device)
        plugins = plugins_of(self.suite, self.plugins)
        self.kernels = all_kernels(plugins)
        self.worker = self.start(setup_for(self.machine, self.suite.protocol, plugins, self.limits.memory_bytes))
        try:
            listed = inspector(self.worker, self.suite.protocol)
            self.trials = self.suite.trials(self.kernels, listed, self.only, self.machine.device)
        except BaseException:
            self.worker.stop()
            raise

    def execute(self) -> Summary:
        """Run what is not settled yet; StoreError before anything runs when the results folder cannot be written."""
        with self.worker, Store(self.results, self.machine, self.suite.name) as store:
            device = Local(self.worker, self.kernels.values())
            ledger = Ledger(store, self.suite, self.machine, self.kernels, self.fresh, device.versions)
            summary = Summary(self.machine, store.path)
            docket = Docket(
                self.trials, ledger, summary, self.watch, self.limits.timeout_s or timeout_s(self.suite.protocol)
            )
            self.watch.planned(len(self.trials), len(self.trials) - len(docket.todo), docket.expected_s())
            if self.time_limit_s is not None:
                docket.deadline_s = time.monotonic() + self.time_limit_s
            start_s = time.perf_counter()
            work(docket, device)
            summary.wall_s = time.perf_counter() - start_s
        return summary

    def dry(self) -> tuple[int, float]:
        """How many trials the plan has and how many seconds they will take; nothing is run or written."""
        self.worker.stop()
        costs = Costs.before(self.results, self.machine.id, self.suite.name)
        return len(self.trials), costs.seconds(self.trials, self.suite.protocol, self.machine.device)
