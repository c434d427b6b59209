"""Runs a suite: plans, passes over what is settled, measures problem by problem, and stores one record a trial.

For each problem (op, m, k, n, dtype, math, layout) the dense kernels come first (lab/baselines.py); every sparse kernel
is then timed interleaved with the named baselines. Trials come ordered by case, so mask, reference and baselines are
made once and serve all kernels of a case.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import psutil

from sparsebench.errors import BadInput
from sparsebench.kernel import Kernel, all_kernels
from sparsebench.lab.baselines import Baselines, passing, screen
from sparsebench.lab.build import missing_need
from sparsebench.lab.ledger import Ledger, now
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.wire import Answer, Inspect, Measure, Peaks, Request, Setup
from sparsebench.machine import Machine
from sparsebench.record import Record
from sparsebench.sources import TensorInfo, inspect
from sparsebench.store import Store
from sparsebench.suite import Suite, Trial

# For the estimate alone: the rate of a float64 reference, and packing, checking and storing a small trial.
REFERENCE_FLOPS_PER_S = {"cpu": 2e10, "cuda": 1e13}
OVERHEAD_S = 0.25
MEMORY_SHARE = 0.6  # of what is free at the start, for one worker


@dataclass(frozen=True, slots=True)
class Watch:
    """What a run tells while it works: planned(trials, settled, estimate_s), then finished(record, trials left)."""

    planned: Callable[[int, int, float], None] = lambda trials, settled, estimate_s: None
    finished: Callable[[Record], None] = lambda record: None


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is given up: seconds without an answer, bytes held; None derives them."""

    timeout_s: float | None = None
    memory_bytes: int | None = None


@dataclass(slots=True)
class Summary:
    """What came of a run: the records of its trials, new and kept, how many were kept, how many were never started."""

    machine: Machine
    path: Path
    records: list[Record] = field(default_factory=list)
    kept: int = 0
    not_started: int = 0

    @property
    def outcomes(self) -> Counter[str]:
        """How many records of each outcome."""
        return Counter(record.outcome for record in self.records)


def estimate_s(trials: Iterable[Trial], budget_s: float, device: str = "cpu") -> float:
    """Seconds that these trials take at most, roughly: each spends its budget unless the ratio is known sooner."""
    rate = REFERENCE_FLOPS_PER_S[device]
    return sum(budget_s + OVERHEAD_S + 5 * trial.case.flops() / rate for trial in trials)


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

    machine: Machine = field(init=False)
    kernels: Mapping[str, Kernel] = field(init=False)
    trials: Sequence[Trial] = field(init=False)
    worker: WorkerProcess = field(init=False)
    _ledger: Ledger = field(init=False)
    _summary: Summary = field(init=False)
    _deadline_s: float = field(init=False, default=float("inf"))

    def __post_init__(self) -> None:
        self.machine = Machine.here(self.device)
        plugins = tuple(dict.fromkeys(path.resolve() for path in (*self.suite.plugins, *self.plugins)))
        self.kernels = all_kernels(plugins)
        memory_bytes = self.limits.memory_bytes or int(MEMORY_SHARE * psutil.virtual_memory().available)
        device, cache_bytes = self.machine.device, self.machine.cache_bytes
        self.worker = WorkerProcess(Setup(self.suite.protocol, cache_bytes, memory_bytes, plugins, device=device))
        try:
            self.trials = self.suite.trials(self.kernels, self._inspect, self.only, device)
        except BaseException:
            self.worker.stop()
            raise

    def execute(self) -> Summary:
        """Run what is not settled yet; StoreError before anything runs when the results folder cannot be written."""
        with self.worker, Store(self.results, self.machine, self.suite.name) as store:
            self._ledger = Ledger(store, self.suite, self.machine, self.kernels, self.fresh)
            self._summary = Summary(self.machine, store.path)
            todo = [trial for trial in self.trials if self._ledger.known(trial) is None]
            expected_s = estimate_s(todo, self.suite.protocol.budget_s, self.machine.device)
            self.watch.planned(len(self.trials), len(self.trials) - len(todo), expected_s)
            if self.time_limit_s is not None:
                self._deadline_s = time.monotonic() + self.time_limit_s
            if todo:
                self._peaks(store)
            for _, group in groupby(self.trials, key=lambda trial: trial.case.problem):
                self._problem(list(group))
        return self._summary

    def dry(self) -> tuple[int, float]:
        """How many trials the plan has and how many seconds they take at most; nothing is run or written."""
        self.worker.stop()
        return len(self.trials), estimate_s(self.trials, self.suite.protocol.budget_s, self.machine.device)

    def _problem(self, trials: Sequence[Trial]) -> None:
        """All trials of one problem: the dense ones name the baselines, the sparse ones are timed beside them."""
        possible = [trial for trial in trials if not self._skipped(trial)]
        dense = [trial for trial in possible if self._may_be_baseline(trial)]
        baselines = self._baselines(dense)
        for trial in possible:
            if not self._may_be_baseline(trial):
                self._measure(trial, baselines)

    def _may_be_baseline(self, trial: Trial) -> bool:
        """A dense kernel that rounds W or X is timed beside the baselines, as sparse kernels are, and is never one."""
        return trial.case.pattern == "dense" and not self.kernels[trial.kernel].lossy

    def _skipped(self, trial: Trial) -> bool:
        """Whether a limit or a missing need keeps the kernel from this case; if so its record is made here."""
        kernel = self.kernels[trial.kernel]
        needs = (text for need in kernel.needs if (text := missing_need(need)))
        reason = kernel.why_not(trial.case, self.machine) or next(needs, None)
        if reason and not self._kept(trial, {}):
            self._finish({}, [(trial, Answer("skipped", reason))])
        return reason is not None

    def _baselines(self, dense: Sequence[Trial]) -> Baselines:
        """The named baselines of a problem: those of its settled dense records, or by screening now."""
        common = self._ledger.common_baselines(dense)
        known = {trial.kernel: record.outcome for trial in dense if (record := self._ledger.known(trial))}
        settled = [trial for trial in dense if known.get(trial.kernel) == "ok"] if common is not None else []
        todo = [trial for trial in dense if known.get(trial.kernel, "ok") == "ok" and trial not in settled]
        for trial in dense:
            if trial not in settled and trial not in todo:
                self._kept(trial, {})
        if todo and time.monotonic() > self._deadline_s:
            self._summary.not_started += len(todo)
            return common or {}
        passed = passing(todo, self.ask, self._finish)
        if common is None or passed:  # a new kernel may be faster than the baselines named before
            return screen([*settled, *passed], self._ledger, self.ask, self._finish)
        for trial in settled:
            self._kept(trial, common)
        return common

    def _measure(self, trial: Trial, baselines: Baselines) -> None:
        if self._kept(trial, baselines):
            return
        if time.monotonic() > self._deadline_s:
            self._summary.not_started += 1
            return
        answer, suspect = self.ask(Measure(trial.case, trial.data, trial.kernel, list(baselines)))
        if suspect in baselines and answer.outcome not in ("ok", "skipped"):
            answer = Answer(answer.outcome, f"its baseline {suspect} broke: {answer.reason}")
        self._finish(baselines, [(trial, answer)])

    def _kept(self, trial: Trial, baselines: Baselines) -> bool:
        """Whether a final record of this trial is stored already; then it counts as this run's."""
        record = self._ledger.settled(trial, baselines)
        if record is not None:
            self._summary.records.append(record)
            self._summary.kept += 1
        return record is not None

    def _finish(self, baselines: Baselines, answers: Sequence[tuple[Trial, Answer]]) -> None:
        for record in self._ledger.write(baselines, answers):
            self._summary.records.append(record)
            self.watch.finished(record)

    def ask(self, request: Request) -> tuple[Answer, str]:
        """The worker's answer and what ran last, within a time that no honest trial needs."""
        protocol = self.suite.protocol
        return self.worker.ask(request, self.limits.timeout_s or 120 + 20 * protocol.budget_s * len(protocol.cache))

    def _inspect(self, path: Path, tensors: str) -> list[TensorInfo]:
        """The tensors of a file: read here, or by the worker where only torch can."""
        if path.suffix not in (".pth", ".pt"):
            return inspect(path, tensors)
        answer, _ = self.ask(Inspect(path, tensors))
        if answer.outcome != "ok":
            raise BadInput(answer.reason)
        return list(answer.facts["tensors"])

    def _peaks(self, store: Store) -> None:
        """Measure and store this machine's peaks; a run without a compiler goes on without them."""
        answer, _ = self.ask(Peaks())
        if answer.outcome == "ok":
            store.append_peaks({**answer.facts, "versions": self._ledger.versions, "started_at": now()})
